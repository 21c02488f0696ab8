package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
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

// Whatever apps send, the number of series stays what the configuration makes it.
func TestMetricsHaveBoundedLabels(t *testing.T) {
	w := newWorld(t)
	series := func() int {
		n := 0
		for _, line := range strings.Split(w.metrics(), "\n") {
			if strings.HasPrefix(line, "occam_") {
				n++
			}
		}
		return n
	}
	w.post(plainBody)
	w.post("{")
	before := series()
	for i := range 200 {
		w.post(fmt.Sprintf(`{"model":"model-%d","user":"user-%d","messages":[{"role":"user","content":"canary %d"}]}`, i, i, i))
	}
	if after := series(); after > before+10 {
		t.Errorf("%d series became %d", before, after)
	}
	if text := w.metrics(); strings.Contains(text, "canary") || strings.Contains(text, "model-7") || strings.Contains(text, "sk-provider") {
		t.Error("/metrics shows what apps sent")
	}
}

func TestSpansFollowTheGenAIConventions(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tracing := newTracing(trace.NewTracerProvider(trace.WithSyncer(spans)))
	w := newWorld(t, func(_ *world, o *Options) { o.Tracing = tracing })
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

func TestWithoutACollectorThereIsNoTracing(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
	tracing, err := StartTracing(t.Context(), "test")
	if tracing != nil || err != nil || tracing.Close(t.Context()) != nil {
		t.Errorf("%v %v", tracing, err)
	}
}

func TestTracingReachesACollector(t *testing.T) {
	got := make(chan string, 10)
	collector := newProvider(t)
	collector.handle = func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Path }
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tracing, err := StartTracing(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(_ *world, o *Options) { o.Tracing = tracing })
	w.post(plainBody)
	if err := tracing.Close(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case path := <-got:
		if path != "/v1/traces" {
			t.Error(path)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing reached the collector")
	}
}
