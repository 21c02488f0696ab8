package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/task"
)

// traffic is n requests of one job, a minute apart.
func traffic(f *finder, n int, one func(i int) Traffic) {
	for i := range n {
		t := one(i)
		t.At, t.Asked, t.Plain = noon.Add(time.Duration(i)*time.Minute), "gpt-4o", true
		if t.Cost == 0 {
			t.Cost = cost.FromUSD(.002)
		}
		t.Priced = true
		f.add(t)
	}
}

func ticketTraffic(i int) Traffic {
	colour := []string{"red", "green", "blue", "red"}[i%4]
	return Traffic{System: fmt.Sprintf("Today is 2026-11-%02d. Which colour?", 1+i/1440), Content: fmt.Sprintf(`{"colour":%q,"code":null}`, colour),
		User: fmt.Sprintf("Ticket:\n%s thing %d with words\nAnswer in JSON.", []string{"a", "the", "my"}[i%3], i)}
}

func only(t *testing.T, f *finder) Group {
	t.Helper()
	all := f.list()
	if len(all) != 1 {
		t.Fatalf("%d groups: %+v", len(all), all)
	}
	return all[0]
}

func TestDiscoverLearnsATask(t *testing.T) {
	f := newFinder(nil)
	traffic(f, 600, ticketTraffic)
	g := only(t, f)
	if g.Template != "Ticket:\n{{input}}\nAnswer in JSON." && g.Template != "Ticket:\n{{input}} with words\nAnswer in JSON." {
		t.Errorf("template %q", g.Template)
	}
	if g.Shape != "json" || len(g.Fields) == 0 || g.Fields[0].Name != "colour" || g.Fields[0].Kind != task.Category || len(g.Fields[0].Values) != 3 {
		t.Errorf("shape %s, fields %+v", g.Shape, g.Fields)
	}
	if g.Answers != 3 || math.Abs(g.Entropy-1.5) > .01 {
		t.Errorf("%d answers, %.3f bits", g.Answers, g.Entropy)
	}
	if g.Verdict != WorthIt || g.Monthly == nil || *g.Monthly < 80 || *g.Monthly > 95 { // a request a minute at $0.002
		t.Errorf("verdict %s (%s), monthly %v", g.Verdict, g.Reason, g.Monthly)
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name, verdict, reason string
		n                     int
		one                   func(i int) Traffic
	}{
		{"free text", NotWorthIt, "free text", 600, func(i int) Traffic {
			return Traffic{System: "Write a poem.", User: fmt.Sprint("about ", i), Content: strings.Repeat(fmt.Sprintf("line %d of many\n", i*7), 3)}
		}},
		{"too few", CannotTellYet, "needs", 100, ticketTraffic},
		{"barred", NotWorthIt, "forbid training", 600, func(i int) Traffic { x := ticketTraffic(i); x.Barred = true; return x }},
		{"cheap", NotWorthIt, "would be saved", 600, func(i int) Traffic { x := ticketTraffic(i); x.Cost = cost.FromUSD(.00001); return x }},
		{"one answer", NotWorthIt, "always the same", 600, func(i int) Traffic {
			return Traffic{System: "Is it ok?", User: fmt.Sprint("text ", i), Content: `{"ok":true}`}
		}},
		{"invented lines", NotWorthIt, "free text", 600, func(i int) Traffic {
			return Traffic{System: "Two lines.", User: fmt.Sprint("text ", i), Content: fmt.Sprintf("Mood: of kind %d\nOrder: %d", i, i*31)}
		}},
		{"nothing to recognise it by", NotWorthIt, "recognised", 600, func(i int) Traffic {
			return Traffic{User: fmt.Sprintf("Please say: %d", i), Content: []string{"yes", "no"}[i%2]}
		}},
		{"invented strings", NotWorthIt, "free text", 600, func(i int) Traffic {
			return Traffic{System: "Summarise as JSON.", User: fmt.Sprint("text ", i), Content: fmt.Sprintf(`{"summary":"something new %d %d"}`, i*13, i)}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFinder(nil)
			traffic(f, tc.n, tc.one)
			if g := only(t, f); g.Verdict != tc.verdict || !strings.Contains(g.Reason, tc.reason) {
				t.Errorf("%s: %s (shape %s, fields %+v)", g.Verdict, g.Reason, g.Shape, g.Fields)
			}
		})
	}
}

