package datacheck

import (
	"context"
	"fmt"
	"runtime"

	"occam/internal/specialist"
	"occam/internal/task"
)

// Options steer a check. The zero value is usable.
type Options struct {
	Seed      uint64                              // of the folds
	Workers   int                                 // goroutines; 0 for one per CPU. The result does not depend on it
	Progress  func(stage string, done, total int) // may be nil
	Reference []task.Example                      // rows that must not be trained on, such as a test file: checked for leaks only
}

const (
	minModelled = 40   // usable rows below which a model's opinion is worth nothing
	manyRows    = 2000 // rows from which three folds teach nearly as much as five
)

// Check makes every check: those of Quick, the search for near-duplicates, and those that ask a model that did not see the row.
// Its cost is that of one specialist.CrossFit, of five folds, or of three where there are many rows.
func Check(ctx context.Context, fields []task.Field, examples []task.Example, opt Options) (*Report, error) {
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	if opt.Progress == nil {
		opt.Progress = func(string, int, int) {}
	}
	r := Quick(fields, examples)
	r.Reference = len(opt.Reference)
	opt.Progress("near texts", 0, 1)
	near, err := findNear(ctx, textsOf(examples, opt.Reference), opt.Workers)
	if err != nil {
		return nil, err
	}
	opt.Progress("near texts", 1, 1)
	r.nearDuplicates(fields, examples, opt.Reference, near)
	asked := r.ask(fields, examples)
	predictions, err := crossFit(ctx, pick(fields, asked), examples, opt)
	if err != nil {
		return nil, err
	}
	for k, f := range asked {
		r.compare(fields[f], k, examples, near, predictions)
	}
	r.sort()
	return r, nil
}

// Judge is what Check adds to Quick, for rows whose predictions are at hand: each by a model that did not see the row, with a value
// for every field. It trains nothing.
func Judge(ctx context.Context, fields []task.Field, examples []task.Example, predictions []task.Prediction, opt Options) (*Report, error) {
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	near, err := findNear(ctx, textsOf(examples), opt.Workers)
	if err != nil {
		return nil, err
	}
	r := &Report{Rows: len(examples)}
	r.nearDuplicates(fields, examples, nil, near)
	for _, f := range r.ask(fields, examples) {
		r.compare(fields[f], f, examples, near, predictions)
	}
	r.sort()
	return r, nil
}

// compare makes the checks that set a field's labels against the predictions, in which it has the number at.
func (r *Report) compare(f task.Field, at int, examples []task.Example, near *nearIndex, predictions []task.Prediction) {
	o := newOpinions(f, examples, near)
	o.listen(predictions, at)
	r.blocks(o)
	r.suspicious(o)
	r.pairs(o)
	r.Ceilings = append(r.Ceilings, r.ceiling(o))
}

func pick(fields []task.Field, numbers []int) (picked []task.Field) {
	for _, f := range numbers {
		picked = append(picked, fields[f])
	}
	return picked
}

func textsOf(parts ...[]task.Example) []string {
	var texts []string
	for _, part := range parts {
		for i := range part {
			texts = append(texts, part[i].Text)
		}
	}
	return texts
}

// ask returns the numbers of the fields that have something to tell apart, and notes the others.
func (r *Report) ask(fields []task.Field, examples []task.Example) (asked []int) {
	for number, f := range fields {
		counts, rows := valueCounts(f, examples)
		switch {
		case rows < minModelled:
			r.Skipped = append(r.Skipped, fmt.Sprintf("field %q has %s with a label: suspicious labels, blocks and pairs need at least %d", f.Name, plural(rows, "row"), minModelled))
		case len(counts) < 2:
			r.Skipped = append(r.Skipped, fmt.Sprintf("field %q has one answer only: there is nothing that a model could doubt", f.Name))
		default:
			asked = append(asked, number)
		}
	}
	return asked
}

