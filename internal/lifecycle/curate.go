package lifecycle

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"occam/internal/store"
	"occam/internal/task"
)

const (
	keyShare      = 0.10 // of all labelled rows that the labels of one key may be
	keyFloor      = 100  // labels that any key may give
	teacherLooked = 200  // newest answers among which the teacher is looked for

	goldFold = 3 // one of so many random rows that people labelled, and that do not calibrate, is locked away as gold
)

// Curated is what a task's examples may teach, calibrate and test, with what was found in them.
type Curated struct {
	Examples   []task.Example // random requests since the last alarm
	Background []task.Example // everything else that may teach
	Gold       []task.Example // random requests that people labelled, locked: they only test
	Teacher    string         // whose answers most labels are, "" where people or imports gave them
	Prompt     string         // hash of the prompt that the teacher answered
	From, To   time.Time      // of Examples
	Findings   []Finding
	Suspects   []Suspect
	Reversals  []Finding // among Findings: they keep occam from promoting by itself
	// Of requests that both the generalist and a person labelled: how often they differ.
	Judged, TeacherWrong int
	Said                 map[string]task.Output // what the present teacher answered to gold rows, by example
}

// A Finding is something about the labels that a person should know.
type Finding struct {
	Kind   string   `json:"kind"` // "contradiction", "key_cap", "illegal", "reversal", or one of the data check's
	Key    string   `json:"key,omitempty"`
	IDs    []string `json:"ids,omitempty"` // at most findingIDs
	Count  int      `json:"count"`
	Detail string   `json:"detail"`
}

const findingIDs = 20

// Sources of labels that are no model's name.
const (
	fromPerson = "person"
	fromImport = "import"
)

// voices is everything that was said about one request.
type voices struct {
	*store.Example
	teacher, person           task.Output
	teacherLabel, personLabel *store.Label
	imported, contested       bool
}

// Curate sorts a task's examples. People are believed before models, the newest label of a person before an older one. Rows
// from before since, rows that were not drawn at random and answers of an earlier teacher or prompt only teach; labels of
// barred keys are not heard.
func Curate(t *task.Task, examples []store.Example, since time.Time, barred func(key string) bool) Curated {
	c := curator{task: t, barred: barred, Curated: Curated{Said: map[string]task.Output{}}}
	for i := range examples {
		c.hear(&examples[i])
	}
	c.findTeacher()
	c.capKeys()
	for _, v := range c.all {
		c.place(v, since)
	}
	c.contradictions()
	c.Suspects = c.suspects()
	c.Reversals = c.reversals()
	c.Findings = append(c.Findings, c.Reversals...)
	return c.Curated
}

type curator struct {
	Curated
	task    *task.Task
	all     []*voices
	illegal Finding
	barred  func(string) bool
}

// hear sorts what was said about one request.
func (c *curator) hear(e *store.Example) {
	v := &voices{Example: e}
	c.all = append(c.all, v)
	for i := range e.Labels {
		l := &e.Labels[i]
		if !l.Trainable || c.barred != nil && c.barred(l.Key) {
			continue
		}
		if err := c.legal(l.Output); err != nil {
			c.illegal.Count++
			c.illegal.Kind, c.illegal.Detail = "illegal", "labels that the task's schema does not allow are left out, such as: "+err.Error()
			c.illegal.IDs = append(c.illegal.IDs[:min(len(c.illegal.IDs), findingIDs-1)], e.ID)
			continue
		}
		v.hear(l)
	}
}

func (v *voices) hear(l *store.Label) {
	switch l.Source {
	case fromPerson:
		v.contested = v.contested || v.person != nil && v.personLabel.Key != l.Key && !agrees(v.person, l.Output)
		if v.person == nil || !l.At.Before(v.personLabel.At) {
			v.person, v.personLabel = l.Output, l
		}
	case fromImport:
		v.teacher, v.imported = l.Output, true
	default:
		v.teacher, v.teacherLabel = l.Output, l
	}
}

