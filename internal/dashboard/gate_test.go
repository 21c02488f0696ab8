package dashboard

import (
	"context"
	"fmt"
	"html"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"occam/internal/cost"
)

// What a page may weigh on its first view.
const (
	maxScriptBytes = 40 << 10 // compressed
	maxPageBytes   = 60 << 10 // everything, compressed
	maxShift       = 0.02     // cumulative layout shift
	maxPaint       = 1500     // milliseconds until the largest paint
	maxBlocked     = 100      // milliseconds that scripts keep the page from answering
)

// A finding is one defect of a page: its kind, such as "axe:color-contrast" or "overflow", and where.
type finding struct{ kind, detail string }

func (f finding) String() string { return f.kind + ": " + f.detail }

// An inspector finds the defects of pages in one tab.
type inspector struct {
	t   testing.TB
	tab context.Context
	axe string

	mu       sync.Mutex
	own      string // host of the pages
	findings []finding
	loads    map[network.RequestID]*load // of the page at hand
}

// A load is something that the page at hand fetched.
type load struct {
	address string
	script  bool
	bytes   float64 // over the wire, compressed as it came
}

// newInspector needs a browser and axe-core, and skips the test where one is missing.
func newInspector(t testing.TB, browser context.Context) *inspector {
	t.Helper()
	axe, err := os.ReadFile(filepath.Join("..", "..", ".cache", "ui", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Skip("no axe-core: run scripts/ui-setup.sh")
	}
	in := &inspector{t: t, tab: openTab(t, browser), axe: string(axe)}
	must(t, chromedp.Listen(in.tab, in.hear))
	_, err = chromedp.Call(in.tab, network.Enable, network.EnableParams{})
	must(t, err)
	_, err = chromedp.Call(in.tab, log.Enable, cdp.Empty{})
	must(t, err)
	return in
}

// hear takes notes of what the page says and loads.
func (in *inspector) hear(event any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	add := func(kind, detail string) { in.findings = append(in.findings, finding{kind, detail}) }
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			add("console", e.Entry.Text+" "+e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			add("console", string(e.Args[0].Value))
		}
	case *runtime.EventExceptionThrown:
		add("console", e.ExceptionDetails.Text)
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err == nil && u.Scheme == "data" {
			return // drawn by the browser itself
		}
		if err != nil || u.Host != in.own {
			add("external", e.Request.URL)
			return
		}
		if u.Path != "/events" {
			in.loads[e.RequestID] = &load{address: e.Request.URL, script: strings.HasSuffix(u.Path, ".js")}
		}
	case *network.EventLoadingFinished:
		if l := in.loads[e.RequestID]; l != nil {
			l.bytes = e.EncodedDataLength
		}
	}
}

func (in *inspector) note(kind, format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.findings = append(in.findings, finding{kind, fmt.Sprintf(format, args...)})
}

// inspect looks at one page in every way and returns its defects.
func (in *inspector) inspect(address string) []finding {
	in.t.Helper()
	u, err := url.Parse(address)
	must(in.t, err)
	in.mu.Lock()
	in.own, in.findings, in.loads = u.Host, nil, map[network.RequestID]*load{}
	in.mu.Unlock()
	looks[0].apply(in.t, in.tab)
	_, err = chromedp.Call(in.tab, network.ClearBrowserCache, cdp.Empty{}) // a first view
	must(in.t, err)
	must(in.t, chromedp.Do(in.tab, chromedp.Navigate(address), chromedp.WaitReady("body"), chromedp.Sleep(250*time.Millisecond)))
	in.shift()
	in.speed()
	in.weigh()
	in.charts()
	in.escape()
	for _, l := range looks {
		l.apply(in.t, in.tab)
		in.accessible(l)
		in.overflow(l)
		in.spacing(l)
		in.walk(l)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.findings)
}

