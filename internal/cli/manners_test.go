package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"occam/internal/config"
)

// TestExitCodes: 1 failed, 2 wrong usage, 3 a bar was not met; each error says on stderr what to do, and stdout stays empty.
func TestExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("OPENAI_API_KEY", "")
	if err := os.WriteFile("bad.yaml", []byte("providers: {a: {type: openai, base_url: http://127.0.0.1:9/v1}}\ndatadir: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir("kept", 0o700), os.WriteFile("kept/occam.db", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"good.yaml": "data_dir: none\n", "bad_listen.yaml": "listen: here\n"} {
		if err := os.WriteFile(name, []byte("providers: {a: {type: openai, base_url: http://127.0.0.1:9/v1}}\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"serv", 2, "Did you mean `occam serve`?"},
		{"ledger verfy", 2, "Did you mean `occam ledger verify`?"},
		{"help serv", 2, "Did you mean `occam serve`?"},
		{"help ledger nothing", 2, "occam ledger --help"},
		{"train --dta x", 2, "Did you mean --data?"},
		{"train --seed -1", 2, "occam train --help"},
		{"serve now", 2, "takes no argument"},
		{"ledger import", 2, "needs the export's file"},
		{"ledger backup", 2, "needs the folder to make"},
		{"ledger forget", 2, "X-Occam-Request-Id"},
		{"keys create", 2, "needs a name for the key"},
		{"keys revoke a b", 2, `nothing behind it, but got ["b"]`},
		{"prices show", 2, "needs a model's name"},
		{"prices import", 2, "needs the file of a price list"},
		{"eval --model m --data d --min-accuracy 7", 2, "share between 0 and 1"},
		{"eval --model m --data d --min-accuracy nan", 2, "share between 0 and 1"},
		{"demo --once --keep kept", 2, "name another folder"},
		{"keys create app --budget nan", 2, "number of dollars"},
		{"review --json", 2, "needs a command"},
		{"advise", 2, "--data or --task is missing"},
		{"report --month soon", 2, "2026-11"},
		{"serve", 1, "occam init"},
		{"serve --config .", 1, "--config"},
		{"serve --config bad.yaml", 1, "did you mean data_dir?"},
		{"reload --config bad.yaml", 1, "bad.yaml"},
		{"ledger verify --config good.yaml", 1, "`occam serve` makes it"},
		{"serve --config bad_listen.yaml", 1, "127.0.0.1:8080"},
		{"demo --listen here", 1, "cannot listen on here"},
		{"demo --tickets 0", 2, "at least 1"},
		{"demo --live", 2, "OPENAI_API_KEY"},
		{"predict --model nothing.occam", 1, "nothing.occam"},
		{"train --data nothing.jsonl", 1, "nothing.jsonl"},
	} {
		code, stdout, stderr := run(t, "", strings.Fields(tc.args)...)
		if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.says) {
			t.Errorf("occam %s: exit %d with %q on stdout, want %d and %q in\n%s", tc.args, code, stdout, tc.code, tc.says, stderr)
		}
	}
}

// leaves are the commands of the program that hold no others, by their whole names.
func leaves(cmd *cobra.Command) map[string]*cobra.Command {
	all := map[string]*cobra.Command{}
	for _, c := range cmd.Commands() {
		if c.Runnable() && !c.HasSubCommands() {
			all[strings.TrimPrefix(c.CommandPath(), "occam ")] = c
		}
		for name, below := range leaves(c) {
			all[name] = below
		}
	}
	return all
}

func program() *cobra.Command {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv, now: time.Now}
	return a.root()
}

// TestHelp: every command says what it is for, its flags say what they do, and its examples are commands that there are.
func TestHelp(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		code, stdout, stderr := run(t, "", args...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, cmp.Or(c.Long, c.Short)) || c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s --help: exit %d\n%s%s", c.CommandPath(), code, stdout, stderr)
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			example(t, strings.TrimSpace(line))
		}
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(program())
}

// example checks that a line of help names a command and flags that there are.
func example(t *testing.T, line string) {
	t.Helper()
	_, line, shown := strings.Cut(line, "occam ")
	if !shown {
		return
	}
	line, _, _ = strings.Cut(line, "    #")
	line, _, _ = strings.Cut(line, " < ")
	command, rest, err := program().Find(strings.Fields(line))
	if err == nil {
		err = command.ParseFlags(rest)
	}
	if err == nil {
		err = command.ValidateArgs(command.Flags().Args())
	}
	if err != nil || command.CommandPath() == "occam" {
		t.Errorf("the example %q: %v", line, err)
	}
}

// otherwise are the commands whose --json is no one document, or is tested where there is what they need.
var otherwise = map[string]string{
	"predict": "JSON Lines, one answer a text", "help": "text", "completion": "a script for a shell",
	"demo": "TestDemoOnce", "train": "TestTrainEvalPredict", "eval": "TestTrainEvalPredict", "data check": "testdata/script/data_check.txtar",
	"models show": "needs a model", "models certificate": "needs a model", "models promote": "needs a model", "models rollback": "needs a model",
	"requests show": "needs a request", "review answer": "needs a text", "review skip": "needs a text", "batches show": "needs a batch", "batches cancel": "needs a batch",
	"reload": "needs a server", "tasks cancel-training": "needs a training run", "ledger import": "needs an empty store", "data curve": "trains for seconds",
}

