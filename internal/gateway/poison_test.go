package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"occam/internal/store"
	"occam/internal/task"
)

// A fragile specialist crashes on some inputs.
type fragile struct {
	parrot
	crashes atomic.Int64
}

func (m *fragile) Predict(text string, p *task.Prediction) {
	if strings.Contains(text, "poison") {
		m.crashes.Add(1)
		panic("poison")
	}
	m.parrot.Predict(text, p)
}

// F40: an input that crashes the specialist goes to the generalist, and after three crashes is not shown to the specialist again.
// Nobody else notices.
func TestF40PoisonForASpecialist(t *testing.T) {
	model := &fragile{}
	w := newWorld(t, func(w *world, _ *Options) { model.p = w.model.p; w.tier.Specialist = model })
	ask := func(text string) *http.Response {
		res, body := w.post(strings.Replace(taskBody, "refund A-1 please", text, 1))
		if res.StatusCode != 200 {
			t.Errorf("%s: %d %s", text, res.StatusCode, body)
		}
		return res
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 50 {
				if res := ask(fmt.Sprintf("refund A-1 please %d", i)); res.Header.Get("X-Occam-Reason") != "certified" {
					t.Errorf("another request was answered by %s: %s", res.Header.Get("X-Occam-Model"), res.Header.Get("X-Occam-Reason"))
				}
			}
		})
	}
	for range 20 {
		if res := ask("refund A-1 poison"); res.Header.Get("X-Occam-Reason") != "tier_failed" || res.Header.Get("X-Occam-Model") != "gpt-4o" {
			t.Errorf("%v", res.Header)
		}
	}
	wg.Wait()
	if n := model.crashes.Load(); n != 3 {
		t.Errorf("%d crashes", n)
	}
	ask("refund A-1 another poison")
	if n := model.crashes.Load(); n != 4 {
		t.Errorf("another input's crash was not its first: %d", n)
	}
}

// F40: a request that crashes the gateway itself gets 500, and after three times is refused unread. Its calls are closed in the
// ledger, and nobody else notices.
func TestF40PoisonForTheGateway(t *testing.T) {
	w := newWorld(t, func(_ *world, o *Options) {
		o.OnTraffic = func(tr Traffic) {
			if strings.Contains(tr.Messages[0].Text, "poison") {
				panic("poison")
			}
		}
	})
	poison := strings.Replace(plainBody, "hi", "poison", 1)
	var statuses []int
	for range 6 {
		res, body := w.post(poison)
		statuses = append(statuses, res.StatusCode)
		if !strings.Contains(body, `"error"`) {
			t.Errorf("%d %s", res.StatusCode, body)
		}
		if res, _ := w.post(plainBody); res.StatusCode != 200 {
			t.Errorf("another request got %d", res.StatusCode)
		}
	}
	if fmt.Sprint(statuses) != "[500 500 500 422 422 422]" {
		t.Error(statuses)
	}
	rows := w.book.paid()
	if len(rows) != 9 || len(w.seen()) != 9 || w.server.inFlight.Load() != 0 {
		t.Errorf("%d rows, %d calls, %d in flight", len(rows), len(w.seen()), w.server.inFlight.Load())
	}
	for _, a := range rows {
		if a.State != store.Settled && a.State != store.Estimated {
			t.Errorf("%+v", a)
		}
	}
}

func TestTheQuarantineIsBounded(t *testing.T) {
	var q quarantine
	for i := range uint64(5 * maxPoisons) {
		for n := range crashesAllowed {
			if q.crashed("m", i) != (n == crashesAllowed-1) {
				t.Fatal(i, n)
			}
		}
	}
	if len(q.crashes) != maxPoisons || len(q.oldest) != maxPoisons || !q.holds("m", 5*maxPoisons-1) || q.holds("m", 0) || q.holds("n", 5*maxPoisons-1) {
		t.Errorf("%d remembered", len(q.crashes))
	}
}
