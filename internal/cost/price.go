package cost

import (
	"fmt"
	"math/bits"
	"time"
)

// A Rate is a price in nano-dollars per million tokens: $2.50 per million is 2_500_000_000.
type Rate int64

// USDPerMTok returns the rate in dollars per million tokens, for display.
func (r Rate) USDPerMTok() float64 { return float64(r) / float64(USD) }

// Rates are what the four kinds of token cost. A list without a price for reading or writing the cache bills those tokens
// as plain input, so that an absent discount never lowers a cost; the book fills that in when it is read.
type Rates struct {
	Input      Rate
	Cached     Rate // tokens read from the provider's cache
	CacheWrite Rate // tokens written to it
	Output     Rate // reasoning tokens are output
}

// A LongBand replaces the rates of the whole request when its input is longer than AboveInput tokens.
type LongBand struct {
	AboveInput int64
	Rates
}

// A DailyBand replaces the rates of requests that fall into [From, To) on the UTC clock, in minutes since midnight.
// To may be smaller than From: the band then runs over midnight.
type DailyBand struct {
	From, To int
	Rates
}

// Confidence says how a price was learnt.
type Confidence string

const (
	Official  Confidence = "official"  // the provider's own page was seen
	Secondary Confidence = "secondary" // a third party's table was seen
	Recalled  Confidence = "recalled"  // not seen: verify
	Override  Confidence = "override"  // given by the user
)

// Kind separates models that write text from those that only decide between given options, and from those that turn texts into
// vectors. Only the first two can do a task's job.
type Kind string

const (
	Chat      Kind = ""
	Decision  Kind = "decision"
	Embedding Kind = "embedding" // bills its input only
)

// A Price is one dated row of the book: what one model of one provider costs from From until To.
type Price struct {
	Provider, Model string
	Kind            Kind
	Rates
	Long          []LongBand  // ascending by AboveInput
	Daily         []DailyBand // prices by time of day
	BatchPermille int64       // a batch request costs this many thousandths; 0: no batch API is known
	Train         Rate        // fine-tuning, per million training tokens; 0: not offered
	From, To      time.Time   // [From, To); the zero time leaves that side open
	Shutdown      time.Time   // when the provider stops the model; zero: not announced
	Source, Note  string
	Confidence    Confidence
}

// Cost prices one request that ran at the given time: exact, rounded half up to the nano-dollar once for the request.
// Cached and cache-write tokens are parts of the input and are subtracted from it once; reasoning is part of the output.
// Usage that cannot be true (see Usage.Check) is clamped so that no count is negative and no part exceeds its whole.
func (p Price) Cost(u Usage, at time.Time) Amount {
	r := p.ratesFor(u.Input, at)
	input := max(u.Input, 0)
	cached := min(max(u.Cached, 0), input)
	write := min(max(u.CacheWrite, 0), input-cached)
	var s sum128
	s.add(input-cached-write, r.Input)
	s.add(cached, r.Cached)
	s.add(write, r.CacheWrite)
	s.add(max(u.Output, 0), r.Output)
	return s.perMillion()
}

// Batch returns the price of the same model through the provider's batch API, and false where none is known.
func (p Price) Batch() (Price, bool) {
	if p.BatchPermille == 0 {
		return Price{}, false
	}
	f := func(r Rates) Rates { return r.scaled(p.BatchPermille, 1000) }
	b := p
	b.Rates = f(p.Rates)
	b.Long = append([]LongBand(nil), p.Long...)
	for i := range b.Long {
		b.Long[i].Rates = f(b.Long[i].Rates)
	}
	b.Daily = append([]DailyBand(nil), p.Daily...)
	for i := range b.Daily {
		b.Daily[i].Rates = f(b.Daily[i].Rates)
	}
	b.BatchPermille = 1000
	return b, true
}

// Version names this row for the ledger: provider/model@effective-date#fingerprint. The fingerprint covers every rate, so
// two rows that could price the same request differently never share a version.
func (p Price) Version() string {
	from := "-"
	if !p.From.IsZero() {
		from = p.From.Format(time.DateOnly)
	}
	return fmt.Sprintf("%s/%s@%s#%08x", p.Provider, p.Model, from, p.fingerprint())
}

// EndedBy reports whether the provider has stopped the model by that time.
func (p Price) EndedBy(at time.Time) bool { return !p.Shutdown.IsZero() && !at.Before(p.Shutdown) }

// ratesFor picks the rates of one request: the time of day first, then the length of its input.
func (p Price) ratesFor(input int64, at time.Time) Rates {
	r := p.Rates
	for _, b := range p.Daily {
		if b.contains(at) {
			r = b.Rates
			break
		}
	}
	for _, b := range p.Long {
		if input > b.AboveInput {
			r = b.Rates
		}
	}
	return r
}

func (b DailyBand) contains(at time.Time) bool {
	u := at.UTC()
	m := u.Hour()*60 + u.Minute()
	if b.From <= b.To {
		return b.From <= m && m < b.To
	}
	return m >= b.From || m < b.To
}

func (r Rates) scaled(num, den int64) Rates {
	f := func(x Rate) Rate { return Rate((int64(x)*num + den/2) / den) }
	return Rates{f(r.Input), f(r.Cached), f(r.CacheWrite), f(r.Output)}
}

// fingerprint is the 32-bit FNV-1a hash of every number that takes part in Cost.
func (p Price) fingerprint() uint32 {
	h := uint32(2166136261)
	word := func(v int64) {
		for range 8 {
			h = (h ^ uint32(v&0xff)) * 16777619
			v >>= 8
		}
	}
	rates := func(r Rates) {
		for _, v := range []Rate{r.Input, r.Cached, r.CacheWrite, r.Output} {
			word(int64(v))
		}
	}
	rates(p.Rates)
	for _, b := range p.Long {
		word(b.AboveInput)
		rates(b.Rates)
	}
	for _, b := range p.Daily {
		word(int64(b.From)<<16 | int64(b.To))
		rates(b.Rates)
	}
	return h
}

// sum128 adds tokens × rate without overflow: a hundred million tokens at $75 already leave 63 bits.
type sum128 struct{ hi, lo uint64 }

func (s *sum128) add(tokens int64, r Rate) {
	hi, lo := bits.Mul64(uint64(tokens), uint64(r))
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, _ = bits.Add64(s.hi, hi, carry)
}

// perMillion divides by the million tokens a Rate is quoted for, half up, and saturates at the largest Amount.
func (s sum128) perMillion() Amount {
	const million = 1_000_000
	const most = 1<<63 - 1
	lo, carry := bits.Add64(s.lo, million/2, 0)
	hi := s.hi + carry
	if hi >= million {
		return most
	}
	q, _ := bits.Div64(hi, lo, million)
	return Amount(min(q, most))
}

// Check reports usage that cannot be true: a negative count, or a part larger than its whole. Such an attempt must be
// recorded as estimated, never as settled.
func (u Usage) Check() error {
	switch {
	case u.Input < 0 || u.Output < 0 || u.Cached < 0 || u.CacheWrite < 0 || u.Reasoning < 0:
		return fmt.Errorf("usage has a negative token count: %+v", u)
	case u.Cached+u.CacheWrite > u.Input || u.Cached+u.CacheWrite < 0:
		return fmt.Errorf("usage has more cached tokens (%d read, %d written) than input tokens (%d)",
			u.Cached, u.CacheWrite, u.Input)
	case u.Reasoning > u.Output:
		return fmt.Errorf("usage has more reasoning tokens (%d) than output tokens (%d)", u.Reasoning, u.Output)
	}
	return nil
}
