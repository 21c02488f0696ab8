package dashboard

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"occam/internal/datacheck"
	"occam/internal/lifecycle"
	"occam/internal/store"
	"occam/internal/task"
)

// payloads are 200 texts that would do something if a page took them for markup, script, style or an address.
func payloads() []string {
	shells := []string{`%s`, `"><%s`, `'><%s`, `</td>%s`, `</script>%s`, `--><!-- %s`, `</title>%s`, `</textarea>%s`, `]]>%s`, `<p>%s`}
	bodies := []string{`<script>alert(1)</script>`, `<img src=x onerror=alert(2)>`, `<svg onload=alert(3)>`, `<iframe src="javascript:alert(4)">`,
		`<a href="javascript:alert(5)">x</a>`, `<body onload=alert(6)>`, `<input autofocus onfocus=alert(7)>`, `<details open ontoggle=alert(8)>`,
		`<video src=x onerror=alert(9)>`, `<object data="http://localhost:1/o">`, `<link rel=stylesheet href="http://localhost:1/s.css">`,
		`<style>@import "http://localhost:1/i.css";</style>`, `<meta http-equiv=refresh content="0;url=http://localhost:1/">`,
		`<base href="http://localhost:1/">`, `<form action="http://localhost:1/"><button>x</button></form>`, `<math><mtext><script>alert(10)</script>`,
		`{{printf "x"}}<script>alert(11)</script>`, `${alert(12)}<img src="http://localhost:1/p.png">`, "\u202e<script>alert(13)</script>", `&lt;script&gt;alert(14)&lt;/script&gt;`}
	var all []string
	for i, shell := range shells {
		for j, body := range bodies {
			all = append(all, fmt.Sprintf("P%03d ", i*len(bodies)+j)+fmt.Sprintf(shell, body))
		}
	}
	return all
}

// payloadsStayText (S15): 200 payloads as prompt, model, task, tier, key name, error text and account, each shown in a real browser
// as the text that it is: no dialog, no request to anywhere, no element made of it.
func payloadsStayText(t *testing.T, browser context.Context) {
	all := payloads()
	if len(all) != 200 {
		t.Fatalf("%d payloads", len(all))
	}
	s := openStore(t)
	hostileTraffic(t, s, all)
	o := everything(s)
	o.CheckData = func(context.Context, string, func(string, int, int)) (*lifecycle.DataCheck, error) {
		return hostileData(all), nil
	}
	d := serveAll(t, o)
	checked(t, d, s)
	tab := openTab(t, browser)
	watch := &watcher{own: strings.TrimPrefix(d.url, "http://")}
	must(t, chromedp.Listen(tab, watch.hear))
	_, err := chromedp.Call(tab, network.Enable, network.EnableParams{})
	must(t, err)
	_, err = chromedp.Call(tab, page.Enable, page.EnableParams{})
	must(t, err)
	shown := map[string]int{}
	visit := func(path string) (next string) {
		must(t, chromedp.Do(tab, chromedp.Navigate(d.url+path), chromedp.WaitReady("main")))
		seen, err := chromedp.Run(tab, chromedp.Evaluate[struct {
			Text, Next string
			Made       int
		}](`({Text: document.body.textContent, Next: document.querySelector("a[rel=next]")?.getAttribute("href") || "",
			Made: document.querySelectorAll("main script, main img, main iframe, main object, main video, main style, main link, main meta, main base, main math, form[action^=http], a[href^=javascript], [onload], [onerror], [onfocus], [ontoggle]").length})`))
		must(t, err)
		if seen.Made != 0 {
			t.Errorf("%s: %d elements were made of payloads", path, seen.Made)
		}
		for _, p := range all {
			if strings.Contains(seen.Text, p) {
				shown[strings.SplitN(path, "?", 2)[0]+" "+p[:4]]++
			}
		}
		return seen.Next
	}
	for next := "/requests"; next != ""; {
		next = visit(next)
	}
	visit("/tasks/ticket-triage/data")
	visit("/keys")
	for _, path := range []string{"/", "/spend", "/settings", "/ledger", "/groups", "/review"} {
		visit(path)
	}
	for i := 0; i < len(all); i += 20 {
		visit(fmt.Sprintf("/requests/X%03d", i))
	}
	for i := range all {
		for _, path := range []string{"/requests", "/tasks/ticket-triage/data", "/keys"} {
			if shown[fmt.Sprintf("%s P%03d", path, i)] == 0 {
				t.Errorf("%s does not show payload %d as text", path, i)
			}
		}
	}
	watch.mu.Lock()
	defer watch.mu.Unlock()
	for _, found := range watch.found {
		t.Error(found)
	}
}

