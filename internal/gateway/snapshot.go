package gateway

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/engine"
	"occam/internal/task"
)

// A Snapshot is everything that a request depends on. It never changes after Publish: a new configuration or a promoted
// model is a new Snapshot, and requests in flight keep theirs.
type Snapshot struct {
	Tasks    []Task
	Models   map[string]engine.Route // by the name that apps use
	Fallback *engine.Upstream        // where a model that is not listed goes under its own name; nil: such a model is refused
	Book     *cost.Book              // nil: everything is unpriced
	Keys     *Keyring                // nil: the API asks for no key
	Limits   Limits

	recognizer *task.Recognizer
	tasks      map[*task.Task]*Task
	schemas    sync.Map // raw schema and task name → bool
	known      atomic.Int64
}

// A Task is one task with its cascade.
type Task struct {
	*task.Task
	Tiers []Tier

	deciding []cascade.Tier // the same tiers as the cascade sees them
	schema   []byte         // of the task's answer
	paid     engine.Route   // the generalist
}

// A Tier is one model of a cascade: in this process, or at an upstream.
type Tier struct {
	cascade.Tier
	Specialist engine.Predictor // nil for a model at an upstream
	Route      engine.Route     // of a model at an upstream

	label string // "task@hash", for the ledger
}

// Limits bound what one process takes on. A zero field takes its default.
type Limits struct {
	BodyBytes  int64         // default 4 MiB
	HeldBytes  int64         // default 256 MiB, of all bodies in flight; more get 503
	ReplyBytes int64         // default 32 MiB, of a reply that is not streamed
	InFlight   int           // default 512; more requests get 503
	Body       time.Duration // default 30 s: a body that takes longer to arrive is refused
	Write      time.Duration // default 30 s: a client that takes no byte for so long is gone
	Drain      bool          // an app that goes away does not cancel what it asked for: the answer is read to its end and billed
	AskUsage   bool          // streams that pass through are asked for usage, which is taken out again; else it is estimated
	Patience   engine.Patience
	MaxOutput  int64 // default 131072: most tokens a model is taken to write when neither request nor target says
}

func (l *Limits) complete() {
	if l.BodyBytes <= 0 {
		l.BodyBytes = 4 << 20
	}
	if l.HeldBytes <= 0 {
		l.HeldBytes = 256 << 20
	}
	if l.ReplyBytes <= 0 {
		l.ReplyBytes = 32 << 20
	}
	if l.InFlight <= 0 {
		l.InFlight = 512
	}
	if l.Body <= 0 {
		l.Body = 30 * time.Second
	}
	if l.Write <= 0 {
		l.Write = 30 * time.Second
	}
	if l.MaxOutput <= 0 {
		l.MaxOutput = 131072
	}
}

// prepare checks the snapshot and works out what requests look up.
func (s *Snapshot) prepare() error {
	s.Limits.complete()
	s.tasks = make(map[*task.Task]*Task, len(s.Tasks))
	list := make([]*task.Task, 0, len(s.Tasks))
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.Task == nil {
			return fmt.Errorf("gateway: task %d of the snapshot is missing", i)
		}
		if err := s.prepareTask(t); err != nil {
			return err
		}
		s.tasks[t.Task] = t
		list = append(list, t.Task)
	}
	for name, r := range s.Models {
		if len(r.Targets) == 0 {
			return fmt.Errorf("gateway: model %s has no upstream", name)
		}
	}
	s.recognizer = task.NewRecognizer(list)
	return nil
}

func (s *Snapshot) prepareTask(t *Task) error {
	t.deciding = make([]cascade.Tier, len(t.Tiers))
	for i := range t.Tiers {
		tier := &t.Tiers[i]
		tier.label = t.Name + "@" + tier.Identity.Specialist[:min(8, len(tier.Identity.Specialist))]
		if tier.Specialist == nil && len(tier.Route.Targets) == 0 {
			return fmt.Errorf("gateway: task %s: tier %s has neither a specialist nor an upstream", t.Name, tier.Name)
		}
		t.deciding[i] = tier.Tier
	}
	t.schema = task.Schema(t.Fields)
	var ok bool
	if t.paid, ok = s.route(t.Generalist); !ok {
		return fmt.Errorf("gateway: task %s: its generalist %q is no known model and there is no provider to ask for it", t.Name, t.Generalist)
	}
	return nil
}

// maxSchemas and maxSchema bound the memory of schemas that were compared; more, and longer ones, are compared each time.
const (
	maxSchemas = 1024
	maxSchema  = 16 << 10 // bytes
)

// sameSchema reports whether a request's schema asks for the task's answer.
func (s *Snapshot) sameSchema(t *Task, schema []byte) bool {
	key := t.Name + "\x00" + string(schema)
	if same, ok := s.schemas.Load(key); ok {
		return same.(bool)
	}
	fields, err := task.ParseSchema(schema)
	same := err == nil && task.SameFields(t.Fields, fields)
	if len(schema) <= maxSchema && s.known.Add(1) <= maxSchemas {
		s.schemas.Store(key, same)
	}
	return same
}

// route finds where a model's requests go.
func (s *Snapshot) route(model string) (engine.Route, bool) {
	if r, ok := s.Models[model]; ok {
		return r, true
	}
	if s.Fallback == nil || model == "" {
		return engine.Route{}, false
	}
	return engine.Route{Targets: []engine.Target{{Upstream: s.Fallback, Model: model}}}, true
}

// taskNamed finds a task, nil when there is none.
func (s *Snapshot) taskNamed(name string) *Task {
	for i := range s.Tasks {
		if s.Tasks[i].Name == name {
			return &s.Tasks[i]
		}
	}
	return nil
}

// isTask reports whether a name that an app gave as a model is a task's.
func (s *Snapshot) isTask(name string) bool {
	return slices.ContainsFunc(s.Tasks, func(t Task) bool { return t.Name == name })
}

// price looks up what a target's model costs, first under the name the upstream was asked for, then under the one it
// answered with.
func (s *Snapshot) price(t engine.Target, answered string, at time.Time) (cost.Price, bool) {
	if s.Book == nil {
		return cost.Price{}, false
	}
	if p, ok := s.Book.Lookup(t.Upstream.PricedAs, t.Model, at); ok {
		return p, true
	}
	if answered == "" || answered == t.Model {
		return cost.Price{}, false
	}
	return s.Book.Lookup(t.Upstream.PricedAs, answered, at)
}
