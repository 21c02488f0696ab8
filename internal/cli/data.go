package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"occam/internal/task"
)

// maxProblemsShown keeps a bad file from filling the screen.
const maxProblemsShown = 20

// readExamples reads a data file and refuses it when a line cannot be used, unless skipBad, which reports and goes on.
func (a *app) readExamples(path string, skipBad bool) ([]task.Example, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the data cannot be read: %w", err)
	}
	defer file.Close()
	examples, problems, err := task.ReadExamples(file, path)
	a.reportProblems(problems)
	switch {
	case err != nil:
		return nil, err
	case len(examples) == 0:
		return nil, fmt.Errorf("%s holds no usable example", path)
	case len(problems) > 0 && !skipBad:
		return nil, fmt.Errorf("%d of %d lines of %s cannot be used: mend them, or leave them out with --skip-bad", len(problems), len(problems)+len(examples), path)
	}
	return examples, nil
}

func (a *app) reportProblems(problems []task.Problem) {
	for i, p := range problems {
		if i == maxProblemsShown {
			fmt.Fprintf(a.stderr, "… and %d more\n", len(problems)-i)
			return
		}
		fmt.Fprintln(a.stderr, p)
	}
}

// fieldsOf infers the fields of examples, where they are needed.
func fieldsOf(examples []task.Example) func() ([]task.Field, error) {
	return func() ([]task.Field, error) { return task.InferFields(examples) }
}

// inferTask builds a task from its data alone; the task is named after the file, or after its folder when the file is called train.
func inferTask(path string, infer func() ([]task.Field, error)) (*task.Task, error) {
	fields, err := infer()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &task.Task{Name: taskName(path), Fields: fields, Target: task.DefaultTarget, Tiers: []string{"linear"}, OnDoubt: "generalist", Audit: 0.01}, nil
}

func taskName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	if absolute, err := filepath.Abs(path); err == nil && (name == "train" || name == "data") {
		name = filepath.Base(filepath.Dir(absolute))
	}
	return name
}