// A watcher takes notes of what no page should do.
type watcher struct {
	own   string
	mu    sync.Mutex
	found []string
}

func (w *watcher) hear(event any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := event.(type) {
	case *page.EventJavascriptDialogOpening:
		w.found = append(w.found, "a dialog: "+e.Message)
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		switch {
		case err == nil && u.Scheme == "data" && !strings.Contains(e.Request.URL, "alert"): // drawn by the browser itself
		case err != nil || u.Host != w.own:
			w.found = append(w.found, "a request to "+e.Request.URL)
		case u.Path == "/x" || strings.HasSuffix(u.Path, "/x"):
			w.found = append(w.found, "a request for "+u.Path)
		}
	}
}

// hostileTraffic writes one request for every payload, and a key named so. Names that the store cuts short are given whole
// elsewhere: the reason is the error text, which the list shows.
func hostileTraffic(t *testing.T, s *store.Store, all []string) {
	t.Helper()
	for i, p := range all {
		a := store.Attempt{ID: fmt.Sprintf("X%03d-0", i), RequestID: fmt.Sprintf("X%03d", i), At: fixedNow.Add(-1000 * 1e6), Task: "ticket-triage", Tier: "linear", Model: p,
			KeyID: p[:min(len(p), 60)], Reason: p}
		if i%2 == 0 {
			a.Answered, a.Status = true, 200
		}
		must(t, s.RecordFree(t.Context(), a))
	}
	flush(t, s)
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		for i, p := range all {
			if _, _, err := tx.Keys().Create(p, "app", store.KeyLimits{Degrade: p, Models: []string{p}}); err != nil {
				return err
			}
			e := store.Example{ID: fmt.Sprintf("X%03d", i), RequestID: fmt.Sprintf("X%03d", i), Task: "ticket-triage", At: fixedNow, Text: p}
			if err := tx.Examples().Add(e); err != nil {
				return err
			}
		}
		if err := tx.Reviews().Add(store.Review{ID: "R1", Task: "ticket-triage", RequestID: "X000", Example: "X000", At: fixedNow, Reason: all[0]}); err != nil {
			return err
		}
		return logAction(tx, Action{fixedNow, all[1], all[2], all[3], all[4]})
	}))
}

// hostileData is a data check whose rows hold every payload.
func hostileData(all []string) *lifecycle.DataCheck {
	found := &lifecycle.DataCheck{Report: &datacheck.Report{Rows: len(all)}}
	for i, p := range all {
		found.Examples = append(found.Examples, task.Example{ID: fmt.Sprintf("X%03d", i), Text: p})
	}
	for start := 0; start < len(all); start += 100 {
		f := datacheck.Finding{Kind: datacheck.Kind(all[start]), Field: all[start+1], Severity: datacheck.Error, Rows: 100, Why: all[start+2], Do: all[start+3]}
		for i := start; i < start+100; i += 5 {
			var rows []datacheck.Row
			for k := i; k < i+5; k++ {
				label := task.String(all[k])
				rows = append(rows, datacheck.Row{Index: k, ID: all[k], Label: &label, Suggested: &label})
			}
			f.Groups = append(f.Groups, datacheck.Group{Rows: rows, Note: all[i], Values: all[i : i+1]})
		}
		found.Findings = append(found.Findings, f)
	}
	return found
}
