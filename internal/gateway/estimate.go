package gateway

import (
	"cmp"
	"strings"
	"sync"
	"time"

	"occam/internal/cost"
	"occam/internal/engine"
)

// bound is the most that a call can bill: no token is shorter than a byte of text.
func (x *exchange) bound(target engine.Target, body int) cost.Usage {
	output := cmp.Or(x.request.MaxOutput, target.MaxOutput, engine.MaxOutput(target.Model), x.snap.Limits.MaxOutput)
	output = min(output, mostWritten) // an app may ask for any number, and the ledger adds up bounds
	return cost.Usage{Input: int64(body) + overheadTokens + opaqueTokens*x.request.Opaque, Output: output * x.request.N}
}

const (
	mostWritten    = 10_000_000 // more tokens than any model writes in one answer
	overheadTokens = 64         // what a provider adds to a prompt around its messages
	opaqueTokens   = 40_000     // most that one image, sound or file bills; the largest known is some 37,000 for an image
	messageTokens  = 3          // what the public chat format adds to each message
)

// guess is the likely usage of a call whose bill was not seen.
func (a *paid) guess(output int64) cost.Usage {
	return cost.Usage{Input: min(a.inputTokens(), a.high.Input), Output: min(output, a.high.Output)}
}

// inputTokens counts the request's text where the model's tokenizer is public, and goes by what the task's requests taught
// where it is not.
func (a *paid) inputTokens() int64 {
	messages, err := a.x.request.Turns()
	if err != nil || a.x.request.Opaque > 0 {
		return a.x.ratio(a.Task).input(len(a.body))
	}
	var text strings.Builder
	for _, m := range messages {
		text.WriteString(m.Text)
		text.WriteByte('\n')
	}
	text.Write(a.x.request.Schema)
	n, known := engine.CountTokens(a.Model, text.String())
	if !known {
		return a.x.ratio(a.Task).input(len(a.body))
	}
	return n + messageTokens*int64(len(messages)+1)
}

// outputTokens estimates the tokens of an answer of which text is the beginning, or the whole.
func (a *paid) outputTokens(text string, size int64) int64 {
	if text == "" || size == 0 {
		return a.x.ratio(a.Task).output(size)
	}
	n, known := engine.CountTokens(a.Model, text)
	if !known {
		return a.x.ratio(a.Task).output(size)
	}
	return int64(float64(n) * float64(size) / float64(len(text)))
}

// price is what a target's model costs this request: in a batch, what the provider's batch API costs.
func (x *exchange) price(t engine.Target, answered string, at time.Time) (cost.Price, bool) {
	p, ok := x.snap.price(t, answered, at)
	if ok && x.batch {
		return p.Batch()
	}
	return p, ok
}

// reference is what the generalist would have cost for a request that a tier answered with so many bytes; 0 where its
// price is not known.
func (x *exchange) reference(answer int) cost.Amount {
	price, ok := x.price(x.task.paid.Targets[0], "", x.began)
	if !ok {
		return 0
	}
	r := x.ratio(x.task.Name)
	return price.Cost(cost.Usage{Input: r.input(len(x.request.Body)), Output: r.output(int64(answer))}, x.began)
}

// referenceOf is the same for a request that a model at an upstream answered: itself, when it is the generalist.
func (x *exchange) referenceOf(a *paid) cost.Amount {
	if x.task == nil || a.Tier == generalist {
		return a.Cost
	}
	return x.reference(int(a.Usage.Output * 4))
}

// A ratio is what a task's requests taught about tokens per byte, from replies that the provider billed.
type ratio struct {
	mu                        sync.Mutex
	bodyBytes, inputTokens    int64
	answerBytes, outputTokens int64
}

func (r *ratio) learn(body int, input int64, answer int64, output int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodyBytes += int64(body)
	r.inputTokens += input
	r.answerBytes += answer
	r.outputTokens += output
}

// Before anything was learnt a token is taken for four bytes, the providers' own rule of thumb for English.
func (r *ratio) input(body int) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return scale(int64(body), r.inputTokens, r.bodyBytes)
}

func (r *ratio) output(answer int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return scale(answer, r.outputTokens, r.answerBytes)
}

func scale(n, tokens, bytes int64) int64 {
	if bytes == 0 || tokens == 0 {
		return (n + 3) / 4
	}
	return int64(float64(n)*float64(tokens)/float64(bytes) + 0.5)
}

func (s *Server) ratio(task string) *ratio {
	if r, ok := s.ratios.Load(task); ok {
		return r.(*ratio)
	}
	r, _ := s.ratios.LoadOrStore(task, new(ratio))
	return r.(*ratio)
}
