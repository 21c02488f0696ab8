package gateway

import (
	"slices"
	"strings"
	"sync"
	"time"

	"occam/internal/cascade"
	"occam/internal/openai"
	"occam/internal/store"
)

// Roles that may use the API. Other roles of a key are for the admin API only.
const (
	RoleApp   = "app"
	RoleAdmin = "admin"
)

// A Keyring finds virtual keys by the hash of their secret. It never changes.
type Keyring struct {
	byHash map[[32]byte]*store.Key
}

// NewKeyring holds those of the keys that may use the API now. Without one, nil, the API asks for no key.
func NewKeyring(keys []store.Key) *Keyring {
	ring := &Keyring{byHash: make(map[[32]byte]*store.Key, len(keys))}
	for i := range keys {
		k := &keys[i]
		if k.Revoked.IsZero() && (k.Role == RoleApp || k.Role == RoleAdmin) {
			ring.byHash[k.Hash] = k
		}
	}
	return ring
}

// find returns the key of a secret. The lookup is by hash, so how long it takes tells nothing about other secrets.
func (r *Keyring) find(secret string) *store.Key {
	if k := r.byHash[store.HashSecret(secret)]; k != nil && k.Matches(secret) {
		return k
	}
	return nil
}

// An account is what one key has used of its rates.
type account struct {
	mu          sync.Mutex
	requests    cascade.Budget
	tokens      cascade.Budget
	escalations cascade.Budget
}

func (s *Server) account(id string) *account {
	if a, ok := s.accounts.Load(id); ok {
		return a.(*account)
	}
	a, _ := s.accounts.LoadOrStore(id, new(account))
	return a.(*account)
}

// take spends n of one of the account's rates at the key's present limit.
func (a *account) take(b *cascade.Budget, perMinute int, now time.Time, n float64) (bool, time.Duration) {
	if perMinute <= 0 {
		return true, 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	b.PerMinute, b.Burst = float64(perMinute), float64(perMinute)
	return b.Take(now, n)
}

// authenticate finds the request's key and counts the request against it.
func (x *exchange) authenticate() *openai.Error {
	if x.snap.Keys == nil {
		return nil
	}
	secret, ok := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		secret = x.r.Header.Get("X-Api-Key") // how Anthropic's clients send it
	}
	if secret == "" {
		return &openai.Error{Status: 401, Type: "invalid_request_error", Code: "missing_api_key",
			Message: "You didn't provide an API key. Send one that `occam keys create` printed, as a Bearer token."}
	}
	if x.key = x.snap.Keys.find(secret); x.key == nil {
		return &openai.Error{Status: 401, Type: "invalid_request_error", Code: "invalid_api_key",
			Message: "Incorrect API key provided. Send one that `occam keys create` printed and that was not revoked."}
	}
	x.account = x.Server.account(x.key.ID)
	return x.charge(&x.account.requests, x.key.Limits.RequestsPerMinute, 1, "rate_limit_exceeded", "requests")
}

// charge spends n of a rate of the request's key, or says when there is enough.
func (x *exchange) charge(b *cascade.Budget, perMinute int, n float64, code, what string) *openai.Error {
	ok, wait := x.account.take(b, perMinute, x.opts.Now(), n)
	if ok {
		return nil
	}
	x.retryAfter(wait)
	return &openai.Error{Status: 429, Type: what, Code: code,
		Message: "This API key has used up its " + what + " per minute. The Retry-After header says when there is room."}
}

// permitted checks that the request's key may use its model and its task.
func (x *exchange) permitted() *openai.Error {
	if x.key == nil {
		return nil
	}
	limits := &x.key.Limits
	forbidden := func(what, name string) *openai.Error {
		return &openai.Error{Status: 403, Type: "invalid_request_error", Code: "not_permitted",
			Message: "This API key may not use the " + what + " '" + name + "'."}
	}
	switch {
	case x.task != nil && len(limits.Tasks) > 0 && !slices.Contains(limits.Tasks, x.task.Name):
		return forbidden("task", x.task.Name)
	case x.task != nil && x.request.Model == x.task.Name: // naming the task names its own model
		return nil
	case len(limits.Models) > 0 && !slices.Contains(limits.Models, x.request.Model):
		return forbidden("model", x.request.Model)
	}
	return nil
}

// mayEscalate counts a task's request that is about to go to the generalist.
func (x *exchange) mayEscalate() *openai.Error {
	if x.key == nil {
		return nil
	}
	return x.charge(&x.account.escalations, x.key.Limits.Escalations, 1, string(cascade.OverBudget), "escalations")
}

// maySpend checks that the key's budget can be kept with a call, and counts the tokens that it will likely use; finish
// corrects the count.
func (x *exchange) maySpend(a *paid) *openai.Error {
	switch {
	case x.key == nil:
		return nil
	case x.key.Limits.Budget > 0 && !a.priced && !a.target.Upstream.Hosted:
		return x.unpricedModel(a)
	case x.key.Limits.TokensPerMinute <= 0:
		return nil
	}
	a.charged = a.x.ratio(a.Task).input(len(a.body)) + min(a.high.Output, 256)
	return x.charge(&x.account.tokens, x.key.Limits.TokensPerMinute, float64(a.charged), "rate_limit_exceeded", "tokens")
}

func (x *exchange) unpricedModel(a *paid) *openai.Error {
	return &openai.Error{Status: 403, Type: "invalid_request_error", Code: "unpriced_model",
		Message: "No price is known for the model '" + a.Model + "', so this API key's budget cannot be kept. Give its price with `occam prices`."}
}

// correct replaces what maySpend counted by what was used.
func (a *paid) correct() {
	if a.charged == 0 {
		return
	}
	a.x.account.mu.Lock()
	defer a.x.account.mu.Unlock()
	a.x.account.tokens.Correct(float64(a.Usage.Input + a.Usage.Output - a.charged))
}

// budgets are what the request's attempts must fit into.
func (x *exchange) budgets() []store.Budget { return Budgets(x.key, x.opts.Now()) }

// Budgets are what the attempts of a key must fit into now. A nil key has none.
func Budgets(key *store.Key, now time.Time) []store.Budget {
	if key == nil || key.Limits.Budget <= 0 {
		return nil
	}
	return []store.Budget{{Key: key.ID, Start: store.PeriodStart(key.Limits.Period, now), Limit: key.Limits.Budget}}
}

// cheaper returns the call to make instead of one that the key's budget has no room for.
func (x *exchange) cheaper(c *call) (*call, bool) {
	if x.key == nil || x.key.Limits.Degrade == "" || c.audit || x.reason == cascade.Degraded {
		return nil, false
	}
	route, ok := x.snap.route(x.key.Limits.Degrade)
	if !ok {
		return nil, false
	}
	x.reason = cascade.Degraded
	instead := *c
	instead.route = route
	return &instead, true
}

// overBudget is the answer when there is no money left for the request.
func (x *exchange) overBudget() *openai.Error {
	return &openai.Error{Status: 429, Type: "insufficient_quota", Code: "insufficient_quota",
		Message: "This request could cost more than what is left of this API key's budget. A smaller max_tokens makes it fit sooner."}
}
