package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
)

// SelfTesting is the reason of the calls that a self-test makes.
const SelfTesting cascade.Reason = "self_test"

// Abilities are what a model really does, found out by asking. Several servers ignore fields that they do not know, with
// status 200.
type Abilities struct {
	Model       string `json:"model"`
	Provider    string `json:"provider"`
	Schema      bool   `json:"schema"`       // a JSON Schema is enforced, not ignored
	Logprobs    bool   `json:"logprobs"`     // the answer's log-probabilities are given
	Usage       bool   `json:"usage"`        // a whole reply says what it bills
	StreamUsage bool   `json:"stream_usage"` // a stream says it too, when asked
	Priced      bool   `json:"priced"`       // the price book knows the model
}

// impossible is a schema that no sensible answer to the question fits: only enforcement makes a model write the word.
const (
	impossible     = `{"type":"object","properties":{"answer":{"type":"string","enum":["zxqv-7"]}},"required":["answer"],"additionalProperties":false}`
	impossibleWord = "zxqv-7"
)

// SelfTest asks a model, by the name that apps use, what it supports. It makes two calls that may cost a fraction of a cent;
// they are in the ledger like any other.
func (s *Server) SelfTest(ctx context.Context, model string) (Abilities, error) {
	snap := s.snapshot.Load()
	if snap == nil {
		return Abilities{}, errors.New("gateway: self-test: nothing is published yet")
	}
	route, ok := snap.route(model)
	if !ok {
		return Abilities{}, fmt.Errorf("gateway: self-test: the model %q is not configured and there is no provider to ask for it", model)
	}
	target := route.Targets[0]
	found := Abilities{Model: model, Provider: target.Upstream.Name}
	_, found.Priced = snap.price(target, "", s.opts.Now())
	x, err := s.probe(ctx, snap, model)
	if err != nil {
		return found, err
	}
	c := &call{route: engine.Route{Targets: route.Targets[:1]}, edit: openai.Edit{Schema: []byte(impossible), Logprobs: true}, audit: true}
	a, r, ok := x.complete(c)
	if !ok {
		return found, fmt.Errorf("gateway: self-test: %s did not answer; see the log and the ledger's rows of request %s", model, x.id)
	}
	a.account(&r, true, 0, r.Content, int64(len(r.Content)))
	var said struct{ Answer string }
	found.Schema = json.Unmarshal([]byte(strings.TrimSpace(r.Content)), &said) == nil && said.Answer == impossibleWord
	found.Logprobs = r.LogProb <= 0 // NaN is not
	found.Usage = r.Billed
	found.StreamUsage, err = x.probeStream(route)
	return found, err
}

// probe is an exchange of the gateway's own.
func (s *Server) probe(ctx context.Context, snap *Snapshot, model string) (*exchange, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/self-test", nil)
	if err != nil {
		return nil, err
	}
	now := s.opts.Now()
	x := &exchange{Server: s, api: openai.Chat, snap: snap, r: r, id: store.NewID(now), began: now, reason: SelfTesting, trace: ctx}
	x.request = openai.NewChat(model, []openai.Message{{Role: "user", Text: "What is two plus two? Answer in JSON, as {\"answer\":\"…\"}."}}, 64)
	return x, nil
}

// probeStream streams a short answer and reports whether it said what it bills.
func (x *exchange) probeStream(route engine.Route) (bool, error) {
	var err error
	body := strings.Replace(string(x.request.Body), "{", `{"stream":true,"stream_options":{"include_usage":true},`, 1)
	if x.request, err = openai.Parse(openai.Chat, []byte(body)); err != nil {
		return false, err
	}
	a, reply, refused := x.send(&call{route: engine.Route{Targets: route.Targets[:1]}, audit: true})
	if refused != nil {
		return false, refused
	}
	defer reply.Body.Close()
	text, err := readAll(reply, maxList)
	if err != nil {
		a.lost(err)
		return false, err
	}
	if reply.Status != http.StatusOK {
		a.unbilled(reply.Status)
		return false, nil
	}
	meter := openai.Meter{KeepText: keepText}
	var split openai.Splitter
	split.Push(text, func(e openai.Event) { meter.See(e.Data) })
	a.account(&meter.Reply, meter.Ended || meter.Finish != "", meter.Chunks, meter.Text(), meter.TextBytes)
	return meter.Billed, nil
}
