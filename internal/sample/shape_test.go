package sample

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"occam/internal/task"
)

func TestFiftyCategoriesEachInAGroup(t *testing.T) {
	names := Categories()
	if len(names) != 50 {
		t.Fatalf("%d categories, want 50", len(names))
	}
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			t.Errorf("category %s stands twice", name)
		}
		seen[name] = true
		if near := Confusable(name); len(near) == 0 {
			t.Errorf("category %s has nothing to be confused with", name)
		}
	}
	if Confusable("no such category") != nil {
		t.Error("an unknown category has neighbours")
	}
}

func TestTaskIsWhole(t *testing.T) {
	ticketTask := Task()
	if got := ticketTask.Fields; len(got) != 2 || got[0].Kind != task.Category || got[1].Kind != task.Span || !got[1].Nullable {
		t.Errorf("fields %+v", got)
	}
	text := Tickets(1, 1)[0].Text
	if got, ok := ticketTask.Input.Extract(text); !ok || got != text {
		t.Errorf("the input template takes %q from %q", got, text)
	}
}

func TestSameSeedSameTickets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, n := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 60).Draw(t, "n")
		if !reflect.DeepEqual(Tickets(seed, n), Tickets(seed, n+20)[:n]) {
			t.Fatal("a longer run does not start with the shorter one")
		}
		if !reflect.DeepEqual(Traffic(seed, n), Traffic(seed, n+20)[:n]) {
			t.Fatal("longer traffic does not start with the shorter one")
		}
	})
}

func TestEveryTicketHoldsItsTruth(t *testing.T) {
	known := map[string]bool{}
	for _, name := range Categories() {
		known[name] = true
	}
	rapid.Check(t, func(t *rapid.T) {
		for _, ticket := range Traffic(rapid.Uint64().Draw(t, "seed"), 40) {
			checkTicket(t, ticket, known)
		}
	})
}

func checkTicket(t *rapid.T, ticket Ticket, known map[string]bool) {
	text := ticket.Text
	if !utf8.ValidString(text) || strings.TrimSpace(text) == "" || strings.ContainsAny(text, "{}[]|") || len(text) > 4000 {
		t.Fatalf("%s: bad text %q", ticket.ID, text)
	}
	category, order := ticket.Truth[Category], ticket.Truth[OrderID]
	if ticket.OutOfScope {
		if !category.IsNull() || !order.IsNull() || len(ticket.Labels) != 0 {
			t.Fatalf("%s: out of scope, yet labelled: %v %v", ticket.ID, ticket.Truth, ticket.Labels)
		}
		return
	}
	if !known[category.Text()] || !known[ticket.Labels[Category].Text()] {
		t.Fatalf("%s: unknown category %v or label %v", ticket.ID, category, ticket.Labels[Category])
	}
	if !order.IsNull() && !strings.Contains(text, order.Text()) {
		t.Fatalf("%s: order ID %s does not stand in %q", ticket.ID, order.Text(), text)
	}
}

// shares counts what the documentation promises about a large sample.
type shares struct {
	outside, wrong, orders, leadingZero, n float64
	perCategory                            map[string]float64
}

func measure(tickets []Ticket) shares {
	s := shares{perCategory: map[string]float64{}}
	for _, t := range tickets {
		if t.OutOfScope {
			s.outside++
			continue
		}
		s.n++
		s.perCategory[t.Truth[Category].Text()]++
		if !reflect.DeepEqual(t.Labels, t.Truth) {
			s.wrong++
		}
		if id := t.Truth[OrderID].Text(); id != "" {
			s.orders++
			if id[0] == '0' {
				s.leadingZero++
			}
		}
	}
	return s
}

func TestSharesAreAsDocumented(t *testing.T) {
	s := measure(Traffic(3, 20000))
	within := func(name string, got, low, high float64) {
		t.Helper()
		t.Logf("%s: %.4f", name, got)
		if got < low || got > high {
			t.Errorf("%s: %.4f, want between %.3f and %.3f", name, got, low, high)
		}
	}
	within("out of scope", s.outside/20000, 0.017, 0.023)
	within("wrong labels", s.wrong/s.n, 0.017, 0.023)
	within("without an order ID", 1-s.orders/s.n, 0.35, 0.41)
	within("order IDs with a leading zero", s.leadingZero/s.orders, 0.2, 0.6)
	least, most := s.n, 0.0
	for _, name := range Categories() {
		least, most = min(least, s.perCategory[name]), max(most, s.perCategory[name])
	}
	within("rarest category", least/s.n, 0.003, 0.015)
	within("most frequent category", most/s.n, 0.03, 0.08)
}

func TestSeveralHundredPhrasingsACategory(t *testing.T) {
	for _, c := range phrases().categories {
		seen := map[string]bool{}
		w := newWriter(rand.New(rand.NewPCG(1, 1)))
		for range 3000 {
			clear(w.memo)
			fragments := []string{w.one(c.core), w.one(c.detail), w.one(c.ask)}
			seen[maskDigits(strings.Join(fragments, " "))] = true
		}
		if len(seen) < 500 {
			t.Errorf("%s: %d phrasings in 3,000 draws, want 500 at least", c.name, len(seen))
		}
	}
}

// maskDigits makes texts equal that differ in their numbers only.
func maskDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return '0'
		}
		return r
	}, s)
}

func TestFreshTicketsAreFresh(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range Tickets(1, 10000) {
		seen[e.Text] = true
	}
	repeats := 0
	for _, e := range Tickets(2, 3000) {
		if seen[e.Text] {
			repeats++
		}
	}
	t.Logf("%d of 3,000 fresh tickets stand word for word among 10,000 others", repeats)
	if repeats > 60 {
		t.Errorf("%d of 3,000 tickets are repeats, want 2 %% at most", repeats)
	}
}

func BenchmarkTickets(b *testing.B) {
	for b.Loop() {
		Tickets(1, 1000)
	}
}

func TestGrammarErrors(t *testing.T) {
	for _, bad := range []string{"c early", "== g\n+ name 1", "== g\n+ name x 1", "== g\n+ name 1 y", "== g\n+ n 1 1\nz what",
		"= l\n[a|b", "= l\na]", "= l\n{x", "== g\n+ n 1 1\nc [a|{b]"} {
		if _, err := parseGrammar(bad); err == nil || !strings.Contains(err.Error(), "phrases.txt:") {
			t.Errorf("%q: error %v, want one that names the line", bad, err)
		}
	}
}

func TestEverySlotIsKnown(t *testing.T) {
	g := phrases()
	var check func(ph phrase)
	check = func(ph phrase) {
		for _, p := range ph {
			_, number := numbers[p.slot]
			special := p.slot == "order" || p.slot == "other" || p.slot == "othernoun"
			if p.slot != "" && !number && !special && g.lists[p.slot] == nil {
				t.Errorf("no list %q", p.slot)
			}
			for _, c := range p.choices {
				check(c)
			}
		}
	}
	each := func(lists ...[]phrase) {
		for _, list := range lists {
			for _, ph := range list {
				check(ph)
			}
		}
	}
	for _, list := range g.lists {
		each(list)
	}
	for _, gr := range g.groups {
		each(gr.vague, gr.background)
	}
	for _, c := range g.categories {
		each(c.core, c.detail, c.ask, c.noun)
	}
	each(g.outside)
}

func FuzzParsePhrase(f *testing.F) {
	f.Add("a [b|c {d}] e")
	f.Add("[[a|b]|]")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return
		}
		_, _ = parsePhrase(text) // must return, without a panic
	})
}
