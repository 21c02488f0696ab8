package lifecycle

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"occam/internal/cost"
	"occam/internal/task"
)

// Traffic is one request that belongs to no task, with its answer.
type Traffic struct {
	At      time.Time
	Asked   string // model that the app asked for
	System  string // system prompt
	User    string // last message of the user
	Schema  []byte // of the answer, nil if the request has none
	Content string // of the answer
	Cost    cost.Amount
	Priced  bool
	Barred  bool // the provider's terms forbid training on its answers
	Plain   bool // the request asks for nothing but one text
}

const (
	maxGroups     = 200
	groupSamples  = 300
	sampleBytes   = 4 << 10
	prefixKey     = 24  // runes at which unmarked prompts are told apart
	leastGroup    = 10  // requests before a group is worth showing
	leastTemplate = 8   // bytes of literal text that make a template
	leastSaving   = 5.0 // dollars a month below which nobody should bother
)

// A finder groups traffic by answer schema, system prompt or the beginning of the prompt. Its memory is bounded: when there
// are too many groups the smallest gives way.
type finder struct {
	groups map[string]*group
}

// group is what was seen of requests that look alike.
type group struct {
	key        string
	first      Traffic
	n, unplain int
	last       time.Time
	cost       cost.Amount
	unpriced   int
	barred     bool
	samples    []sample
}

type sample struct{ user, content string }

func newFinder() *finder { return &finder{groups: map[string]*group{}} }

func (f *finder) add(t Traffic) {
	key := groupKey(&t)
	g := f.groups[key]
	if g == nil {
		if len(f.groups) >= maxGroups {
			f.evict()
		}
		g = &group{key: key, first: t}
		f.groups[key] = g
	}
	g.n++
	g.unplain += one(!t.Plain)
	g.last, g.cost = t.At, g.cost+t.Cost
	g.unpriced += one(!t.Priced)
	g.barred = g.barred || t.Barred
	s := sample{t.User[:min(len(t.User), sampleBytes)], t.Content[:min(len(t.Content), sampleBytes)]}
	if len(g.samples) < groupSamples {
		g.samples = append(g.samples, s)
	} else {
		g.samples[g.n%groupSamples] = s
	}
}

func (f *finder) evict() {
	var least *group
	for _, g := range f.groups {
		if least == nil || g.n < least.n || g.n == least.n && g.last.Before(least.last) {
			least = g
		}
	}
	delete(f.groups, least.key)
}

// groupKey is the same for requests that ask for the same job.
func groupKey(t *Traffic) string {
	switch {
	case len(t.Schema) > 0:
		return fmt.Sprintf("s%016x", hash64(string(t.Schema)+"\x00"+skeleton(t.System)))
	case t.System != "":
		return fmt.Sprintf("p%016x", hash64(skeleton(t.System)))
	}
	begin := []rune(skeleton(t.User))
	return fmt.Sprintf("u%016x", hash64(string(begin[:min(len(begin), prefixKey)])))
}

// skeleton keeps what a prompt says and drops its dates and numbers.
func skeleton(text string) string {
	mapped := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return '0'
		}
		return unicode.ToLower(r)
	}, text)
	return strings.Join(strings.Fields(mapped), " ")
}

// Verdicts on a Group.
const (
	WorthIt       = "worth it"
	NotWorthIt    = "not worth it"
	CannotTellYet = "cannot tell yet"
)

// A Group is traffic of one job that is no task yet.
type Group struct {
	ID       string       `json:"id"`
	Requests int          `json:"requests"`
	First    time.Time    `json:"first"`
	Last     time.Time    `json:"last"`
	Model    string       `json:"model"` // that the app asks for
	System   string       `json:"system,omitempty"`
	Template string       `json:"template"`         // how the varying text sits in the user's message
	Shape    string       `json:"shape"`            // "json", "label", "form", "free text"
	Format   string       `json:"format,omitempty"` // how the answer is written, "" for compact JSON
	Fields   []task.Field `json:"fields,omitempty"`
	Answers  int          `json:"answers"`      // different ones among the samples
	Entropy  float64      `json:"entropy_bits"` // of the answers
	Spent    float64      `json:"spent_usd"`
	Monthly  *float64     `json:"monthly_usd"`        // at the rate seen; null when it is not priced or too short to say
	Saving   *float64     `json:"monthly_saving_usd"` // at most, if a specialist answered everything but its audits
	Verdict  string       `json:"verdict"`            // worth it, not worth it, cannot tell yet
	Reason   string       `json:"reason"`
	More     int64        `json:"more_needed,omitempty"` // requests until it can be told
	Offered  bool         `json:"offered"`               // it can be made a task
}

// list judges every group, those that cost most first.
func (f *finder) list() []Group {
	all := make([]Group, 0, len(f.groups))
	for _, g := range f.groups {
		if g.n >= leastGroup {
			all = append(all, g.judged())
		}
	}
	slices.SortFunc(all, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Spent, a.Spent), b.Requests-a.Requests, strings.Compare(a.ID, b.ID))
	})
	return all
}

func (g *group) judged() Group {
	out := Group{ID: g.key, Requests: g.n, First: g.first.At, Last: g.last, Model: g.first.Asked, System: g.first.System,
		Template: g.template(), Spent: g.cost.USD()}
	out.Shape, out.Fields = g.shape()
	out.Answers, out.Entropy = g.variety(out.Shape, out.Fields)
	if span := g.last.Sub(g.first.At); span >= time.Hour && g.unpriced == 0 {
		monthly := out.Spent * float64(30*24*time.Hour) / float64(span)
		saving := monthly * (1 - defaultAuditShare)
		out.Monthly, out.Saving = &monthly, &saving
	}
	out.Verdict, out.Reason, out.More = g.verdict(&out)
	out.Offered = out.Shape == "json" && !g.barred
	return out
}

