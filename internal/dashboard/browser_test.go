package dashboard

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

var screenshots = flag.String("screenshots", "", "folder to write pictures of every page to")

// startBrowser starts a headless browser with a profile of its own, or skips the test where there is none.
func startBrowser(t testing.TB) context.Context {
	t.Helper()
	path := os.Getenv("OCCAM_CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path == "" {
			path, _ = exec.LookPath(name)
		}
	}
	if path == "" {
		t.Skip("no chromium on PATH: run scripts/ui-setup.sh, or set OCCAM_CHROMIUM")
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.Headless,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true)}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() { cancel(); stop() })
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	return ctx
}

// A look is how a page is looked at.
type look struct {
	width int64
	dark  bool
}

func (l look) String() string {
	if l.dark {
		return fmt.Sprintf("%d-dark", l.width)
	}
	return fmt.Sprintf("%d-light", l.width)
}

var looks = []look{{1280, false}, {1280, true}, {320, false}, {320, true}}

// apply sets up a tab to look so.
func (l look) apply(t testing.TB, tab context.Context) {
	t.Helper()
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	_, err := chromedp.Call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: 800, DeviceScaleFactor: 1})
	must(t, err)
	_, err = chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	must(t, err)
}

// openTab opens a tab of its own for one look at one page.
func openTab(t testing.TB, browser context.Context) context.Context {
	t.Helper()
	tab, cancel := chromedp.NewContext(browser)
	tab, stop := context.WithTimeout(tab, 5*time.Minute)
	t.Cleanup(func() { stop(); cancel() })
	_, err := chromedp.Call(tab, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}) // whatever other tabs are open
	must(t, err)
	return tab
}

// eyes are the ways of seeing that a person looks at once per release.
var eyes = []emulation.SetEmulatedVisionDeficiencyType{emulation.SetEmulatedVisionDeficiencyTypeProtanopia, emulation.SetEmulatedVisionDeficiencyTypeDeuteranopia,
	emulation.SetEmulatedVisionDeficiencyTypeTritanopia, emulation.SetEmulatedVisionDeficiencyTypeAchromatopsia}

// TestScreenshots writes a picture of every page, and of the overview in the other ways in which people see.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("no -screenshots folder given")
	}
	browser := startBrowser(t)
	pages := fixturePages(t)
	for name, address := range pages {
		shots := []look{looks[0]}
		if name == "overview" || name == "task" || name == "keys" {
			shots = []look{looks[0], looks[1], looks[2]}
		}
		for _, l := range shots {
			t.Run(name+"-"+l.String(), func(t *testing.T) {
				tab := openTab(t, browser)
				l.apply(t, tab)
				picture(t, tab, address, name+"-"+l.String())
			})
		}
	}
	for _, eye := range eyes {
		t.Run("eyes-"+string(eye), func(t *testing.T) {
			tab := openTab(t, browser)
			looks[0].apply(t, tab)
			_, err := chromedp.Call(tab, emulation.SetEmulatedVisionDeficiency, emulation.SetEmulatedVisionDeficiencyParams{Type: eye})
			must(t, err)
			picture(t, tab, pages["overview"], "overview-"+string(eye))
		})
	}
	for name, feature := range map[string]*emulation.MediaFeature{"forced-colors": {Name: "forced-colors", Value: "active"}, "reduced-motion": {Name: "prefers-reduced-motion", Value: "reduce"}} {
		t.Run("eyes-"+name, func(t *testing.T) {
			tab := openTab(t, browser)
			looks[0].apply(t, tab)
			_, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{feature}})
			must(t, err)
			picture(t, tab, pages["overview"], "overview-"+name)
		})
	}
}

func picture(t *testing.T, tab context.Context, address, name string) {
	t.Helper()
	must(t, chromedp.Do(tab, chromedp.Navigate(address), chromedp.WaitVisible("main"), chromedp.Sleep(200*time.Millisecond)))
	shot, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(*screenshots, name+".png"), smaller(t, shot), 0o644))
}

// smaller keeps the 256 most frequent colours of a picture: pages have few, and the file becomes a third.
func smaller(t *testing.T, data []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(data))
	must(t, err)
	counts := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(full.At(x, y)).(color.RGBA) }
	b := full.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			counts[at(x, y)]++
		}
	}
	order := slices.SortedFunc(maps.Keys(counts), func(p, q color.RGBA) int {
		return cmp.Or(counts[q]-counts[p], int(p.R)-int(q.R), int(p.G)-int(q.G), int(p.B)-int(q.B))
	})
	var palette color.Palette // frequent colours first, but none that is nearly another: rare ones, such as a line's, have room then
	for _, c := range order {
		if len(palette) < 256 && !slices.ContainsFunc(palette, func(p color.Color) bool { return near(p.(color.RGBA), c) }) {
			palette = append(palette, c)
		}
	}
	nearest := map[color.RGBA]uint8{}
	few := image.NewPaletted(b, palette)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := at(x, y)
			i, known := nearest[c]
			if !known {
				i = uint8(palette.Index(c))
				nearest[c] = i
			}
			few.SetColorIndex(x, y, i)
		}
	}
	var out bytes.Buffer
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, few))
	return out.Bytes()
}

