package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"occam/internal/cost"
	"occam/internal/sim/occamtest"
	"occam/internal/store"
)

// parallel lets a client test run beside the others, and keeps all of them out of a short run.
func parallel(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped in a short run: it trains a model and starts several processes")
	}
	t.Parallel()
}

// node returns the Node program, or skips the test where it or the packages are missing.
func node(t *testing.T) string {
	t.Helper()
	parallel(t)
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("skipped: node is not installed; scripts/sdk-setup.sh says what is needed")
	}
	if _, err := os.Stat("js/node_modules/.installed"); err != nil {
		t.Skip("skipped: the JavaScript packages are not installed: run scripts/sdk-setup.sh")
	}
	return path
}

// python returns the Python of the virtual environment that sdk-setup.sh makes, or skips the test where it is missing.
func python(t *testing.T) string {
	t.Helper()
	parallel(t)
	path, err := filepath.Abs("../.cache/sdk/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("../.cache/sdk/venv/installed.txt"); err != nil {
		t.Skip("skipped: the Python packages are not installed: run scripts/sdk-setup.sh")
	}
	return path
}

func TestJavaScriptClients(t *testing.T) {
	program := node(t)
	for _, client := range []string{"openai", "vercel", "langchain", "anthropic"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			o := serve(t)
			o.run(t, "js", program, client+".mjs")
			o.reconcile(t)
		})
	}
}

func TestPythonClients(t *testing.T) {
	program := python(t)
	for _, client := range []string{"openai", "langchain", "anthropic"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			o := serve(t)
			o.run(t, "python", program, client+"_client.py")
			o.reconcile(t)
		})
	}
}

func TestOpenAIGo(t *testing.T) {
	parallel(t)
	program := filepath.Join(t.TempDir(), "openai-go")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "gosdk"
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("skipped: the client's modules are not here (run scripts/sdk-setup.sh): %v\n%s", err, out)
	}
	o := serve(t)
	o.run(t, "gosdk", program)
	o.reconcile(t)
}

// reconcile stops the gateway and compares its ledger with the provider's bill: what is settled plus the bounds of what is
// estimated must hold the bill. Models that ask for a fault have no price in the book: their attempts are only counted.
func (o *occam) reconcile(t *testing.T) {
	t.Helper()
	o.Stop(t)
	var settled, low, high, billed cost.Amount
	attempts, charges := 0, o.provider.Bill()
	for _, r := range occamtest.Ledger(t, o.data) {
		for _, a := range r.Attempts {
			switch a.State {
			case store.Pending:
				t.Errorf("attempt %s is still open", a.ID)
			case store.Free, store.Void:
				continue
			case store.Settled:
				settled += a.Cost
			case store.Estimated:
				low, high = low+a.CostLow, high+a.CostHigh
			}
			attempts++
		}
	}
	for _, c := range charges {
		for _, provider := range []string{"openai", "anthropic"} {
			if _, priced := cost.Default().Lookup(provider, c.Model, c.At); priced { // what the book does not know is unpriced, never zero
				billed += c.Amount
			}
		}
	}
	t.Logf("bill: %d charges, %v at known prices; ledger: %d attempts that may cost, %v settled, %v to %v estimated",
		len(charges), billed, attempts, settled, low, high)
	if attempts < len(charges) {
		t.Errorf("the provider billed %d requests, the ledger has %d attempts", len(charges), attempts)
	}
	if billed < settled+low || billed > settled+high {
		t.Errorf("the ledger says %v to %v, the provider billed %v", settled+low, settled+high, billed)
	}
}