func evaluate[T any](in *inspector, expression string) T {
	in.t.Helper()
	v, err := chromedp.Run(in.tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	must(in.t, err)
	return v
}

// waitFor waits until an expression is true on the page.
func waitFor(in *inspector, expression string) {
	in.t.Helper()
	_, err := chromedp.Run(in.tab, chromedp.Poll[bool](expression))
	must(in.t, err)
}

// shift reads how much the page jumped while it loaded.
func (in *inspector) shift() {
	total := evaluate[float64](in, `new Promise((done) => { let sum = 0; try { new PerformanceObserver((l) => { for (const e of l.getEntries()) sum += e.value; })
		.observe({type: "layout-shift", buffered: true}); } catch (e) {} setTimeout(() => done(sum), 50); })`)
	if total > maxShift {
		in.note("shift", "the layout shifts by %.3f", total)
	}
}

// weigh sums up what the first view loads, in bytes over the wire.
func (in *inspector) weigh() {
	in.mu.Lock()
	all, scripts, files := 0.0, 0.0, 0
	for _, l := range in.loads {
		all += l.bytes
		files++
		if l.script {
			scripts += l.bytes
		}
	}
	in.mu.Unlock()
	if all == 0 {
		in.note("weight", "nothing was weighed")
	}
	if scripts > maxScriptBytes || all > maxPageBytes {
		in.note("weight", "%.0f bytes of script, %.0f in all", scripts, all)
	}
	in.t.Logf("%d files, %.0f bytes of script, %.0f in all", files, scripts, all)
}

// speed reports how fast the page was there, and how long its scripts kept it busy. The figures are this machine's at this
// moment, so they are held against the norm only where OCCAM_QUIET says that nothing else runs.
func (in *inspector) speed() {
	m := evaluate[struct{ LCP, TBT float64 }](in, `new Promise((done) => { let lcp = 0, tbt = 0;
		new PerformanceObserver((l) => { for (const e of l.getEntries()) lcp = Math.max(lcp, e.startTime); }).observe({type: "largest-contentful-paint", buffered: true});
		new PerformanceObserver((l) => { for (const e of l.getEntries()) tbt += Math.max(0, e.duration - 50); }).observe({type: "longtask", buffered: true});
		setTimeout(() => done({LCP: lcp, TBT: tbt}), 50); })`)
	in.t.Logf("largest paint after %.0f ms, blocked for %.0f ms", m.LCP, m.TBT)
	if os.Getenv("OCCAM_QUIET") != "" && (m.LCP > maxPaint || m.TBT > maxBlocked) {
		in.note("speed", "largest paint after %.0f ms, blocked for %.0f ms", m.LCP, m.TBT)
	}
}

// escape checks that hovering a chart shows its values and that Escape hides them (WCAG 2.2, 1.4.13).
func (in *inspector) escape() {
	state := func() string {
		return evaluate[string](in, `!document.querySelector("[data-tip]") ? "none" : document.querySelector(".tip.on") ? "shown" : "hidden"`)
	}
	evaluate[bool](in, `document.querySelector("[data-tip]")?.dispatchEvent(new PointerEvent("pointerover", {bubbles: true})), true`)
	if got := state(); got == "hidden" {
		in.note("hover", "a chart shows no values")
	}
	must(in.t, chromedp.Do(in.tab, chromedp.KeyEvent(kb.Escape)))
	if got := state(); got == "shown" {
		in.note("escape", "Escape does not hide a chart's values")
	}
}

// charts checks that every picture of data has a title, a description and its values as a table.
func (in *inspector) charts() {
	for _, bad := range evaluate[[]string](in, `[...document.querySelectorAll("figure.chart svg[role=img]")].filter((s) => !s.querySelector("title") ||
		!s.querySelector("desc") || !s.closest("figure").querySelector("table")).map((s) => s.outerHTML.slice(0, 80))`) {
		in.note("chart", "%s", bad)
	}
}

// accessible runs axe-core with every rule of WCAG 2.2 AA and its best practices.
func (in *inspector) accessible(l look) {
	if !evaluate[bool](in, `typeof axe === "object"`) {
		must(in.t, chromedp.Do(in.tab, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			_, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: in.axe})
			return err
		})))
	}
	type node struct{ HTML string }
	type rule struct {
		ID, Help string
		Nodes    []node
	}
	result := evaluate[struct{ Violations, Incomplete []rule }](in, `axe.run(document, {resultTypes: ["violations", "incomplete"],
		runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then((r) => ({
			Violations: r.violations.map(short), Incomplete: r.incomplete.map(short)}));
		function short(v) { return {ID: v.id, Help: v.help, Nodes: v.nodes.map((n) => ({HTML: n.html.slice(0, 160)}))}; }`)
	for _, v := range result.Violations {
		in.note("axe:"+v.ID, "%s: %s: %d times, first %s", l, v.Help, len(v.Nodes), v.Nodes[0].HTML)
	}
	for _, v := range result.Incomplete {
		v.Nodes = slices.DeleteFunc(v.Nodes, func(n node) bool { return decided(v.ID, n.HTML) })
		if len(v.Nodes) == 0 {
			continue
		}
		in.note("unsure:"+v.ID, "%s: %s: %d times, first %s", l, v.Help, len(v.Nodes), v.Nodes[0].HTML)
	}
}

