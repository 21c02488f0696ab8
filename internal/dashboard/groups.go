package dashboard

import (
	"cmp"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"occam/internal/lifecycle"
)

// groupList is the page of the jobs in the traffic that are no task yet.
type groupList struct {
	Groups []groupView `json:"groups"` // those that cost most first
	May    bool        `json:"-"`
	Keeps  bool        `json:"-"` // whether texts are kept, without which nothing is found
}

type groupView struct {
	lifecycle.Group
	Name string `json:"-"` // to suggest for the task
}

// groups loads the page.
func (d *Dashboard) groups(r *http.Request) (any, error) {
	groups, err := d.Groups(r.Context())
	if err != nil {
		return nil, err
	}
	p := &groupList{Groups: []groupView{}, May: d.MakeTask != nil && who(r).role == Admin, Keeps: true}
	if d.Configuration != nil {
		p.Keeps = d.Configuration().Capture
	}
	for _, g := range groups {
		p.Groups = append(p.Groups, groupView{g, suggestName(g)})
	}
	return p, nil
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// suggestName makes a name of the group's first field, such as "category-4f1c".
func suggestName(g lifecycle.Group) string {
	name := "task"
	if len(g.Fields) > 0 {
		name = g.Fields[0].Name
	}
	name = cmp.Or(strings.Trim(notName.ReplaceAllString(strings.ToLower(name), "-"), "-"), "task")
	return name[:min(len(name), 40)] + "-" + g.ID[max(0, len(g.ID)-4):]
}

// makeTask turns a group into a task.
func (d *Dashboard) makeTask(w http.ResponseWriter, r *http.Request) {
	m := lifecycle.Making{Group: r.PathValue("id"), Name: strings.TrimSpace(r.PostFormValue("name")), By: who(r).name, Auto: r.PostFormValue("auto") != ""}
	err := error(nil)
	if text := r.PostFormValue("audit"); text != "" {
		if m.Audit, err = strconv.ParseFloat(text, 64); err != nil || !(m.Audit >= 0 && m.Audit <= 1) {
			err = badInput("The audit share "+quote(short(text))+" cannot be read.", "Write a number from 0 to 1, such as 0.01.")
		}
	}
	if err == nil {
		if err = d.MakeTask(r.Context(), m); err != nil && r.Context().Err() == nil {
			err = &failure{http.StatusConflict, "No task was made.", sentence(err.Error()), "Look at the list again."}
		}
	}
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	d.did(r.Context(), m.By, "made a task of discovered traffic", m.Name, "group "+m.Group)
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, map[string]string{"task": m.Name})
		return
	}
	http.Redirect(w, r, "/tasks/"+pathPart(m.Name)+"?done=made", http.StatusSeeOther)
}
