package sim

import (
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"occam/internal/cost"
)

// Rates are a model's prices in nano-dollars per million tokens: 2_500_000_000 is $2.50. The provider keeps its own list
// and does its own arithmetic, so that its bill is a second opinion on the ledger.
type Rates struct {
	Input, Cached, Output int64
}

// defaultPrices are list prices of late 2026.
func defaultPrices() map[string]Rates {
	return map[string]Rates{
		"gpt-4o":                 {Input: 2_500_000_000, Cached: 1_250_000_000, Output: 10_000_000_000},
		"gpt-4o-mini":            {Input: 150_000_000, Cached: 75_000_000, Output: 600_000_000},
		"claude-haiku-4-5":       {Input: 1_000_000_000, Cached: 100_000_000, Output: 5_000_000_000},
		"text-embedding-3-small": {Input: 20_000_000, Cached: 20_000_000},
	}
}

// price rounds half up to a whole nano-dollar, once per request.
func (r Rates) price(prompt, cached, completion int64) cost.Amount {
	sum := new(big.Int)
	add := func(tokens, rate int64) { sum.Add(sum, new(big.Int).Mul(big.NewInt(tokens), big.NewInt(rate))) }
	add(prompt-cached, r.Input)
	add(cached, r.Cached)
	add(completion, r.Output)
	sum.Add(sum, big.NewInt(500_000))
	return cost.Amount(sum.Div(sum, big.NewInt(1_000_000)).Int64())
}

// A Charge is one line of the bill.
type Charge struct {
	RequestID  string      `json:"request_id"`          // as in the X-Request-Id header of the reply
	ClientID   string      `json:"client_id,omitempty"` // the caller's X-Client-Request-Id or Idempotency-Key header
	ReplyID    string      `json:"reply_id"`            // "chatcmpl-…", as in the body of the reply
	At         time.Time   `json:"at"`
	Route      string      `json:"route"`
	Model      string      `json:"model"`
	Prompt     int64       `json:"prompt_tokens"`
	Cached     int64       `json:"cached_tokens"` // part of Prompt
	Completion int64       `json:"completion_tokens"`
	Amount     cost.Amount `json:"amount_nano_usd"`
	Fault      string      `json:"fault,omitempty"` // what was done to the reply, if anything
	Cut        bool        `json:"cut,omitempty"`   // the caller did not get the whole reply, as far as the provider can tell
}

// bill is the list of charges.
type bill struct {
	mu      sync.Mutex
	charges []*chargeLine
}

// A chargeLine is a charge that may still grow.
type chargeLine struct {
	bill   *bill
	rates  Rates
	charge Charge
}

func (b *bill) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.charges) >= chargesMax
}

// open enters a charge. A request is billed from the moment its answer is begun, whether or not it arrives.
func (b *bill) open(rates Rates, c Charge) *chargeLine {
	line := &chargeLine{bill: b, rates: rates, charge: c}
	line.charge.Amount = rates.price(c.Prompt, c.Cached, c.Completion)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charges = append(b.charges, line)
	return line
}

// addCompletion bills further tokens of a stream.
func (l *chargeLine) addCompletion(tokens int64) {
	l.bill.mu.Lock()
	defer l.bill.mu.Unlock()
	l.charge.Completion += tokens
	l.charge.Amount = l.rates.price(l.charge.Prompt, l.charge.Cached, l.charge.Completion)
}

func (l *chargeLine) markCut() {
	l.bill.mu.Lock()
	defer l.bill.mu.Unlock()
	l.charge.Cut = true
}

func (b *bill) list(from int) []Charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = min(max(from, 0), len(b.charges))
	list := make([]Charge, 0, len(b.charges)-from)
	for _, line := range b.charges[from:] {
		list = append(list, line.charge)
	}
	return list
}

func (b *bill) total() cost.Amount {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum cost.Amount
	for _, line := range b.charges {
		sum += line.charge.Amount
	}
	return sum
}

// serveBill answers GET /bill with the total and the charges, from ?after=N on.
func (p *Provider) serveBill(w http.ResponseWriter, r *http.Request) {
	after := 0
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.Atoi(text); err != nil || after < 0 {
			writeError(w, badRequest("after", fmt.Sprintf("after=%q is no number of charges to skip.", text)))
			return
		}
	}
	total := p.bill.total()
	writeJSON(w, http.StatusOK, encode(object{{"simulated", true}, {"requests", p.Served()}, {"total_nano_usd", total},
		{"total", total.String()}, {"charges", p.bill.list(after)}}))
}

func (p *Provider) modelNames() []string { return slices.Sorted(maps.Keys(p.options.Prices)) }

func modelObject(name string) object {
	return object{{"id", name}, {"object", "model"}, {"created", 1715367049}, {"owned_by", "simulated"}}
}

func (p *Provider) models(w http.ResponseWriter, _ *http.Request) {
	list := []object{}
	for _, name := range p.modelNames() {
		list = append(list, modelObject(name))
	}
	writeJSON(w, http.StatusOK, encode(object{{"object", "list"}, {"data", list}}))
}

func (p *Provider) model(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("model")
	if _, err := p.rates(name); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, encode(modelObject(name)))
}
