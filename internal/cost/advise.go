package cost

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// An Observation is one answered request of a task, reduced to what advice needs: no text is kept.
type Observation struct {
	At      time.Time
	Input   uint64 // hash of the input, to find the same question answered twice
	Answer  string // the answer without the parts copied from the input, in one canonical form (say, its JSON)
	Copied  bool   // every part that is left out of Answer stands word for word in the input
	Trusted bool   // checked by a person
}

// TrafficFacts are what a task's recorded traffic shows about whether a small model can learn it.
type TrafficFacts struct {
	Task     string  `json:"task"`
	Observed int     `json:"observed"` // answers looked at
	Days     float64 `json:"days"`     // that they span

	Distinct      int     `json:"distinct_answers"`
	EntropyBits   float64 `json:"entropy_bits"`    // of the answers
	UnseenShare   float64 `json:"unseen_share"`    // Good-Turing: chance that the next answer was never given before
	NotCopied     float64 `json:"not_copied"`      // share of answers whose free text is not copied from the input
	SmallestClass int     `json:"smallest_class"`  // examples of the rarest answer among those that make up 95 % of the traffic
	Repeats       int     `json:"repeats"`         // requests whose input had been seen before
	Contradicted  int     `json:"contradicted"`    // repeats that got another answer than the first time
	NewLately     float64 `json:"new_lately"`      // share of the newest quarter whose answer did not occur in the three before
	Trusted       int     `json:"trusted"`         // answers checked by a person
	OutputTokens  float64 `json:"output_tokens"`   // mean length of an answer; 0 where not known
	Target        float64 `json:"target_accuracy"` // 0 where not said

	GeneralistAccuracy float64 `json:"generalist_accuracy,omitempty"` // measured; 0 where not
	CheapModel         string  `json:"cheap_model,omitempty"`         // a cheaper API model whose accuracy was measured
	CheapAccuracy      float64 `json:"cheap_accuracy,omitempty"`      // lower end of its interval
}

// Observe computes the facts that follow from recorded answers. The order of the observations is the order of time.
func Observe(task string, observations []Observation) TrafficFacts {
	f := TrafficFacts{Task: task, Observed: len(observations)}
	if f.Observed == 0 {
		return f
	}
	counts, first := map[string]int{}, map[uint64]string{}
	for _, o := range observations {
		counts[o.Answer]++
		if !o.Copied {
			f.NotCopied++
		}
		if o.Trusted {
			f.Trusted++
		}
		if before, seen := first[o.Input]; !seen {
			first[o.Input] = o.Answer
		} else if f.Repeats++; before != o.Answer {
			f.Contradicted++
		}
	}
	n := float64(f.Observed)
	f.NotCopied /= n
	f.Days = math.Max(0, observations[len(observations)-1].At.Sub(observations[0].At).Hours()/24)
	f.Distinct = len(counts)
	f.frequencies(counts)
	old := map[string]bool{}
	split := f.Observed - f.Observed/4
	for _, o := range observations[:split] {
		old[o.Answer] = true
	}
	for _, o := range observations[split:] {
		if !old[o.Answer] {
			f.NewLately++
		}
	}
	f.NewLately /= math.Max(1, float64(f.Observed/4))
	return f
}

// frequencies fills in what follows from how often each answer was given.
func (f *TrafficFacts) frequencies(counts map[string]int) {
	n := float64(f.Observed)
	var sizes []int
	once := 0
	for _, c := range counts {
		sizes = append(sizes, c)
		if c == 1 {
			once++
		}
	}
	f.UnseenShare = float64(once) / n // Good (1953)
	slices.SortFunc(sizes, func(a, b int) int { return b - a })
	covered := 0
	for _, c := range sizes { // summed in a fixed order, so that the result does not depend on the map's
		p := float64(c) / n
		f.EntropyBits -= p * math.Log2(p)
		if covered < int(math.Ceil(0.95*n)) {
			covered += c
			f.SmallestClass = c
		}
	}
}

// Verdict of an Advice.
type Verdict string

const (
	FineTune      Verdict = "train a specialist"
	DoNotFineTune Verdict = "do not train"
	SwitchInstead Verdict = "switch to a cheaper model"
	NotYet        Verdict = "not yet"
)

