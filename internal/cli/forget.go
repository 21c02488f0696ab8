package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"occam/internal/batch"
	"occam/internal/config"
	"occam/internal/lifecycle"
	"occam/internal/store"
)

func (a *app) forgetCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use: "forget REQUEST_ID...", Short: "Remove the text, labels and reviews of requests; what they cost stays", Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("%s needs the ID of a request at least: the answer's X-Occam-Request-Id", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.forget(cmd.Context(), *path, args) },
	}
}

func (a *app) redactCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use: "redact", Short: "Apply capture.redact and capture.patterns to what was stored before", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.redact(cmd.Context(), *path) },
	}
}

// forgotten is what `occam ledger forget --json` and the socket answer.
type forgotten struct {
	Examples int64 `json:"examples"`
	Samples  int64 `json:"samples"` // that discovery kept of traffic without a task
	Lines    int64 `json:"lines"`   // of the files of batches
}

// redacted is what `occam ledger redact --json` and the socket answer.
type redacted struct {
	Rows int64 `json:"rows"`
}

func forget(ctx context.Context, s *store.Store, dataDir string, requests []string) (done forgotten, err error) {
	lines, err := batch.Forget(ctx, s, filesDir(dataDir), requests)
	if err != nil {
		return forgotten{}, err
	}
	done.Lines = lines
	err = s.Update(ctx, func(tx *store.Tx) error {
		for _, id := range requests {
			n, err := tx.Examples().Forget(id)
			if done.Examples += n; err != nil {
				return err
			}
		}
		n, err := lifecycle.ForgetOverheard(tx, requests)
		done.Samples = int64(n)
		return err
	})
	if err != nil {
		return forgotten{}, err
	}
	return done, s.Scrub(ctx)
}

func redactStored(ctx context.Context, s *store.Store) (done redacted, err error) {
	if done.Rows, err = s.Redact(ctx); err != nil {
		return done, err
	}
	return done, s.Scrub(ctx)
}

// changeStored lets the server that runs on the data make a change, so that it counts from the next request on, or makes it in the
// store where none runs.
func (a *app) changeStored(ctx context.Context, path string, there func(*http.Client) error, here func(s *store.Store, dataDir string) error) error {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	if client := running(ctx, cfg.DataDir); client != nil {
		return there(client)
	}
	s, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer s.Close()
	return here(s, cfg.DataDir)
}

func (a *app) forget(ctx context.Context, path string, requests []string) error {
	var done forgotten
	err := a.changeStored(ctx, path,
		func(client *http.Client) error {
			return command(ctx, client, http.MethodPost, "/forget?"+url.Values{"request": requests}.Encode(), nil, &done)
		},
		func(s *store.Store, dataDir string) (err error) {
			done, err = forget(ctx, s, dataDir, requests)
			return err
		})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	_, err = fmt.Fprintf(a.stdout, "%d texts of %d requests were kept, and are removed with their labels and reviews; so are %d samples of discovery and %d lines of batches\n",
		done.Examples, len(requests), done.Samples, done.Lines)
	return err
}

func (a *app) redact(ctx context.Context, path string) error {
	var done redacted
	err := a.changeStored(ctx, path,
		func(client *http.Client) error { return command(ctx, client, http.MethodPost, "/redact", nil, &done) },
		func(s *store.Store, _ string) (err error) { done, err = redactStored(ctx, s); return err })
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(done)
	}
	_, err = fmt.Fprintf(a.stdout, "%d stored texts were changed\n", done.Rows)
	return err
}

func (s *server) controlForget(w http.ResponseWriter, r *http.Request) {
	requests := r.URL.Query()["request"]
	held, err := s.control.Load().ForgetOverheard(r.Context(), requests)
	if err != nil {
		reply(w, nil, err)
		return
	}
	done, err := forget(r.Context(), s.store, s.wired.Load().cfg.DataDir, requests)
	done.Samples += int64(held)
	reply(w, done, err)
}

func (s *server) controlRedact(w http.ResponseWriter, r *http.Request) {
	done, err := redactStored(r.Context(), s.store)
	reply(w, done, err)
}