// crossFit asks the specialist about every row, out of fold.
func crossFit(ctx context.Context, asked []task.Field, examples []task.Example, opt Options) ([]task.Prediction, error) {
	if len(asked) == 0 {
		return nil, nil
	}
	folds := 5
	if len(examples) >= manyRows {
		folds = 3
	}
	predictions, err := specialist.CrossFit(ctx, asked, learnable(asked, examples), folds, specialist.Options{
		Seed: opt.Seed, Workers: opt.Workers, Progress: func(done, total int) { opt.Progress("cross-fit", done, total) },
	})
	if err != nil {
		return nil, fmt.Errorf("datacheck: %w", err)
	}
	return predictions, nil
}

// learnable returns the examples without the labels that the specialist would refuse, or must not be taught.
func learnable(fields []task.Field, examples []task.Example) []task.Example {
	clean := make([]task.Example, len(examples))
	for i := range examples {
		clean[i] = task.Example{ID: examples[i].ID, Text: examples[i].Text, Line: examples[i].Line, Labels: task.Output{}}
		for _, f := range fields {
			if usable(f, &examples[i]) {
				clean[i].Labels[f.Name] = examples[i].Labels[f.Name]
			}
		}
	}
	return clean
}

// nearDuplicates lists texts that differ by a few words: among the examples, and between them and the reference.
func (r *Report) nearDuplicates(fields []task.Field, examples, reference []task.Example, near *nearIndex) {
	r.leaks(examples, reference, near)
	clusters := near.clusters(len(examples))
	same := Finding{Kind: NearDuplicate, Severity: Note, Why: "Texts differ by digits, punctuation or a few words. A random split would put them on both sides and flatter the model.",
		Do: "Nothing, for occam keeps texts of the same words on one side of its splits; for a test file of your own, keep them together."}
	for _, c := range clusters {
		if copies(examples, c.rows) {
			continue
		}
		same.Rows += len(c.rows) - 1
		same.Groups = append(same.Groups, Group{Rows: rowsOf(examples, c.rows), Score: c.least})
	}
	r.add(same)
	for _, f := range fields {
		if f.Kind == task.Span {
			continue // other words, other spans
		}
		found := Finding{Kind: NearConflict, Field: f.Name, Severity: Warning,
			Why: "Texts that differ by a few words have different labels. Either the words matter, or one label is wrong.",
			Do:  "Read them side by side, and correct the labels that do not follow from the words."}
		for _, c := range clusters {
			rows := labelledIn(f, examples, c.rows)
			if !disagree(f, examples, rows) || copies(examples, rows) {
				continue // the same text with different labels is a contradiction already
			}
			group := Group{Note: tally(f, examples, rows), Score: c.least}
			for _, i := range rows {
				group.Rows = append(group.Rows, labelledRow(examples, i, f.Name))
			}
			found.Rows += len(rows)
			found.Groups = append(found.Groups, group)
		}
		sortByScore(found.Groups)
		r.add(found)
	}
}

// copies reports whether the rows all have the same text.
func copies(examples []task.Example, rows []int) bool {
	for _, i := range rows {
		if plainKey(examples[i].Text) != plainKey(examples[rows[0]].Text) {
			return false
		}
	}
	return true
}

func (r *Report) leaks(examples, reference []task.Example, near *nearIndex) {
	n := int32(len(examples))
	found := Finding{Kind: Leak, Severity: Warning, Why: "Rows stand in the reference too, or differ from one of its rows by a few words. What is measured there flatters a model trained on these.",
		Do: "Take them out of the training data, or say with the measurement how many there are."}
	for w := range near.wordings {
		rows := near.wordings[w].rows
		for _, row := range rows {
			if row < n {
				continue
			}
			match, score := near.firstBelow(int32(w), n)
			if match < 0 {
				continue
			}
			other := rowOf(reference, int(row-n))
			other.Reference = true
			found.Groups = append(found.Groups, Group{Rows: []Row{rowOf(examples, int(match)), other}, Score: float64(score)})
		}
	}
	concerned := map[int]bool{}
	for _, g := range found.Groups {
		concerned[g.Rows[0].Index] = true
	}
	found.Rows = len(concerned)
	sortByScore(found.Groups)
	r.add(found)
}
