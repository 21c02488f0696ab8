package dashboard

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"occam/internal/datacheck"
	"occam/internal/lifecycle"
	"occam/internal/task"
)

// dataChecks remembers the last data check of every task, and lets only one run at a time: it takes what processors there are.
type dataChecks struct {
	mu      sync.Mutex
	running *dataRun
	last    map[string]*dataResult
}

// A dataRun is a check under way.
type dataRun struct {
	Task  string    `json:"task"`
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Stage string    `json:"stage,omitempty"`
	Share float64   `json:"share"` // of the stage
}

// A dataResult is what a check found.
type dataResult struct {
	At       time.Time           `json:"at"`
	By       string              `json:"by"`
	Failure  string              `json:"failure,omitempty"`
	Rows     int                 `json:"rows"`
	Findings []dataFinding       `json:"findings"`
	Ceilings []datacheck.Ceiling `json:"ceilings,omitempty"`
	Skipped  []string            `json:"skipped,omitempty"`
	Labels   []lifecycle.Finding `json:"labels,omitempty"`
}

// A dataFinding is everything of one kind in one field, with the texts of its most telling rows.
type dataFinding struct {
	Kind     string      `json:"kind"`
	Field    string      `json:"field,omitempty"`
	Severity string      `json:"severity"`
	Rows     int         `json:"rows"`
	Why      string      `json:"why"`
	Do       string      `json:"do"`
	Groups   []dataGroup `json:"groups"`
	More     int         `json:"more_groups,omitempty"` // that are not shown
}

// A dataGroup is rows that belong together.
type dataGroup struct {
	Values []string  `json:"values,omitempty"`
	Note   string    `json:"note,omitempty"`
	Rows   []dataRow `json:"rows,omitempty"`
	More   int       `json:"more_rows,omitempty"`
}

// A dataRow is one example. Label and Suggested are of the finding's field, as people read them.
type dataRow struct {
	ID        string `json:"id"`
	Text      string `json:"text"`
	Label     string `json:"label,omitempty"`
	Suggested string `json:"suggested,omitempty"`
}

const (
	groupsShown    = 20
	groupRowsShown = 6
	textShown      = 300 // runes
)

type dataPage struct {
	Task    string      `json:"task"`
	Running *dataRun    `json:"running,omitempty"` // of any task: only one runs at a time
	Result  *dataResult `json:"result,omitempty"`
	May     bool        `json:"-"`
}

// dataPage loads the page.
func (d *Dashboard) dataPage(r *http.Request) (any, error) {
	view, err := d.findTask(r)
	if err != nil {
		return nil, err
	}
	d.data.mu.Lock()
	defer d.data.mu.Unlock()
	p := &dataPage{Task: view.Name, Result: d.data.last[view.Name], May: who(r).role == Admin}
	if d.data.running != nil {
		running := *d.data.running
		p.Running = &running
	}
	return p, nil
}

// startDataCheck begins a check behind the request.
func (d *Dashboard) startDataCheck(w http.ResponseWriter, r *http.Request) {
	view, err := d.findTask(r)
	if err == nil {
		err = d.beginDataCheck(view.Name, who(r).name)
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	if isAPI(r) {
		d.reply(w, r, http.StatusAccepted, map[string]string{"started": view.Name})
		return
	}
	http.Redirect(w, r, "/tasks/"+pathPart(view.Name)+"/data", http.StatusSeeOther)
}

func (d *Dashboard) beginDataCheck(name, by string) error {
	d.data.mu.Lock()
	defer d.data.mu.Unlock()
	if run := d.data.running; run != nil {
		return &failure{http.StatusConflict, "A data check of " + run.Task + " is running already.", "It takes the processors, so one is enough.", "Wait for its result."}
	}
	d.data.running = &dataRun{Task: name, By: by, Since: d.Now().UTC()}
	go d.checkData(name, by)
	return nil
}

// checkData runs one check to its end; it ends early when the server stops.
func (d *Dashboard) checkData(name, by string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if d.Done != nil {
		go func() {
			select {
			case <-d.Done:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	found, err := d.CheckData(ctx, name, func(stage string, done, total int) {
		d.data.mu.Lock()
		d.data.running.Stage, d.data.running.Share = stage, float64(done)/float64(max(total, 1))
		d.data.mu.Unlock()
	})
	result := &dataResult{At: d.Now().UTC(), By: by}
	if err != nil {
		d.Log.Error("dashboard: check the data", "task", name, "error", err)
		result.Failure = err.Error()
	} else {
		result.fill(found)
	}
	d.data.mu.Lock()
	defer d.data.mu.Unlock()
	if d.data.last == nil {
		d.data.last = map[string]*dataResult{}
	}
	d.data.last[name], d.data.running = result, nil
}

func (p *dataResult) fill(found *lifecycle.DataCheck) {
	p.Rows, p.Ceilings, p.Skipped, p.Labels = len(found.Examples), found.Ceilings, found.Skipped, found.Labels
	for _, f := range found.Findings {
		view := dataFinding{Kind: strings.ReplaceAll(string(f.Kind), "_", " "), Field: f.Field, Severity: f.Severity, Rows: f.Rows, Why: f.Why, Do: f.Do,
			More: max(len(f.Groups)-groupsShown, 0)}
		for _, g := range f.Groups[:min(len(f.Groups), groupsShown)] {
			group := dataGroup{Values: g.Values, Note: g.Note, More: max(len(g.Rows)-groupRowsShown, 0)}
			for _, row := range g.Rows[:min(len(g.Rows), groupRowsShown)] {
				group.Rows = append(group.Rows, dataRowOf(row, found.Examples))
			}
			view.Groups = append(view.Groups, group)
		}
		p.Findings = append(p.Findings, view)
	}
}

func dataRowOf(row datacheck.Row, examples []task.Example) dataRow {
	v := dataRow{ID: row.ID, Label: valueText(row.Label), Suggested: valueText(row.Suggested)}
	if row.Index >= 0 && row.Index < len(examples) && !row.Reference {
		v.Text = clip(examples[row.Index].Text)
	}
	return v
}

// clip keeps the beginning of a text.
func clip(text string) string {
	runes := 0
	for i := range text {
		if runes++; runes > textShown {
			return text[:i] + "…"
		}
	}
	return text
}

// valueText is a value as people read it.
func valueText(v *task.Value) string {
	switch {
	case v == nil:
		return ""
	case v.IsNull():
		return "none"
	case v.IsString():
		return v.Text()
	case v.IsSet():
		return strings.Join(v.Members(), ", ")
	}
	return string(v.AppendJSON(nil))
}
