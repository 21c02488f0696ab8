package gateway

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"occam/internal/store"
)

// metrics are what /metrics shows. Every label has few values by construction: tasks, tiers and providers come from the
// configuration, reasons and states are constants; models and keys, which apps choose, are no labels.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // task, tier, reason, status class
	seconds  *prometheus.HistogramVec // task, tier
	attempts *prometheus.CounterVec   // provider, state
	tokens   *prometheus.CounterVec   // provider, direction
	dollars  *prometheus.CounterVec   // provider
	hedges   *prometheus.CounterVec   // provider
	shed     *prometheus.CounterVec   // reason
	audits   *prometheus.CounterVec   // task, result
}

func newMetrics(s *Server) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "occam", Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("requests_total", "Requests answered, by who answered and why.", "task", "tier", "reason", "status"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "occam", Name: "request_seconds",
			Help:    "Time from the request's arrival to the end of its answer.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 100}}, []string{"task", "tier"}),
		attempts: counter("upstream_attempts_total", "Calls to providers, by how the ledger knows their cost.", "provider", "state"),
		tokens:   counter("upstream_tokens_total", "Tokens billed, or estimated where no bill was seen.", "provider", "direction"),
		dollars:  counter("upstream_cost_usd_total", "Dollars billed, or estimated where no bill was seen. The ledger has the exact sums.", "provider"),
		hedges:   counter("upstream_hedges_total", "Second calls made because the first one was slow.", "provider"),
		shed:     counter("refused_total", "Requests refused before any model was asked.", "reason"),
		audits:   counter("audits_total", "Answers checked by the generalist.", "task", "result"),
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "occam", Name: "requests_in_flight", Help: "Requests being answered."},
		func() float64 { return float64(s.inFlight.Load()) })
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "occam", Name: "audits_waiting", Help: "Audits that wait for the generalist."},
		func() float64 { return float64(len(s.audits)) })
	m.registry.MustRegister(m.requests, m.seconds, m.attempts, m.tokens, m.dollars, m.hedges, m.shed, m.audits, inFlight, waiting,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// answered counts a request that got an answer.
func (m *metrics) answered(a *store.Attempt, status int, took time.Duration) {
	task, tier := orNone(a.Task), orNone(a.Tier)
	m.requests.WithLabelValues(task, tier, a.Reason, statusClass(status)).Inc()
	m.seconds.WithLabelValues(task, tier).Observe(took.Seconds())
}

// closed counts a call to a provider.
func (m *metrics) closed(a *store.Attempt) {
	m.attempts.WithLabelValues(a.Provider, string(a.State)).Inc()
	m.tokens.WithLabelValues(a.Provider, "input").Add(float64(a.Usage.Input))
	m.tokens.WithLabelValues(a.Provider, "output").Add(float64(a.Usage.Output))
	m.dollars.WithLabelValues(a.Provider).Add(a.Cost.USD())
}

func statusClass(status int) string {
	switch {
	case status < 400:
		return "ok"
	case status < 500:
		return "client_error"
	}
	return "server_error"
}
