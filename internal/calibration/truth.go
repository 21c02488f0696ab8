package calibration

import "math"

// A Label is one row about which more than the specialist's answer is known. Rows must be a random sample of those the
// statement is about, for example of answered requests.
type Label struct {
	Differs bool // the specialist's answer is not the teacher's
	Judged  bool // a person labelled the row; only then are the next two known
	Wrong   bool // the specialist's answer is not the person's
	Fooled  bool // the teacher's answer is not the person's
}

// Truth says what teacher labels and people's labels together prove about how often the specialist is really wrong.
// Agreement with a teacher is not accuracy: a specialist that copies its teacher's systematic errors agrees with it and
// is wrong. (The formula that corrects agreement for teacher noise assumes errors to be independent, which copied
// errors are not, so it is not offered.) Every bound holds with probability 1-delta on its own; Low and High hold
// together.
type Truth struct {
	Rows   int     `json:"rows"`
	Judged int     `json:"judged"`
	Differ float64 `json:"differ"` // share of rows in which specialist and teacher disagree

	DifferHigh float64 `json:"differ_high"` // upper bound on P(specialist differs from teacher)
	TeacherLow float64 `json:"teacher_low"` // bounds on P(teacher wrong); 0 and 1 without people's labels
	TeacherTop float64 `json:"teacher_high"`

	// The specialist's risk against the truth, by three routes.
	FreeLow  float64 `json:"free_low"`  // |D - eta|: needs no assumption, tied to the teacher's error eta
	FreeHigh float64 `json:"free_high"` // D + eta
	Direct   float64 `json:"direct"`    // upper bound from people's labels alone
	Assisted float64 `json:"assisted"`  // upper bound from agreement everywhere, corrected on the judged rows
	Low      float64 `json:"low"`       // the best of the routes, delta shared over them
	High     float64 `json:"high"`

	Versus Comparison `json:"versus"` // teacher against specialist on the judged rows: Gains are the specialist's

	// Assumes is what every bound but that on Differ rests on and nobody has checked; "" where no row was judged.
	Assumes string `json:"assumes,omitempty"`
}

// ChosenRegardless is what Truth assumes of the judged rows. A review queue that puts disputed answers first breaks it unless its
// random slice is worked through too: then the risk looks higher than it is.
const ChosenRegardless = "the rows that people judged were chosen regardless of the answers"

// AgainstTruth computes Truth. Without any judged row only the agreement is known: High is 1.
//
// The assumption-free bound is the triangle inequality for "differs", with exact bounds on D = P(specialist differs
// from teacher) and eta = P(teacher wrong). Assisted is prediction-powered inference (Angelopoulos, Bates, Fannjiang,
// Jordan and Zrnic 2023, arXiv 2301.09633): risk = D + E[wrong - differs], the last mean bounded by betting on the
// judged rows. It beats Direct where specialist and teacher are wrong on the same rows only seldom and rows without a
// person are many.
func AgainstTruth(labels []Label, delta float64) Truth {
	t := Truth{Rows: len(labels), TeacherTop: 1, FreeHigh: 1, Direct: 1, Assisted: 1, High: 1}
	differ, wrong, fooled := 0, 0, 0
	var corrections []float64
	var wrongs, fooleds []bool
	for _, l := range labels {
		differ += one(l.Differs)
		if l.Judged {
			wrong += one(l.Wrong)
			fooled += one(l.Fooled)
			wrongs, fooleds = append(wrongs, l.Wrong), append(fooleds, l.Fooled)
			corrections = append(corrections, (1+float64(one(l.Wrong)-one(l.Differs)))/2) // from [-1, 1] to [0, 1]
		}
	}
	t.Judged, t.Differ = len(corrections), ratio(differ, t.Rows)
	if t.Judged > 0 {
		t.Assumes = ChosenRegardless
	}
	t.DifferHigh = Upper(differ, t.Rows, delta)
	t.TeacherLow, t.TeacherTop = Interval(fooled, t.Judged, 1-delta)
	t.Versus = Compare(fooleds, wrongs, 1-delta)
	free := func(delta float64) (low, high float64) {
		lowD, highD := Interval(differ, t.Rows, 1-delta/2)
		lowE, highE := Interval(fooled, t.Judged, 1-delta/2)
		return max(0, lowD-highE, lowE-highD), min(1, highD+highE)
	}
	direct := func(delta float64) float64 { return Upper(wrong, t.Judged, delta) }
	assisted := func(delta float64) float64 {
		return min(1, max(0, Upper(differ, t.Rows, delta/2)+2*MeanUpper(corrections, delta/2)-1))
	}
	t.FreeLow, t.FreeHigh = free(delta)
	t.Direct, t.Assisted = direct(delta), assisted(delta)
	low, high := free(delta / 4)
	t.Low = max(low, Lower(wrong, t.Judged, delta/4))
	t.High = min(high, direct(delta/4), assisted(delta/4))
	return t
}

// MeanUpper returns an upper bound, at failure probability delta, on the mean of independent draws of a quantity in [0,
// 1], of which values were seen, in the order drawn; 1 for none. Values outside [0, 1] are moved to its ends, NaN to 1.
// Use it for a loss that is not right-or-wrong, such as one that weighs errors by their cost.
//
// It is the betting bound of Waudby-Smith and Ramdas 2020 (arXiv 2010.09686): a mean m is excluded when the capital
// prod(1 + lambda_t (m - x_t)), whose bets lambda_t look at the past only, ever reaches 1/delta (Ville's inequality).
// Bets follow the variance seen so far, so that quantities that vary little get a tight bound.
func MeanUpper(values []float64, delta float64) float64 {
	if len(values) == 0 {
		return 1
	}
	return bisect(func(m float64) bool { return !excluded(values, m, delta) })
}

// excluded reports whether betting that the mean is below m ever multiplied the stake by 1/delta.
func excluded(values []float64, m, delta float64) bool {
	n := float64(len(values))
	log, most := 0.0, -math.Log(delta)
	sum, squares := 0.5, 0.25 // one pseudo-observation of 1/2 with variance 1/4
	for t, x := range values {
		if !(x <= 1) {
			x = 1
		}
		x = max(x, 0)
		seen := float64(t + 1)
		lambda := min(math.Sqrt(2*most/(n*squares/seen)), 0.75/max(1-m, 1e-9))
		log += math.Log1p(lambda * (m - x))
		if log >= most {
			return true
		}
		sum += x
		gap := x - sum/(seen+1)
		squares += gap * gap
	}
	return false
}

// ServedUnderShift bounds the served risk when a share of the traffic is out of scope, where every answer is wrong:
// risk bounds the served risk in scope, coverage is a lower bound on the share of in-scope requests answered, and
// answered an upper bound on the share of out-of-scope requests answered (Upper of audited ones). It is 0 when nothing
// is answered.
func ServedUnderShift(risk, coverage, answered, share float64) float64 {
	good, bad := (1-share)*coverage, share*answered
	if good+bad <= 0 {
		return 0
	}
	return (good*risk + bad) / (good + bad)
}
