package datacheck

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"occam/internal/task"
)

const (
	rareRows  = 8       // below this a category can neither be learned nor measured
	longText  = 100_000 // bytes; only the beginning of such a text says what it is about
	tinyRunes = 1
)

// Quick makes the checks that need no model: it reads every text once and trains nothing.
func Quick(fields []task.Field, examples []task.Example) *Report {
	r := &Report{Rows: len(examples), Findings: []Finding{}}
	r.sameIDs(examples)
	same := groupBy(len(examples), func(i int) string { return plainKey(examples[i].Text) })
	for _, f := range fields {
		r.outsideSchema(f, examples)
		r.contradictions(f, examples, same)
		r.spansNotInText(f, examples)
		r.categories(f, examples)
		r.unlabelled(f, examples)
	}
	r.unknownFields(fields, examples)
	r.duplicates(fields, examples, same)
	r.oddTexts(examples)
	r.sort()
	return r
}

var kindOrder = []Kind{OutsideSchema, SameID, OneCategory, Contradiction, SpanNotInText, LookAlikeNames, ShiftedBlock, SuspiciousLabel,
	NearConflict, Inseparable, HardPair, RareCategory, Leak, Duplicate, NearDuplicate, OddText, Unlabelled, UnknownField}

func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return slices.Index(kindOrder, a.Kind) - slices.Index(kindOrder, b.Kind)
	})
}

