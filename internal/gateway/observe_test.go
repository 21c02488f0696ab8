package gateway

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"

	"occam/internal/store"
)

func (w *world) metrics() string {
	w.t.Helper()
	res, err := http.Get(w.web.URL + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}

func TestMetricsCountWhatHappens(t *testing.T) {
	w := newWorld(t, func(w *world, o *Options) { o.Rand = func() float64 { return 0 }; w.snap.Tasks[0].Audit = 1 })
	w.post(taskBody)
	w.post(plainBody)
	w.post("{")
	wait(t, "the audit is counted", func() bool {
		return strings.Contains(w.metrics(), `occam_audits_total{result="agreed",task="triage"} 1`)
	})
	text := w.metrics()
	for _, want := range []string{
		`occam_requests_total{reason="certified",status="ok",task="triage",tier="linear"} 1`,
		`occam_requests_total{reason="passthrough",status="ok",task="none",tier="none"} 1`,
		`occam_upstream_attempts_total{provider="openai",state="settled"} 2`,
		`occam_upstream_tokens_total{direction="input",provider="openai"} 1000`,
		`occam_upstream_cost_usd_total{provider="openai"} 0.0035`,
		`occam_requests_in_flight 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// series counts the lines of a kind on /metrics.
func (w *world) series() (n int) {
	for _, line := range strings.Split(w.metrics(), "\n") {
		if strings.HasPrefix(line, "occam_") {
			n++
		}
	}
	return n
}

// Whatever apps send, ten thousand models and keys among it, the number of series stays what the configuration makes it, for
// Prometheus and for OpenTelemetry.
func TestMetricsHaveBoundedLabels(t *testing.T) {
	reader := metric.NewManualReader()
	telemetry := &Telemetry{tracer: noop.NewTracerProvider().Tracer("")}
	if err := telemetry.measures(metric.NewMeterProvider(metric.WithReader(reader))); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(_ *world, o *Options) { o.Telemetry = telemetry })
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	tenants := make([]tenant, n)
	for i := range tenants {
		tenants[i] = newTenant(fmt.Sprintf("key-%d", i), store.KeyLimits{})
	}
	w.ring(tenants...)
	ask := func(i int) {
		req := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(
			fmt.Sprintf(`{"model":"model-%d","user":"user-%d","messages":[{"role":"user","content":"canary %d"}]}`, i, i, i)))
		req.Header.Set("Authorization", "Bearer "+tenants[i].secret)
		w.server.ServeHTTP(httptest.NewRecorder(), req)
	}
	ask(0)
	before := w.series()
	for i := range n {
		ask(i)
	}
	if after := w.series(); after > before {
		t.Errorf("%d series became %d", before, after)
	}
	if text := w.metrics(); strings.Contains(text, "canary") || strings.Contains(text, "model-7") || strings.Contains(text, "sk-provider") || strings.Contains(text, "key-7") {
		t.Error("/metrics shows what apps sent")
	}
	for _, m := range collect(t, reader) {
		if points := len(m.points); points > 2*(maxModels+1) {
			t.Errorf("%s has %d series", m.name, points)
		}
	}
}

// A reading is one metric with its points' attributes, sums and counts.
type reading struct {
	name   string
	points []map[string]string
	sums   []float64
	counts []uint64
}

func collect(t *testing.T, reader metric.Reader) (all []reading) {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	add := func(m *reading, set attribute.Set, sum float64, count uint64) {
		attributes := map[string]string{}
		for _, kv := range set.ToSlice() {
			attributes[string(kv.Key)] = kv.Value.String()
		}
		m.points, m.sums, m.counts = append(m.points, attributes), append(m.sums, sum), append(m.counts, count)
	}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			one := reading{name: m.Name + " " + m.Unit}
			switch h := m.Data.(type) {
			case metricdata.Histogram[int64]:
				for _, p := range h.DataPoints {
					add(&one, p.Attributes, float64(p.Sum), p.Count)
				}
			case metricdata.Histogram[float64]:
				for _, p := range h.DataPoints {
					add(&one, p.Attributes, p.Sum, p.Count)
				}
			default:
				t.Errorf("%s is a %T", m.Name, m.Data)
			}
			all = append(all, one)
		}
	}
	return all
}

func TestMetricsFollowTheGenAIConventions(t *testing.T) {
	reader := metric.NewManualReader()
	telemetry := &Telemetry{tracer: noop.NewTracerProvider().Tracer("")}
	if err := telemetry.measures(metric.NewMeterProvider(metric.WithReader(reader))); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(_ *world, o *Options) { o.Telemetry = telemetry })
	w.post(plainBody)
	w.post(streamBody)
	w.post(taskBody) // a specialist answers
	w.handle = func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(400); io.WriteString(rw, "{}") }
	w.post(plainBody)
	got := map[string]string{}
	for _, m := range collect(t, reader) {
		for i, p := range m.points {
			keys := slices.Sorted(maps.Keys(p))
			text := m.name
			for _, k := range keys {
				text += " " + k + "=" + p[k]
			}
			got[text] = fmt.Sprint(m.counts[i])
			if m.name == "gen_ai.client.token.usage {token}" {
				got[text] += fmt.Sprintf(" of %v", m.sums[i])
			} else if m.sums[i] <= 0 {
				t.Errorf("%s lasted %v s", text, m.sums[i])
			}
		}
	}
	call := " gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.request.model=gpt-4o"
	want := map[string]string{
		"gen_ai.client.token.usage {token} gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.request.model=gpt-4o gen_ai.token.type=input":  "2 of 1000",
		"gen_ai.client.token.usage {token} gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.request.model=gpt-4o gen_ai.token.type=output": "2 of 100",
		"gen_ai.client.operation.duration s" + call:                                                                           "2",
		"gen_ai.client.operation.duration s error.type=400" + call:                                                            "1",
		"gen_ai.server.request.duration s gen_ai.operation.name=chat occam.reason=passthrough occam.task=none":                "2",
		"gen_ai.server.request.duration s error.type=400 gen_ai.operation.name=chat occam.reason=passthrough occam.task=none": "1",
		"gen_ai.server.request.duration s gen_ai.operation.name=chat occam.reason=certified occam.task=triage":                "1",
	}
	if !maps.Equal(got, want) {
		t.Errorf("measured\n%v\nwant\n%v", got, want)
	}
}

func TestSpansFollowTheGenAIConventions(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	telemetry := &Telemetry{}
	telemetry.traces(trace.NewTracerProvider(trace.WithSyncer(spans)))
	w := newWorld(t, func(_ *world, o *Options) { o.Telemetry = telemetry })
	w.model.p.Score = 0
	req, _ := http.NewRequest("POST", w.web.URL+"/v1/chat/completions", strings.NewReader(taskBody))
	req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	wait(t, "both spans have ended", func() bool { return len(spans.GetSpans()) == 2 })
	call, request := spans.GetSpans()[0], spans.GetSpans()[1]
	if request.SpanContext.TraceID().String() != "4bf92f3577b34da6a3ce929d0e0e4736" || request.Parent.SpanID().String() != "00f067aa0ba902b7" {
		t.Errorf("the request's span hangs on %v", request.Parent)
	}
	if call.Parent.SpanID() != request.SpanContext.SpanID() || call.Name != "chat gpt-4o" {
		t.Errorf("the call's span: %s under %v", call.Name, call.Parent)
	}
	attributes := map[attribute.Key]string{}
	for _, a := range append(call.Attributes, request.Attributes...) {
		attributes[a.Key] = a.Value.String()
	}
	for key, want := range map[attribute.Key]string{"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
		"gen_ai.usage.input_tokens": "500", "gen_ai.usage.output_tokens": "50", "occam.task": "triage", "occam.reason": "below_threshold", "http.response.status_code": "200"} {
		if attributes[key] != want {
			t.Errorf("%s is %q, want %q", key, attributes[key], want)
		}
	}
	if sent := w.headers[0].Get("Traceparent"); !strings.HasPrefix(sent, "00-4bf92f3577b34da6a3ce929d0e0e4736-"+call.SpanContext.SpanID().String()) {
		t.Errorf("the provider got %s", sent)
	}
	for _, v := range attributes {
		if strings.Contains(v, "refund A-1") {
			t.Error("a span holds the prompt")
		}
	}
}

func TestWithoutACollectorThereIsNoTelemetry(t *testing.T) {
	for _, name := range []string{"", "TRACES_", "METRICS_"} {
		t.Setenv("OTEL_EXPORTER_OTLP_"+name+"ENDPOINT", "")
	}
	telemetry, err := StartTelemetry(t.Context(), "test")
	if telemetry != nil || err != nil || telemetry.Close(t.Context()) != nil {
		t.Errorf("%v %v", telemetry, err)
	}
}

func TestTelemetryReachesACollector(t *testing.T) {
	for variable, want := range map[string][]string{"OTEL_EXPORTER_OTLP_ENDPOINT": {"/v1/metrics", "/v1/traces"},
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": {"/metrics"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": {"/traces"}} {
		t.Run(variable, func(t *testing.T) {
			var mu sync.Mutex
			got := map[string]bool{}
			collector := newProvider(t)
			collector.handle = func(_ http.ResponseWriter, r *http.Request) { mu.Lock(); got[r.URL.Path] = true; mu.Unlock() }
			at := collector.URL
			if len(want) == 1 {
				at += want[0]
			}
			t.Setenv(variable, at)
			telemetry, err := StartTelemetry(t.Context(), "test")
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, func(_ *world, o *Options) { o.Telemetry = telemetry })
			w.post(plainBody)
			if err := telemetry.Close(t.Context()); err != nil { // it sends what is left
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if paths := slices.Sorted(maps.Keys(got)); !slices.Equal(paths, want) {
				t.Errorf("the collector got %v, want %v", paths, want)
			}
		})
	}
}
