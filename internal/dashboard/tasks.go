package dashboard

import (
	"net/http"
	"slices"
)

type taskList struct {
	Tasks []TaskView `json:"tasks"`
}

// tasks lists every task that the caller knows.
func (d *dashboard) tasks(r *http.Request) (any, error) {
	views, err := d.Tasks(r.Context())
	return taskList{views}, err
}

// taskPage is one task with its specialists.
type taskPage struct {
	TaskView
}

func (d *dashboard) task(r *http.Request) (any, error) {
	views, err := d.Tasks(r.Context())
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	i := slices.IndexFunc(views, func(v TaskView) bool { return v.Name == name })
	if i < 0 {
		return nil, &failure{http.StatusNotFound, "There is no task " + quote(short(name)) + ".",
			"It is not in the configuration, though the ledger may still hold its requests.", "Go to the overview for the list of tasks."}
	}
	return &taskPage{views[i]}, nil
}

// Accuracy is the share of test rows with every field right.
func (e *Evaluation) Accuracy() *share { return shareOf(int64(e.Right), int64(e.Rows)) }

// ServedAccuracy is the share of right answers among those it may give.
func (e *Evaluation) ServedAccuracy() *share { return shareOf(int64(e.ServedRight), int64(e.Served)) }

// Coverage is the share of test rows that it may answer.
func (e *Evaluation) Coverage() *share { return shareOf(int64(e.Served), int64(e.Rows)) }
