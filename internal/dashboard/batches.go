package dashboard

import (
	"net/http"
	"time"
)

// A BatchView is how far one offline batch is.
type BatchView struct {
	ID         string      `json:"id"`
	Endpoint   string      `json:"endpoint"`
	Status     string      `json:"status"`
	Key        string      `json:"key,omitempty"`
	Created    time.Time   `json:"created"`
	Ended      time.Time   `json:"ended,omitzero"`
	Total      int64       `json:"requests"`
	Completed  int64       `json:"completed"`
	Specialist int64       `json:"by_specialists"` // a part of Completed
	Failed     int64       `json:"failed"`
	Faults     []string    `json:"faults,omitempty"` // why it failed as a whole
	Parts      []BatchPart `json:"parts,omitempty"`
	MayCancel  bool        `json:"may_cancel"`
}

// A BatchPart is what one provider has of a batch.
type BatchPart struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
	Lines    int64  `json:"lines"`
	Done     int64  `json:"done"`
	State    string `json:"state"`
	Remote   string `json:"remote,omitempty"` // the provider's own name of it
}

// Share is how much of the batch has an answer or has failed.
func (b BatchView) Share() float64 { return float64(b.Completed+b.Failed) / float64(max(b.Total, 1)) }

// OwnShare is how much of it specialists answered.
func (b BatchView) OwnShare() float64 { return float64(b.Specialist) / float64(max(b.Total, 1)) }

type batchList struct {
	Batches []BatchView `json:"batches"`
	May     bool        `json:"-"`
	Done    string      `json:"-"`
}

// batches loads the page.
func (d *Dashboard) batches(r *http.Request) (any, error) {
	all, err := d.Batches(r.Context())
	return &batchList{append([]BatchView{}, all...), d.CancelBatch != nil && who(r).role == Admin, r.FormValue("done")}, err
}

// cancelBatch stops one.
func (d *Dashboard) cancelBatch(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if err := d.CancelBatch(r.Context(), id); err != nil {
		d.fail(w, r, &failure{http.StatusConflict, "The batch was not stopped.", sentence(err.Error()), "Look at the list again."})
		return
	}
	d.did(r.Context(), who(r).name, "stopped a batch", id, "")
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, map[string]string{"done": id})
		return
	}
	http.Redirect(w, r, "/batches?done="+queryPart(id), http.StatusSeeOther)
}
