package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
	"occam/internal/cost"
	"occam/internal/lifecycle"
	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/store"
	"occam/internal/task"
)

const (
	demoTrainRows   = 10_000
	demoTrainSeed   = 1
	demoReplaySeed  = 2
	demoWorkers     = 32
	demoMistakeRate = 0.03 // of the simulated generalist: nobody is always right
	demoGeneralist  = "gpt-4o"
)

type demoFlags struct {
	tickets    int
	data       string
	live, once bool
	listen     string
	keep       string
	accuracy   float64
	promise    string
	refit      bool
}

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "The whole story on bundled or your own tickets, without a key", Args: noArgs,
		Example: "  occam demo\n  occam demo --data my-tickets/    # train.jsonl and test.jsonl\n  OPENAI_API_KEY=… occam demo --live --tickets 200",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.tickets, "tickets", 3000, "tickets to replay; with --data at most what test.jsonl holds")
	flags.StringVar(&f.data, "data", "", "folder with train.jsonl and test.jsonl to use instead of the bundled tickets")
	flags.BoolVar(&f.live, "live", false, "use a real provider: OPENAI_API_KEY, and OPENAI_BASE_URL if it is not OpenAI")
	flags.BoolVar(&f.once, "once", false, "exit after the report")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:0", "address of the gateway and the dashboard")
	flags.StringVar(&f.keep, "keep", "", "new folder for the ledger and the model (default: a temporary one, removed at the end)")
	flags.Float64Var(&f.accuracy, "accuracy", task.DefaultTarget.Accuracy, "target accuracy")
	flags.StringVar(&f.promise, "promise", string(task.DefaultTarget.Promise), "served or system")
	flags.BoolVar(&f.refit, "refit", false, "use every row for the weights and a cross-fitted certificate, as of occam train")
	return cmd
}

func (a *app) demo(ctx context.Context, f demoFlags) error {
	if err := a.checkDemo(f); err != nil {
		return err
	}
	d := &demo{app: a, flags: f, started: a.now()}
	defer d.close()
	for _, step := range []func(context.Context) error{d.loadData, d.train, d.startGeneralist, d.startGateway, d.replay} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	report, err := d.report(ctx)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(report)
	} else {
		d.print(report)
	}
	if err != nil || f.once {
		return err
	}
	fmt.Fprintf(a.stderr, "\nDashboard  %s      API  %s/v1      Ctrl-C stops\n", d.server.url(), d.server.url())
	<-ctx.Done()
	return nil
}

// checkDemo refuses, before anything is trained, what would fail after it.
func (a *app) checkDemo(f demoFlags) error {
	if f.tickets < 1 {
		return usageError("--tickets must be at least 1")
	}
	if f.live && a.getenv("OPENAI_API_KEY") == "" {
		return usageError("--live needs a key: export OPENAI_API_KEY=…")
	}
	if _, err := os.Stat(filepath.Join(f.keep, "occam.db")); f.keep != "" && err == nil {
		return usageError("--keep %s holds a ledger already, and this run's figures would be mixed with it: name another folder", f.keep)
	}
	free, err := listen(f.listen)
	if err != nil {
		return err
	}
	return free.Close()
}

// A demo is one run of the whole story.
type demo struct {
	*app
	flags   demoFlags
	started time.Time

	task    *task.Task
	system  string
	rows    []task.Example
	tickets []ticket

	trained  *lifecycle.Trained
	dir      string
	provider *sim.Server // nil with --live
	bill     *sim.Provider
	config   *config.Config
	server   *server
	serving  chan error
	stop     context.CancelFunc

	results replaySummary
	seconds float64 // of the replay
}

