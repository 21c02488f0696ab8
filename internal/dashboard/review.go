package dashboard

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"occam/internal/store"
	"occam/internal/task"
)

// reviewLease is how long one person has a text on the screen before somebody else gets it.
const reviewLease = 10 * time.Minute

// review is the page on which people say what is right: one text at a time, the most valuable first.
type review struct {
	Task    string       `json:"task"`
	Queues  []queue      `json:"queues"`
	ID      string       `json:"id,omitempty"` // "" when nothing waits
	Request string       `json:"request_id,omitempty"`
	Why     string       `json:"why,omitempty"`
	Text    string       `json:"text,omitempty"`
	Parts   []textPart   `json:"-"`
	Fields  []fieldInput `json:"fields,omitempty"`
	May     bool         `json:"-"`
	Done    string       `json:"-"`
}

type queue struct {
	Task    string `json:"task"`
	Waiting int64  `json:"waiting"`
}

// A textPart is a piece of the text; Marked where it is what a span field holds.
type textPart struct {
	Text   string
	Marked bool
}

// A fieldInput is one field of the answer as the form shows it.
type fieldInput struct {
	task.Field
	Value   string   `json:"suggestion"`
	Members []string `json:"suggestions,omitempty"` // of a Labels field
	Null    bool     `json:"null"`
}

// Has reports whether a member of a Labels field is suggested.
func (f fieldInput) Has(member string) bool { return slices.Contains(f.Members, member) }

// review loads the next text of a task. A reviewer has it for the length of the lease.
func (d *Dashboard) review(r *http.Request) (any, error) {
	views, err := d.Tasks(r.Context())
	if err != nil {
		return nil, err
	}
	p := &review{Task: r.FormValue("task"), May: who(r).role >= Reviewer, Done: r.FormValue("done")}
	var next store.Review
	var example store.Example
	work := func(tx *store.Tx) error {
		for _, v := range views {
			n, err := tx.Reviews().Waiting(v.Name)
			if err != nil {
				return err
			}
			p.Queues = append(p.Queues, queue{v.Name, n})
		}
		p.choose()
		if !p.May || p.Task == "" {
			return nil
		}
		if next, err = tx.Reviews().Next(p.Task, who(r).name, reviewLease); err != nil {
			return ignoreNotFound(err)
		}
		example, err = tx.Examples().ByRequest(next.RequestID)
		return ignoreNotFound(err)
	}
	if err := d.Database.Update(r.Context(), work); err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(views, func(v TaskView) bool { return v.Name == p.Task }); i >= 0 && next.ID != "" {
		p.show(&views[i], next, example.Text)
	}
	return p, nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// choose takes the task with the longest queue where none, or an unknown one, is asked for.
func (p *review) choose() {
	var longest queue
	for _, q := range p.Queues {
		if q.Task == p.Task {
			return
		}
		if q.Waiting > longest.Waiting {
			longest = q
		}
	}
	p.Task = longest.Task
}

// show fills the form with what the specialist would have answered.
func (p *review) show(v *TaskView, r store.Review, text string) {
	p.ID, p.Request, p.Why, p.Text = r.ID, r.RequestID, r.Reason, text
	var suggested task.Output
	if json.Unmarshal(r.Suggestion, &suggested) != nil {
		suggested = nil // nothing is suggested
	}
	var spans []string
	for _, f := range v.Fields {
		value, known := suggested[f.Name]
		in := fieldInput{Field: f, Null: known && value.IsNull()}
		switch {
		case value.IsString():
			in.Value = value.Text()
		case value.IsBool():
			in.Value = string(value.AppendJSON(nil))
		case value.IsSet():
			in.Members = value.Members()
		}
		if f.Kind == task.Span && in.Value != "" {
			spans = append(spans, in.Value)
		}
		p.Fields = append(p.Fields, in)
	}
	p.Parts = mark(text, spans)
}

// mark cuts a text at every occurrence of the spans.
func mark(text string, spans []string) []textPart {
	var parts []textPart
	for text != "" {
		at, length := len(text), 0
		for _, span := range spans {
			if i := strings.Index(text, span); i >= 0 && i < at {
				at, length = i, len(span)
			}
		}
		if at > 0 {
			parts = append(parts, textPart{text[:at], false})
		}
		if length > 0 {
			parts = append(parts, textPart{text[at : at+length], true})
		}
		text = text[at+length:]
	}
	return parts
}

// judge takes what a person said about a text, or that it is skipped.
func (d *Dashboard) judge(w http.ResponseWriter, r *http.Request) {
	taskName, err := d.closeReview(r)
	switch {
	case err != nil:
		d.fail(w, r, d.explain(r, err))
	case isAPI(r):
		d.reply(w, r, http.StatusOK, map[string]string{"task": taskName})
	default:
		http.Redirect(w, r, "/review?done="+pathPart(r.PostFormValue("do"))+"&task="+queryPart(taskName), http.StatusSeeOther)
	}
}

func (d *Dashboard) closeReview(r *http.Request) (taskName string, err error) {
	views, err := d.Tasks(r.Context())
	if err != nil {
		return "", err
	}
	err = d.Database.Update(r.Context(), func(tx *store.Tx) error {
		waiting, err := tx.Reviews().Get(r.PathValue("id"))
		if err != nil {
			return err
		}
		taskName = waiting.Task
		var output task.Output
		if r.PostFormValue("do") != "skip" {
			i := slices.IndexFunc(views, func(v TaskView) bool { return v.Name == waiting.Task })
			if i < 0 {
				return badInput("The task "+quote(short(waiting.Task))+" is gone.", "Skip the text.")
			}
			if output, err = readOutput(views[i].Fields, r); err != nil {
				return err
			}
		}
		_, err = tx.Reviews().Close(waiting.ID, who(r).name, output)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", &failure{http.StatusNotFound, "There is no such text in the queue.", "It may have been dropped for more valuable ones.", "Take the next one."}
	case errors.Is(err, store.ErrConflict):
		return "", &failure{http.StatusConflict, "Somebody else has answered this text already.", "Its lease had run out.", "Take the next one."}
	}
	return taskName, err
}

// readOutput reads the answer's fields from the form: an empty span is null.
func readOutput(fields []task.Field, r *http.Request) (task.Output, error) {
	output := task.Output{}
	for _, f := range fields {
		text := strings.TrimSpace(r.PostFormValue("f." + f.Name))
		var v task.Value
		switch {
		case f.Kind == task.Labels:
			v = task.Set(r.PostForm["f."+f.Name]...)
		case f.Kind == task.Boolean && (text == "true" || text == "false"):
			v = task.Bool(text == "true")
		case text != "":
			v = task.String(text)
		}
		if err := f.Check(v); err != nil {
			return nil, badInput("The field "+quote(short(f.Name))+" does not fit: "+strings.TrimPrefix(err.Error(), "task: ")+".", "Choose one of its values, or skip the text.")
		}
		output[f.Name] = v
	}
	return output, nil
}