// groupBy returns the indices below n by their key, groups of two and more only, in order of their first index.
func groupBy(n int, key func(i int) string) [][]int {
	at := make(map[digest]int, n)
	var groups [][]int
	for i := range n {
		k := digestOf(key(i))
		g, seen := at[k]
		if !seen {
			g = len(groups)
			at[k], groups = g, append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	return slices.DeleteFunc(groups, func(g []int) bool { return len(g) < 2 })
}

// plainKey maps texts that differ only in case, punctuation, spaces and invisible characters to one string. Unlike
// task.NearKey it keeps digits: "order 17" and "order 18" are two texts. A text of signs only is its own key.
func plainKey(text string) string {
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(text) {
		switch {
		case unicode.Is(unicode.Cf, r): // marks of direction and joining
			continue
		case !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r):
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			b.WriteByte(' ')
		}
		gap = false
		b.WriteRune(r)
	}
	if b.Len() == 0 {
		return "\x00" + text
	}
	return b.String()
}

func (r *Report) sameIDs(examples []task.Example) {
	f := Finding{Kind: SameID, Severity: Error, Why: "Rows share an ID, so a correction or an audit could hit the wrong one.",
		Do: "Give every row its own ID, or leave out the column."}
	for _, g := range groupBy(len(examples), func(i int) string {
		if examples[i].ID == "" {
			return fmt.Sprintf("\x00%d", i)
		}
		return examples[i].ID
	}) {
		f.Rows += len(g)
		f.Groups = append(f.Groups, Group{Rows: rowsOf(examples, g)})
	}
	r.add(f)
}

func rowsOf(examples []task.Example, indices []int) []Row {
	rows := make([]Row, len(indices))
	for k, i := range indices {
		rows[k] = rowOf(examples, i)
	}
	return rows
}

func (r *Report) outsideSchema(f task.Field, examples []task.Example) {
	found := Finding{Kind: OutsideSchema, Field: f.Name, Severity: Error, Why: "Labels are not among those that the schema allows.",
		Do: "Correct the rows, or add the values to the schema."}
	for i := range examples {
		v := examples[i].Labels[f.Name]
		if !f.Labelled(examples[i].Labels) || f.Check(v) == nil {
			continue
		}
		found.Rows++
		found.Groups = append(found.Groups, Group{Rows: []Row{labelledRow(examples, i, f.Name)}, Note: f.Check(v).Error()})
	}
	r.add(found)
}

// unknownFields finds labels whose name is no field's: meant for another task, or misspelt.
func (r *Report) unknownFields(fields []task.Field, examples []task.Example) {
	rows := map[string][]Row{}
	for i := range examples {
		for name := range examples[i].Labels {
			if !slices.ContainsFunc(fields, func(f task.Field) bool { return f.Name == name }) {
				rows[name] = append(rows[name], labelledRow(examples, i, name))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r.add(Finding{Kind: UnknownField, Field: name, Severity: Note, Rows: len(rows[name]),
			Why: "Labels stand under a name that the schema lacks. Nothing learns from them.",
			Do:  "Nothing if they are meant for another task; if the name is misspelt, correct it.", Groups: []Group{{Rows: rows[name]}}})
	}
}

// usable reports whether an example has a label of the field that the schema allows.
func usable(f task.Field, e *task.Example) bool {
	return f.Labelled(e.Labels) && f.Check(e.Labels[f.Name]) == nil
}

func valueKey(v task.Value) string { return string(v.AppendJSON(nil)) }

func (r *Report) contradictions(f task.Field, examples []task.Example, same [][]int) {
	found := Finding{Kind: Contradiction, Field: f.Name, Severity: Warning,
		Why: "The same text has different labels. Whatever a model answers, it is wrong for some of these rows.",
		Do:  "Decide which label is right and correct the others; if both can be right, the text alone does not decide, and a field or a category is missing."}
	for _, g := range same {
		rows := labelledIn(f, examples, g)
		if !disagree(f, examples, rows) {
			continue
		}
		group := Group{Note: tally(f, examples, rows)}
		for _, i := range rows {
			group.Rows = append(group.Rows, labelledRow(examples, i, f.Name))
		}
		found.Rows += len(rows)
		found.Groups = append(found.Groups, group)
	}
	r.add(found)
}

func labelledIn(f task.Field, examples []task.Example, rows []int) []int {
	var kept []int
	for _, i := range rows {
		if usable(f, &examples[i]) {
			kept = append(kept, i)
		}
	}
	return kept
}

// disagree reports whether the rows have different labels. Spans are compared in their canonical form.
func disagree(f task.Field, examples []task.Example, rows []int) bool {
	for _, i := range rows[min(1, len(rows)):] {
		if labelKey(f, &examples[i]) != labelKey(f, &examples[rows[0]]) {
			return true
		}
	}
	return false
}

func labelKey(f task.Field, e *task.Example) string {
	v := e.Labels[f.Name]
	if f.Kind == task.Span && v.IsString() {
		return "=" + plainKey(task.NormalizeSpan(f.Normalize, v.Text(), nil))
	}
	return valueKey(v)
}

// tally lists the labels of some rows with their counts, commonest first.
func tally(f task.Field, examples []task.Example, rows []int) string {
	counts := map[string]int{}
	for _, i := range rows {
		counts[valueKey(examples[i].Labels[f.Name])]++
	}
	var parts []string
	for _, v := range byCount(counts) {
		parts = append(parts, fmt.Sprintf("%s ×%d", v, counts[v]))
	}
	return strings.Join(parts, ", ")
}

// byCount returns the keys, commonest first, then by name.
func byCount(counts map[string]int) []string {
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
	return keys
}

func (r *Report) spansNotInText(f task.Field, examples []task.Example) {
	if f.Kind != task.Span {
		return
	}
	found := Finding{Kind: SpanNotInText, Field: f.Name, Severity: Warning,
		Why: "The value to extract does not stand in its text. Training leaves such a label out; nothing is guessed in its place.",
		Do:  "Correct the value to what the text says, or set it to null; if it is written another way, set the field's normalisation."}
	for i := range examples {
		if v := examples[i].Labels[f.Name]; usable(f, &examples[i]) && v.IsString() && !f.StandsIn(v, examples[i].Text) {
			found.Rows++
			found.Groups = append(found.Groups, Group{Rows: []Row{labelledRow(examples, i, f.Name)}})
		}
	}
	r.add(found)
}

// categories checks the names and the counts of a field's values.
func (r *Report) categories(f task.Field, examples []task.Example) {
	counts, rows := valueCounts(f, examples)
	if len(counts) == 1 && f.Kind != task.Span && len(examples) > 1 {
		name, err := strconv.Unquote(byCount(counts)[0])
		if err != nil { // true, false or a set
			name = byCount(counts)[0]
		}
		r.add(Finding{Kind: OneCategory, Field: f.Name, Severity: Warning, Rows: rows,
			Why: fmt.Sprintf("Every label of this field is %s: there is nothing to tell apart.", byCount(counts)[0]),
			Do:  "Add rows with other labels, or drop the field.", Groups: []Group{{Values: []string{name}}}})
	}
	if f.Kind != task.Category && f.Kind != task.Labels {
		return
	}
	members := memberRows(f, examples)
	r.lookAlikes(f, members)
	r.rare(f, examples, members)
}

// valueCounts counts the usable labels of a field.
func valueCounts(f task.Field, examples []task.Example) (counts map[string]int, rows int) {
	counts = map[string]int{}
	for i := range examples {
		if usable(f, &examples[i]) {
			counts[valueKey(examples[i].Labels[f.Name])]++
			rows++
		}
	}
	return counts, rows
}

// memberRows lists the rows of every category of the schema.
func memberRows(f task.Field, examples []task.Example) map[string][]int {
	members := make(map[string][]int, len(f.Values))
	for i := range examples {
		if !usable(f, &examples[i]) {
			continue
		}
		switch v := examples[i].Labels[f.Name]; {
		case v.IsSet():
			for _, m := range v.Members() {
				members[m] = append(members[m], i)
			}
		case v.IsString():
			members[v.Text()] = append(members[v.Text()], i)
		}
	}
	return members
}

func (r *Report) lookAlikes(f task.Field, members map[string][]int) {
	found := Finding{Kind: LookAlikeNames, Field: f.Name, Severity: Warning,
		Why: "Categories have the same name but for case, spaces or invisible characters. A model would have to tell them apart.",
		Do:  "Keep one spelling and rename the rows of the others."}
	for _, g := range groupBy(len(f.Values), func(i int) string { return nameKey(f.Values[i]) }) {
		var group Group
		var parts []string
		for _, i := range g {
			v := f.Values[i]
			group.Values = append(group.Values, v)
			parts = append(parts, fmt.Sprintf("%+q ×%d", v, len(members[v])))
			found.Rows += len(members[v])
		}
		group.Note = strings.Join(parts, ", ")
		found.Groups = append(found.Groups, group)
	}
	r.add(found)
}

// nameKey maps names that a reader would take for one to one string.
func nameKey(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

func (r *Report) rare(f task.Field, examples []task.Example, members map[string][]int) {
	found := Finding{Kind: RareCategory, Field: f.Name, Severity: Warning,
		Why: fmt.Sprintf("Categories have fewer than %d rows: too few to learn, and too few to measure.", rareRows),
		Do:  "Label more of them, join them with a neighbour, or leave them to the generalist."}
	for _, v := range f.Values {
		if rows := members[v]; len(rows) < rareRows {
			found.Rows += len(rows)
			found.Groups = append(found.Groups, Group{Values: []string{v}, Rows: rowsOf(examples, rows), Note: plural(len(rows), "row")})
		}
	}
	slices.SortStableFunc(found.Groups, func(a, b Group) int { return len(a.Rows) - len(b.Rows) })
	r.add(found)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (r *Report) unlabelled(f task.Field, examples []task.Example) {
	var missing []int
	for i := range examples {
		if !f.Labelled(examples[i].Labels) {
			missing = append(missing, i)
		}
	}
	if len(missing) > 0 {
		r.add(Finding{Kind: Unlabelled, Field: f.Name, Severity: Note, Rows: len(missing),
			Why: "Rows have no label of this field. They widen the vocabulary and teach nothing else.",
			Do:  "Label them if they are few; otherwise nothing.", Groups: []Group{{Rows: rowsOf(examples, missing)}}})
	}
}

// duplicates lists the rows that repeat another's text and all its labels.
func (r *Report) duplicates(fields []task.Field, examples []task.Example, same [][]int) {
	found := Finding{Kind: Duplicate, Severity: Note, Why: "Rows repeat a text and its labels. Training keeps exact copies once.",
		Do: "Nothing, unless copies stand in the test file too; a flood of copies often means an export ran twice."}
	for _, g := range same {
		groups := groupBy(len(g), func(k int) string {
			var key strings.Builder
			for _, f := range fields {
				key.WriteString(labelKey(f, &examples[g[k]]))
				key.WriteByte(0)
			}
			return key.String()
		})
		for _, copies := range groups {
			group := Group{}
			for _, k := range copies {
				group.Rows = append(group.Rows, rowOf(examples, g[k]))
			}
			found.Rows += len(copies) - 1
			found.Groups = append(found.Groups, group)
		}
	}
	slices.SortStableFunc(found.Groups, func(a, b Group) int { return len(b.Rows) - len(a.Rows) })
	r.add(found)
}

func (r *Report) oddTexts(examples []task.Example) {
	reasons := []string{
		"control characters", "marks that change the direction of writing",
		"a single character", fmt.Sprintf("longer than %d kB", longText/1000),
	}
	rows := make([][]int, len(reasons))
	for i := range examples {
		text := examples[i].Text
		odd := []bool{strings.ContainsFunc(text, isControl), strings.ContainsFunc(text, isDirection),
			utf8.RuneCountInString(text) <= tinyRunes, len(text) > longText}
		for k := range odd {
			if odd[k] {
				rows[k] = append(rows[k], i)
			}
		}
	}
	found := Finding{Kind: OddText, Severity: Note, Why: "Texts look as if something went wrong on the way here. They are used as they are.",
		Do: "Look at a few: a broken export, a wrong encoding or a pasted log can often be mended at the source."}
	for k, reason := range reasons {
		if len(rows[k]) > 0 {
			found.Rows += len(rows[k])
			found.Groups = append(found.Groups, Group{Rows: rowsOf(examples, rows[k]), Note: reason})
		}
	}
	r.add(found)
}

func isControl(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' }

// isDirection: the bidirectional controls of Unicode, which can make a text read other than it is stored.
func isDirection(r rune) bool {
	return r == '\u061c' || r == '\u200e' || r == '\u200f' || (r >= '\u202a' && r <= '\u202e') || (r >= '\u2066' && r <= '\u2069')
}