func (d *demo) loadData(context.Context) error {
	var err error
	if d.flags.data == "" {
		d.bundledData()
	} else if err = d.ownData(d.flags.data); err != nil {
		return err
	}
	d.task.Generalist = demoGeneralist
	d.task.Target.Accuracy, d.task.Target.Promise = d.flags.accuracy, task.Promise(d.flags.promise)
	if err := checkTarget(d.task.Target); err != nil {
		return err
	}
	d.dir = d.flags.keep
	if d.dir == "" {
		d.dir, err = os.MkdirTemp("", "occam-demo-")
	} else {
		err = os.MkdirAll(d.dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("no folder for the demo's ledger: %w", err)
	}
	fmt.Fprintf(d.stderr, "task %s: %s; %d labelled tickets, %d to replay\n", d.task.Name, describeFields(d.task.Fields), len(d.rows), len(d.tickets))
	return nil
}

func (d *demo) bundledData() {
	t := sample.Task()
	d.task, d.system = &t, sample.SystemPrompt
	d.rows = sample.Tickets(demoTrainSeed, demoTrainRows)
	for _, fresh := range sample.Traffic(demoReplaySeed, d.flags.tickets) {
		d.tickets = append(d.tickets, ticket{fresh.Text, fresh.Truth})
	}
}

// ownData reads DIR/train.jsonl and DIR/test.jsonl. Labels of the test that training never saw are legal: whoever answers
// such a ticket from the task's own categories is wrong.
func (d *demo) ownData(dir string) error {
	rows, err := d.readExamples(filepath.Join(dir, "train.jsonl"), false)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s must hold train.jsonl and test.jsonl: %w", dir, err)
	}
	if err != nil {
		return err
	}
	fresh, err := d.readExamples(filepath.Join(dir, "test.jsonl"), false)
	if err != nil {
		return err
	}
	if d.task, err = inferTask(filepath.Join(dir, "train.jsonl"), fieldsOf(rows)); err != nil {
		return err
	}
	d.rows, d.system = rows, genericPrompt(d.task)
	order := rand.New(rand.NewPCG(demoReplaySeed, 0)).Perm(len(fresh)) // traffic comes mixed; files are often sorted by category
	for _, i := range order[:min(len(fresh), d.flags.tickets)] {
		e := fresh[i]
		d.tickets = append(d.tickets, ticket{e.Text, e.Labels})
	}
	return nil
}

func (d *demo) train(ctx context.Context) error {
	trained, err := d.runTraining(ctx, d.task, d.rows, trainFlags{refit: d.flags.refit, seed: demoTrainSeed})
	if err != nil {
		return err
	}
	d.trained = trained
	if err := trained.Save(filepath.Join(d.dir, d.task.Name+".occam")); err != nil {
		return err
	}
	e := trained.Evaluation
	fmt.Fprintf(d.stderr, "trained in %.1f s, %.1f MB: accuracy %s on rows it never saw\n", trained.Seconds, float64(trained.Bytes)/1e6, percent(e.Accuracy))
	if c := trained.Certificate; c != nil {
		fmt.Fprintf(d.stderr, "certified (%s, %s): %s accuracy >= %.1f %% at %.0f %% confidence; %d of %d calibration rows accepted, %d wrong\n",
			c.Method, c.Split, c.Promise, 100*(1-c.Risk), 100*(1-c.Delta), c.Accepted, c.N, c.Errors)
	} else {
		fmt.Fprintf(d.stderr, "NOT certified, so the generalist answers everything: %v\n", trained.Shortfall)
	}
	return nil
}

