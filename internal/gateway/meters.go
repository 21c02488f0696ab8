package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// meters are OpenTelemetry's metrics of generative AI: for each call to a provider what it took and used, for each request what it
// took. A nil meters measures nothing.
type meters struct {
	tokens   metric.Int64Histogram
	duration metric.Float64Histogram
	requests metric.Float64Histogram
	models   sync.Map // names of models that have answered → true
	named    atomic.Int64
}

// The buckets are those that the conventions give.
var (
	tokenBuckets  = []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
	secondBuckets = []float64{.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
)

func newMeters(m metric.Meter) (*meters, error) {
	var ms meters
	var err error
	if ms.tokens, err = m.Int64Histogram("gen_ai.client.token.usage", metric.WithUnit("{token}"), metric.WithExplicitBucketBoundaries(tokenBuckets...),
		metric.WithDescription("Tokens billed by calls to providers, or estimated where no bill was seen.")); err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	if ms.duration, err = m.Float64Histogram("gen_ai.client.operation.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(secondBuckets...),
		metric.WithDescription("How long calls to providers took.")); err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	if ms.requests, err = m.Float64Histogram("gen_ai.server.request.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(secondBuckets...),
		metric.WithDescription("How long apps waited for their whole answer.")); err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	return &ms, nil
}

const (
	maxModels  = 64 // more are counted as one, so that apps cannot make series without end
	otherModel = "_OTHER"
)

// model is the name under which a model is counted: apps may name any, so only one that has answered gets a series of its own.
func (m *meters) model(a *paid) string {
	if _, ok := m.models.Load(a.Model); ok {
		return a.Model
	}
	if a.Status != 200 || m.named.Add(1) > maxModels {
		return otherModel
	}
	m.models.Store(a.Model, true)
	return a.Model
}

// call measures a call to a provider whose row is closed.
func (m *meters) call(a *paid) {
	if m == nil {
		return
	}
	common := []attribute.KeyValue{attribute.String("gen_ai.operation.name", string(a.x.api)), attribute.String("gen_ai.provider.name", a.target.Upstream.PricedAs),
		attribute.String("gen_ai.request.model", m.model(a))}
	took := common
	if failed := failedAs(a.Status); failed != "" {
		took = append(took[:len(took):len(took)], attribute.String("error.type", failed))
	}
	ctx := context.WithoutCancel(a.x.r.Context())
	m.duration.Record(ctx, a.Latency.Seconds(), metric.WithAttributes(took...))
	if a.Usage.Input == 0 && a.Usage.Output == 0 {
		return
	}
	for kind, n := range map[string]int64{"input": a.Usage.Input, "output": a.Usage.Output} {
		m.tokens.Record(ctx, n, metric.WithAttributes(append(common[:len(common):len(common)], attribute.String("gen_ai.token.type", kind))...))
	}
}

// request measures a request for a model that has its answer.
func (m *meters) request(x *exchange) {
	if m == nil || x.request == nil {
		return
	}
	who := []attribute.KeyValue{attribute.String("gen_ai.operation.name", string(x.api)), attribute.String("occam.task", "none"), attribute.String("occam.reason", string(x.reason))}
	if x.task != nil {
		who[1] = attribute.String("occam.task", x.task.Name)
	}
	if failed := failedAs(x.status); failed != "" {
		who = append(who, attribute.String("error.type", failed))
	}
	m.requests.Record(context.WithoutCancel(x.r.Context()), x.opts.Now().Sub(x.began).Seconds(), metric.WithAttributes(who...))
}

// failedAs is the kind of an error as the conventions write it: the status, or that there was none.
func failedAs(status int) string {
	switch {
	case status == 0:
		return "no_reply"
	case status >= 400:
		return fmt.Sprint(status)
	}
	return ""
}
