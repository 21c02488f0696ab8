package dashboard

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"html/template"
	"io/fs"
	"math"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"occam/internal/cost"
)

//go:embed web
var web embed.FS

// A failure is an error that a person reads: what happened, why, and what to do.
type failure struct {
	status         int
	What, Why, Fix string
}

func (f *failure) Error() string { return f.What + " " + f.Why + " " + f.Fix }

func badInput(what, fix string) error {
	return &failure{http.StatusBadRequest, what, "The address holds a value that does not fit.", fix}
}

// pathPart escapes a name as one part of an address.
func pathPart(name string) string { return url.PathEscape(name) }

func queryPart(name string) string { return url.QueryEscape(name) }

func quote(s string) string { return strconv.Quote(s) }

// pages holds the parsed templates and the assets under names that change with their content.
type pages struct {
	templates map[string]*template.Template
	assets    map[string][]byte // by the name in the address
	names     map[string]string // from the plain name
}

// frame is what every page is rendered with.
type frame struct {
	Page    string // name of the template
	Path    string
	Host    string
	Version string
	Who     string // account
	Admin   bool
	Login   bool // there is one
	Reviews bool // there is a database: a review queue, keys, settings
	Batches bool
	Groups  bool // jobs are looked for in the traffic
	Now     time.Time
	Data    any
}

func parsePages() *pages {
	p := &pages{templates: map[string]*template.Template{}, assets: map[string][]byte{}, names: map[string]string{}}
	must := func(err error) {
		if err != nil {
			panic("dashboard: the embedded pages are broken: " + err.Error()) // they are part of the program
		}
	}
	for _, name := range []string{"app.css", "app.js", "theme.js", "icon.svg"} {
		data, err := fs.ReadFile(web, "web/"+name)
		must(err)
		sum := sha256.Sum256(data)
		ext := path.Ext(name)
		hashed := strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext
		p.assets[hashed], p.names[name] = data, "/assets/"+hashed
	}
	base, err := template.New("").Funcs(p.functions()).ParseFS(web, "web/frame.html", "web/parts.html")
	must(err)
	for _, name := range []string{"overview", "requests", "request", "task", "breakeven", "spend", "ledger", "review", "keys", "key", "groups", "data", "batches", "settings", "login", "failure"} {
		t, err := base.Clone()
		must(err)
		_, err = t.ParseFS(web, "web/"+name+".html")
		must(err)
		p.templates[name] = t
	}
	return p
}

// functions are what templates may call.
func (p *pages) functions() template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) string { return p.names[name] },
		"count": count[int64], "number": count[int], "percent": percent, "decimal": decimal, "duration": duration, "bytesize": bytesize, "short": short, "sentence": sentence, "capital": capital,
		"reason": reason, "commandWords": func(s string) string { return commandWords[s] }, "stateWords": func(s string) string { return taskStateWords[s] },
		"day":       func(t time.Time) string { return t.UTC().Format("2 January 2006") },
		"clock":     clock,
		"stamp":     func(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04") },
		"moment":    func(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04:05.000") },
		"codeParts": codeParts, "signed": signed, "assumption": assumptionName,
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"month": func(t time.Time) string { return t.UTC().Format("January 2006") },
		"monthName": func(s string) string {
			t, err := time.Parse("2006-01", s)
			if err != nil {
				return s
			}
			return t.Format("January 2006")
		},
		"segment": pathPart,
		"ratio": func(part, whole dollars) string { // width of a bar, percent
			if whole <= 0 {
				return "0%"
			}
			return pct(min(100*float64(part)/float64(whole), 100))
		},
		"maxOf":    func(a, b dollars) dollars { return max(a, b) },
		"sub":      func(a, b dollars) dollars { return a - b },
		"fraction": func(v float64) string { return pct(100 * min(max(v, 0), 1)) },
		"states": func() []string {
			return []string{"settled", "estimated", "free", "open", "void", "unpriced"}
		},
		"bigNumber": bigNumber,
		"amount":    func(a cost.Amount) string { return dollars(a).String() },
		"hour":      func(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04") },
		"table": func(what, head string, rows []slice) map[string]any {
			return map[string]any{"What": what, "Head": head, "Rows": rows}
		},
		"commas":   func(all []string) string { return strings.Join(all, ", ") },
		"share":    func(part dollars, whole cost.Amount) float64 { return float64(part) / max(float64(whole), 1) },
		"points":   func(v float64) string { return strconv.FormatFloat(100*abs64(v), 'f', 1, 64) + " points" },
		"logshare": func(v, limit float64) float64 { return math.Log(max(v, 1)) / math.Log(max(limit, 2)) },
		"longtime": longTime,
		"indent": func(v any) (string, error) {
			text, err := json.MarshalIndent(v, "", "  ")
			return string(text), err
		},
		"deref":  func(v *float64) float64 { return *v },
		"usd":    func(v float64) string { return dollars(cost.FromUSD(v)).String() },
		"invert": func(v float64) float64 { return 1 - v },
	}
}

// asset serves a file whose name holds its hash, so browsers keep it for ever.
func (p *pages) asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	data, ok := p.assets[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	send(w, r, http.StatusOK, data)
}

// A loader reads what a page or an API answer shows.
type loader func(*http.Request) (any, error)

// page renders what load returns with the named template.
func (d *Dashboard) page(name string, load loader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := load(r)
		if err != nil {
			d.fail(w, r, d.explain(r, err))
			return
		}
		d.render(w, r, name, http.StatusOK, data)
	})
}