// legal refuses unknown fields and values that the schema does not allow: a schema may have changed since.
func (c *curator) legal(labels task.Output) error {
	for name, value := range labels {
		i := slices.IndexFunc(c.task.Fields, func(f task.Field) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("there is no field %q", name)
		}
		if err := c.task.Fields[i].Check(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func agrees(a, b task.Output) bool {
	for name, value := range a {
		if other, both := b[name]; both && !other.Equal(value) {
			return false
		}
	}
	return true
}

// findTeacher takes the model and prompt that gave so many answers in a row last: what came before them was another teacher, and one
// answer in between is that of a provider which stood in. Where the newest answers have no such row, the newest of all counts.
func (c *curator) findTeacher() {
	var said []*store.Label
	for _, v := range c.all {
		if v.teacherLabel != nil {
			said = append(said, v.teacherLabel)
		}
	}
	slices.SortStableFunc(said, func(a, b *store.Label) int { return a.At.Compare(b.At) })
	said, run := said[max(0, len(said)-teacherLooked):], 0
	for i, l := range slices.Backward(said) {
		if run > 0 && (l.Source != said[i+1].Source || l.Prompt != said[i+1].Prompt) {
			run = 0
		}
		if run++; run == teacherRun || c.Teacher == "" {
			c.Teacher, c.Prompt = l.Source, l.Prompt
		}
		if run == teacherRun {
			return
		}
	}
}

// capKeys takes labels of a key beyond its share back, so that no single key can teach the model what it likes. Which ones
// stay depends on a hash, not on the time: a flood does not push honest labels out.
func (c *curator) capKeys() {
	byKey := map[string][]*voices{}
	labelled := 0
	for _, v := range c.all {
		if v.person != nil || v.teacher != nil {
			labelled++
		}
		if v.person != nil {
			byKey[v.personLabel.Key] = append(byKey[v.personLabel.Key], v)
		}
	}
	limit := max(keyFloor, int(keyShare*float64(labelled)))
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		of := byKey[key]
		if len(of) <= limit {
			continue
		}
		slices.SortFunc(of, func(a, b *voices) int { return cmp.Compare(hash64(a.ID), hash64(b.ID)) })
		for _, v := range of[limit:] {
			v.person, v.personLabel = nil, nil
		}
		c.Findings = append(c.Findings, Finding{Kind: "key_cap", Key: key, Count: len(of) - limit, Detail: fmt.Sprintf(
			"key %q gave %d labels; %d of them count, at most %.0f %% of all labelled requests or %d", key, len(of), limit, 100*keyShare, keyFloor)})
	}
}

// place decides what one request may do.
func (c *curator) place(v *voices, since time.Time) {
	if v.Text == "" { // forgotten on request
		return
	}
	e := task.Example{ID: v.ID, Text: v.Text, Labels: task.Output{}, Source: fromImport}
	maps.Copy(e.Labels, v.teacher)
	maps.Copy(e.Labels, v.person)
	uniform, current := v.Uniform || v.imported, v.imported
	if v.teacherLabel != nil {
		e.Source = v.teacherLabel.Source
		current = e.Source == c.Teacher && v.teacherLabel.Prompt == c.Prompt
	}
	if v.person != nil {
		current = current || v.Uniform
		e.Source = fromPerson
		if v.teacherLabel != nil {
			c.Judged++
			c.TeacherWrong += one(!agrees(v.teacher, v.person))
		}
	}
	recent := since.IsZero() || v.At.After(since)
	switch {
	case v.Gold, v.person != nil && v.Uniform && recent && hash64(v.ID)%goldFold == 0 && !c.calibrates(e.Text):
		c.Gold = append(c.Gold, e)
		if l := v.teacherLabel; l != nil && l.Source == c.Teacher && l.Prompt == c.Prompt {
			c.Said[e.ID] = v.teacher
		}
	case uniform && current && recent && len(e.Labels) > 0:
		c.Examples = append(c.Examples, e)
		c.span(v.At)
	default:
		c.Background = append(c.Background, e)
	}
}

// calibrates reports whether a text falls into the calibration part of the split. What people labelled there is not locked away: they
// see disputed answers first, and the rows that are left would promise more than the traffic keeps.
func (c *curator) calibrates(text string) bool {
	draw := task.Draw(splitSeed(c.task), text)
	return draw >= testShare && draw < testShare+calibrationShare
}

// splitSeed is what the examples of a task are split by, in every run the same.
func splitSeed(t *task.Task) uint64 { return hash64(t.Name) }

func (c *curator) span(at time.Time) {
	if c.From.IsZero() || at.Before(c.From) {
		c.From = at
	}
	if at.After(c.To) {
		c.To = at
	}
}

// contradictions lists requests that people labelled differently: the same request, or the same wording.
func (c *curator) contradictions() {
	var ids []string
	byText := map[string]*voices{}
	for _, v := range c.all {
		if v.contested {
			ids = append(ids, v.ID)
			continue
		}
		if v.person == nil {
			continue
		}
		key := task.NearKey(v.Text)
		if first := byText[key]; first == nil {
			byText[key] = v
		} else if c.contradict(first, v) {
			ids = append(ids, first.ID, v.ID)
		}
	}
	if len(ids) > 0 {
		c.Findings = append(c.Findings, Finding{Kind: "contradiction", Count: len(ids), IDs: ids[:min(len(ids), findingIDs)],
			Detail: fmt.Sprintf("people labelled %d requests of the same wording differently", len(ids))})
	}
	if c.illegal.Count > 0 {
		c.Findings = append(c.Findings, c.illegal)
	}
}

// contradict: the same wording with other digits has another span, and rightly so; only classified fields contradict.
func (c *curator) contradict(a, b *voices) bool {
	for _, f := range c.task.Fields {
		if f.Kind == task.Span {
			continue
		}
		x, ok := a.person[f.Name]
		y, also := b.person[f.Name]
		if ok && also && !x.Equal(y) {
			return true
		}
	}
	return false
}

func hash64(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}
