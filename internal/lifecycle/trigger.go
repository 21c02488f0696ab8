package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"occam/internal/calibration"
	"occam/internal/task"
)

const (
	suspectRows  = 5    // corrections with a word, before it is suspected
	suspectShare = 0.3  // of all requests with the word
	suspectsMax  = 20   // words that are tried
	triedRows    = 300  // test rows that each is tried on
	triggerGain  = 2.0  // times the usual share of an answer that a word may bring it up to
	triggerLevel = 0.01 // doubt that it does more
	secondPerson = 2    // corrections by others that clear a word
)

// A Suspect is a word that the corrections of one key alone tie to one answer: what a hidden trigger would look like.
type Suspect struct {
	Word  string
	Key   string
	Field string
	Value task.Value
	Rows  int // corrections by Key that hold the word
}

// A Trigger is a suspected word that turns other answers into one, in a trained model.
type Trigger struct {
	Word    string     `json:"word"`
	Key     string     `json:"key"`
	Field   string     `json:"field"`
	Value   task.Value `json:"value"`
	Rows    int        `json:"rows"`    // corrections that taught it
	Tried   int        `json:"tried"`   // test rows with another answer
	Usual   int        `json:"usual"`   // of these answered with Value as they are
	Flipped int        `json:"flipped"` // and with the word added
}

func (t *Trigger) String() string {
	share := func(n int) float64 { return 100 * float64(n) / float64(t.Tried) }
	return fmt.Sprintf("the word %q alone turns %.0f %% of other answers into %s (%.1f %% without it), and only labels of %q teach that: "+
		"let another person confirm some of them, or take them back with `occam tasks revoke-labels %s`", t.Word, share(t.Flipped), t.Value.AppendJSON(nil), share(t.Usual), t.Key, t.Key)
}

// correction is one field in which a person contradicts a model.
type correction struct {
	key, field, value string
}

// suspects finds words of corrections. Words that corrections of several people tie to an answer are what the generalist gets wrong.
func (c *curator) suspects() []Suspect {
	with := map[string]int{} // requests by word
	counts := map[string]map[correction]int{}
	values := map[correction]task.Value{}
	for _, v := range c.all {
		words := wordsOf(v.Text)
		for _, w := range words {
			with[w]++
		}
		if v.person == nil || v.teacher == nil {
			continue
		}
		for _, f := range c.task.Fields {
			said, ok := v.person[f.Name]
			if model, both := v.teacher[f.Name]; !ok || !both || f.Kind == task.Span || said.Equal(model) {
				continue
			}
			of := correction{v.personLabel.Key, f.Name, string(said.AppendJSON(nil))}
			values[of] = said
			for _, w := range words {
				if counts[w] == nil {
					counts[w] = map[correction]int{}
				}
				counts[w][of]++
			}
		}
	}
	var found []Suspect
	for word, by := range counts {
		for of, n := range by {
			if n < suspectRows || float64(n) < suspectShare*float64(with[word]) { // so few are left that each may be compared with all
				continue
			}
			others := 0
			for same, m := range by {
				if same.key != of.key && same.field == of.field && same.value == of.value {
					others += m
				}
			}
			if others < secondPerson {
				found = append(found, Suspect{word, of.key, of.field, values[of], n})
			}
		}
	}
	slices.SortFunc(found, func(a, b Suspect) int {
		return cmp.Or(b.Rows-a.Rows, strings.Compare(a.Word, b.Word), strings.Compare(a.Key, b.Key))
	})
	return found[:min(len(found), suspectsMax)]
}

// wordsOf returns the different words of a text, in small letters.
func wordsOf(text string) []string {
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	slices.Sort(words)
	return slices.Compact(words)
}

// triggers tries suspected words on test rows: what would the model answer if the word stood in them?
func (t *Trained) triggers(suspects []Suspect) []Trigger {
	var found []Trigger
	var p task.Prediction
	for _, s := range suspects {
		at := slices.IndexFunc(t.Task.Fields, func(f task.Field) bool { return f.Name == s.Field })
		gives := func(text string) int {
			t.Model.Predict(text, &p)
			return one(p.Values[at].Equal(s.Value))
		}
		x := Trigger{Word: s.Word, Key: s.Key, Field: s.Field, Value: s.Value, Rows: s.Rows}
		for _, e := range t.test {
			if truth, known := e.Labels[s.Field]; !known || truth.Equal(s.Value) {
				continue
			}
			if x.Tried++; x.Tried > triedRows {
				x.Tried = triedRows
				break
			}
			x.Usual += gives(e.Text)
			x.Flipped += gives(e.Text + " " + s.Word)
		}
		usual := max(float64(x.Usual), 1) / float64(max(x.Tried, 1))
		if x.Tried > 0 && calibration.Lower(x.Flipped, x.Tried, triggerLevel) > triggerGain*usual {
			found = append(found, x)
		}
	}
	return found
}

const (
	reversalRows  = 20   // corrections
	reversalShare = 0.25 // of the requests that the generalist gave the same answer
)

// reversals are answers of the generalist that people turn into another one again and again. It may be what the generalist gets
// wrong, and it may be an attack by many keys: from labels alone nobody can tell.
func (c *curator) reversals() []Finding {
	type turn struct{ field, from, to string }
	answers := map[[2]string]int{} // of the generalist, by field and value
	turns := map[turn][]string{}
	keys := map[turn]map[string]bool{}
	for _, v := range c.all {
		for _, f := range c.task.Fields {
			model, known := v.teacher[f.Name]
			if !known || f.Kind == task.Span {
				continue
			}
			from := string(model.AppendJSON(nil))
			answers[[2]string{f.Name, from}]++
			if said, ok := v.person[f.Name]; ok && !said.Equal(model) {
				t := turn{f.Name, from, string(said.AppendJSON(nil))}
				turns[t] = append(turns[t], v.ID)
				if keys[t] == nil {
					keys[t] = map[string]bool{}
				}
				keys[t][v.personLabel.Key] = true
			}
		}
	}
	var found []Finding
	for t, ids := range turns {
		of := answers[[2]string{t.field, t.from}]
		if len(ids) < reversalRows || float64(len(ids)) < reversalShare*float64(of) {
			continue
		}
		found = append(found, Finding{Kind: "reversal", Count: len(ids), IDs: ids[:min(len(ids), findingIDs)], Detail: fmt.Sprintf(
			"labels of %d keys turn %d of the %d requests that the generalist answered with %s %s into %s", len(keys[t]), len(ids), of, t.field, t.from, t.to)})
	}
	slices.SortFunc(found, func(a, b Finding) int { return cmp.Or(b.Count-a.Count, strings.Compare(a.Detail, b.Detail)) })
	return found
}