// Traffic without structure makes no group worth showing, and memory stays bounded.
func TestTrafficWithoutStructure(t *testing.T) {
	f := newFinder(nil)
	traffic(f, 5000, func(i int) Traffic {
		word := strings.Map(func(r rune) rune { return r + 'a' - '0' }, fmt.Sprint(hash64(fmt.Sprint(i))))
		return Traffic{User: word + " is an odd thing to ask about", Content: "Well."}
	})
	if len(f.groups) > maxGroups || len(f.list()) > 0 {
		t.Errorf("%d groups, %d shown", len(f.groups), len(f.list()))
	}
}

func TestASchemaThatChangesIsAnotherGroup(t *testing.T) {
	f := newFinder(nil)
	schema := func(values string) []byte {
		return []byte(`{"type":"object","properties":{"colour":{"type":"string","enum":[` + values + `]}}}`)
	}
	traffic(f, 50, func(i int) Traffic { x := ticketTraffic(i); x.Schema = schema(`"red","green","blue"`); return x })
	traffic(f, 50, func(i int) Traffic {
		x := ticketTraffic(i)
		x.Schema = schema(`"red","green","blue","mauve"`)
		return x
	})
	if all := f.list(); len(all) != 2 {
		t.Errorf("%+v", all)
	}
}