// A Reason is one argument of an Advice.
type Reason struct {
	Code    string  `json:"code"` // "volume", "open", "labels", "contradictions", "taxonomy", "cheaper", "shutdown", "closed", "saving"
	Against bool    `json:"against"`
	Text    string  `json:"text"`
	verdict Verdict // what it alone would lead to; "" for a supporting one
}

// Advice says whether a specialist is worth training, with every reason for and against.
type Advice struct {
	Verdict Verdict      `json:"verdict"`
	Reasons []Reason     `json:"reasons"`
	Facts   TrafficFacts `json:"facts"`
	Best    string       `json:"best_plan,omitempty"`
	Next    string       `json:"next"` // the command to run next
}

// The limits of Advise. They are rules of thumb, not guarantees: a certificate decides what a specialist may answer.
const (
	fewObserved       = 200  // below this, nothing can be said
	openUnseen        = 0.2  // the next answer is new with this chance: no closed set of answers
	openOutputTokens  = 300  // answers this long are texts, not decisions
	fewPerClass       = 20   // examples of the rarest class that matters
	manyContradicted  = 0.1  // the same input got another answer this often
	movingNewLately   = 0.05 // this much of the newest quarter is answered with something new
	minimumOfRepeats  = 30   // before contradictions count
	certificateLabels = 500  // checked answers that a certificate at 95 % confidence can live on
)

// Advise weighs the facts of a task's traffic and the break-even analysis of its volume. The analysis may be nil where the
// volume is not known; its refusal is the article's first: at 50,000 tickets a month the API costs less than a server. The
// article's second, "Write a poem about 17th-century France", shows in the facts: its answers come from no small set.
func Advise(f TrafficFacts, a *Analysis) Advice {
	out := Advice{Facts: f, Next: "occam train --data FILE, with the recorded answers of " + f.Task, Reasons: append(taskReasons(f), moneyReasons(f, a)...)}
	if a != nil {
		out.Best = a.Best
	}
	out.Verdict = FineTune
	for _, v := range []Verdict{DoNotFineTune, SwitchInstead, NotYet} { // the firmest refusal wins
		if slices.ContainsFunc(out.Reasons, func(r Reason) bool { return r.verdict == v }) {
			out.Verdict = v
			break
		}
	}
	switch out.Verdict {
	case DoNotFineTune:
		out.Next = "nothing to do: keep the generalist; occam keeps watching"
	case SwitchInstead:
		out.Next = "set the task's generalist to " + f.CheapModel + " in occam.yaml"
	case NotYet:
		out.Next = "occam advise again, once there is more traffic or the labels are cleaned"
	}
	slices.SortStableFunc(out.Reasons, func(x, y Reason) int { return weight(y) - weight(x) })
	return out
}

func weight(r Reason) int {
	switch {
	case r.verdict == DoNotFineTune:
		return 4
	case r.verdict == SwitchInstead:
		return 3
	case r.verdict == NotYet:
		return 2
	case r.Against:
		return 1
	}
	return 0
}

