package specialist

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"occam/internal/task"
)

// TestSpansInCanonicalForm learns ISO dates and amounts from texts that write them otherwise, and guesses at none that can be read in
// two ways: those come out as written, which the field's check refuses, so that no cascade serves them.
func TestSpansInCanonicalForm(t *testing.T) {
	fields := []task.Field{{Name: "bought", Kind: task.Span, Nullable: true, Normalize: "date"}, {Name: "paid", Kind: task.Span, Nullable: true, Normalize: "amount"}}
	rng := rand.New(rand.NewPCG(3, 9))
	var examples []task.Example
	for i := range 300 {
		y, m, d := 2020+rng.IntN(7), 1+rng.IntN(12), 13+rng.IntN(15)
		whole, cents := 1+rng.IntN(900), 1+rng.IntN(9)
		labels := task.Output{"bought": task.Null, "paid": task.Null}
		parts := []string{fmt.Sprintf("hello, reference %d.", rng.IntN(100000))}
		if rng.IntN(4) > 0 {
			parts = append(parts, "I bought it on "+[]string{fmt.Sprintf("%02d.%02d.%d", d, m, y), fmt.Sprintf("%02d/%02d/%d", m, d, y), fmt.Sprintf("%d-%02d-%02d", y, m, d)}[i%3]+" in a shop.")
			labels["bought"] = task.String(fmt.Sprintf("%d-%02d-%02d", y, m, d))
		}
		if rng.IntN(4) > 0 {
			parts = append(parts, "I paid "+[]string{fmt.Sprintf("EUR %d,%d0", whole, cents), fmt.Sprintf("%d.%d EUR", whole, cents), fmt.Sprintf("%d,%d0 €", whole, cents)}[i%3]+" for it.")
			labels["paid"] = task.String(fmt.Sprintf("%d.%d EUR", whole, cents))
		}
		rng.Shuffle(len(parts), func(a, b int) { parts[a], parts[b] = parts[b], parts[a] })
		examples = append(examples, task.Example{Text: strings.Join(parts, " "), Labels: labels})
	}
	m := train(t, fields, examples[:200], Options{Warn: func(w Warning) { t.Errorf("warning: %+v", w) }})
	wrong := [2]int{}
	var p task.Prediction
	for _, e := range examples[200:] {
		m.Predict(e.Text, &p)
		for f := range fields {
			if !p.Values[f].Equal(e.Labels[fields[f].Name]) {
				wrong[f]++
				t.Logf("%s of %q: %s", fields[f].Name, e.Text, p.Values[f].AppendJSON(nil))
			} else if err := fields[f].Check(p.Values[f]); err != nil || !fields[f].StandsIn(p.Values[f], e.Text) {
				t.Errorf("%s: %v", p.Values[f].AppendJSON(nil), err)
			}
		}
	}
	if wrong[0] > 3 || wrong[1] > 3 {
		t.Errorf("wrong of 100: %v", wrong)
	}
	if m.Predict("hello, reference 3. I bought it on 03/04/2024 in a shop.", &p); p.Values[0].Text() != "2024-03-04" {
		t.Errorf("the labels put the month before a stroke first: %s", p.Values[0].AppendJSON(nil))
	}
	m.Predict("hello, reference 3. I bought it on 03-04-2024 in a shop. I paid EUR 1,234 for it.", &p)
	for f := range fields {
		if p.Values[f].IsNull() || fields[f].Check(p.Values[f]) == nil {
			t.Errorf("%s may be served: %s", fields[f].Name, p.Values[f].AppendJSON(nil))
		}
	}
}

// A locale is how some texts write dates and amounts. Nothing of it is known to the product.
type locale struct {
	text     string // with %[1]s for the date, %[2]s for the amount and %[3]d for a number that is neither
	date     func(d time.Time) string
	amount   func(whole, cents int) string
	currency string
	zero     bool // the currency has no smaller unit
}

