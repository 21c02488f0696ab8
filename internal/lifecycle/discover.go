package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/task"
)

// Traffic is one request that belongs to no task, with its answer.
type Traffic struct {
	RequestID string `json:",omitempty"`

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
	groupBytes    = 192 << 10 // of samples that a group keeps
	sampleBytes   = 4 << 10
	markerBytes   = 64 << 10 // of system prompt and schema, beyond which traffic is not looked at
	leastGroup    = 10       // requests before a group is worth showing, or keeping
	leastTemplate = 8        // bytes of literal text that make a template
	leastMarker   = 16       // bytes of it that alone mark a task's requests
	leastSaving   = 5.0      // dollars a month below which nobody should bother
)

// A finder groups traffic by answer schema, system prompt or the beginning of the prompt. Its memory is bounded: when there
// are too many groups the smallest gives way.
type finder struct {
	groups map[string]*group
	redact func(string) string // of what is kept; nil: as it is
}

// group is what was seen of requests that look alike: all that is known, and what of it is not in the store yet.
type group struct {
	key   string
	known sighting
	fresh sighting
}

// A sighting is what was seen of a group. It is stored whole, so that discovery goes on after a restart and over replicas.
type sighting struct {
	First    Traffic     `json:"first"`
	N        int         `json:"n"`
	Unplain  int         `json:"unplain,omitempty"`
	Last     time.Time   `json:"last"`
	Cost     cost.Amount `json:"cost"`
	Unpriced int         `json:"unpriced,omitempty"`
	Barred   bool        `json:"barred,omitempty"`
	Samples  []exchange  `json:"samples"` // the newest
}

type exchange struct {
	At      time.Time `json:"at,omitzero"`
	Request string    `json:"request,omitempty"` // whose it was, so that it can be forgotten
	User    string    `json:"user"`
	Content string    `json:"content"`
}

func newFinder(redact func(string) string) *finder {
	return &finder{groups: map[string]*group{}, redact: redact}
}

func (f *finder) add(t Traffic) {
	if len(t.System)+len(t.Schema) > markerBytes {
		return
	}
	g := f.group(groupKey(&t))
	long := len(t.User) > store.MaxText || len(t.Content) > store.MaxText // could be no example, and redaction would hold up the loop
	switch {
	case f.redact == nil:
	case g.known.N > 0:
		t.System = g.known.First.System
	default:
		t.System = f.redact(t.System)
	}
	if f.redact != nil && !long {
		t.User, t.Content = f.redact(t.User), f.redact(t.Content)
	}
	one := sightingOf(t)
	if long {
		one.Samples = nil
	}
	g.known.merge(one)
	g.fresh.merge(one)
}

func (f *finder) group(key string) *group {
	g := f.groups[key]
	if g == nil {
		if len(f.groups) >= maxGroups {
			f.evict()
		}
		g = &group{key: key}
		f.groups[key] = g
	}
	return g
}

func sightingOf(t Traffic) sighting {
	s := sighting{N: 1, Unplain: one(!t.Plain), Last: t.At, Cost: t.Cost, Unpriced: one(!t.Priced), Barred: t.Barred,
		Samples: []exchange{{t.At, t.RequestID, cut(t.User), cut(t.Content)}}}
	s.First = Traffic{At: t.At, Asked: t.Asked, System: t.System, Schema: t.Schema}
	return s
}

// cut bounds a sample's text: its middle gives way, because a template has two ends.
func cut(text string) string {
	if len(text) > sampleBytes {
		text = text[:sampleBytes/2] + " … " + text[len(text)-sampleBytes/2:]
	}
	return strings.ToValidUTF8(text, "")
}

// merge adds what was seen later, or elsewhere.
func (s *sighting) merge(o sighting) {
	if s.N == 0 || o.N > 0 && o.First.At.Before(s.First.At) {
		s.First = o.First
	}
	if o.Last.After(s.Last) {
		s.Last = o.Last
	}
	s.N, s.Unplain, s.Cost, s.Unpriced, s.Barred = s.N+o.N, s.Unplain+o.Unplain, s.Cost+o.Cost, s.Unpriced+o.Unpriced, s.Barred || o.Barred
	s.Samples = append(s.Samples, o.Samples...)
	room := groupBytes
	for i := len(s.Samples) - 1; i >= 0; i-- {
		if room -= len(s.Samples[i].User) + len(s.Samples[i].Content) + 32; room < 0 {
			s.Samples = slices.Clone(s.Samples[i+1:])
			return
		}
	}
}

// forget removes the samples of some requests and returns whose there were.
func (s *sighting) forget(requests []string) (found []string) {
	s.Samples = slices.DeleteFunc(slices.Clone(s.Samples), func(x exchange) bool {
		gone := x.Request != "" && slices.Contains(requests, x.Request)
		if gone {
			found = append(found, x.Request)
		}
		return gone
	})
	return found
}

