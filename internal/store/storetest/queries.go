package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"occam/internal/cost"
	"occam/internal/store"
)

func testTotals(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	for i := range 6 {
		a := Paid(fmt.Sprint("p", i), noon.Add(time.Duration(i)*12*time.Hour))
		must(t, s.Intend(ctx, a))
		a = Settle(a, 100)
		if i == 5 {
			a.Status, a.Answered = 500, false
		}
		must(t, s.Finish(ctx, a))
		must(t, s.RecordFree(ctx, Local(fmt.Sprint("f", i), a.At)))
	}
	settled(t, s, 6)
	byDay, err := s.Totals(ctx, store.TotalsQuery{By: []store.Dimension{store.ByDay, store.ByTier}})
	must(t, err)
	first := byDay[0]
	if len(byDay) != 8 || !first.Start.Equal(noon.Truncate(24*time.Hour)) || first.Tier != "generalist" || first.Cost != 100 {
		t.Errorf("by day: %d, %+v", len(byDay), first)
	}
	window := store.Window{From: noon.Add(time.Hour), To: noon.Add(25 * time.Hour)}
	part, err := s.Totals(ctx, store.TotalsQuery{Window: window, By: []store.Dimension{store.ByHour, store.ByAnswered, store.BySimulated}})
	if must(t, err); len(part) != 4 || part[0].Simulated || !part[0].Answered || !part[1].Simulated {
		t.Errorf("by hour: %+v", part)
	}
	all, err := s.Totals(ctx, store.TotalsQuery{Task: "triage", Model: "gpt-4o", Key: "key-1"})
	must(t, err)
	want := store.Total{Attempts: 6, Failed: 1, Requests: 5, Usage: cost.Usage{Input: 3000, Cached: 600, Output: 300, Reasoning: 30},
		Cost: 600, CostLow: 600, CostHigh: 600, Reference: 606, Latency: 9 * time.Second}
	if len(all) != 1 || all[0] != want {
		t.Errorf("got  %+v\nwant %+v", all, want)
	}
	plain, err := s.Totals(ctx, store.TotalsQuery{By: []store.Dimension{store.ByHour, store.ByState, store.ByAnswered}})
	must(t, err)
	filtered, err := s.Totals(ctx, store.TotalsQuery{By: []store.Dimension{store.ByHour, store.ByState, store.ByAnswered}, Task: "triage"})
	if must(t, err); len(plain) != 12 || !slices.Equal(plain, filtered) { // sums of their own, of the same attempts
		t.Errorf("by hour: %+v\nof the one task %+v", plain, filtered)
	}
	if none, err := s.Totals(ctx, store.TotalsQuery{Task: "other"}); err != nil || len(none) != 0 {
		t.Errorf("of an unknown task: %+v, %v", none, err)
	}
	if _, err := s.Totals(ctx, store.TotalsQuery{By: []store.Dimension{"id; DROP TABLE attempts"}}); err == nil {
		t.Error("an unknown dimension was taken")
	}
	q, err := s.LatencyQuantiles(ctx, store.Window{}, "triage", "", "")
	if must(t, err); q.Attempts != 12 || q.P50 < 40*time.Microsecond || q.P50 > 45*time.Microsecond ||
		q.P99 < 1500*time.Millisecond || q.P99 > 1690*time.Millisecond {
		t.Errorf("latency: %+v", q)
	}
}

// testTotalsByDay asks for days over windows that are not whole days, as every window in a time zone with an offset is: each
// day of UTC comes once, and the days add up to the window's hours, also where the clocks change.
func testTotalsByDay(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	start := time.Date(2026, 10, 22, 0, 30, 0, 0, time.UTC)
	for i := range 24 * 7 {
		must(t, s.RecordFree(ctx, Local(fmt.Sprint("d", i), start.Add(time.Duration(i)*time.Hour))))
	}
	settled(t, s, 24*7)
	berlin, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	local := func(month time.Month, day, hour int) time.Time {
		return time.Date(2026, month, day, hour, 0, 0, 0, berlin)
	}
	for name, c := range map[string]struct {
		window store.Window
		want   []int64 // requests of each day of UTC
	}{
		"a day of 25 hours":      {store.Window{From: local(time.October, 25, 0), To: local(time.October, 26, 0)}, []int64{2, 23}},
		"a week of Berlin":       {store.Window{From: local(time.October, 22, 0), To: local(time.October, 29, 0)}, []int64{24, 24, 24, 24, 24, 24, 23}},
		"hours":                  {store.Window{From: start.Add(30 * time.Minute), To: start.Add(150 * time.Minute)}, []int64{2}},
		"across midnight":        {store.Window{From: start.Add(21*time.Hour + 30*time.Minute), To: start.Add(26*time.Hour + 30*time.Minute)}, []int64{2, 3}},
		"half past to half past": {store.Window{From: start.Add(21 * time.Hour), To: start.Add(26 * time.Hour)}, []int64{3, 3}}, // whole hours outwards
	} {
		days, err := s.Totals(ctx, store.TotalsQuery{Window: c.window, By: []store.Dimension{store.ByDay}})
		must(t, err)
		hours, err := s.Totals(ctx, store.TotalsQuery{Window: c.window, By: []store.Dimension{store.ByHour}})
		must(t, err)
		var got []int64
		sum := int64(0)
		for _, d := range days {
			if !d.Start.Equal(d.Start.Truncate(24 * time.Hour)) {
				t.Errorf("%s: %v is no day", name, d.Start)
			}
			got, sum = append(got, d.Attempts), sum+d.Attempts
		}
		for _, h := range hours {
			sum -= h.Attempts
		}
		if !slices.Equal(got, c.want) || sum != 0 {
			t.Errorf("%s: days of %v requests, want %v; %d more than its hours", name, got, c.want, sum)
		}
	}
}

