package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
)

// SelfTesting is the reason of the calls that a self-test makes.
const SelfTesting cascade.Reason = "self_test"

// What becomes of a JSON Schema at a provider.
const (
	Enforced = "enforced" // the answer has the schema's shape whatever the question
	Ignored  = "ignored"  // the answer has its own shape, with status 200
	Refused  = "refused"  // the request is refused
	Unclear  = "unclear"  // the answer was cut before it said anything
)

// Abilities are what a model at a provider really does, found out by asking. Several servers ignore fields that they do not know,
// with status 200.
type Abilities struct {
	Provider    string    `json:"provider"`
	Model       string    `json:"model"` // the provider's name of it
	At          time.Time `json:"at"`
	Schema      string    `json:"schema"`          // enforced, ignored, refused or unclear; "" where nothing was found out
	Logprobs    bool      `json:"logprobs"`        // the answer's log-probabilities are given
	Usage       bool      `json:"usage"`           // a whole reply says what it bills
	StreamUsage bool      `json:"stream_usage"`    // a stream says it too, when asked
	Priced      bool      `json:"priced"`          // the price book knows the model
	Error       string    `json:"error,omitempty"` // why nothing more was found out
}

// impossible is a schema that no sensible answer to the question fits: only enforcement makes a model write the word.
const (
	impossible     = `{"type":"object","properties":{"answer":{"type":"string","enum":["zxqv-7"]}},"required":["answer"],"additionalProperties":false}`
	impossibleWord = "zxqv-7"
	selfTestTokens = 512 // most that an answer may write: a model that thinks first needs some
)

// SelfTest asks a model at a provider what it supports. It makes two to four calls that cost a fraction of a cent; they are in the
// ledger like any other, as audits. The error says that nothing, or not everything, was found out; it stands in Abilities too.
func (s *Server) SelfTest(ctx context.Context, target engine.Target) (Abilities, error) {
	snap := s.snapshot.Load()
	if snap == nil {
		return Abilities{}, errors.New("gateway: self-test: nothing is published yet")
	}
	found := Abilities{Provider: target.Upstream.Name, Model: target.Model, At: s.opts.Now().UTC()}
	_, found.Priced = snap.price(target, "", found.At)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/self-test", nil)
	if err != nil {
		return found, err
	}
	x := &exchange{Server: s, api: openai.Chat, snap: snap, r: r, id: store.NewID(found.At), began: found.At, reason: SelfTesting, trace: ctx,
		attempts: 1} // attempt 0 is an app's
	p := probe{x: x, route: engine.Route{Targets: []engine.Target{target}}, found: &found}
	if err := p.run(); err != nil {
		found.Error = err.Error()
		return found, fmt.Errorf("gateway: self-test: %s at %s: %w; see the ledger's rows of request %s", target.Model, target.Upstream.Name, err, x.id)
	}
	return found, nil
}

// A probe asks one model.
type probe struct {
	x     *exchange
	route engine.Route
	found *Abilities
}

var errRefused = errors.New("the request is refused")

// run asks for everything at once, and for one thing after the other where that is refused.
func (p *probe) run() error {
	r, err := p.ask(openai.Edit{Schema: []byte(impossible), Logprobs: true}, false)
	switch {
	case errors.Is(err, errRefused):
		if err := p.apart(); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		p.found.Schema, p.found.Logprobs, p.found.Usage = shape(&r), r.LogProb <= 0, r.Billed // NaN is not
	}
	r, err = p.ask(openai.Edit{}, true)
	if errors.Is(err, errRefused) {
		return nil
	}
	p.found.StreamUsage = r.Billed
	return err
}

// apart asks for a schema and for log-probabilities one by one.
func (p *probe) apart() error {
	r, err := p.ask(openai.Edit{Schema: []byte(impossible)}, false)
	switch {
	case errors.Is(err, errRefused):
		p.found.Schema = Refused
	case err != nil:
		return err
	default:
		p.found.Schema, p.found.Usage = shape(&r), r.Billed
	}
	r, err = p.ask(openai.Edit{Logprobs: true}, false)
	if errors.Is(err, errRefused) {
		if p.found.Schema == Refused {
			return err // it refuses everything
		}
		return nil
	}
	p.found.Logprobs, p.found.Usage = r.LogProb <= 0, p.found.Usage || r.Billed
	return err
}

// shape says what became of the impossible schema.
func shape(r *openai.Reply) string {
	var said struct{ Answer string }
	switch {
	case json.Unmarshal([]byte(strings.TrimSpace(r.Content)), &said) == nil && said.Answer == impossibleWord:
		return Enforced
	case r.Finish == "length":
		return Unclear
	}
	return Ignored
}

// ask puts the question, with what is asked for beside it, and closes the ledger's row. errRefused: with status 4xx, which says
// that what was asked for is not supported.
func (p *probe) ask(edit openai.Edit, stream bool) (r openai.Reply, err error) {
	p.x.request = openai.NewChat(p.found.Model, []openai.Message{{Role: "user", Text: "What is two plus two? Answer in JSON, as {\"answer\":\"…\"}."}}, selfTestTokens)
	if stream {
		body := strings.Replace(string(p.x.request.Body), "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1)
		if p.x.request, err = openai.Parse(openai.Chat, []byte(body)); err != nil {
			return r, err
		}
	}
	a, reply, refused := p.x.send(&call{route: p.route, edit: edit, audit: true})
	if refused != nil {
		if refused.Status == http.StatusBadRequest { // it has no words for that
			return r, errRefused
		}
		return r, refused
	}
	defer reply.Body.Close()
	text, err := readAll(reply, maxList, uncounted)
	if err != nil {
		a.lost(err)
		return r, err
	}
	switch status := reply.Status; {
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity, status == http.StatusNotImplemented:
		a.unbilled(status)
		return r, errRefused
	case status != http.StatusOK:
		a.unbilled(status)
		return r, fmt.Errorf("it answers with status %d", status)
	}
	if stream {
		return p.overhear(a, text), nil
	}
	r, ok := openai.ParseReply(text)
	if !ok {
		a.lost(errNotJSON)
		return r, errNotJSON
	}
	a.account(&r, true, 0, r.Content, int64(len(r.Content)))
	return r, nil
}

// overhear reads a stream that came to its end.
func (p *probe) overhear(a *paid, text []byte) openai.Reply {
	meter := openai.Meter{KeepText: keepText}
	var split openai.Splitter
	split.Push(text, func(e openai.Event) { meter.See(e.Data) })
	a.account(&meter.Reply, meter.Ended || meter.Finish != "", meter.Chunks, meter.Text(), meter.TextBytes)
	return meter.Reply
}