func (f *finder) evict() {
	var least *group
	for _, g := range f.groups {
		if least == nil || g.known.N < least.known.N || g.known.N == least.known.N && g.known.Last.Before(least.known.Last) {
			least = g
		}
	}
	delete(f.groups, least.key)
}

// expire removes the samples from before a time.
func (s *sighting) expire(before time.Time) (gone int) {
	had := len(s.Samples)
	s.Samples = slices.DeleteFunc(slices.Clone(s.Samples), func(x exchange) bool { return x.At.Before(before) })
	return had - len(s.Samples)
}

// groupKey is the same for requests that ask for the same job.
func groupKey(t *Traffic) string {
	switch {
	case len(t.Schema) > 0:
		return fmt.Sprintf("s%016x", hash64(string(t.Schema)+"\x00"+task.Outline(t.System)))
	case t.System != "":
		return fmt.Sprintf("p%016x", hash64(task.Outline(t.System)))
	}
	return fmt.Sprintf("u%016x", hash64(firstWords(task.Outline(t.User))))
}

// firstWords are what unmarked prompts are told apart by: two words, or one that ends in a colon.
func firstWords(text string) string {
	first, rest, _ := strings.Cut(text, " ")
	if strings.HasSuffix(first, ":") {
		return first
	}
	second, _, _ := strings.Cut(rest, " ")
	return first + " " + second
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
		if g.known.N >= leastGroup {
			all = append(all, g.known.judged(g.key))
		}
	}
	slices.SortFunc(all, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Spent, a.Spent), b.Requests-a.Requests, strings.Compare(a.ID, b.ID))
	})
	return all
}

func (s *sighting) judged(key string) Group {
	out := Group{ID: key, Requests: s.N, First: s.First.At, Last: s.Last, Model: s.First.Asked, System: s.First.System,
		Template: s.template(), Spent: s.Cost.USD()}
	found := s.shape()
	out.Shape, out.Format, out.Fields = found.name, found.format, found.fields
	out.Answers, out.Entropy = s.variety(found)
	if span := s.Last.Sub(s.First.At); span >= time.Hour && s.Unpriced == 0 {
		monthly := out.Spent * float64(30*24*time.Hour) / float64(span)
		saving := monthly * (1 - defaultAuditShare)
		out.Monthly, out.Saving = &monthly, &saving
	}
	obstacle := s.obstacle(&out)
	out.Offered = obstacle == ""
	out.Verdict, out.Reason, out.More = s.verdict(&out, obstacle)
	return out
}

const defaultAuditShare = 0.01

// obstacle says why a group can be no task whatever it costs, "" when it can.
func (s *sighting) obstacle(out *Group) string {
	switch {
	case s.Barred:
		return "its provider's terms forbid training on its answers"
	case s.Unplain*2 > s.N:
		return "most requests ask for what only a general model can give: tools, several answers or the like"
	case out.Shape == freeText:
		return "the answers are free text, which a specialist must not invent"
	case len(s.First.Schema) == 0 && s.First.System == "" && len(out.Template)-len(wholeMessage) < leastMarker:
		return "its requests have no schema, no system prompt and no words in common that they could be recognised by: give them one of these"
	}
	return ""
}

func (s *sighting) verdict(out *Group, obstacle string) (verdict, reason string, more int64) {
	need := firstRun(task.DefaultTarget)
	switch {
	case obstacle != "":
		return NotWorthIt, obstacle, 0
	case out.Answers <= 1 && s.N >= 20:
		return NotWorthIt, "the answer is always the same: no model is needed", 0
	case out.Saving != nil && *out.Saving < leastSaving:
		return NotWorthIt, fmt.Sprintf("at most $%.2f a month would be saved", *out.Saving), 0
	case int64(s.N) < need:
		return CannotTellYet, fmt.Sprintf("needs %d more requests to learn and certify from", need-int64(s.N)), need - int64(s.N)
	case out.Saving == nil:
		return CannotTellYet, "its model has no known price, or less than an hour was seen", 0
	}
	return WorthIt, fmt.Sprintf("at most $%.2f of $%.2f a month would be saved; how much, a certificate will say", *out.Saving, *out.Monthly), 0
}

// wholeMessage is the template of messages without literal text.
const wholeMessage = "{{input}}"

// template finds the literal text around the part of the user's messages that varies.
func (s *sighting) template() string {
	if len(s.Samples) < 2 {
		return ""
	}
	prefix, suffix := s.Samples[0].User, s.Samples[0].User
	for _, x := range s.Samples[1:] {
		prefix = prefix[:commonPrefix(prefix, x.User)]
		suffix = suffix[len(suffix)-commonSuffix(suffix, x.User):]
	}
	prefix, suffix = toWord(prefix), fromWord(suffix)
	if len(prefix)+len(suffix) < leastTemplate || strings.Contains(prefix+suffix, "{{") {
		return wholeMessage
	}
	return prefix + wholeMessage + suffix
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
