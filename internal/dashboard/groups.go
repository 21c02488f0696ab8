package dashboard

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"occam/internal/task"
)

// A Group is traffic of one job that is no task yet, as the caller judges it.
type Group struct {
	ID       string       `json:"id"`
	Requests int          `json:"requests"`
	First    time.Time    `json:"first"`
	Last     time.Time    `json:"last"`
	Model    string       `json:"model"` // that the app asks for
	System   string       `json:"system,omitempty"`
	Template string       `json:"template"`         // how the varying text sits in the user's message
	Shape    string       `json:"shape"`            // "json", "label", "form", "free text"
	Format   string       `json:"format,omitempty"` // of a form: "Category: {{category}}"
	Fields   []task.Field `json:"fields,omitempty"`
	Answers  int          `json:"answers"`      // different ones among the samples
	Entropy  float64      `json:"entropy_bits"` // of the answers
	Spent    float64      `json:"spent_usd"`
	Monthly  *float64     `json:"monthly_usd"`        // at the rate seen; null when it is not priced or too short to say
	Saving   *float64     `json:"monthly_saving_usd"` // at most, if a specialist answered everything but its audits
	Verdict  string       `json:"verdict"`            // worth it, not worth it, cannot tell yet
	Reason   string       `json:"reason"`
	More     int64        `json:"more_needed,omitempty"` // requests until it can be told
	Offered  bool         `json:"offered"`               // it can be made a task
}

// A Making turns a Group into a task.
type Making struct {
	Group string
	Name  string  // of the task: small letters, digits and dashes
	Audit float64 // share of its answers to be audited; 0: the default
	Auto  bool    // occam may promote its models by itself
	By    string  // who said so
}

type groupList struct {
	Groups []Group `json:"groups"`
}

// groups lists the jobs in traffic that belongs to no task.
func (d *dashboard) groups(r *http.Request) (any, error) {
	if d.Groups == nil {
		return nil, noControl
	}
	found, err := d.Groups(r.Context())
	return groupList{append([]Group{}, found...)}, err
}

var noControl = &failure{http.StatusNotImplemented, "This occam takes no commands.", "It was started without the control loop.", "Start it with occam serve."}

// makeTask makes a group a task: one click.
func (d *dashboard) makeTask(w http.ResponseWriter, r *http.Request) {
	m := Making{Group: r.PathValue("id"), Name: r.PostFormValue("name"), Auto: r.PostFormValue("auto") != "", By: who(r).name}
	err := d.adopt(r.Context(), &m, r.PostFormValue("audit"))
	switch {
	case err != nil:
		d.fail(w, r, d.explain(r, err))
	case isAPI(r):
		d.reply(w, r, http.StatusOK, map[string]string{"task": m.Name})
	default:
		http.Redirect(w, r, "/tasks/"+pathPart(m.Name), http.StatusSeeOther)
	}
}

func (d *dashboard) adopt(ctx context.Context, m *Making, audit string) error {
	if d.MakeTask == nil {
		return noControl
	}
	if audit != "" {
		var err error
		if m.Audit, err = strconv.ParseFloat(audit, 64); err != nil {
			return badInput("The share of answers to be audited is no number: "+quote(short(audit))+".", "Write it as 0.01 for one in a hundred.")
		}
	}
	if err := d.MakeTask(ctx, *m); err != nil {
		d.Log.Warn("dashboard: a group was not made a task", "group", m.Group, "name", m.Name, "by", m.By, "error", err)
		var known *failure
		if errors.As(err, &known) {
			return known
		}
		return &failure{http.StatusConflict, "The task was not made.", sentence(err.Error()), "Look at the list of groups again."}
	}
	d.Log.Info("dashboard: a group was made a task", "group", m.Group, "name", m.Name, "by", m.By)
	return nil
}