// taskReasons judge whether the task can be learnt at all.
func taskReasons(f TrafficFacts) []Reason {
	if f.Observed < fewObserved {
		return []Reason{{"labels", true, fmt.Sprintf("only %d answers are recorded; %d are the least that says anything", f.Observed, fewObserved), NotYet}}
	}
	var out []Reason
	against := func(code string, v Verdict, format string, args ...any) {
		out = append(out, Reason{code, true, fmt.Sprintf(format, args...), v})
	}
	long := f.OutputTokens > openOutputTokens
	switch {
	case f.UnseenShare > openUnseen || long && f.UnseenShare > movingNewLately:
		against("open", DoNotFineTune, "the task is open: %s different answers in %s, and the next one is new with a "+
			"chance of %.0f %% (entropy %.1f bits); it needs broad knowledge, not a small set of answers", count(float64(f.Distinct)),
			count(float64(f.Observed)), 100*f.UnseenShare, f.EntropyBits)
		return out // the other questions presuppose a closed task
	case f.NotCopied > openUnseen:
		against("open", DoNotFineTune, "%.0f %% of the answers contain text that does not stand in the input: it is "+
			"written, not extracted", 100*f.NotCopied)
		return out
	}
	out = append(out, Reason{Code: "closed", Text: fmt.Sprintf("the answers come from a small set: %d different "+
		"ones, entropy %.1f bits, %.1f %% chance of a new one", f.Distinct, f.EntropyBits, 100*f.UnseenShare)})
	if f.SmallestClass < fewPerClass {
		against("labels", NotYet, "the rarest answer that matters has %d examples; %d are the least to learn from",
			f.SmallestClass, fewPerClass)
	}
	if f.Repeats >= minimumOfRepeats && float64(f.Contradicted) > manyContradicted*float64(f.Repeats) {
		against("contradictions", NotYet, "the same input got another answer in %d of %d repeats: clean the labels "+
			"or sharpen the categories",
			f.Contradicted, f.Repeats)
	}
	if f.NewLately > movingNewLately {
		against("taxonomy", NotYet, "the set of answers is moving: %.0f %% of the newest quarter were answered with "+
			"something not seen before", 100*f.NewLately)
	}
	if f.Trusted < certificateLabels {
		against("labels", "", "%d answers are marked as checked by a person (source: person); a certificate against the generalist's answers is "+
			"possible, one against the truth needs about %d", f.Trusted, certificateLabels)
	}
	return out
}

// moneyReasons judge whether it pays.
func moneyReasons(f TrafficFacts, a *Analysis) []Reason {
	var out []Reason
	if f.CheapModel != "" && f.Target > 0 && f.CheapAccuracy >= f.Target && a != nil {
		i := slices.IndexFunc(a.Plans, func(p Plan) bool { return p.Name == "switch to "+f.CheapModel })
		best := slices.IndexFunc(a.Plans, func(p Plan) bool { return p.Name == a.Best })
		if i >= 0 && best >= 0 && a.Plans[i].TotalUSD.P50 <= a.Plans[best].TotalUSD.P50 {
			out = append(out, Reason{"cheaper", true, fmt.Sprintf("%s already meets the target: at least %.1f %% "+
				"against %.1f %%, for %s a month in all",
				f.CheapModel, 100*f.CheapAccuracy, 100*f.Target, dollars(a.Plans[i].TotalUSD.P50)), SwitchInstead})
		}
	}
	if a == nil {
		return append(out, Reason{Code: "volume", Against: true, Text: "the volume is not known, so nobody can say " +
			"whether it pays: pass --volume"})
	}
	nothing := a.Plans[0]
	if a.Refused && len(out) > 0 && a.Best == "switch to "+f.CheapModel {
		out = append(out, Reason{"volume", true, a.Verdict, SwitchInstead}) // nothing need be trained, and something is to be done
	} else if a.Refused {
		out = append(out, Reason{"volume", true, a.Verdict, DoNotFineTune})
		if p := slices.IndexFunc(a.Plans, func(p Plan) bool { return p.Name == referencePlan }); p >= 0 {
			out = append(out, Reason{"volume", true, fmt.Sprintf("%s requests cost %s a month by the API, a rented "+
				"GPU server %s",
				count(a.Volume), dollars(nothing.MonthlyUSD), dollars(a.Plans[p].MonthlyUSD)), ""})
		}
	} else {
		out = append(out, Reason{Code: "saving", Text: a.Verdict})
	}
	if back := nothing.recipe.back; back != nil && !back.price.Shutdown.IsZero() {
		out = append(out, Reason{Code: "shutdown", Text: fmt.Sprintf("%s is shut down on %s: a specialist trained on "+
			"its answers outlives it, and they can only be recorded before", back.price.Model, back.price.Shutdown.Format(time.DateOnly))})
	}
	return out
}

// Text writes the advice for a terminal.
func (a Advice) Text() string {
	s := fmt.Sprintf("%s: %s\n\n", a.Facts.Task, a.Verdict)
	for _, r := range a.Reasons {
		sign := "+"
		if r.Against {
			sign = "-"
		}
		s += fmt.Sprintf("  %s %s\n", sign, wrap(r.Text, 94, "    "))
	}
	return s + "\nNext: " + a.Next + "\n"
}
