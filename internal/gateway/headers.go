package gateway

import (
	"net/http"
	"strings"
)

// sentOn are the headers of an app's request that its model's provider gets. Everything else stays here: the app's own
// authorization, cookies, addresses, and above all anything that could name a destination.
var sentOn = []string{"Accept", "Content-Type", "Openai-Beta", "Anthropic-Beta", "Anthropic-Version", "Idempotency-Key", "Traceparent", "Tracestate"}

// forwarded is a fresh header with what may be sent on, and the attempt's ID: by it a provider's support finds the call that a row
// of the ledger stands for.
func forwarded(in http.Header, attempt string) http.Header {
	out := make(http.Header, len(sentOn)+2)
	for _, name := range sentOn {
		if v, ok := in[name]; ok {
			out[name] = v
		}
	}
	if _, ok := out["Content-Type"]; !ok {
		out["Content-Type"] = []string{"application/json"}
	}
	out["User-Agent"] = []string{"occam"}
	out["X-Client-Request-Id"] = []string{attempt}
	return out
}

// passedBack are the headers of an upstream's reply that the app gets, besides its rate limits.
var passedBack = []string{"Content-Type", "Content-Encoding", "Cache-Control", "Retry-After", "Retry-After-Ms", "X-Should-Retry",
	"X-Request-Id", "Openai-Processing-Ms", "Openai-Version", "Openai-Model"}

const rateLimits = "X-Ratelimit-"

func copyHeaders(out, in http.Header) {
	for _, name := range passedBack {
		if v, ok := in[name]; ok {
			out[name] = v
		}
	}
	for name, v := range in {
		if strings.HasPrefix(name, rateLimits) {
			out[name] = v
		}
	}
}
