package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/engine"
	"occam/internal/gateway"
	"occam/internal/lifecycle"
)

// A check is one finding of `occam doctor`.
type check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	What string `json:"what"`
}

// A diagnosis is what `occam doctor --json` prints.
type diagnosis struct {
	OK     bool                `json:"ok"`
	Checks []check             `json:"checks"`
	Models []gateway.Abilities `json:"models"` // what the self-tests found, null where none was made
}

func (a *app) doctorCommand() *cobra.Command {
	var path string
	var offline bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check the configuration, the data folder, the models, the ledger and the providers", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), path, offline) },
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "ask no provider")
	configFlag(cmd, &path)
	return cmd
}

func (a *app) doctor(ctx context.Context, path string, offline bool) error {
	cfg, err := config.Load(path, a.getenv)
	if err != nil {
		return err
	}
	checks := []check{{"configuration", true, fmt.Sprintf("%s: %d tasks, %d providers", path, len(cfg.Tasks), len(cfg.Providers))},
		checkListen(cfg.Listen), checkFolder(cfg.DataDir), a.checkLedger(ctx, path), a.checkPrices(cfg)}
	for name, t := range cfg.Tasks {
		checks = append(checks, checkModel(name, t.Model))
	}
	checks = append(checks, a.checkEndings(ctx, cfg, offline)...)
	var found []gateway.Abilities
	if !offline {
		for name, p := range cfg.Providers {
			checks = append(checks, checkProvider(ctx, name, p, cfg.Limits))
		}
		if cfg.SelfTest {
			if found, err = a.examine(ctx, cfg); err != nil {
				checks = append(checks, check{"self-test", false, err.Error()})
			}
		}
	}
	for _, f := range found {
		checks = append(checks, check{"model " + f.Provider + "/" + f.Model, f.Error == "", line(f)})
	}
	failed := 0
	for _, c := range checks {
		if !c.OK {
			failed++
		}
	}
	if a.json {
		err = a.printJSON(diagnosis{failed == 0, checks, found})
	} else {
		for _, c := range checks {
			mark := "ok "
			if !c.OK {
				mark = "BAD"
			}
			fmt.Fprintf(a.stdout, "%s  %-22s %s\n", mark, c.Name, c.What)
		}
	}
	if err == nil && failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(checks))
	}
	return err
}

func checkListen(address string) check {
	listener, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		_ = listener.Close()
		return check{"listen", true, address + " is free"}
	case errors.Is(err, syscall.EADDRINUSE):
		return check{"listen", true, address + " is in use: by a running occam, or by another program"}
	}
	return check{"listen", false, err.Error()}
}

func checkFolder(dir string) check {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return check{"data_dir", true, dir + " does not exist yet: serve makes it"}
	}
	if err != nil || !info.IsDir() {
		return check{"data_dir", false, fmt.Sprintf("%s is no folder that can be read: %v", dir, err)}
	}
	probe, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return check{"data_dir", false, fmt.Sprintf("%s cannot be written: %v", dir, err)}
	}
	_ = probe.Close()
	if err := os.Remove(probe.Name()); err != nil {
		return check{"data_dir", false, err.Error()}
	}
	return check{"data_dir", true, dir + " can be written"}
}

func (a *app) checkLedger(ctx context.Context, path string) check {
	s, err := a.readStore(ctx, path)
	if err != nil {
		return check{"ledger", errors.Is(err, os.ErrNotExist), err.Error()}
	}
	defer s.Close()
	counts, err := s.Counts(ctx)
	if err != nil {
		return check{"ledger", false, err.Error()}
	}
	return check{"ledger", true, fmt.Sprintf("%d settled, %d estimated, %d unpriced, %d open, %d free; `occam ledger verify` reads all of it",
		counts.Settled, counts.Estimated, counts.Unpriced, counts.Open, counts.Free)}
}

func (a *app) checkPrices(cfg *config.Config) check {
	w, err := newWiring(cfg, nil)
	if err != nil {
		return check{"prices", false, err.Error()}
	}
	defer w.close(nil)
	for _, name := range slices.Sorted(maps.Keys(cfg.Tasks)) {
		generalist := cfg.Tasks[name].Generalist
		model, listed := cfg.Models[generalist]
		if !listed {
			model.Provider = cfg.FirstProvider
		}
		if generalist != "" && !w.sourceOf(generalist, model, a.now()).Priced {
			return check{"prices", false, fmt.Sprintf("tasks.%s: %s of %s is unpriced: its cost and your saving cannot be told; name the provider's prices with "+
				"providers.%s.prices, or see `occam prices import`", name, cmp.Or(model.Upstream, generalist), model.Provider, model.Provider)}
		}
	}
	return check{"prices", true, "book " + w.book.Version()}
}

func checkModel(task, path string) check {
	name := "model of " + task
	if path == "" {
		return check{name, true, "none yet: the generalist answers"}
	}
	model, err := lifecycle.LoadModel(path)
	if err != nil {
		return check{name, false, err.Error()}
	}
	defer model.Close()
	if model.Certificate == nil {
		return check{name, true, filepath.Base(path) + ": not certified: " + model.Shortfall}
	}
	return check{name, true, fmt.Sprintf("%s: certified, answers %.1f %%", filepath.Base(path), 100*model.Certificate.Coverage)}
}

// checkEndings says which of the models that the configuration names their providers stop, by the price book and, where providers
// are asked, by their own lists. One that is stopped already is a fault.
func (a *app) checkEndings(ctx context.Context, cfg *config.Config, offline bool) (all []check) {
	w, err := newWiring(cfg, nil)
	if err != nil {
		return nil // another check says so
	}
	defer w.close(nil)
	named := map[string]config.Model{}
	for name, m := range cfg.Models {
		named[name] = m
	}
	for _, t := range cfg.Tasks {
		if _, ok := named[t.Generalist]; !ok && t.Generalist != "" {
			named[t.Generalist] = config.Model{Place: config.Place{Provider: cfg.FirstProvider}}
		}
	}
	lists := map[string]map[string]time.Time{}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		for _, target := range w.route(name, named[name]).Targets {
			provider := target.Upstream.Name
			if _, asked := lists[provider]; !asked && !offline {
				lists[provider], _ = gateway.Endings(ctx, target.Upstream) // whether it answers is another check
			}
			at := lists[provider][target.Model]
			if price, ok := w.book.Lookup(target.Upstream.PricedAs, target.Model, a.now()); ok && at.IsZero() {
				at = price.Shutdown
			}
			if !at.IsZero() {
				all = append(all, check{"model " + name, a.now().Before(at), fmt.Sprintf("%s stops %s on %s", provider, target.Model, day(at))})
			}
		}
	}
	return all
}

// checkProvider asks for the list of models, which costs nothing.
func checkProvider(ctx context.Context, name string, p config.Provider, l config.Limits) check {
	label := "provider " + name
	upstream, err := engine.NewUpstream(upstreamOptions(name, p, l))
	if err != nil {
		return check{label, false, err.Error()}
	}
	defer upstream.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := upstream.Send(ctx, &engine.Call{Method: http.MethodGet, Path: "/models", Header: http.Header{"User-Agent": {"occam"}}})
	if err != nil {
		return check{label, false, fmt.Sprintf("cannot be reached: %v", err)}
	}
	_ = reply.Body.Close()
	if reply.Status != http.StatusOK {
		return check{label, false, fmt.Sprintf("GET /models answers %d: check base_url and api_key", reply.Status)}
	}
	return check{label, true, "answers at " + p.Address()}
}
