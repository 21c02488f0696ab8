package gateway

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

// Tracing sends a span per request and one per call to a provider, with the names of OpenTelemetry's conventions for
// generative AI. Prompts and answers are not in them.
type Tracing struct {
	tracer   api.Tracer
	provider *trace.TracerProvider
}

// StartTracing starts tracing when the environment names a collector, by OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT as OpenTelemetry defines them; otherwise it returns nil, which is no tracing.
func StartTracing(ctx context.Context, version string) (*Tracing, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("gateway: start tracing: %w; check the OTEL_EXPORTER_OTLP_ variables", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "occam"), attribute.String("service.version", version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("gateway: start tracing: %w; check OTEL_RESOURCE_ATTRIBUTES", err)
	}
	return newTracing(trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about))), nil
}

func newTracing(p *trace.TracerProvider) *Tracing {
	return &Tracing{tracer: p.Tracer("occam/gateway"), provider: p}
}

// Close sends what is left. A nil Tracing has nothing.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// traceContext reads and writes W3C traceparent headers.
var traceContext propagation.TraceContext

// begin starts the span of a request.
func (t *Tracing) begin(x *exchange) {
	if t == nil {
		return
	}
	parent := traceContext.Extract(x.r.Context(), propagation.HeaderCarrier(x.r.Header))
	x.trace, x.span = t.tracer.Start(parent, x.r.Method+" "+x.r.URL.Path, api.WithSpanKind(api.SpanKindServer),
		api.WithAttributes(attribute.String("occam.request.id", x.id)))
}

// end closes the span of a request.
func (t *Tracing) end(x *exchange) {
	if t == nil {
		return
	}
	if x.task != nil {
		x.span.SetAttributes(attribute.String("occam.task", x.task.Name), attribute.String("occam.reason", string(x.reason)))
	}
	x.span.SetAttributes(attribute.Int("http.response.status_code", x.status))
	if x.status >= 500 {
		x.span.SetStatus(codes.Error, "")
	}
	x.span.End()
}

// call starts the span of one call to a provider and writes its context into the headers that are sent.
func (t *Tracing) call(a *paid, sent http.Header) {
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
func (t *Tracing) closed(a *paid) {
	if t == nil || a.span == nil {
		return
	}
	a.span.SetAttributes(attribute.Int64("gen_ai.usage.input_tokens", a.Usage.Input), attribute.Int64("gen_ai.usage.output_tokens", a.Usage.Output),
		attribute.Int("http.response.status_code", a.Status), attribute.String("occam.ledger.state", string(a.State)),
		attribute.Float64("occam.cost_usd", a.Cost.USD()))
	if a.Status == 0 || a.Status >= 400 {
		a.span.SetStatus(codes.Error, "")
	}
	a.span.End()
}