var locales = map[string]locale{
	"American": {"I bought item %[3]d on %[1]s and paid %[2]s for it.", func(d time.Time) string { return d.Format("01/02/2006") },
		func(w, c int) string { return fmt.Sprintf("$%s.%02d", grouped(w, ","), c) }, "USD", false},
	"English": {"Order %[3]d of %[1]s: you took %[2]s from my card.", func(d time.Time) string { return d.Format("2 January 2006") },
		func(w, c int) string { return fmt.Sprintf("£%s.%02d", grouped(w, ","), c) }, "GBP", false},
	"German": {"Artikel %[3]d, gekauft am %[1]s für %[2]s, ist kaputt.", func(d time.Time) string { return d.Format("2.1.2006") },
		func(w, c int) string { return fmt.Sprintf("%s,%02d €", grouped(w, "."), c) }, "EUR", false},
	"German, in words": {"Ich zahlte %[2]s am %[1]s, Beleg %[3]d.", func(d time.Time) string {
		return fmt.Sprintf("%d. %s %d", d.Day(), []string{"Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"}[d.Month()-1], d.Year())
	}, func(w, c int) string { return fmt.Sprintf("%d,%02d Euro", w, c) }, "EUR", false},
	"Japanese": {"注文番号%[3]dの商品を%[1]sに買い、代金%[2]sを払いました。", func(d time.Time) string { return d.Format("2006年1月2日") },
		func(w, c int) string { return grouped(w*100+c, ",") + "円" }, "JPY", true},
	"Arabic": {"اشتريت الطلب %[3]d بتاريخ %[1]s ودفعت %[2]s ثمنا له.", func(d time.Time) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r - '0' + '٠'
			}
			return r
		}, d.Format("02/01/2006"))
	}, func(w, c int) string { return fmt.Sprintf("%d.%02d AED", w, c) }, "AED", false},
}

// grouped writes n in threes.
func grouped(n int, mark string) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s%s%03d", grouped(n/1000, mark), mark, n%1000)
}

// TestDatesAndAmountsOfManyLocales: what "$", a month's name or "03/04" mean in a field is learned from its labels, in any language and by one
// way through the code.
func TestDatesAndAmountsOfManyLocales(t *testing.T) {
	fields, err := task.ParseSchema([]byte(`{"type":"object","properties":{"bought":{"type":["string","null"],"format":"date"},"paid":{"type":["string","null"],"x-occam-normalize":"amount"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range locales {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(7, 3))
			var examples []task.Example
			for range 260 {
				day := time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, rng.IntN(3000))
				whole, cents := 1+rng.IntN(90)*rng.IntN(90), rng.IntN(100)
				paid := fmt.Sprint(strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%02d", whole, cents), "0"), "."), " ", l.currency)
				if l.zero {
					paid = fmt.Sprint(whole*100+cents, " ", l.currency)
				}
				examples = append(examples, task.Example{Text: fmt.Sprintf(l.text, l.date(day), l.amount(whole, cents), rng.IntN(100000)),
					Labels: task.Output{"bought": task.String(day.Format(time.DateOnly)), "paid": task.String(paid)}})
			}
			m := train(t, fields, examples[:160], Options{Workers: 1, Warn: func(w Warning) { t.Errorf("warning: %+v", w) }})
			wrong := [2]int{}
			var p task.Prediction
			for _, e := range examples[160:] {
				m.Predict(e.Text, &p)
				for f := range fields {
					if !p.Values[f].Equal(e.Labels[fields[f].Name]) {
						wrong[f]++
						t.Logf("%s of %q: %s", fields[f].Name, e.Text, p.Values[f].AppendJSON(nil))
					}
				}
			}
			if wrong[0] > 2 || wrong[1] > 2 {
				t.Errorf("wrong of 100: %v; known: %v, %v", wrong, m.spans[0].rules.Meanings, m.spans[1].rules.Meanings)
			}
			again, _, err := Decode(m.Encode(nil))
			if err != nil {
				t.Fatal(err)
			}
			var q task.Prediction
			for _, e := range examples[160:] {
				m.Predict(e.Text, &p)
				again.Predict(e.Text, &q)
				if !slices.EqualFunc(p.Values, q.Values, task.Value.Equal) {
					t.Fatalf("read from its file the model says %v, not %v", q.Values, p.Values)
				}
			}
		})
	}
}