// overflow checks that the page itself never scrolls sideways.
func (in *inspector) overflow(l look) {
	if over := evaluate[float64](in, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
		in.note("overflow", "%s: the page is %.0f px too wide: %s", l, over, evaluate[string](in, `[...document.querySelectorAll("main *")].filter((e) =>
			e.getBoundingClientRect().right > document.documentElement.clientWidth && !e.closest(".scroll, pre")).map((e) => e.outerHTML.slice(0, 90)).slice(0, 3).join(" | ")`))
	}
}

// spacing sets text as wide as people with weak eyes may (WCAG 2.2, 1.4.12): nothing may be lost or stick out.
func (in *inspector) spacing(l look) {
	lost := evaluate[string](in, `(() => { const s = new CSSStyleSheet();
		s.replaceSync("* { line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important; } p { margin-bottom: 2em !important; }");
		document.adoptedStyleSheets = [s];
		const over = document.documentElement.scrollWidth - document.documentElement.clientWidth;
		const cut = [...document.querySelectorAll("body *")].filter((e) => !e.closest("svg, .scroll, pre, .off, .ticket") && e.checkVisibility() &&
			["hidden", "clip"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1 && !e.matches("input, select")).map((e) => e.outerHTML.slice(0, 80));
		document.adoptedStyleSheets = [];
		return over > 0 ? "the page is " + over + " px too wide" : cut.join(" | "); })()`)
	if lost != "" {
		in.note("spacing", "%s: with wide text %s", l, lost)
	}
}

// maxStops bounds a walk: more is a trap.
const maxStops = 400

// tabsAtOnce are pressed before the walk looks where it is.
const tabsAtOnce = 8

// datePartStops is how often Tab stays on one field: a date has parts.
const datePartStops = 4