// render writes a page, whole or not at all.
func (d *Dashboard) render(w http.ResponseWriter, r *http.Request, name string, status int, data any) {
	var body bytes.Buffer
	err := d.pages.templates[name].ExecuteTemplate(&body, "frame", frame{Page: name, Path: r.URL.Path, Host: r.Host, Version: d.Version,
		Who: who(r).name, Admin: who(r).role == Admin, Login: d.Login, Reviews: d.Database != nil, Groups: d.Groups != nil, Batches: d.Batches != nil, Now: d.Now().UTC(), Data: data})
	if err != nil {
		d.Log.Error("dashboard: render", "page", name, "error", err)
		http.Error(w, "dashboard: the page could not be rendered; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	send(w, r, status, body.Bytes())
}

// worthwhile is the size from which a body is compressed.
const worthwhile = 1 << 10

// send writes a body, compressed where the caller takes that.
func send(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Add("Vary", "Accept-Encoding")
	if len(body) < worthwhile || !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.WriteHeader(status)
		w.Write(body) //nolint:errcheck // the caller went away
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.WriteHeader(status)
	z := gzip.NewWriter(w)
	z.Write(body) //nolint:errcheck // the caller went away
	z.Close()     //nolint:errcheck // likewise
}

// fail shows a failure to a person, or to a program.
func (d *Dashboard) fail(w http.ResponseWriter, r *http.Request, f *failure) {
	if !isAPI(r) {
		d.render(w, r, "failure", f.status, f)
		return
	}
	d.reply(w, r, f.status, map[string]any{"error": map[string]string{"what": f.What, "why": f.Why, "fix": f.Fix}})
}

// reply writes JSON, whole or not at all.
func (d *Dashboard) reply(w http.ResponseWriter, r *http.Request, status int, data any) {
	body, err := json.Marshal(data)
	if err != nil {
		d.Log.Error("dashboard: encode", "path", r.URL.Path, "error", err)
		http.Error(w, `{"error":{"what":"The answer could not be encoded."}}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	send(w, r, status, append(body, '\n'))
}

// api writes what load returns as JSON.
func (d *Dashboard) api(load loader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := load(r)
		if err != nil {
			d.fail(w, r, d.explain(r, err))
			return
		}
		d.reply(w, r, http.StatusOK, data)
	})
}

// explain turns an error into one for people. What is not a person's doing goes to the log.
func (d *Dashboard) explain(r *http.Request, err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	if r.Context().Err() == nil {
		d.Log.Error("dashboard: load", "path", r.URL.Path, "error", err)
	}
	return &failure{http.StatusInternalServerError, "The page could not be loaded.", "The ledger could not be read just now.",
		"Reload; if it stays so, the log of occam says why."}
}
