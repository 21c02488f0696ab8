package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// taskCheck is what GET /api/tasks/{name}/data answers.
type taskCheck struct {
	Running *struct{ Task string }
	Result  *struct {
		Failure  string
		Rows     int
		Findings []struct {
			Kind, Field, Severity, Why, Do string
			Rows                           int
			Groups                         []struct {
				Values []string
				Note   string
				Rows   []struct{ ID, Text, Label, Suggested string }
			}
		}
		Skipped []string
	}
}

// checkTask starts a check of a task's examples, waits for it and prints what it found.
func (a *app) checkTask(ctx context.Context, path, name string) error {
	route := "/api/tasks/" + url.PathEscape(name) + "/data"
	var failure error
	call := func(c *admin, out any) error {
		var started struct{}
		if err := c.post(ctx, route, url.Values{}, &started); err != nil {
			return err
		}
		for {
			var now taskCheck
			if err := c.get(ctx, route, &now); err != nil {
				return err
			}
			if now.Running == nil {
				failure = now.failure()
				return c.get(ctx, route, out)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	err := show(ctx, a, path, call, func(found taskCheck) {
		if failure == nil {
			a.printTaskCheck(name, found)
		}
	})
	return errors.Join(err, failure)
}

// failure is why a check that has ended found nothing out.
func (c *taskCheck) failure() error {
	switch {
	case c.Result == nil:
		return errors.New("the check left no result")
	case c.Result.Failure != "":
		return fmt.Errorf("the check failed: %s", c.Result.Failure)
	}
	return nil
}

func (a *app) printTaskCheck(name string, found taskCheck) {
	w, r := a.stdout, found.Result
	fmt.Fprintf(w, "%s: %d examples, %d kinds of trouble\n", name, r.Rows, len(r.Findings))
	for _, f := range r.Findings {
		fmt.Fprintf(w, "\n%-8s %s %s: %d rows\n  %s\n  %s\n", f.Severity, f.Kind, f.Field, f.Rows, f.Why, f.Do)
		for _, g := range f.Groups {
			for _, row := range g.Rows {
				fmt.Fprintf(w, "    %-12s %s  %s", row.ID, clip(row.Text), row.Label)
				if row.Suggested != "" {
					fmt.Fprintf(w, " -> %s?", row.Suggested)
				}
				fmt.Fprintln(w)
			}
		}
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "\nnot checked: %s\n", s)
	}
}