// testUpgrade takes a database with rows back to the schema before the totals by hour, and opens it.
func testUpgrade(t *testing.T, b Backend) {
	s, dsn, opts := fresh(t, b)
	for i := range 9 {
		a := Paid(fmt.Sprint("p", i), noon.Add(time.Duration(i/3)*time.Hour))
		must(t, s.Intend(ctx, a))
		must(t, s.Finish(ctx, Settle(a, 100)))
	}
	hours := store.TotalsQuery{By: []store.Dimension{store.ByHour}}
	before, err := s.Totals(ctx, hours)
	must(t, err)
	must(t, s.Close())
	raw := b.Raw(t, dsn)
	defer raw.Close()
	mustExec(t, raw, `DROP INDEX rates_task`)
	mustExec(t, raw, `DELETE FROM rollups WHERE span < 0`)
	mustExec(t, raw, `DELETE FROM schema_version WHERE version > 4`)
	s = open(t, dsn, opts)
	if after, err := s.Totals(ctx, hours); err != nil || len(before) != 3 || !slices.Equal(before, after) {
		t.Errorf("before the upgrade %+v\nafter it %+v, %v", before, after, err)
	}
	if report, err := s.Verify(ctx); err != nil || !report.OK() {
		t.Errorf("after the upgrade: %q, %v", report.Problems, err)
	}
}

// testRequests pages through requests with several attempts and checks every filter against a plain scan.
func testRequests(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	var all []store.Request
	for i := range 40 {
		id := fmt.Sprintf("r%02d", i)
		at := noon.Add(time.Duration(i) * time.Hour)
		r := store.Request{ID: id}
		local := Local(id+"-0", at)
		local.RequestID, local.Answered, local.Task = id, i%3 != 0, []string{"triage", "spam"}[i%2]
		local.State = store.Free
		must(t, s.RecordFree(ctx, local))
		settled(t, s, int64(i+1))
		r.Attempts = append(r.Attempts, local)
		if i%3 == 0 {
			a := Paid(id+"-1", at)
			a.RequestID, a.Seq, a.KeyID = id, 1, fmt.Sprint("key-", i%4)
			must(t, s.Intend(ctx, a))
			a = Settle(a, 9)
			if a.CostLow, a.CostHigh = 9, 9; i%2 == 0 {
				a.Status = 503
			}
			must(t, s.Finish(ctx, a))
			r.Attempts = append(r.Attempts, a)
		}
		all = append(all, r)
	}
	slices.Reverse(all)
	for name, f := range map[string]store.Filter{
		"everything":  {},
		"task":        {Task: "spam"},
		"model":       {Model: "gpt-4o"},
		"key":         {Key: "key-2"},
		"tier":        {Tier: "linear"},
		"state":       {State: store.Settled},
		"odd state":   {State: store.Estimated},
		"failed":      {Failed: true},
		"several":     {Task: "triage", Model: "gpt-4o", Failed: true},
		"window":      {Window: store.Window{From: noon.Add(5 * time.Hour), To: noon.Add(30 * time.Hour)}},
		"empty day":   {Window: store.Window{To: noon.Add(-48 * time.Hour)}},
		"task window": {Task: "spam", Window: store.Window{From: noon.Add(20 * time.Hour)}},
	} {
		var want []store.Request
		for _, r := range all {
			if slices.ContainsFunc(r.Attempts, func(a store.Attempt) bool { return matches(f, a) }) {
				want = append(want, r)
			}
		}
		f.Limit = 7
		var got []store.Request
		for cursor := ""; ; {
			page, next, err := s.Requests(ctx, f, cursor)
			must(t, err)
			got = append(got, page...)
			if cursor = next; cursor == "" {
				break
			}
		}
		if !slices.EqualFunc(got, want, func(a, b store.Request) bool { return a.ID == b.ID && slices.Equal(a.Attempts, b.Attempts) }) {
			t.Errorf("%s: got %d requests, want %d\n%+v\n%+v", name, len(got), len(want), got, want)
		}
	}
	if _, _, err := s.Requests(ctx, store.Filter{}, "!"); err == nil {
		t.Error("a bad cursor was taken")
	}
}

