package lifecycle

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"occam/internal/calibration"
	"occam/internal/cascade"
	"occam/internal/store"
	"occam/internal/task"
)

// Whatever traffic, people, clocks and crashes do to a task, in whatever order: nothing answers without a certificate that holds, or with
// one that waits for confirmation; every step has its reason; and no label that a person was told is recorded is ever lost.
// OCCAM_LIVES is how many lives are tried.
func TestRandomLives(t *testing.T) {
	trains(t)
	lives, err := strconv.Atoi(os.Getenv("OCCAM_LIVES"))
	if err != nil {
		lives = 1
	}
	for seed := range uint64(lives) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { liveAtRandom(t, seed) })
	}
}

// A randomLife is a task to which things happen.
type randomLife struct {
	*bench
	dice  *rand.Rand
	given map[string]string // colours that people gave, by example
	seen  map[string]bool   // models that answered
}

func liveAtRandom(t *testing.T, seed uint64) {
	l := &randomLife{bench: newBench(t, nil), dice: rand.New(rand.NewPCG(seed, 77)), given: map[string]string{}, seen: map[string]bool{}}
	events := []func(){l.traffic, l.traffic, l.traffic, l.awhile, l.awhile, l.drifting, l.time, l.person, l.person, l.order, l.order, l.stale, l.restart}
	l.askUntil("live model", nil, in(Live))
	for range 60 {
		events[l.dice.IntN(len(events))]()
		l.check()
	}
	l.account()
	t.Logf("%d models answered, %d labels by people; it ended %s after %d steps", len(l.seen), len(l.given), l.status().State, l.status().Version)
}

func (l *randomLife) traffic() { l.ask(40+l.dice.IntN(160), nil); l.pass(time.Minute) }
func (l *randomLife) time()    { l.pass(time.Duration(l.dice.IntN(5*24)) * time.Hour) }
func (l *randomLife) restart() { l.crash() }

// awhile is traffic that leaves training the time it takes.
func (l *randomLife) awhile() {
	for range 30 {
		if s := l.status(); s.Training.Running || s.Training.Waiting == "a run is queued or running" {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		l.ask(25, nil)
		l.pass(time.Second)
	}
}

// drifting is traffic whose answers have changed.
func (l *randomLife) drifting() {
	other := map[string]string{"red": "green", "green": "blue", "blue": "red"}
	if l.dice.IntN(3) > 0 {
		other = nil
	}
	l.ask(100, func(colour string) string {
		if other == nil {
			return colour
		}
		return other[colour]
	})
}

// person corrects a few answers.
func (l *randomLife) person() {
	var page []store.Example
	err := l.store.View(l.t.Context(), func(tx *store.Tx) (err error) {
		page, err = tx.Examples().Before("colours", l.now(), 500)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	for range min(5, len(page)) {
		e, colour := page[l.dice.IntN(len(page))], []string{"red", "green", "blue"}[l.dice.IntN(3)]
		if err := l.Feedback(l.t.Context(), e.RequestID, "ann", task.Output{"colour": task.String(colour)}); err != nil {
			l.t.Errorf("feedback on %s: %v", e.ID, err)
			continue
		}
		l.given[e.ID] = colour
	}
}

// order gives one of the commands that are offered, or puts any stored model forward.
func (l *randomLife) order() {
	s := l.status()
	model, cmd := "", Promote
	if all, err := l.Models(l.t.Context(), "colours"); err == nil && len(all) > 0 && l.dice.IntN(3) == 0 {
		model = all[l.dice.IntN(len(all))].Hash
	} else if len(s.Commands) > 0 {
		cmd = s.Commands[l.dice.IntN(len(s.Commands))]
	}
	if cmd == Pause && l.dice.IntN(3) > 0 {
		return // else most lives are spent paused
	}
	_, _ = l.Do(l.t.Context(), "colours", cmd, model, "ann", s.Version) // what may not be is refused; check sees what was done
}

func (l *randomLife) stale() {
	if s := l.status(); s.Version > 1 {
		if _, err := l.Do(l.t.Context(), "colours", Promote, "", "bob", s.Version-1); !errors.Is(err, ErrStale) {
			l.t.Errorf("a command for a state that is no more: %v", err)
		}
	}
}

func (l *randomLife) check() {
	l.t.Helper()
	for _, tier := range l.tiers() {
		if tier.Mode != cascade.Live && tier.Mode != cascade.Canary {
			continue
		}
		c := tier.Certificate
		if c == nil || c.Void(tier.Identity) != "" {
			l.t.Errorf("a tier answers without a certificate that holds: %+v", tier.Tier)
			continue
		}
		if first := !l.seen[c.Specialist]; first && c.Split == calibration.CrossFitted {
			for _, m := range l.status().Models {
				if m.Specialist == c.Specialist && (m.Evidence == nil || m.Evidence.Audits < 50) {
					l.t.Errorf("model %s answers unconfirmed: %+v", short(m.Model), m.Evidence)
				}
			}
		}
		l.seen[c.Specialist] = true
	}
	s := l.status()
	for _, m := range s.Models {
		if m.Evidence != nil && m.Evidence.Alarm && (s.State == Live || s.State == Canary) && m.Place == "lead" && (m.Mode == "live" || m.Mode == "canary") {
			l.until("withdrawal", func(now Status) bool { return now.Version > s.Version })
		}
	}
}

// account looks for every label and every step.
func (l *randomLife) account() {
	l.t.Helper()
	l.crash()
	found := map[string]string{}
	err := l.store.View(l.t.Context(), func(tx *store.Tx) error {
		for after := int64(0); ; {
			page, next, err := tx.Examples().Page("colours", after, 5000)
			for i := range page {
				for _, said := range page[i].Labels {
					if said.Source == fromPerson {
						found[page[i].ID] = said.Output["colour"].Text()
					}
				}
			}
			if after = next; err != nil || after == 0 {
				return err
			}
		}
	})
	if err != nil {
		l.t.Fatal(err)
	}
	for id, colour := range l.given {
		if found[id] != colour {
			l.t.Errorf("the label %s of %s is lost: %q is stored", colour, id, found[id])
		}
	}
	err = l.store.View(l.t.Context(), func(tx *store.Tx) error {
		steps, err := tx.Tasks().History("colours", 10_000)
		for i, step := range steps { // the newest first
			if step.Reason == "" || step.Actor == "" || i > 0 && step.Version != steps[i-1].Version-1 {
				l.t.Errorf("step %d: %+v", i, step)
			}
		}
		return err
	})
	if err != nil {
		l.t.Error(err)
	}
}
