package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"occam/internal/task"
)

// defaultAudit is the share of answered requests that is checked when the configuration does not say.
const defaultAudit = 0.01

// rareFactor is how many times as often answers in rare classes are audited, when the configuration does not say.
const rareFactor = 5

// defaultCalibration is how many dollars a training run may spend on answers of models that are to be tiers.
const defaultCalibration = 1.00

// TaskList builds the domain's tasks, sorted by name.
func (c *Config) TaskList() ([]*task.Task, error) {
	tasks := make([]*task.Task, 0, len(c.Tasks))
	for _, name := range slices.Sorted(maps.Keys(c.Tasks)) {
		t, err := c.Tasks[name].Build(name)
		if err != nil {
			return nil, fmt.Errorf("tasks.%s: %w", name, err)
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

// Build completes a task with its defaults.
func (t Task) Build(name string) (*task.Task, error) {
	fields, err := task.ParseSchema(t.Schema.JSON)
	if err != nil {
		return nil, err
	}
	built := &task.Task{
		Name: name, Fields: fields, System: t.System, Generalist: t.Generalist, Target: t.Target.Complete(), ByInput: t.ByInput,
		Tiers: t.Tiers, OnDoubt: t.OnDoubt, Audit: defaultAudit, Auto: t.Auto, CalibrationBudget: defaultCalibration,
		Retrain: task.DefaultRetrain,
	}
	if built.Answer, err = task.ParseForm(t.Answer, fields); err != nil {
		return nil, err
	}
	if t.Input != "" {
		if built.Input, err = task.ParseTemplate(t.Input); err != nil {
			return nil, err
		}
	}
	if t.Audit != nil {
		built.Audit = *t.Audit
	}
	built.AuditRare = min(1, rareFactor*built.Audit)
	if t.AuditRare != nil {
		built.AuditRare = *t.AuditRare
	}
	if t.Retrain != nil {
		built.Retrain = time.Duration(*t.Retrain)
	}
	if t.Calibration != nil {
		built.CalibrationBudget = *t.Calibration
	}
	if built.OnDoubt == "" {
		built.OnDoubt = "generalist"
	}
	if len(built.Tiers) == 0 {
		built.Tiers = []string{"linear"}
	}
	return built, nil
}

// LoadTask reads a task file: one task as it would stand under `tasks:`, with its `name`.
func LoadTask(path string) (*task.Task, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the task file cannot be read: %w", err)
	}
	var file struct {
		Name string `yaml:"name"`
		Task `yaml:",inline"`
	}
	if data, err = text(data); err == nil {
		err = decode(data, &file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	err = file.Task.check()
	switch {
	case file.Name == "":
		err = errors.New("name is missing")
	case err == nil:
		err = file.Schema.read(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	built, err := file.Task.Build(file.Name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return built, nil
}
