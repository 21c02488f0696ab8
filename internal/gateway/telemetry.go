package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"occam/internal/store"
)

// Telemetry sends OpenTelemetry a span per request and one per call to a provider, and metrics of both, with the names of its
// conventions for generative AI. Prompts and answers are in neither.
type Telemetry struct {
	tracer api.Tracer
	meters *meters
	ends   []func(context.Context) error
}

// StartTelemetry starts what the environment names a collector for, by OTEL_EXPORTER_OTLP_ENDPOINT for both, or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_METRICS_ENDPOINT for one, as OpenTelemetry defines them; without any it
// returns nil, which is no telemetry.
func StartTelemetry(ctx context.Context, version string) (*Telemetry, error) {
	wanted := func(kind string) bool {
		return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+kind+"_ENDPOINT") != ""
	}
	if !wanted("TRACES") && !wanted("METRICS") {
		return nil, nil
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "occam"), attribute.String("service.version", version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("gateway: start telemetry: %w; check OTEL_RESOURCE_ATTRIBUTES", err)
	}
	t := &Telemetry{tracer: noop.NewTracerProvider().Tracer("")}
	if wanted("TRACES") {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("gateway: start telemetry: %w; check the OTEL_EXPORTER_OTLP_ variables", err)
		}
		t.traces(trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about)))
	}
	if wanted("METRICS") {
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("gateway: start telemetry: %w; check the OTEL_EXPORTER_OTLP_ variables", err)
		}
		if err := t.measures(metric.NewMeterProvider(metric.WithReader(metric.NewPeriodicReader(exporter)), metric.WithResource(about))); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Telemetry) traces(p *trace.TracerProvider) {
	t.tracer = p.Tracer("occam/gateway")
	t.ends = append(t.ends, p.Shutdown)
}

func (t *Telemetry) measures(p *metric.MeterProvider) (err error) {
	t.ends = append(t.ends, p.Shutdown)
	t.meters, err = newMeters(p.Meter("occam/gateway"))
	return err
}

// Close sends what is left. A nil Telemetry has nothing.
func (t *Telemetry) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	var errs []error
	for _, end := range t.ends {
		errs = append(errs, end(ctx))
	}
	return errors.Join(errs...)
}

// traceContext reads and writes W3C traceparent headers.
var traceContext propagation.TraceContext

// begin starts the span of a request.
func (t *Telemetry) begin(x *exchange) {
	if t == nil {
		return
	}
	parent := traceContext.Extract(x.r.Context(), propagation.HeaderCarrier(x.r.Header))
	x.trace, x.span = t.tracer.Start(parent, x.r.Method+" "+x.r.URL.Path, api.WithSpanKind(api.SpanKindServer),
		api.WithAttributes(attribute.String("occam.request.id", x.id)))
}

// end closes the span of a request.
func (t *Telemetry) end(x *exchange) {
	if t == nil {
		return
	}
	if x.task != nil {
		x.span.SetAttributes(attribute.String("occam.task", x.task.Name), attribute.String("occam.reason", string(x.reason)))
	}
	t.meters.request(x)
	x.span.SetAttributes(attribute.Int("http.response.status_code", x.status))
	if x.status >= 500 {
		x.span.SetStatus(codes.Error, "")
	}
	x.span.End()
}

// call starts the span of one call to a provider and writes its context into the headers that are sent.
func (t *Telemetry) call(a *paid, sent http.Header) {
	if t == nil {
		return
	}
	x := a.x
	var ctx context.Context
	ctx, a.span = t.tracer.Start(x.trace, string(x.api)+" "+a.Model, api.WithSpanKind(api.SpanKindClient), api.WithAttributes(
		attribute.String("gen_ai.operation.name", string(x.api)), attribute.String("gen_ai.provider.name", a.target.Upstream.PricedAs),
		attribute.String("gen_ai.request.model", a.Model), attribute.Int64("gen_ai.request.max_tokens", x.request.MaxOutput),
		attribute.String("occam.attempt.id", a.ID)))
	traceContext.Inject(ctx, propagation.HeaderCarrier(sent))
}

// closed ends the span of a call.
func (t *Telemetry) closed(a *paid) {
	if t == nil || a.span == nil {
		return
	}
	t.meters.call(a)
	a.span.SetAttributes(attribute.Int64("gen_ai.usage.input_tokens", a.Usage.Input), attribute.Int64("gen_ai.usage.output_tokens", a.Usage.Output),
		attribute.Int("http.response.status_code", a.Status), attribute.String("occam.ledger.state", string(a.State)))
	if a.State != store.Unpriced {
		a.span.SetAttributes(attribute.Float64("occam.cost_usd", a.Cost.USD()))
	}
	if a.Status == 0 || a.Status >= 400 {
		a.span.SetStatus(codes.Error, "")
	}
	a.span.End()
}
