package finops

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"occam/internal/cost"
)

// A Point is the spend of an hour or a day that begins at Start, in UTC.
type Point struct {
	Start time.Time
	Spend cost.Amount
}

// Quantiles of an amount.
type Quantiles struct {
	P10 cost.Amount `json:"p10_nano_usd"`
	P50 cost.Amount `json:"p50_nano_usd"`
	P90 cost.Amount `json:"p90_nano_usd"`
}

const (
	forecastDraws  = 1000
	forecastMemory = 56 // days looked back at: eight of each weekday
	levelMemory    = 14 // days that set today's level
)

// Forecast is the spend from the first day of the series that falls into [from, to) to the end of that window: what is known,
// plus simulated days up to to. Days must be complete, in order and without gaps (a day without spend is a point of zero); the
// day under way is left out and simulated. It fails (ok is false) with fewer than seven days.
//
// A day is level × weekday × noise. The weekday factors are medians of the days against their week's mean; the level is the
// median of the last fourteen days without their weekday; noise is drawn from the past residuals, and the level drifts by a
// random walk of the size that the residuals of the weekly levels show. All randomness comes from rng.
func Forecast(days []Point, from, to time.Time, rng *rand.Rand) (q Quantiles, ok bool) {
	if len(days) < 7 {
		return Quantiles{}, false
	}
	known := cost.Amount(0)
	for _, d := range days {
		if !d.Start.Before(from) && d.Start.Before(to) {
			known += d.Spend
		}
	}
	past := days[max(0, len(days)-forecastMemory):]
	weekday, level, noise := decompose(past)
	drift, start := levelDrift(past, noise)
	next := days[len(days)-1].Start.AddDate(0, 0, 1)
	if next.Before(from) {
		next = from
	}
	sums := make([]float64, forecastDraws)
	for i := range sums {
		walk := start * rng.NormFloat64()
		for day := next; day.Before(to); day = day.AddDate(0, 0, 1) {
			walk += drift * rng.NormFloat64()
			sums[i] += level * math.Exp(walk) * weekday[day.Weekday()] * noise[rng.IntN(len(noise))]
		}
	}
	slices.Sort(sums)
	at := func(p float64) cost.Amount {
		return known + cost.FromUSD(math.Min(sums[int(p*float64(len(sums)-1)+0.5)], 1e9))
	}
	return Quantiles{at(0.1), at(0.5), at(0.9)}, true
}

// decompose splits days into weekday factors, the level of the last two weeks, and multiplicative residuals around it.
func decompose(days []Point) (weekday [7]float64, level float64, noise []float64) {
	ratios := [7][]float64{}
	for i, d := range days {
		lo, hi := max(0, i-3), min(len(days), i+4)
		if hi-lo < 7 { // keep a whole week in the window at the ends of the series
			lo, hi = max(0, hi-7), min(len(days), max(0, hi-7)+7)
		}
		mean := 0.0
		for _, e := range days[lo:hi] {
			mean += e.Spend.USD() / float64(hi-lo)
		}
		if mean > 0 {
			ratios[d.Start.UTC().Weekday()] = append(ratios[d.Start.UTC().Weekday()], d.Spend.USD()/mean)
		}
	}
	for w := range weekday {
		weekday[w] = 1
		if len(ratios[w]) > 0 {
			weekday[w] = median(ratios[w])
		}
	}
	var flat []float64
	for _, d := range days {
		if f := weekday[d.Start.UTC().Weekday()]; f > 0 {
			flat = append(flat, d.Spend.USD()/f)
		}
	}
	if len(flat) == 0 {
		return weekday, 0, []float64{1}
	}
	level = median(slices.Clone(flat[max(0, len(flat)-levelMemory):]))
	for i, v := range flat { // residual against the days around it, so that a past trend is not taken for noise
		around := slices.Clone(flat[max(0, i-levelMemory/2):min(len(flat), i+levelMemory/2+1)])
		if m := median(around); m > 0 {
			noise = append(noise, v/m)
		}
	}
	if len(noise) == 0 {
		noise = []float64{1}
	}
	return weekday, level, noise
}

// levelDrift is the daily standard deviation of the level's logarithm, and the uncertainty of the level it starts from. The
// means of neighbouring weeks of a random walk with daily variance d² differ by (2·7² + 1)/(3·7)·d²; to that the noise of the
// days adds 2/7 of its own variance, which is taken off. The level, a median of fourteen days, lags the walk by 14/3·d² and
// carries π/2/14 of the noise.
func levelDrift(days []Point, noise []float64) (daily, start float64) {
	var weeks []float64
	for end := len(days); end >= 7; end -= 7 {
		sum := 0.0
		for _, d := range days[end-7 : end] {
			sum += d.Spend.USD()
		}
		weeks = append(weeks, sum)
	}
	var changes []float64
	for i := 1; i < len(weeks); i++ {
		if weeks[i] > 0 && weeks[i-1] > 0 {
			changes = append(changes, math.Abs(math.Log(weeks[i-1]/weeks[i])))
		}
	}
	spread := make([]float64, 0, len(noise))
	for _, v := range noise {
		if v > 0 {
			spread = append(spread, math.Abs(math.Log(v)))
		}
	}
	residual := 1.4826 * median(spread)
	daily = 0.05 // one week of history says nothing of its drift: a cautious guess
	if len(changes) > 0 {
		change := 1.4826 * median(changes)
		daily = math.Sqrt(math.Max(0, change*change-2*residual*residual/7) * 21 / 99)
	}
	return daily, math.Sqrt(daily*daily*levelMemory/3 + residual*residual*math.Pi/2/levelMemory)
}