func near(p, q color.RGBA) bool {
	d := func(a, b uint8) int { return max(int(a), int(b)) - min(int(a), int(b)) }
	return d(p.R, q.R)+d(p.G, q.G)+d(p.B, q.B) < 14
}

// escalated finds a request that the specialist passed on.
func escalated(t *testing.T, s *store.Store) string {
	t.Helper()
	found, _, err := s.Requests(t.Context(), store.Filter{Task: "ticket-triage", Tier: "generalist"}, "")
	must(t, err)
	for _, q := range found {
		if last := q.Attempts[len(q.Attempts)-1]; len(q.Attempts) == 2 && !last.Audit {
			return q.ID
		}
	}
	t.Fatal("no request was escalated")
	return ""
}

// withLogin serves a dashboard that asks for a login to somebody who has logged in as an admin, and returns its address.
func withLogin(t *testing.T, o Options) string {
	t.Helper()
	o.Login, o.Version = true, "test"
	for i, account := range []login{{name: "operator", role: Admin}, {name: "eva", role: Viewer}, {name: "rita", role: Reviewer}} {
		_, err := changeAccount(t.Context(), o.Database, accountChange{name: account.name, role: account.role, seen: -1, by: "admin", at: fixedNow.Add(time.Duration(i-60) * time.Minute)})
		must(t, err)
	}
	done := make(chan struct{})
	o.Done, o.Now = done, func() time.Time { return fixedNow }
	d := New(o)
	server := httptest.NewServer(d.guard(d.Trusted()))
	t.Cleanup(func() { close(done); server.Close() })
	return server.URL
}

// fixturePages starts a dashboard with something of everything and returns the addresses of all pages.
func fixturePages(t *testing.T) map[string]string {
	t.Helper()
	clock := fixedNow.AddDate(0, 0, -18)
	s, empty, loss := openStoreAt(t, &clock), openStore(t), openStore(t)
	live(t, s, &clock)
	someModels(t, s)
	seed(t, s, traffic{requests: 80, days: 18, from: 10000, simulated: true})
	seed(t, s, traffic{requests: 60, days: 9, from: 20000, task: "language", simulated: true})
	seed(t, s, traffic{requests: 700, days: 18, task: "ticket-triage", local: 0.84, simulated: true, live: fixedNow.AddDate(0, 0, -12)})
	seed(t, loss, traffic{requests: 200, days: 10, task: "ticket-triage", local: 0.6, perLocal: 4_000_000})
	flush(t, s)
	language := TaskView{Name: "language", Generalist: "gpt-4o", State: "observing", Target: task.DefaultTarget, Note: "the task is new", Since: fixedNow.AddDate(0, 0, -9),
		Next: "training waits for 1,200 labelled requests drawn at random; there are 60", Fields: []task.Field{{Name: "language", Kind: task.Category, Values: []string{"de", "en", "fr"}}}}
	queueReview(t, s)
	trains(t, s, "language")
	_, err := FirstPassword(t.Context(), empty)
	must(t, err)
	guarded := serve(t, Options{Source: empty, Database: empty, Login: true}).URL
	o := everything(s)
	o.Tasks = fixedTasks(ticketTask(), language)
	dashboard := serveAll(t, o)
	full := dashboard.url
	checked(t, dashboard, s)
	key := someKeys(t, s)
	none := serve(t, Options{Source: empty, Database: empty, Groups: func(context.Context) ([]lifecycle.Group, error) { return nil, nil }}).URL
	losing := serve(t, Options{Source: loss, Tasks: fixedTasks(ticketTask())}).URL
	bare := serve(t, Options{Source: empty}).URL
	story := escalated(t, s)
	keepText(t, s, story)
	return map[string]string{"overview": full + "/", "overview-loss": losing + "/", "overview-empty": bare + "/", "requests": full + "/requests",
		"requests-filtered": full + "/requests?task=language&tier=generalist&from=2026-11-20", "request": full + "/requests/" + story,
		"task": full + "/tasks/ticket-triage", "task-new": full + "/tasks/language", "data": full + "/tasks/ticket-triage/data", "groups": full + "/groups",
		"groups-empty": none + "/groups", "keys": full + "/keys", "key": full + "/keys/" + key, "keys-empty": none + "/keys", "settings": withLogin(t, o) + "/settings", "batches": full + "/batches",
		"spend": full + "/spend", "ledger": full + "/ledger", "review": full + "/review", "breakeven": full + "/breakeven",
		"breakeven-task": full + "/breakeven?task=ticket-triage", "login": guarded + "/login", "not-found": full + "/nowhere"}
}
