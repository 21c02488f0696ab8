package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"occam/internal/store"
	"occam/internal/task"
)

// kindTask is the kind of document that holds a task which was made from discovered traffic, under its name.
const kindTask = "task"

// definition is a task as it is stored.
type definition struct {
	Schema     json.RawMessage `json:"schema"`
	Input      string          `json:"input,omitempty"`
	System     string          `json:"system,omitempty"`
	ByInput    bool            `json:"by_input,omitempty"`
	Answer     string          `json:"answer,omitempty"`
	Generalist string          `json:"generalist"`
	Target     task.Target     `json:"target"`
	Audit      float64         `json:"audit"`
	Auto       bool            `json:"auto"`
}

// rareFactor is how many times as often answers in rare classes are audited.
const rareFactor = 5

// A Making turns a discovered group into a task.
type Making struct {
	Group string  `json:"group"`
	Name  string  `json:"name"`
	By    string  `json:"by"`
	Audit float64 `json:"audit"` // share of answers to be audited; 0: 1 %
	Auto  bool    `json:"auto"`  // occam may promote its models by itself
	// Target is what the task promises; what is left out is task.DefaultTarget's.
	Target task.Target `json:"target,omitzero"`
}

func (d *definition) build(name string) (*task.Task, error) {
	fields, err := task.ParseSchema(d.Schema)
	if err != nil {
		return nil, err
	}
	t := &task.Task{Name: name, Fields: fields, System: d.System, Generalist: d.Generalist, Target: d.Target, Tiers: []string{"linear"},
		OnDoubt: "generalist", Audit: d.Audit, AuditRare: min(1, rareFactor*d.Audit), Auto: d.Auto, ByInput: d.ByInput,
		Retrain: task.DefaultRetrain}
	if t.Answer, err = task.ParseForm(d.Answer, fields); err != nil {
		return nil, err
	}
	if d.Input != "" {
		t.Input, err = task.ParseTemplate(d.Input)
	}
	return t, err
}

// Overhear takes traffic that belongs to no task, to find tasks in it. It keeps nothing where capture is off.
func (c *Controller) Overhear(t Traffic) {
	if !c.opts.Capture {
		return
	}
	select {
	case c.traffic <- t:
	default:
		c.dropped.traffic.Add(1)
	}
}

// Discover lists the jobs that were found in traffic that belongs to no task.
func (c *Controller) Discover(ctx context.Context) (groups []Group, err error) {
	err = c.inLoop(ctx, func(context.Context) { groups = c.finder.list() })
	return groups, err
}

var taskNames = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// MakeTask turns a discovered group into a task, which is observed from now on.
func (c *Controller) MakeTask(ctx context.Context, m Making) (Status, error) {
	var status Status
	var err error
	loopErr := c.inLoop(ctx, func(ctx context.Context) { status, err = c.makeTask(ctx, m) })
	return status, errors.Join(loopErr, err)
}

func (c *Controller) makeTask(ctx context.Context, m Making) (Status, error) {
	groupID, name := m.Group, m.Name
	if m.Audit == 0 {
		m.Audit = defaultAuditShare
	}
	groups := c.finder.list()
	i := slices.IndexFunc(groups, func(g Group) bool { return g.ID == groupID })
	switch {
	case !taskNames.MatchString(name):
		return Status{}, fmt.Errorf("%q is no name for a task: use up to 63 small letters, digits and dashes", name)
	case m.Target.Check() != nil:
		return Status{}, m.Target.Check()
	case m.Audit < 0 || m.Audit > 1:
		return Status{}, fmt.Errorf("an audit share of %v makes no sense: it is between 0 and 1", m.Audit)
	case c.subjects[name] != nil:
		return Status{}, fmt.Errorf("there is a task %q already", name)
	case i < 0:
		return Status{}, fmt.Errorf("there is no group %q: see `occam tasks discover`", groupID)
	case !groups[i].Offered:
		return Status{}, fmt.Errorf("group %s cannot become a task: %s", groupID, groups[i].Reason)
	}
	g := groups[i]
	d := definition{Schema: task.Schema(g.Fields), Input: g.Template, System: g.System, ByInput: len(c.finder.groups[groupID].known.First.Schema) == 0 && g.System == "", Answer: g.Format, Generalist: g.Model, Target: m.Target.Complete(), Audit: m.Audit, Auto: m.Auto}
	t, err := d.build(name)
	if err != nil {
		return Status{}, fmt.Errorf("group %s cannot become a task: %w", groupID, err)
	}
	value, err := json.Marshal(d)
	if err != nil {
		return Status{}, err
	}
	err = c.opts.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.Records(kindTask).Put(store.Record{Name: name, Value: value})
	})
	if err != nil {
		return Status{}, err
	}
	if err := c.adopt(ctx, Setup{Task: t}); err != nil {
		return Status{}, err
	}
	c.forgetTraffic(ctx, groupID)
	c.opts.Log.Info("a task was made from traffic", "task", name, "group", groupID, "by", m.By)
	return c.status(c.subjects[name], Dropped{}), c.publish()
}

// adoptMade takes on the tasks that were made from traffic. A configured task of the same name comes first.
func (c *Controller) adoptMade(ctx context.Context) error {
	var made []store.Record
	err := c.opts.Store.View(ctx, func(tx *store.Tx) (err error) {
		made, err = tx.Records(kindTask).List()
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range made {
		if c.subjects[r.Name] != nil {
			continue
		}
		var d definition
		if err := json.Unmarshal(r.Value, &d); err != nil {
			return fmt.Errorf("lifecycle: the stored task %s is damaged: %w", r.Name, err)
		}
		t, err := d.build(r.Name)
		if err == nil {
			err = c.adopt(ctx, Setup{Task: t})
		}
		if err != nil {
			return fmt.Errorf("lifecycle: task %s: %w", r.Name, err)
		}
	}
	return nil
}