func TestMakeTask(t *testing.T) {
	b := newBench(t, nil)
	for i := range 60 {
		x := ticketTraffic(i)
		x.At, x.Asked, x.Plain = b.now(), "gpt-4o", true
		b.Overhear(x)
	}
	var groups []Group
	b.until("group", func(Status) bool {
		var err error
		groups, err = b.Discover(t.Context())
		return err == nil && len(groups) == 1 && groups[0].Requests == 60
	})
	if _, err := b.MakeTask(t.Context(), Making{Group: groups[0].ID, Name: "Bad Name", By: "ann", Auto: true}); err == nil {
		t.Error("a bad name")
	}
	if _, err := b.MakeTask(t.Context(), Making{Group: "nothing", Name: "tickets", By: "ann", Auto: true}); err == nil {
		t.Error("an unknown group")
	}
	st, err := b.MakeTask(t.Context(), Making{Group: groups[0].ID, Name: "tickets", By: "ann", Auto: true})
	if err != nil || st.State != Observing || !st.Auto || st.Fields[0].Name != "colour" {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, err := b.MakeTask(t.Context(), Making{Group: groups[0].ID, Name: "tickets", By: "ann", Auto: true}); err == nil {
		t.Error("the same task twice")
	}
	b.crash()
	if all := b.Status(); len(all) != 2 || all[1].Task != "tickets" {
		t.Errorf("after a restart: %+v", all)
	}
}

// What answers look like is learned, so that a specialist writes them in the same way.
func TestShapesOfAnswers(t *testing.T) {
	category := func(i int) string { return []string{"refund", "late delivery", "other"}[i%3] }
	order := func(i int, none string) string {
		if i%4 == 0 {
			return none
		}
		return fmt.Sprintf("AB-%d", 1000+i)
	}
	for _, tc := range []struct{ shape, format, content string }{
		{"label", "{{label}}", "%s"},
		{"form", "Category: {{category}}\nOrder ID: {{order_id|none}}", "Category: %s\nOrder ID: %s"},
		{"json", "", `{"category":"%s","order_id":"%s"}`},
		{"json", "{\"order_id\": {{json order_id}}, \"category\": {{json category}}}", `{"order_id": "%[2]s", "category": "%[1]s"}`},
		{"json", "```json\n{\n  \"category\": {{json category}},\n  \"order_id\": {{json order_id}}\n}\n```", "```json\n{\n  \"category\": \"%s\",\n  \"order_id\": \"%s\"\n}\n```"},
	} {
		f := newFinder(nil)
		traffic(f, 600, func(i int) Traffic {
			none := "none"
			x := Traffic{User: "Sort this ticket, please: order " + order(i, "unknown") + " is about " + category(i+i/7)}
			x.Content = strings.Replace(fmt.Sprintf(tc.content, category(i), order(i, none)), "%!(EXTRA string="+order(i, none)+")", "", 1)
			x.Content = strings.ReplaceAll(x.Content, `"none"`, "null")
			return x
		})
		g := only(t, f)
		if g.Shape != tc.shape || g.Format != tc.format || g.Verdict != WorthIt || !g.Offered || g.Answers != 3 {
			t.Errorf("%q: shape %s, format %q, fields %+v, %d answers, %s: %s", tc.content, g.Shape, g.Format, g.Fields, g.Answers, g.Verdict, g.Reason)
		}
		if !strings.HasPrefix(g.Template, "Sort this ticket, please: order {{input}}") {
			t.Errorf("template %q", g.Template)
		}
	}
}

// Samples that discovery keeps are forgotten by their requests, written or not, and do not come back.
func TestOverheardTrafficIsForgotten(t *testing.T) {
	b := newBench(t, nil)
	hear := func(from, n int) {
		for i := from; i < from+n; i++ {
			x := ticketTraffic(i)
			x.RequestID, x.At, x.Asked, x.Plain, x.User = fmt.Sprint("r", i), b.now(), "gpt-4o", true, fmt.Sprintf("%s by person-%d.", x.User, i)
			b.Overhear(x)
		}
	}
	kept := func() (all string) {
		err := b.store.View(t.Context(), func(tx *store.Tx) error {
			records, err := tx.Records(kindTraffic).List()
			for _, r := range records {
				all += string(r.Value)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	forget := func(requests ...string) (n int) {
		n, err := b.ForgetOverheard(t.Context(), requests)
		if err == nil {
			err = b.store.Update(t.Context(), func(tx *store.Tx) error {
				stored, err := ForgetOverheard(tx, requests)
				n += stored
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	hear(0, 8) // too few to be written
	if n := forget("r3", "unknown", ""); n != 1 {
		t.Errorf("%d samples in memory are forgotten", n)
	}
	hear(8, 12)
	b.until("write", func(Status) bool { b.pass(time.Second); return strings.Contains(kept(), "person-19.") })
	if all := kept(); strings.Contains(all, "person-3.") || !strings.Contains(all, "person-4.") {
		t.Errorf("kept %s", all)
	}
	if n := forget("r4", "r19"); n != 2 {
		t.Errorf("%d stored samples are forgotten", n)
	}
	hear(20, 1)
	b.until("write", func(Status) bool { b.pass(time.Second); return strings.Contains(kept(), "person-20.") })
	if all := kept(); strings.Contains(all, "person-4.") || strings.Contains(all, "person-19.") || !strings.Contains(all, `"n":21`) {
		t.Errorf("kept %s", all)
	}
}

// What was overheard outlives the process, and replicas add up what they hear.
func TestOverheardTrafficIsKept(t *testing.T) {
	b := newBench(t, nil)
	hear := func(from, n int) {
		for i := from; i < from+n; i++ {
			x := ticketTraffic(i)
			x.At, x.Asked, x.Plain, x.Cost, x.Priced = b.now(), "gpt-4o", true, cost.FromUSD(.002), true
			b.Overhear(x)
		}
	}
	found := func(n int) Group {
		t.Helper()
		var groups []Group
		b.until(fmt.Sprint(n, " requests"), func(Status) bool {
			var err error
			groups, err = b.Discover(t.Context())
			return err == nil && len(groups) == 1 && groups[0].Requests == n
		})
		return groups[0]
	}
	hear(0, 400)
	before := found(400)
	b.pass(time.Minute)
	stored := func() (requests int) {
		err := b.store.View(t.Context(), func(tx *store.Tx) error {
			all, err := tx.Records(kindTraffic).List()
			for _, r := range all {
				var s sighting
				err = errors.Join(err, json.Unmarshal(r.Value, &s))
				requests += s.N
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return requests
	}
	b.until("write", func(Status) bool { b.pass(time.Second); return stored() == 400 })
	b.crash()
	if after := found(400); after.Spent != before.Spent || after.Template != before.Template || !after.First.Equal(before.First) || after.Entropy != before.Entropy {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	other := newFinder(nil) // another replica's news come on top
	traffic(other, 100, ticketTraffic)
	for key, g := range other.groups {
		g.key = key
		if err := b.keepGroup(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	hear(400, 50)
	b.pass(time.Minute)
	found(550)
	if _, err := b.MakeTask(t.Context(), Making{Group: before.ID, Name: "tickets", By: "ann"}); err != nil {
		t.Fatal(err)
	}
	if n := stored(); n != 0 {
		t.Errorf("%d requests are kept of traffic that is a task", n)
	}
}

// quietController is one without a loop, on a store of its own.
func quietController(t *testing.T, change func(*Options)) *Controller {
	t.Helper()
	db, err := store.Open(t.Context(), "sqlite:"+t.TempDir(), store.Options{Durability: store.Normal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	o := Options{Store: db, Tasks: []Setup{{Task: colours()}}, Capture: true, Publish: func([]Deployment) error { return nil }}
	change(&o)
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Controller) keptTraffic(t *testing.T) (names []string, all string) {
	t.Helper()
	err := c.opts.Store.View(t.Context(), func(tx *store.Tx) error {
		records, err := tx.Records(kindTraffic).List()
		for _, r := range records {
			names, all = append(names, r.Name), all+string(r.Value)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, all
}

// The retention of samples ends also where their group found no room in memory, and where it still grows; what another replica saw
// since stays.
func TestTheRetentionOfOverheardTraffic(t *testing.T) {
	clock := noon
	c := quietController(t, func(o *Options) { o.Retention, o.Now = 24*time.Hour, func() time.Time { return clock } })
	hear := func(word string, n int) {
		for range n {
			c.finder.add(Traffic{At: clock, System: "You sort " + word, User: word + clock.Format(" on the 2"), Content: "a", Plain: true})
		}
	}
	hear("evicted", leastGroup)
	hear("slow", leastGroup)
	hear("shared", leastGroup)
	c.keepTraffic(t.Context(), true)
	for key, g := range c.finder.groups {
		if strings.HasSuffix(g.known.First.System, "evicted") {
			delete(c.finder.groups, key)
		}
	}
	clock = clock.Add(20 * time.Hour)
	hear("slow", 1)
	c.keepTraffic(t.Context(), true)
	for key, g := range c.finder.groups { // another replica goes on with it
		if strings.HasSuffix(g.known.First.System, "shared") {
			other := &group{key: key, fresh: sightingOf(Traffic{At: clock, User: "shared elsewhere"})}
			if err := c.keepGroup(t.Context(), other); err != nil {
				t.Fatal(err)
			}
		}
	}
	clock = clock.Add(5 * time.Hour)
	c.expire(t.Context())
	names, all := c.keptTraffic(t)
	if len(names) != 2 || strings.Contains(all, "on the 2\"") || !strings.Contains(all, "slow on the 3") || !strings.Contains(all, "shared elsewhere") {
		t.Errorf("%d groups: %s", len(names), all)
	}
}

// Traffic that no task could be made of, because what marks it is longer than a document may be, keeps nothing else from being kept.
func TestOverheardTrafficWithAHugePrompt(t *testing.T) {
	c := quietController(t, func(*Options) {})
	for range 2 * leastGroup {
		c.finder.add(Traffic{At: noon, System: strings.Repeat("sort this ", 200_000), User: "a", Content: "b", Plain: true})
	}
	traffic(c.finder, leastGroup, ticketTraffic)
	c.keepTraffic(t.Context(), true)
	if names, _ := c.keptTraffic(t); len(names) != 1 {
		t.Errorf("%d groups are kept", len(names))
	}
}

// Long texts could be no examples: they are counted, and not redacted, which would hold up everything else.
func TestOverheardTrafficOfLongTexts(t *testing.T) {
	redacted := 0
	f := newFinder(func(text string) string { redacted += len(text); return text })
	for range 100 {
		f.add(Traffic{At: noon, System: strings.Repeat("summarise ", 100), User: strings.Repeat("x", store.MaxText+1), Content: "short", Plain: true})
	}
	traffic(f, 10, func(int) Traffic { return Traffic{System: strings.Repeat("summarise ", 100), User: "a", Content: "b"} })
	if g := only(t, f); g.Requests != 110 {
		t.Errorf("%+v", g)
	}
	if redacted > 2000 {
		t.Errorf("%d bytes were redacted", redacted)
	}
}