// walk goes through the page with the Tab key: every stop must be visible and show that it has the focus, and all that can
// be reached must be reached. A page that fails is walked once more, and what fails again stands: where a walk leaves the page, the
// browser itself takes the focus and gives it back, at a time of its own.
func (in *inspector) walk(l look) {
	first := in.walkOnce(l)
	if len(first) == 0 {
		return
	}
	second := in.walkOnce(l)
	for _, f := range first {
		if !slices.Contains(second, f) {
			in.t.Logf("seen once, not again: %s", f)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.findings = append(in.findings, second...)
}

// walkOnce returns what one walk finds.
func (in *inspector) walkOnce(l look) (found []finding) {
	note := func(kind, format string, args ...any) {
		found = append(found, finding{kind, fmt.Sprintf(format, args...)})
	}
	want := evaluate[int](in, `(() => { const s = document.createElement("span");
		s.tabIndex = -1; document.body.prepend(s); s.focus(); s.remove(); window.scrollTo(0, 0); })(); // the walk begins at the top
		window.stops = []; // each stop as it looks while it has the focus
		window.stopped ||= document.addEventListener("focusin", ({target: e}) => {
			const s = getComputedStyle(e), r = e.getBoundingClientRect(), top = document.elementFromPoint(r.left + Math.min(r.width, 20) / 2, r.top + Math.min(r.height, 20) / 2);
			stops.push({Name: e.outerHTML.slice(0, 80), State: [e.matches(":focus-visible"), document.hasFocus(), stops.length].join(), Outline: s.outlineStyle === "none" ? 0 : parseFloat(s.outlineWidth),
				Hidden: r.width === 0 || r.height === 0, Obscured: !!top && !e.contains(top) && !top.contains(e)}); }) || true;
		[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter((e) => e.tabIndex >= 0 &&
			!e.disabled && !(e.type === "radio" && e.form.querySelector('[name="' + e.name + '"]') !== e) && e.checkVisibility() && !e.matches("details:not([open]) > :not(summary) *")).length`)
	for pressed := 0; pressed < min(2*want+3*datePartStops, maxStops); pressed += tabsAtOnce {
		for range tabsAtOnce {
			must(in.t, chromedp.Do(in.tab, chromedp.KeyEvent(kb.Tab)))
		}
		if evaluate[bool](in, `document.activeElement === document.body || stops.length >= `+strconv.Itoa(want)) {
			break
		}
	}
	type stop struct {
		Name, State      string
		Outline          float64
		Hidden, Obscured bool
	}
	stops := evaluate[[]stop](in, `stops`)
	for _, s := range stops {
		if s.Outline < 2 {
			note("outline", "%s: the focus cannot be seen on %s (%s)", l, s.Name, s.State)
		}
		if s.Hidden || s.Obscured {
			note("obscured", "%s: the focus is hidden at %s", l, s.Name)
		}
	}
	if stuck := in.stuck(); stuck != "" {
		note("trap", "%s: Tab does not leave %s", l, stuck)
	} else if len(stops) < want {
		note("walk", "%s: Tab reaches %d of %d", l, len(stops), want)
	}
	// What shows only while it has the focus hides again, and what the walk scrolled to goes back.
	evaluate[bool](in, `document.activeElement.blur(), document.querySelectorAll("*").forEach((e) => { e.scrollLeft = e.scrollTop = 0; }), true`)
	return found
}

// stuck returns the element that Tab does not leave, "" where it goes on.
func (in *inspector) stuck() string {
	evaluate[bool](in, `window.held = document.activeElement, true`)
	for range datePartStops {
		must(in.t, chromedp.Do(in.tab, chromedp.KeyEvent(kb.Tab)))
		if !evaluate[bool](in, `document.activeElement === held && held !== document.body`) {
			return ""
		}
	}
	return evaluate[string](in, `held.outerHTML.slice(0, 80)`)
}

// decided reports whether something that axe-core cannot decide is decided elsewhere: it does not know what stands behind text
// in a drawing, but TestColours measures that text's colour against every ground it stands on.
func decided(rule, html string) bool {
	return rule == "color-contrast" && strings.HasPrefix(html, "<text ")
}

// TestInABrowser runs what needs a real browser, all in one.
func TestInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("drives a browser")
	}
	t.Parallel() // it waits more than it computes; what measures times is not parallel, and over by then
	browser := startBrowser(t)
	for name, test := range map[string]func(*testing.T, context.Context){"gate": pagesPassTheGate, "seeded defects": gateFindsSeededDefects,
		"live": liveUpdates, "live keeps the place": liveKeepsThePlace, "two operators": twoOperators, "without scripts": tablesWithoutScripts, "payloads": payloadsStayText} {
		t.Run(name, func(t *testing.T) { test(t, browser) })
	}
}

func pagesPassTheGate(t *testing.T, browser context.Context) {
	in := newInspector(t, browser)
	pages := fixturePages(t)
	delete(pages, "requests-filtered") // the same page as one of the others, with other rows
	delete(pages, "breakeven-task")
	for name, address := range pages {
		if only := os.Getenv("OCCAM_PAGE"); only != "" && only != name {
			continue
		}
		t.Log(name)
		for _, f := range in.inspect(address) {
			if name == "not-found" && f.kind == "console" && strings.Contains(f.detail, "404") {
				continue // the browser's own note about the status that the page is meant to have
			}
			t.Errorf("%s: %s", name, f)
		}
	}
}

// gateFindsSeededDefects is the test of the gate itself.
func gateFindsSeededDefects(t *testing.T, browser context.Context) {
	in := newInspector(t, browser)
	page, err := os.ReadFile("testdata/defects.html")
	must(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html")
			w.Write(page) //nolint:errcheck // a test
		case "/heavy.js":
			w.Header().Set("Content-Type", "text/javascript")
			rng := rand.New(rand.NewPCG(1, 1))
			for range 6000 {
				fmt.Fprintf(w, "// %x\n", rng.Uint64())
			}
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	found := map[string]bool{}
	for _, f := range in.inspect(server.URL + "/") {
		found[f.kind] = true
	}
	for _, kind := range []string{"axe:color-contrast", "axe:image-alt", "axe:label", "axe:html-has-lang", "axe:target-size", "outline", "overflow", "console",
		"external", "weight", "chart", "trap", "shift", "spacing", "hover"} {
		if !found[kind] {
			t.Errorf("the gate missed the seeded defect %s", kind)
		}
	}
}

// liveUpdates: a new request shows up by itself, and nothing else on the page is drawn anew.
func liveUpdates(t *testing.T, browser context.Context) {
	s := openStore(t)
	seed(t, s, traffic{requests: 5, days: 1})
	server := serve(t, Options{Source: s})
	tab := openTab(t, browser)
	must(t, chromedp.Do(tab, chromedp.Navigate(server.URL+"/requests"), chromedp.WaitVisible(chromedp.CSS(`#live[data-state=on]`))))
	_, err := chromedp.Run(tab, chromedp.Evaluate[bool](`document.getElementById("r-R000004").mine = true`))
	must(t, err)
	a := traffic{}.attempt(77, 0, fixedNow)
	a.Model = "m"
	began := time.Now()
	must(t, s.RecordFree(t.Context(), a))
	must(t, chromedp.Do(tab, chromedp.WaitVisible(chromedp.CSS(`#r-R000077`))))
	t.Logf("seen after %v", time.Since(began).Round(10*time.Millisecond))
	kept, err := chromedp.Run(tab, chromedp.Evaluate[bool](`document.getElementById("r-R000004").mine === true && document.querySelector("tbody tr").id === "r-R000077"`))
	must(t, err)
	if !kept {
		t.Error("the other rows were drawn anew, or the new one is not on top")
	}
}

// A board is what the tasks are, while they change.
type board struct {
	mu    sync.Mutex
	views []TaskView
}

func (b *board) tasks(context.Context) ([]TaskView, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.views), nil
}