// startGeneralist starts the simulated provider on loopback, or takes the real one's address from the environment.
func (d *demo) startGeneralist(context.Context) error {
	provider := config.Provider{Type: "openai", APIKey: "sk-simulated", Simulated: true}
	if d.flags.live {
		provider = config.Provider{Type: "openai", BaseURL: d.getenv("OPENAI_BASE_URL"), APIKey: d.getenv("OPENAI_API_KEY")}
		if provider.BaseURL == "" {
			provider.BaseURL = "https://api.openai.com/v1"
		}
	} else {
		truth := make(map[string]task.Output, len(d.tickets))
		for _, t := range d.tickets {
			truth[t.text] = t.truth
		}
		options := sim.Options{
			Seed: demoReplaySeed, MistakeRate: demoMistakeRate, Latency: sim.TypicalLatency, APIKey: provider.APIKey,
			Oracle: func(input string) task.Output { return truth[input] },
		}
		if d.flags.data == "" {
			options.Confusable = sample.Confusable
		}
		var err error
		if d.bill, err = sim.New(options); err != nil {
			return err
		}
		if d.provider, err = d.bill.Listen(); err != nil {
			return fmt.Errorf("the simulated generalist cannot start: %w", err)
		}
		provider.BaseURL = d.provider.URL + "/v1"
	}
	c := config.Default()
	c.Listen, c.DataDir, c.FirstProvider, c.SelfTest = d.flags.listen, d.dir, "openai", false
	c.Providers = map[string]config.Provider{"openai": provider}
	d.config = &c
	return nil
}

func (d *demo) startGateway(ctx context.Context) error {
	loaded, err := lifecycle.LoadModel(filepath.Join(d.dir, d.task.Name+".occam"))
	if err != nil {
		return err
	}
	d.server, err = d.open(ctx, d.config, []*task.Task{d.task}, map[string]*lifecycle.LoadedModel{d.task.Name: loaded})
	if err != nil {
		return errors.Join(err, loaded.Close())
	}
	if err := d.server.listen(d.config.Listen); err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop, d.serving = stop, make(chan error, 1)
	go func() { d.serving <- d.server.run(running, time.Duration(d.config.Limits.Drain)) }()
	return nil
}

func (d *demo) replay(ctx context.Context) error {
	r := replay{
		client: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: demoWorkers}}, baseURL: d.server.url() + "/v1",
		key: "sk-demo", model: d.task.Generalist, system: d.system, task: d.task, workers: demoWorkers, now: d.now,
	}
	bar := d.newProgress("replay", len(d.tickets))
	served, spent, begun := 0, cost.Amount(0), d.now()
	results, err := r.run(ctx, d.tickets, func(done int, one replayed) {
		if one.served {
			served++
		}
		spent += one.cost
		bar.set(done, fmt.Sprintf("%.0f %% local, $%.4f%s", 100*float64(served)/float64(done), spent.USD(), d.label()))
	})
	bar.finish("")
	d.seconds = d.now().Sub(begun).Seconds()
	if err != nil {
		return err
	}
	d.results = summarize(results)
	if d.results.failed > 0 {
		fmt.Fprintf(d.stderr, "%d of %d tickets got no answer, the first because: %v\n", d.results.failed, len(results), d.results.firstFailure)
	}
	return nil
}

// label marks figures that rest on the simulated provider.
func (d *demo) label() string {
	if d.bill != nil {
		return " (simulated)"
	}
	return ""
}

// settle waits until every attempt has its outcome: the last answers' free rows are written in batches.
func (d *demo) settle(ctx context.Context) (store.Counts, error) {
	deadline := d.now().Add(10 * time.Second)
	for {
		counts, err := d.server.store.Counts(ctx)
		if err != nil || (counts.Open == 0 && counts.Free >= int64(d.results.served)) || d.now().After(deadline) {
			return counts, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (d *demo) close() {
	if d.stop != nil {
		d.stop()
		if err := <-d.serving; err != nil {
			fmt.Fprintf(d.stderr, "occam: %v\n", err)
		}
	}
	if d.server != nil {
		d.server.close()
	}
	if d.provider != nil {
		d.provider.Close()
	}
	if d.dir != "" && d.flags.keep == "" && strings.Contains(d.dir, "occam-demo-") {
		if err := os.RemoveAll(d.dir); err != nil {
			fmt.Fprintf(d.stderr, "occam: %s could not be removed: %v\n", d.dir, err)
		}
	}
}
