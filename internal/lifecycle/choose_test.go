package lifecycle

import (
	"strings"
	"testing"

	"occam/internal/store"
)

// A model that is live beside a candidate is not made the candidate too: that one would be forgotten, and the live one judged anew.
func TestTheLiveModelIsNoCandidate(t *testing.T) {
	trains(t)
	heldOut := func(o *TrainOptions) { o.Refit = false }
	b := benchWithModel(t, heldOut)
	live := b.status().Lead
	trained := trainColours(t, 1600, heldOut)
	data, err := trained.encode()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := b.store.SaveModel(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	row, err := modelRow("colours", hash, len(data), trained.Certificate, ModelReport{Origin: "trained", Specialist: trained.Model.Hash(), Reason: "another"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { _, err := tx.Models().Add(row); return err }); err != nil {
		t.Fatal(err)
	}
	b.until("a candidate", in(Candidate))
	s, err := b.Do(t.Context(), "colours", Promote, live, "ann", b.status().Version)
	if err == nil || !strings.Contains(err.Error(), "live already") || s.Lead != hash || s.Incumbent != live {
		t.Errorf("%v, %+v", err, s.Record)
	}
}
