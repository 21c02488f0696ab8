package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"occam/internal/cost"
	"occam/internal/datacheck"
	"occam/internal/lifecycle"
	"occam/internal/sample"
	"occam/internal/task"
)

// run runs one command and returns its exit code and output.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(context.Background(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

func mustRun(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	code, stdout, stderr := run(t, stdin, args...)
	if code != 0 {
		t.Fatalf("occam %s: exit %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// writeTickets writes bundled tickets as a data file.
func writeTickets(t *testing.T, path string, seed uint64, n int) {
	t.Helper()
	var b bytes.Buffer
	for _, e := range sample.Tickets(seed, n) {
		line, err := json.Marshal(map[string]any{"id": e.ID, "text": e.Text, "labels": map[string]task.Value(e.Labels)})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// One model goes through train, eval and predict, and the documents keep their contract.
func TestTrainEvalPredict(t *testing.T) {
	dir := t.TempDir()
	data, test, model := filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "test.jsonl"), filepath.Join(dir, "m.occam")
	writeTickets(t, data, 1, 1500)
	writeTickets(t, test, 2, 300)

	var report struct {
		Task     string
		Examples struct{ Train, Calibration, Test int }
		Tiers    []struct {
			Name     string
			Accuracy struct{ Value, Low, High float64 }
		}
		Chosen, Model string
	}
	decode(t, mustRun(t, "", "train", "--data", data, "--out", model, "--json", "--promise", "system", "--accuracy", "0.9"), &report)
	if report.Tiers[0].Name != "linear" || report.Tiers[0].Accuracy.Value < .6 || report.Examples.Calibration == 0 || report.Model != model {
		t.Errorf("train: %+v", report)
	}

	var e struct {
		N              int
		Fields         map[string]struct{ Accuracy struct{ Value float64 } }
		Accuracy       struct{ Value, Low, High float64 }
		Coverage       float64
		ServedAccuracy struct{ Value float64 } `json:"served_accuracy"`
	}
	decode(t, mustRun(t, "", "eval", "--model", model, "--data", test, "--json"), &e)
	if e.N != 300 || e.Fields["order_id"].Accuracy.Value < .8 || e.Coverage <= 0 || e.ServedAccuracy.Value < e.Accuracy.Value {
		t.Errorf("eval: %+v", e)
	}
	if code, _, stderr := run(t, "", "eval", "--model", model, "--data", test, "--min-accuracy", "0.9999"); code != exitBar || !strings.Contains(stderr, "below the bar") {
		t.Errorf("eval --min-accuracy: exit %d %s", code, stderr)
	}

	stdin := `{"id":7,"text":"I want my money back for order HP-00123456"}` + "\n" + `{"text":"hello"}` + "\n"
	lines := strings.Split(strings.TrimSpace(mustRun(t, stdin, "predict", "--model", model)), "\n")
	var p struct {
		ID         any
		Output     map[string]any
		Confidence float64
		Served     bool
		Reason     string
	}
	decode(t, lines[0], &p)
	if len(lines) != 2 || p.ID != float64(7) || p.Reason == "" || p.Output["category"] == nil {
		t.Errorf("predict: %+v of %d lines", p, len(lines))
	}
	var why struct {
		Output  map[string]any
		Reasons []struct {
			Field string
			Value any
			Words []struct {
				Word   string
				Weight float64
			}
		}
		Nearest []struct{ Text string }
	}
	decode(t, mustRun(t, stdin[:strings.IndexByte(stdin, '\n')+1], "predict", "--model", model, "--explain", "--examples", data), &why)
	if len(why.Reasons) != 2 || why.Reasons[0].Value != why.Output["category"] || len(why.Reasons[0].Words) == 0 || len(why.Nearest) != nearestShown {
		t.Errorf("explain: %+v", why)
	}
	code, stdout, stderr := run(t, "nonsense\n{\"id\":1}\n\xff\n{\"text\":\"fine\"}\n", "predict", "--model", model)
	if code != exitFailed || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "stdin:2: \"text\" is missing") || !strings.Contains(stderr, "3 lines could not be answered") {
		t.Errorf("bad lines: exit %d, %q, %s", code, stdout, stderr)
	}
}

// A category that drowns in another is named with its rows and recall, and so is one that the file has too few rows of.
func TestEvalNamesWeakAndRareCategories(t *testing.T) {
	dir := t.TempDir()
	data, test, model := filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "test.jsonl"), filepath.Join(dir, "m.occam")
	rows := plainRows(300)
	for i := range 6 { // of the same words as the refunds
		rows = append(rows, row{fmt.Sprint("c", i), rows[2*i+1].Text + " again", map[string]any{"category": "chargeback", "order": nil}})
	}
	rows = append(rows, row{"p1", "my parrot sings", map[string]any{"category": "parrot", "order": nil}}, row{"p2", "a parrot that sings", map[string]any{"category": "parrot", "order": nil}})
	writeRows(t, data, rows)
	mustRun(t, "", "train", "--data", data, "--out", model)
	fresh := plainRows(400)[300:]
	for i := range 30 {
		fresh = append(fresh, row{fmt.Sprint("d", i), "refund me please", map[string]any{"category": "chargeback", "order": nil}})
	}
	writeRows(t, test, fresh)
	var e lifecycle.Evaluation
	decode(t, mustRun(t, "", "eval", "--model", model, "--data", test, "--json"), &e)
	weak := e.Fields["category"].Weak
	if len(weak) != 2 || e.Fields["category"].WeakCount != 2 || e.Fields["order"].Weak != nil {
		t.Fatalf("%+v", e.Fields)
	}
	if c := weak[0]; c.Why != "weak" || c.Value.Text() != "chargeback" || c.N != 30 || c.Recall.Value > .2 || c.Recall.High >= e.Fields["category"].Accuracy.Value {
		t.Errorf("chargeback: %+v", c)
	}
	if c := weak[1]; c.Why != "rare" || c.Value.Text() != "parrot" || c.N != 0 || c.Recall.Low != 0 || c.Recall.High != 1 {
		t.Errorf("parrot: %+v", c)
	}
	text := mustRun(t, "", "eval", "--model", model, "--data", test)
	for _, want := range []string{"of 4 categories of category, 2 are weak", `weak      30 rows  recall`, `"chargeback"`, `rare       0 rows`, `"parrot"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
}

// Every byte of a model file counts: damage anywhere is refused, never served.
func TestDamagedModelIsRefused(t *testing.T) {
	dir := t.TempDir()
	data, model := filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "m.occam")
	writeTickets(t, data, 1, 300)
	mustRun(t, "", "train", "--data", data, "--out", model)
	whole, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		damaged := bytes.Clone(whole)
		damaged[len(whole)*i/20] ^= 0x10
		if err := os.WriteFile(model, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := run(t, "", "predict", "--model", model); code != exitFailed || !strings.Contains(stderr, "m.occam") {
			t.Errorf("byte %d flipped: exit %d %s", len(whole)*i/20, code, stderr)
		}
	}
	if err := os.WriteFile(model, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "", "eval", "--model", model, "--data", data); code != exitFailed {
		t.Errorf("half a file: exit %d %s", code, stderr)
	}
}

// The two refusals of the published scenario: too few tickets to pay, and a task that is too open to learn.
func TestAdviceRefuses(t *testing.T) {
	dir := t.TempDir()
	tickets, poems := filepath.Join(dir, "tickets.jsonl"), filepath.Join(dir, "poems.jsonl")
	writeTickets(t, tickets, 1, 2000)
	var b strings.Builder
	for i := range 200 {
		fmt.Fprintf(&b, `{"messages":[{"role":"user","content":"Write a poem about 17th-century France, number %d"},{"role":"assistant","content":"%s"}]}`+"\n",
			i, strings.Repeat(fmt.Sprintf("a line of verse %d ", i), 10))
	}
	if err := os.WriteFile(poems, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	verdict := func(args ...string) string {
		var advice struct{ Verdict string }
		decode(t, mustRun(t, "", append([]string{"advise", "--json"}, args...)...), &advice)
		return advice.Verdict
	}
	if v := verdict("--data", tickets, "--volume", "50k"); v != "do not train" {
		t.Errorf("50,000 tickets: %s", v)
	}
	if v := verdict("--data", poems, "--volume", "1M"); v != "do not train" {
		t.Errorf("poems: %s", v)
	}
	if v := verdict("--data", tickets, "--volume", "1M"); v == "do not train" {
		t.Errorf("a million tickets: %s", v)
	}
	named := filepath.Join(dir, "named.jsonl") // the category stands in the text, and is no extract of it
	b.Reset()
	for i := range 300 {
		category := []string{"refund", "shipping", "login"}[i%3]
		fmt.Fprintf(&b, `{"text":"about %s of AB-%d","labels":{"category":"%s","order_id":"AB-%d"}}`+"\n", category, i, category, i)
	}
	if err := os.WriteFile(named, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var advice struct{ Facts cost.TrafficFacts }
	if decode(t, mustRun(t, "", "advise", "--json", "--data", named), &advice); advice.Facts.Distinct != 3 || advice.Facts.NotCopied != 0 {
		t.Errorf("categories that stand in their texts: %+v", advice.Facts)
	}
}

// A small demo, whole: the ledger must equal the simulated provider's bill and the document keep its contract.
func TestDemoOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("the demo trains on 10,000 tickets")
	}
	var report struct {
		Accuracy       struct{ Value, Low, High float64 }
		ServedAccuracy struct{ Value, Low, High float64 } `json:"served_accuracy"`
		Target         float64
		Coverage       float64
		Tickets        int
		USD            struct {
			Spent          float64
			GeneralistOnly float64 `json:"generalist_only"`
		}
		LedgerMatches bool     `json:"ledger_matches_bill"`
		BreakEven     *float64 `json:"break_even_per_month"`
		Simulated     bool
	}
	kept := filepath.Join(t.TempDir(), "kept")
	decode(t, mustRun(t, "", "demo", "--once", "--json", "--tickets", "400", "--keep", kept), &report)
	if !report.LedgerMatches {
		t.Error("the ledger does not equal the provider's bill")
	}
	if report.Tickets != 400 || !report.Simulated || report.Target != .97 || report.BreakEven == nil {
		t.Errorf("%+v", report)
	}
	if report.ServedAccuracy.High < report.Target {
		t.Errorf("served accuracy %+v is below the target by more than chance", report.ServedAccuracy)
	}
	if report.Coverage < .5 || report.USD.Spent >= report.USD.GeneralistOnly {
		t.Errorf("coverage %.2f, spent %.4f of %.4f", report.Coverage, report.USD.Spent, report.USD.GeneralistOnly)
	}
	reportOn(t, kept, report.USD.Spent)
	openDomain(t, filepath.Join(kept, "ticket-triage.occam"))
}

// openDomain: a ticket specialist must leave what needs broad knowledge to the generalist.
func openDomain(t *testing.T, model string) {
	t.Helper()
	served := func(stdin string) (answered, n int) {
		out := mustRun(t, stdin, "predict", "--model", model)
		return strings.Count(out, `"served":true`), strings.Count(out, "\n")
	}
	if answered, _ := served(`{"text":"Write a poem about 17th-century France"}`); answered > 0 {
		t.Error("the ticket specialist answered for a poem about 17th-century France")
	}
	dir := cmp.Or(os.Getenv("OCCAM_DATA"), "../../../shared/data")
	prompts, err := os.ReadFile(filepath.Join(dir, "open_domain", "prompts.jsonl"))
	if err != nil {
		t.Logf("the open-domain prompts are not at %s: only the poem was tried", dir)
		return
	}
	answered, n := served(string(prompts))
	t.Logf("%d of %d open-domain prompts answered by the ticket specialist", answered, n)
	if float64(answered) > .005*float64(n) {
		t.Errorf("%d of %d open-domain prompts answered, at most 0.5 %% may be", answered, n)
	}
}

// reportOn runs what finance runs over the ledger that a demo kept: verification, statement, invoice check, FOCUS export.
func reportOn(t *testing.T, kept string, spent float64) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cfg := write("occam.yaml", "data_dir: "+kept+"\nproviders: {openai: {type: openai, base_url: http://127.0.0.1:9/v1}}\n")
	if out := mustRun(t, "", "ledger", "verify", "--config", cfg); !strings.Contains(out, "ok: every row") {
		t.Errorf("verify: %s", out)
	}
	focus := filepath.Join(dir, "focus.csv")
	right := write("right.csv", fmt.Sprintf("model,cost_usd\ngpt-4o,%.6f\n", spent))
	out := mustRun(t, "", "report", "--config", cfg, "--invoice", right, "--focus", focus)
	if !strings.Contains(out, "Simulated") || !strings.Contains(out, "Saved $") {
		t.Errorf("report: %s", out)
	}
	if out := mustRun(t, "", "breakeven", "--config", cfg, "--task", "ticket-triage", "--host", "g5.xlarge"); !strings.Contains(out, "router: embedded + gpt-4o") {
		t.Errorf("breakeven from traffic: %s", out)
	}
	if code, stdout, _ := run(t, "", "doctor", "--config", cfg); code != exitFailed || !strings.Contains(stdout, "BAD  provider openai") || !strings.Contains(stdout, "ok   ledger") {
		t.Errorf("doctor with a provider that is down: exit %d\n%s", code, stdout)
	}
	if rows, err := os.ReadFile(focus); err != nil || !bytes.Contains(rows, []byte("gpt-4o")) {
		t.Errorf("FOCUS: %v", err)
	}
	wrong := write("wrong.csv", fmt.Sprintf("model,cost_usd\ngpt-4o,%.6f\n", spent+1))
	if code, _, stderr := run(t, "", "report", "--config", cfg, "--invoice", wrong); code != exitBar || !strings.Contains(stderr, "differ") {
		t.Errorf("a wrong invoice: exit %d %s", code, stderr)
	}
}

func decode(t *testing.T, document string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(document), into); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, document)
	}
}

// Training says what is wrong with its data without being asked, and what more would bring when asked.
func TestTrainReportsOnItsData(t *testing.T) {
	dir := t.TempDir()
	data, model := filepath.Join(dir, "train.jsonl"), filepath.Join(dir, "m.occam")
	var b bytes.Buffer
	kept := 0
	for _, e := range sample.Tickets(1, 6000) {
		category := e.Labels[sample.Category].Text()
		if !strings.Contains(strings.Join(sample.Categories()[:8], "\n"), category) {
			continue
		}
		if kept++; kept > 450 {
			break
		}
		fmt.Fprintf(&b, "{\"id\":%q,\"text\":%q,\"labels\":{\"category\":%q}}\n", e.ID, "ticket: "+strings.Join(strings.Fields(e.Text), " "), category)
	}
	for i, category := range sample.Categories()[:2] {
		fmt.Fprintf(&b, "{\"id\":\"same %d\",\"text\":\"the very same words\",\"labels\":{\"category\":%q}}\n", i, category)
	}
	if err := os.WriteFile(data, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var report struct {
		Data struct {
			Findings []struct {
				Kind, Field, Severity string
				Rows                  int
			}
			Curve *struct {
				Points []struct{ Rows int }
				Twice  struct{ Rows int }
			}
		}
	}
	decode(t, mustRun(t, "", "train", "--data", data, "--out", model, "--json", "--curve", "--promise", "system", "--accuracy", "0.9"), &report)
	found := false
	for _, f := range report.Data.Findings {
		found = found || f.Kind == "contradiction" && f.Rows == 2 && f.Severity == "warning"
	}
	if !found || report.Data.Curve == nil || len(report.Data.Curve.Points) != 4 || report.Data.Curve.Twice.Rows <= report.Data.Curve.Points[3].Rows {
		t.Errorf("data: %+v", report.Data)
	}
	examples, _, err := readAll(data)
	if err != nil {
		t.Fatal(err)
	}
	fields, err := task.InferFields(examples)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	summarise(data, datacheck.Quick(fields, examples)).print(&out)
	if !strings.Contains(out.String(), "warning: contradiction in category, 2 rows (line") || !strings.Contains(out.String(), "occam data check "+data) {
		t.Errorf("report:\n%s", out.String())
	}
}