// median of a slice that it may reorder; 0 for none.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// An Anomaly is an hour whose spend is far from what that hour usually brings.
type Anomaly struct {
	Start    time.Time   `json:"start"`
	Spend    cost.Amount `json:"spend_nano_usd"`
	Expected cost.Amount `json:"expected_nano_usd"`
	Score    float64     `json:"score"` // robust standard deviations; negative: less than usual
}

// AnomalyOptions bound what counts as unusual. The zero value means the defaults.
type AnomalyOptions struct {
	Score     float64     // robust standard deviations; 6 by default
	LeastDiff cost.Amount // smaller differences are never reported; $1 by default
}

const (
	sameHourWeeks = 6  // weeks looked back at for the same hour of the week
	leastSamples  = 4  // of these, else the same hour of the last days
	sameHourDays  = 14 // days looked back at then
)

// Anomalies finds the unusual hours of a series in order of time, without gaps. Each hour is compared with the median of the
// same hour of the weeks before it, in units of their median absolute deviation, which is at least a tenth of the median and a
// tenth of its square root in dollars: a series that never varied must not make every cent an anomaly. With less than four
// weeks of history the hours of the last days are taken instead, and an hour that is near the same hour of any week before is
// not unusual. Past anomalies do not move a median; nothing is reported before there is a week of history.
func Anomalies(hours []Point, o AnomalyOptions) []Anomaly {
	o.Score = cmp.Or(o.Score, 6)
	o.LeastDiff = cmp.Or(o.LeastDiff, cost.USD)
	var out []Anomaly
	for i := 168; i < len(hours); i++ {
		weeks := before(hours, i, 168, sameHourWeeks)
		like, centres := weeks, []float64(nil)
		if len(weeks) < leastSamples {
			like, centres = before(hours, i, 24, sameHourDays), weeks
		}
		spend, middle := hours[i].Spend.USD(), median(like)
		deviations := make([]float64, len(like))
		for k, v := range like {
			deviations[k] = math.Abs(v - middle)
		}
		nearest := middle
		for _, c := range centres {
			if math.Abs(spend-c) < math.Abs(spend-nearest) {
				nearest = c
			}
		}
		scale := max(1.4826*median(deviations), nearest/10, math.Sqrt(nearest)/10, 1e-9)
		score := math.Max(-1e6, math.Min(1e6, (spend-nearest)/scale))
		if math.Abs(score) >= o.Score && cost.FromUSD(math.Abs(spend-nearest)) >= o.LeastDiff {
			out = append(out, Anomaly{hours[i].Start, hours[i].Spend, cost.FromUSD(nearest), score})
		}
	}
	return out
}

// before collects the spend of up to n earlier hours, each step hours apart.
func before(hours []Point, i, step, n int) []float64 {
	var out []float64
	for back := i - step; back >= 0 && len(out) < n; back -= step {
		out = append(out, hours[back].Spend.USD())
	}
	return out
}

// A Budget is a limit on the spend of a period.
type Budget struct {
	Soft cost.Amount // from here on somebody should know; 0: none
	Hard cost.Amount // what the period may cost; 0: none
}

// BudgetState says how far a budget is used.
type BudgetState string

const (
	WithinBudget BudgetState = "within"
	SoftLimit    BudgetState = "soft limit reached"
	HardLimit    BudgetState = "hard limit reached"
)

// State says how far a budget is used once so much is spent.
func (b Budget) State(spent cost.Amount) BudgetState {
	switch {
	case b.Hard > 0 && spent >= b.Hard:
		return HardLimit
	case b.Soft > 0 && spent >= b.Soft:
		return SoftLimit
	}
	return WithinBudget
}

// Exhausted is when a budget runs out, should spend go on at the rate since from. False: not before to.
func (b Budget) Exhausted(spent cost.Amount, from, now, to time.Time) (time.Time, bool) {
	elapsed := now.Sub(from)
	switch {
	case b.Hard <= 0:
		return time.Time{}, false
	case spent >= b.Hard:
		return now, true
	case spent <= 0 || elapsed <= 0:
		return time.Time{}, false
	}
	lasts := float64(elapsed) * (b.Hard.USD() / spent.USD())
	if lasts >= float64(to.Sub(from)) { // also where a Duration could not hold it
		return time.Time{}, false
	}
	return from.Add(time.Duration(lasts)), true
}