const defaultAuditShare = 0.01

func (g *group) verdict(out *Group) (verdict, reason string, more int64) {
	need := firstRun(task.DefaultTarget)
	switch {
	case g.barred:
		return NotWorthIt, "its provider's terms forbid training on its answers", 0
	case g.unplain*2 > g.n:
		return NotWorthIt, "most requests ask for what only a general model can give: tools, several answers or the like", 0
	case out.Shape == "free text":
		return NotWorthIt, "the answers are free text, which a specialist must not invent", 0
	case out.Shape == "label" || out.Shape == "form":
		return NotWorthIt, "a specialist answers in JSON: ask for a JSON schema with one field, then it can learn this job", 0
	case out.Answers <= 1 && g.n >= 20:
		return NotWorthIt, "the answer is always the same: no model is needed", 0
	case out.Saving != nil && *out.Saving < leastSaving:
		return NotWorthIt, fmt.Sprintf("at most $%.2f a month would be saved", *out.Saving), 0
	case int64(g.n) < need:
		return CannotTellYet, fmt.Sprintf("needs %d more requests to learn and certify from", need-int64(g.n)), need - int64(g.n)
	case out.Saving == nil:
		return CannotTellYet, "its model has no known price, or less than an hour was seen", 0
	}
	return WorthIt, fmt.Sprintf("at most $%.2f of $%.2f a month would be saved; how much, a certificate will say", *out.Saving, *out.Monthly), 0
}

// template finds the literal text around the part of the user's messages that varies.
func (g *group) template() string {
	if len(g.samples) < 2 {
		return ""
	}
	prefix, suffix := g.samples[0].user, g.samples[0].user
	for _, s := range g.samples[1:] {
		prefix = prefix[:commonPrefix(prefix, s.user)]
		suffix = suffix[len(suffix)-commonSuffix(suffix, s.user):]
	}
	prefix, suffix = toWord(prefix), fromWord(suffix)
	if len(prefix)+len(suffix) < leastTemplate || strings.Contains(prefix+suffix, "{{") {
		return "{{input}}"
	}
	return prefix + "{{input}}" + suffix
}

func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

func commonSuffix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// toWord and fromWord cut at white space, so that no word that inputs happen to share is taken for literal text.
func toWord(s string) string   { return s[:strings.LastIndexAny(s, " \n\t")+1] }
func fromWord(s string) string { return s[max(0, strings.IndexAny(s+" ", " \n\t")):] }

// shape says what the answers look like, and their fields where they are JSON.
func (g *group) shape() (string, []task.Field) {
	var examples []task.Example
	labels, forms := map[string]int{}, map[string]int{}
	for _, s := range g.samples {
		var o task.Output
		text := strings.TrimSpace(s.content)
		if json.Unmarshal([]byte(text), &o) == nil && len(o) > 0 {
			examples = append(examples, task.Example{Text: s.user, Labels: o})
		}
		if len(text) <= 60 && !strings.Contains(text, "\n") {
			labels[text]++
		}
		forms[formOf(text)]++
	}
	n := len(g.samples)
	switch {
	case len(examples)*10 >= n*9 && n > 0:
		return jsonShape(g.first.Schema, examples)
	case sum(labels)*10 >= n*9 && len(labels)*5 <= max(n, 10):
		return "label", nil
	case len(forms) == 1 && formOf(g.samples[0].content) != "":
		return "form", nil
	}
	return "free text", nil
}

func jsonShape(schema []byte, examples []task.Example) (string, []task.Field) {
	fields, err := task.ParseSchema(schema)
	if err != nil {
		fields, err = task.InferFields(examples)
	}
	if err != nil {
		return "free text", nil
	}
	for _, f := range fields {
		if f.Kind == task.Category || f.Kind == task.Boolean || f.Kind == task.Labels {
			return "json", fields
		}
	}
	for _, f := range fields { // spans only: each must really stand in its text
		for _, e := range examples {
			if !f.StandsIn(e.Labels[f.Name], e.Text) {
				return "free text", nil
			}
		}
	}
	return "json", fields
}

// formOf is the keys of "Key: value" lines, "" where a text has none.
func formOf(text string) string {
	var keys []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		key, _, ok := strings.Cut(line, ":")
		if !ok || len(key) > 40 {
			return ""
		}
		keys = append(keys, key)
	}
	return strings.Join(keys, "\n")
}

func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// variety counts the different answers among the samples, by their classified fields where they are JSON, and their entropy.
func (g *group) variety(shape string, fields []task.Field) (answers int, bits float64) {
	counts := map[string]int{}
	for _, s := range g.samples {
		counts[answerOf(s.content, shape, fields)]++
	}
	for _, c := range counts {
		p := float64(c) / float64(len(g.samples))
		bits -= p * math.Log2(p)
	}
	return len(counts), math.Abs(bits)
}

func answerOf(content, shape string, fields []task.Field) string {
	var o task.Output
	if shape != "json" || json.Unmarshal([]byte(content), &o) != nil {
		return strings.TrimSpace(content)
	}
	var text []byte
	for _, f := range fields {
		if f.Kind != task.Span {
			text = append(o[f.Name].AppendJSON(text), ',')
		}
	}
	return string(text)
}
