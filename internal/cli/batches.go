package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/batch"
	"occam/internal/config"
	"occam/internal/openai"
	"occam/internal/store"
)

// startBatches goes on with every batch that has not ended. Its log tells how they get on, which is more than warnings.
func (s *server) startBatches(a *app, cfg *config.Config) error {
	c := cfg.Batches
	service, err := batch.New(batch.Options{Store: s.store, Desk: s.gateway, Dir: filesDir(cfg.DataDir), Now: a.now,
		Log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Limits: batch.Limits{FileBytes: c.FileBytes, StoredBytes: c.StoredBytes, Retention: time.Duration(c.Retention), Poll: time.Duration(c.Poll),
			Calls: c.OnReject == config.Calls}})
	if err == nil {
		s.batches.Store(service)
	}
	return err
}

// filesDir is where the files of batches lie.
func filesDir(dataDir string) string { return filepath.Join(dataDir, "files") }

// offline passes files and batches on, once their service runs.
func (s *server) offline(w http.ResponseWriter, r *http.Request, key *store.Key) {
	if b := s.batches.Load(); b != nil {
		b.ServeHTTP(w, r, key)
		return
	}
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
}

func (a *app) batchesCommand() *cobra.Command {
	var path string
	cmd := a.group("batches", "How far every batch is, and how to stop one", func(cmd *cobra.Command) error { return a.listBatches(cmd.Context(), path) })
	cmd.Example = "  occam batches\n  occam batches cancel batch_01M8C3…"
	configFlag(cmd, &path)
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "Every batch, newest first", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listBatches(cmd.Context(), path) }},
		&cobra.Command{Use: "show BATCH", Short: "One batch: who answered how much, and where its parts are", Args: oneArg("the batch's ID"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.showBatch(cmd.Context(), path, args[0]) }},
		&cobra.Command{Use: "cancel BATCH", Short: "Stop a batch: what is answered stays", Args: oneArg("the batch's ID"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.cancelBatch(cmd.Context(), path, args[0]) }})
	return cmd
}

// readBatches opens the configured store for reading, beside a server that may run.
func (a *app) readBatches(ctx context.Context, path string, read func(*store.Store) error) error {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, storeDSN(cfg), store.Options{Mode: store.ReadOnly, Dir: cfg.DataDir})
	if err != nil {
		return err
	}
	return errors.Join(read(s), s.Close())
}

func (a *app) listBatches(ctx context.Context, path string) error {
	return a.readBatches(ctx, path, func(s *store.Store) error {
		all, err := batch.List(ctx, s)
		if err != nil {
			return err
		}
		if a.json {
			objects := make([]map[string]any, len(all))
			for i, b := range all {
				objects[i] = b.Object()
			}
			return a.printJSON(map[string]any{"batches": objects})
		}
		if len(all) == 0 {
			fmt.Fprintln(a.stderr, "There are no batches: an app makes them with POST /v1/batches.")
			return nil
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "BATCH\tSTATUS\tCREATED\tREQUESTS\tDONE\tBY SPECIALISTS\tFAILED")
		for _, b := range all {
			c := b.Counts
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\n", b.ID, b.Status, b.Created.Local().Format(time.DateTime), c.Total, c.Completed, c.Specialist, c.Failed)
		}
		return w.Flush()
	})
}

func (a *app) showBatch(ctx context.Context, path, id string) error {
	return a.readBatches(ctx, path, func(s *store.Store) error {
		b, err := batch.Get(ctx, s, id)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(b.Object())
		}
		c := b.Counts
		fmt.Fprintf(a.stdout, "%s  %s  %s  input %s\n", b.ID, b.Status, b.Endpoint, b.Input)
		fmt.Fprintf(a.stdout, "requests %d: %d answered (%d by specialists), %d failed, %d audited; billed %d tokens in, %d out\n", c.Total, c.Completed,
			c.Specialist, c.Failed, c.Audits, b.Usage.Input, b.Usage.Output)
		for _, f := range b.Faults {
			fmt.Fprintf(a.stdout, "failed: %s: %s\n", f.Code, f.Message)
		}
		if len(b.Parts) == 0 {
			return nil
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "PART\tPROVIDER\tMODEL\tLINES\tSTATE\tPROVIDER'S BATCH\tDONE THERE")
		for _, p := range b.Parts {
			fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\t%d\n", p.Number, p.Provider, p.Model, p.Lines, p.State, p.Remote, p.Done)
			if p.Rejection != "" {
				fmt.Fprintf(w, "\trefused: %s\n", p.Rejection)
			}
		}
		return w.Flush()
	})
}

func (a *app) cancelBatch(ctx context.Context, path, id string) error {
	c, err := a.admin(ctx, path)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.post(ctx, "/api/batches/"+url.PathEscape(id), url.Values{}, &struct{}{}); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"id": id, "status": batch.Cancelling})
	}
	fmt.Fprintf(a.stdout, "%s is being cancelled; what is answered stays\n", id)
	return nil
}

// cancelStopped cancels a batch of a server that does not run: it stops when the server starts.
func cancelStopped(ctx context.Context, s *store.Store, id string) error {
	_, err := batch.Get(ctx, s, id)
	if err == nil {
		err = batch.MarkCancelled(ctx, s, id)
	}
	return inWords(err)
}

// inWords leaves of an error that an app would get what it says to people.
func inWords(err error) error {
	var blame *openai.Error
	if errors.As(err, &blame) {
		return errors.New(blame.Message)
	}
	return err
}