// matches is what Filter means.
func matches(f store.Filter, a store.Attempt) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(f.Task, a.Task) && is(f.Tier, a.Tier) && is(f.Model, a.Model) && is(f.Key, a.KeyID) && is(string(f.State), string(a.State)) &&
		(!f.Failed || a.Status >= 400) && (f.From.IsZero() || !a.At.Before(f.From)) && (f.To.IsZero() || a.At.Before(f.To))
}

func testRates(t *testing.T, b Backend) {
	s, _, _ := fresh(t, b)
	n := int64(0)
	for minute, count := range []int{120, 0, 0, 60, 0, 0, 0, 0, 0, 0} {
		for range count {
			n++
			must(t, s.RecordFree(ctx, Local(fmt.Sprint(n), noon.Add(time.Duration(minute)*time.Minute))))
		}
	}
	settled(t, s, n)
	got, err := s.RequestRate(ctx, "triage", store.Window{From: noon, To: noon.Add(10 * time.Minute)})
	want := store.Rate{Requests: 180, Minutes: 10, Mean: 0.3, P50: 0, P95: 2, P99: 2, Peak: 2}
	if must(t, err); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	got, err = s.RequestRate(ctx, "triage", store.Window{})
	want = store.Rate{Requests: 180, Minutes: 4, Mean: 0.75, P50: 1, P95: 2, P99: 2, Peak: 2}
	if must(t, err); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, err := s.RequestRate(ctx, "other", store.Window{}); err != nil || got != (store.Rate{}) {
		t.Errorf("of an unknown task: %+v, %v", got, err)
	}
	for task, want := range map[string]time.Duration{"triage": 4 * time.Minute, "other": 0} {
		if got, err := s.Lasted(ctx, task); err != nil || got != want {
			t.Errorf("%s lasted %v, want %v, %v", task, got, want, err)
		}
	}
}

// testHistories runs random histories with restarts and compares every sum with a plain model of it.
func testHistories(t *testing.T, b Backend) {
	runs, limit := 0, 12
	if b.Shared || testing.Short() {
		limit = 4
	}
	rapid.Check(t, func(r *rapid.T) {
		if runs++; runs > limit { // each run is a database: the default of 100 would take too long
			return
		}
		dsn, opts := b.New(t)
		s := open(t, dsn, opts)
		model := map[string]store.Attempt{}
		var pending []store.Attempt
		free := int64(0)
		for i := range rapid.IntRange(1, 40).Draw(r, "steps") {
			at := noon.Add(time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(r, "at")))
			switch op := rapid.SampledFrom([]string{"intend", "intend", "finish", "finish", "free", "restart"}).Draw(r, "op"); {
			case op == "intend":
				a := Paid(fmt.Sprint(i), at)
				a.CostHigh = cost.Amount(rapid.Int64Range(10, 1e12).Draw(r, "high"))
				must(t, s.Intend(ctx, a))
				pending = append(pending, a)
			case op == "finish" && len(pending) > 0:
				k := rapid.IntRange(0, len(pending)-1).Draw(r, "which")
				a := pending[k]
				pending = slices.Delete(pending, k, k+1)
				a.State = rapid.SampledFrom([]store.State{store.Settled, store.Estimated, store.Void, store.Unpriced}).Draw(r, "state")
				a.Cost = (a.CostLow + a.CostHigh) / 2
				must(t, s.Finish(ctx, a))
				model[a.ID] = a
			case op == "free":
				a := withState(Local(fmt.Sprint(i), at), store.Free)
				must(t, s.RecordFree(ctx, a))
				model[a.ID] = a
				free++
			case op == "restart":
				must(t, s.Close())
				s = open(t, dsn, opts)
				for _, a := range pending {
					a.State, a.Cost = store.Estimated, a.CostHigh
					model[a.ID] = a
				}
				pending = nil
			}
		}
		settled(t, s, free)
		compare(t, s, model, len(pending))
		must(t, s.Close())
	})
}

// compare checks the sums by state, and the chain.
func compare(t testing.TB, s *store.Store, model map[string]store.Attempt, pending int) {
	t.Helper()
	want := map[store.State]cost.Amount{}
	count := map[store.State]int64{}
	for _, a := range model {
		count[a.State]++
		if a.State == store.Settled || a.State == store.Estimated {
			want[a.State] += a.Cost
		}
	}
	totals, err := s.Totals(ctx, store.TotalsQuery{By: []store.Dimension{store.ByState}})
	must(t, err)
	if len(totals) != len(count) {
		t.Errorf("states: %+v, want %+v", totals, count)
	}
	for _, total := range totals {
		if total.Attempts != count[total.State] || total.Cost != want[total.State] {
			t.Errorf("%s: %d attempts for %v, want %d for %v", total.State, total.Attempts, total.Cost, count[total.State], want[total.State])
		}
	}
	if r := verified(t, s); r.Open != int64(pending) || r.Attempts != int64(len(model)+pending) {
		t.Errorf("%+v", r)
	}
}