// TestJSONOfEveryCommand: with --json stdout is exactly one JSON document.
func TestJSONOfEveryCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	configuration := "providers: {a: {type: openai, base_url: http://127.0.0.1:9/v1, api_key: none, prices: openai}}\nlisten: 127.0.0.1:0\nself_test: false\n" +
		"tasks: {triage: {generalist: gpt-4o, schema: {type: object, properties: {category: {type: string, enum: [late, refund]}}}}}\n"
	if err := os.WriteFile("occam.yaml", []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	writeTickets(t, "tickets.jsonl", 1, 60)
	if err := os.WriteFile("prices.json", []byte(`{"m":{"litellm_provider":"openai","input_cost_per_token":1e-6,"output_cost_per_token":2e-6,"mode":"chat"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var key struct{ ID string }
	document(t, "keys create app", &key)
	arguments := map[string]string{
		"init": "init --config new.yaml", "serve": "serve --for 1s", "doctor": "doctor --offline", "advise": "advise --data tickets.jsonl",
		"tasks show": "tasks show triage", "tasks check": "tasks check triage", "tasks pause": "tasks pause triage", "tasks revoke-labels": "tasks revoke-labels nobody",
		"keys create": "keys create other", "keys limits": "keys limits " + key.ID + " --budget 5", "keys revoke": "keys revoke " + key.ID,
		"accounts add": "accounts add ann --role admin", "accounts set-role": "accounts set-role ann --role admin", "accounts reset-password": "accounts reset-password ann",
		"accounts remove": "accounts remove bob", "prices show": "prices show gpt-4o", "prices import": "prices import prices.json --format litellm",
		"ledger export": "ledger export --out ledger.jsonl", "ledger backup": "ledger backup copy", "ledger forget": "ledger forget 01M8C3XR1YJMG8P443FXWBDY4T",
	}
	document(t, "accounts add root --role admin", &struct{}{})
	document(t, "accounts add bob", &struct{}{})
	order := []string{"accounts add", "accounts set-role", "accounts reset-password", "accounts remove", "keys limits", "keys revoke"}
	for name := range leaves(program()) {
		if _, known := otherwise[strings.Fields(name)[0]]; known || otherwise[name] != "" || strings.HasPrefix(name, "accounts ") || strings.HasPrefix(name, "keys ") {
			continue
		}
		order = append(order, name)
	}
	for _, name := range append(order, "accounts", "accounts list", "keys", "keys create", "keys list", "models", "prices", "requests", "tasks", "batches") {
		args := arguments[name]
		if args == "" {
			args = name
		}
		document(t, args, new(any))
	}
}

// document runs a command with --json and decodes what it prints, which must be one document.
func document(t *testing.T, args string, into any) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := Run(context.Background(), append(strings.Fields(args), "--json"), strings.NewReader(""), &out, &errs); code != 0 {
		t.Errorf("occam %s --json: exit %d\n%s", args, code, errs.String())
		return
	}
	dec := json.NewDecoder(&out)
	if err := dec.Decode(into); err != nil {
		t.Errorf("occam %s --json: %v", args, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Errorf("occam %s --json prints more than one document: %v", args, err)
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestResultThatCannotBeWritten: a command whose result is cut off has failed.
func TestResultThatCannotBeWritten(t *testing.T) {
	for _, args := range []string{"version", "version --json", "help", "breakeven --article", "prices list"} {
		var errs bytes.Buffer
		if code := Run(context.Background(), strings.Fields(args), strings.NewReader(""), full{}, &errs); code != 1 || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("occam %s: exit %d, %s", args, code, errs.String())
		}
	}
}

// TestInterrupted: Ctrl-C in the middle of work leaves no file, fails, and says so in words.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	data, out := filepath.Join(dir, "tickets.jsonl"), filepath.Join(dir, "m.occam")
	writeTickets(t, data, 1, 1000)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	for _, args := range [][]string{{"train", "--data", data, "--out", out}, {"data", "check", data}, {"demo", "--once"}} {
		var stdout, stderr bytes.Buffer
		if code := Run(ctx, args, strings.NewReader(""), &stdout, &stderr); code != 1 || stdout.Len() > 0 || !strings.HasSuffix(stderr.String(), "occam: interrupted before it was done\n") {
			t.Errorf("occam %s: exit %d\n%s%s", args, code, stdout.String(), stderr.String())
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// TestReloadKnowsEveryKey: every key of the configuration is either taken in by a reload, or makes it say that a restart is needed.
func TestReloadKnowsEveryKey(t *testing.T) {
	restart := fixed(&config.Config{})
	reloads := []string{"providers", "models", "limits", "charges", "self_test"}
	for f := range reflect.TypeFor[config.Config]().Fields() {
		name := f.Tag.Get("yaml")
		if _, known := restart[name]; name != "-" && !known && !slices.Contains(reloads, name) {
			t.Errorf("a reload that changes %s changes nothing and says nothing", name)
		}
	}
}

// TestInitNeverOverwrites: what somebody wrote stays, and says so.
func TestInitNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "occam.yaml")
	if err := os.WriteFile(path, []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "", "init", "--config", path); code != 1 || !strings.Contains(stderr, "--force") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "# mine\n" {
		t.Errorf("%q, %v", data, err)
	}
}