func (b *board) change(f func(views []TaskView)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.views)
}

// liveKeepsThePlace: an update leaves whoever looks where they are: the scroll position, the focus, though its row moves, an open table
// with its own scroll position, and the values shown by hovering, which are the new ones. What did not change is not drawn anew.
func liveKeepsThePlace(t *testing.T, browser context.Context) {
	s := openStore(t)
	seed(t, s, traffic{requests: 60, days: 10, task: "ticket-triage", local: 0.8})
	b := &board{views: []TaskView{ticketTask(), {Name: "language", State: "observing"}}}
	server := serve(t, Options{Source: s, Tasks: b.tasks})
	in := &inspector{t: t, tab: openTab(t, browser)}
	looks[0].apply(t, in.tab)
	must(t, chromedp.Do(in.tab, chromedp.Navigate(server.URL+"/"), chromedp.WaitVisible(chromedp.CSS(`#live[data-state=on]`))))
	evaluate[bool](in, `(() => {
		window.table = document.querySelector("figure.chart details"); table.open = true; table.querySelector(".scroll").scrollTop = 90;
		window.link = [...document.querySelectorAll("a")].find((a) => a.textContent === "language");
		link.focus(); window.scrollTo(0, 500); return true; })()`)
	must(t, chromedp.Do(in.tab, chromedp.Sleep(100*time.Millisecond))) // scrolling hides values, and says so a moment later
	evaluate[bool](in, `(() => {
		window.hero = document.querySelector(".hero"); hero.mine = true;
		window.slot = [...document.querySelectorAll("[data-tip]")].find((e) => e.dataset.tip.startsWith("`+fixedNow.Format("2 Jan")+`"));
		slot.dispatchEvent(new PointerEvent("pointerover", {bubbles: true})); window.told = document.querySelector(".tip.on").textContent;
		window.tasks = document.getElementById("tasks"); window.top0 = tasks.getBoundingClientRect().top; return true; })()`)
	b.change(func(views []TaskView) { views[0].Warnings = []Warning{{"something happened", true}} }) // a section above all others, which was not there
	for i := range 3 {
		a := traffic{task: "language"}.attempt(900+i, 0, fixedNow)
		a.Model, a.Tier, a.Answered, a.Reference = "m", "linear", true, cost.USD // the tasks change their order
		must(t, s.RecordFree(t.Context(), a))
	}
	must(t, chromedp.Do(in.tab, chromedp.WaitVisible(chromedp.CSS(`.alerts`)), chromedp.WaitVisible(chromedp.CSS(`#r-R000902`))))
	waitFor(in, `slot.dataset.tip.includes("$3.0")`) // sums are a moment later than rows
	for name, expression := range map[string]string{
		"the focus is gone":                            `document.activeElement === link && link.textContent === "language" && link.closest("tr") === link.closest("tbody").rows[0]`,
		"the page jumped":                              `Math.abs(tasks.getBoundingClientRect().top - top0) < 2 && scrollY > 500`,
		"an open table closed, or lost its place":      `table.isConnected && table.open && table.querySelector(".scroll").scrollTop === 90`,
		"what did not change was drawn anew":           `hero.isConnected && document.querySelector(".hero") === hero && hero.mine`,
		"the values shown by hovering are gone or old": `document.querySelector(".tip.on") && document.querySelector(".tip.on").textContent !== told`,
	} {
		if !evaluate[bool](in, `!!(`+expression+`)`) {
			t.Errorf("%s: %s", name, evaluate[string](in, `JSON.stringify([document.activeElement.outerHTML.slice(0, 80), top0, tasks.getBoundingClientRect().top, scrollY, link.isConnected, told, document.querySelector(".tip").textContent])`))
		}
	}
}

