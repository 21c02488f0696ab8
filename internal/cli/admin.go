package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"occam/internal/dashboard"
	"occam/internal/finops"
	"occam/internal/store"
)

// An admin speaks the dashboard's admin API: to the running server, or, where none runs, in this process. Either way it is the
// same code that the pages call.
type admin struct {
	*remote
	http *http.Client
}

// admin reaches the admin API of the configured data.
func (a *app) admin(ctx context.Context, path string) (*admin, error) {
	r, err := a.reach(ctx, path)
	if err != nil {
		return nil, err
	}
	if r.client != nil {
		return &admin{r, r.client}, nil
	}
	tasks := func(context.Context) ([]dashboard.TaskView, error) { return taskViews(r.local.Status()), nil }
	site := dashboard.New(dashboard.Options{Source: r.store, Database: r.store, Login: true, Tasks: tasks, Version: version, Now: a.now, Verifier: r.store.Verify,
		CheckData: r.local.CheckData, CancelBatch: func(ctx context.Context, id string) error { return cancelStopped(ctx, r.store, id) }, CancelTraining: r.local.CancelTraining, Explain: explainWith(r.local), Configuration: func() dashboard.Configuration { return configuration(r.config) },
		Charges: func(ctx context.Context, rows []finops.Row, w store.Window) ([]finops.Charge, error) {
			book, err := loadBook(r.config.DataDir)
			if err != nil {
				return nil, err
			}
			return chargesIn(ctx, r.store, r.config, book, rows, w, a.now())
		}})
	return &admin{r, &http.Client{Transport: inProcess{site.Trusted()}}}, nil
}

// inProcess hands requests to a handler without a network between.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &answer{header: http.Header{}, status: http.StatusOK}
	p.handler.ServeHTTP(w, r)
	return &http.Response{StatusCode: w.status, Status: http.StatusText(w.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: w.header,
		Body: io.NopCloser(&w.body), Request: r}, nil
}

// answer holds what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answer) Header() http.Header         { return w.header }
func (w *answer) WriteHeader(status int)      { w.status = status }
func (w *answer) Write(p []byte) (int, error) { return w.body.Write(p) }

// get and post call a route and decode its answer.
func (c *admin) get(ctx context.Context, route string, out any) error {
	return c.send(ctx, http.MethodGet, route, nil, out)
}

func (c *admin) post(ctx context.Context, route string, form url.Values, out any) error {
	return c.send(ctx, http.MethodPost, route, form, out)
}

func (c *admin) send(ctx context.Context, method, route string, form url.Values, out any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://occam"+route, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set(dashboard.OperatorHeader, operator())
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	status, data, err := askServer(c.http, request)
	if err != nil {
		return err
	}
	if status >= 300 {
		return refusalOf(status, data)
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = data
		return nil
	}
	return json.Unmarshal(data, out)
}

// askServer sends a request to the running server and returns its whole answer.
func askServer(client *http.Client, request *http.Request) (status int, data []byte, err error) {
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("the running server does not answer: %w", err)
	}
	defer response.Body.Close()
	data, err = io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return 0, nil, fmt.Errorf("the running server's answer broke off: %w", err)
	}
	return response.StatusCode, data, nil
}

// refusalOf puts an error of the API into one line.
func refusalOf(status int, data []byte) error {
	var refusal struct {
		Error struct{ What, Why, Fix string }
	}
	if json.Unmarshal(data, &refusal) != nil || refusal.Error.What == "" {
		return fmt.Errorf("the running server answered with status %d", status)
	}
	return errors.New(strings.TrimSpace(refusal.Error.What + " " + refusal.Error.Why + " " + refusal.Error.Fix))
}

// show calls a route and prints its answer: as it is with --json, else with print.
func show[T any](ctx context.Context, a *app, path string, call func(*admin, any) error, print func(T)) error {
	c, err := a.admin(ctx, path)
	if err != nil {
		return err
	}
	defer c.close()
	var raw json.RawMessage
	if err := call(c, &raw); err != nil {
		return err
	}
	if a.json {
		_, err := a.stdout.Write(raw)
		return err
	}
	var answer T
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	print(answer)
	return nil
}