// twoOperators: two people have the same task open and press at the same time. The first is obeyed; the second is told so, though the
// page has shown the new state meanwhile, because the form was filled in for the state before.
func twoOperators(t *testing.T, browser context.Context) {
	view := ticketTask()
	view.Version = 12
	b := &board{views: []TaskView{view}}
	var obeyed []Order
	server := serve(t, Options{Source: openStore(t), Tasks: b.tasks, Command: func(_ context.Context, o Order) (err error) {
		b.change(func(views []TaskView) {
			if o.Version != views[0].Version {
				err = fmt.Errorf("%w: it is %s now", ErrStale, views[0].State)
				return
			}
			obeyed = append(obeyed, o)
			views[0].Version, views[0].State, views[0].Note = 13, "shadow", "rolled back by somebody else"
		})
		return err
	}})
	first, second := &inspector{t: t, tab: openTab(t, browser)}, &inspector{t: t, tab: openTab(t, browser)}
	for _, in := range []*inspector{first, second} {
		must(t, chromedp.Do(in.tab, chromedp.Navigate(server.URL+"/tasks/ticket-triage"), chromedp.WaitVisible(chromedp.CSS(`#live[data-state=on]`)),
			chromedp.Click(chromedp.CSS(`[name=command][value=rollback]`)), chromedp.SendKeys(chromedp.CSS(`[name=confirm]`), "ticket-triage")))
	}
	evaluate[bool](second, `document.activeElement.blur(), true`) // looks at something else for a moment
	press := chromedp.Click(chromedp.CSS(`form[action$="/command"] button`))
	must(t, chromedp.Do(first.tab, press, chromedp.WaitVisible(chromedp.CSS(`.notice[role=status]`))))
	waitFor(second, `document.querySelector(".states .here").textContent === "shadow"`)
	if got := evaluate[string](second, `document.querySelector("[name=version]").value + document.querySelector("[name=confirm]").value`); got != "12ticket-triage" {
		t.Errorf("the form of the second is for %q now", got)
	}
	must(t, chromedp.Do(second.tab, press, chromedp.WaitVisible(chromedp.CSS(`main > h1 + .lede + p > a[href="/requests"]`)))) // the page of a failure
	if text := evaluate[string](second, `document.querySelector("main").innerText`); !strings.Contains(text, "Somebody was quicker: the task has changed meanwhile.") || !strings.Contains(text, "it is shadow now") {
		t.Errorf("the second reads %q", text)
	}
	if len(obeyed) != 1 || obeyed[0].Command != "rollback" {
		t.Errorf("carried out: %+v", obeyed)
	}
}

// tablesWithoutScripts: with JavaScript off, the first table of every page that has one can be read.
func tablesWithoutScripts(t *testing.T, browser context.Context) {
	tab := openTab(t, browser)
	_, err := chromedp.Call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	must(t, err)
	tables := 0
	for name, address := range fixturePages(t) {
		_, _, page := get(t, address)
		must(t, chromedp.Do(tab, chromedp.Navigate(address), chromedp.WaitVisible("main")))
		if !strings.Contains(page, "<table") || strings.HasSuffix(name, "-empty") {
			continue
		}
		text, err := chromedp.Run(tab, chromedp.Text("main"))
		must(t, err)
		first := regexp.MustCompile(`(?s)<table.*?<tbody.*?<th scope="row"[^>]*>(.*?)</th>`).FindStringSubmatch(page)
		if first == nil {
			continue
		}
		word := strings.TrimSpace(html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(first[1], " ")))
		if tables++; word == "" || !strings.Contains(strings.Join(strings.Fields(text), " "), strings.Fields(word)[0]) {
			t.Errorf("%s: without scripts the first table's %q cannot be read", name, word)
		}
	}
	if tables < 10 {
		t.Errorf("only %d pages with a table were looked at", tables)
	}
}
