package store_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"occam/internal/cost"
	"occam/internal/store"
	"occam/internal/store/storetest"
)

// A biller is the provider's side of the story: it keeps its own bill.
type biller struct {
	mu       sync.Mutex
	billed   map[string]cost.Amount // by attempt
	answered map[string]bool        // attempts whose answer went to the app
	free     int64
	open     cost.Amount // what attempts left open can cost at most

	without int // billed attempts that the ledger does not have, of the last check
	missing int // answered attempts that it does not have as settled
}

func newBiller() *biller {
	return &biller{billed: map[string]cost.Amount{}, answered: map[string]bool{}}
}

// call bills an attempt. The amount is within the bounds of its intent and no whole number of micro-dollars.
func (b *biller) call(a store.Attempt) cost.Amount {
	b.mu.Lock()
	defer b.mu.Unlock()
	amount := a.CostLow + (a.CostHigh-a.CostLow)*cost.Amount(len(b.billed)%7+1)/9
	b.billed[a.ID] = amount
	return amount
}

func (b *biller) answer(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answered[id] = true
}

// check compares the ledger with the bill: the invariants I1 to I5 of docs/ledger.md.
func (b *biller) check(s *store.Store) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var settled, bill cost.Amount
	b.without, b.missing = 0, 0
	for id, amount := range b.billed {
		r, ok, err := s.Request(ctx, "r-"+id)
		if err != nil {
			return err
		}
		if !ok || len(r.Attempts) != 1 {
			wrong("%s is billed and has %d attempts", id, len(r.Attempts))
			b.without++
		}
		if b.answered[id] && (!ok || r.Attempts[0].State != store.Settled) {
			b.missing++
		}
		if !ok || len(r.Attempts) != 1 {
			continue
		}
		switch a := r.Attempts[0]; a.State {
		case store.Settled:
			bill, settled = bill+amount, settled+a.Cost
			if a.Cost != amount {
				wrong("%s: billed %v, settled %v", id, amount, a.Cost)
			}
		case store.Estimated:
			if b.answered[id] {
				wrong("%s was answered and is only estimated", id)
			}
			if amount < a.CostLow || amount > a.CostHigh || a.Cost < a.CostLow || a.Cost > a.CostHigh {
				wrong("%s: billed %v, estimated %v to %v", id, amount, a.CostLow, a.CostHigh)
			}
		default:
			wrong("%s is billed and %s", id, a.State)
		}
	}
	if settled != bill {
		wrong("settled %v, billed %v", settled, bill)
	}
	totals, err := s.Totals(ctx, store.TotalsQuery{By: []store.Dimension{store.ByState}})
	if err != nil {
		return err
	}
	for _, t := range totals {
		if t.State == store.Settled && t.Cost != settled {
			wrong("the sums say %v, the rows %v", t.Cost, settled)
		}
		if t.State == store.Free && t.Attempts != b.free {
			wrong("%d free rows, want %d", t.Attempts, b.free)
		}
	}
	counts, err := s.Counts(ctx)
	if err != nil {
		return err
	}
	if counts.Open != 0 || counts.Free != b.free {
		wrong("%+v, want %d free", counts, b.free)
	}
	report, err := s.Verify(ctx)
	if err != nil {
		return err
	}
	if !report.OK() {
		wrong("verify: %q", report.Problems)
	}
	return errors.Join(errs...)
}

// load sends attempts through the ledger until each worker has done its share; every tenth is left without an outcome, as if
// the process died.
func (b *biller) load(s *store.Store, budget store.Budget) error {
	var group sync.WaitGroup
	errs := make(chan error, 1000)
	for worker := range 6 {
		group.Go(func() {
			for i := range 20 {
				a := storetest.Paid(fmt.Sprintf("%d-%d", worker, i), time.Now())
				a.CostHigh = 1_000_000 + cost.Amount(i)
				if err := s.IntendWithin(ctx, a, budget); err != nil {
					errs <- err
					continue
				}
				amount := b.call(a)
				if i%10 == 9 {
					b.mu.Lock()
					b.open += a.CostHigh
					b.mu.Unlock()
					continue
				}
				if err := s.Finish(ctx, storetest.Settle(a, amount)); err != nil {
					errs <- err
					continue
				}
				b.answer(a.ID)
				if err := s.Finish(ctx, storetest.Settle(a, amount)); !errors.Is(err, store.ErrNoIntent) {
					errs <- fmt.Errorf("a second outcome: %v", err)
				}
				b.mu.Lock()
				b.free++
				b.mu.Unlock()
				if err := s.RecordFree(ctx, storetest.Local("f"+a.ID, time.Now())); err != nil {
					errs <- err
				}
			}
		})
	}
	group.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// burst sends attempts that are answered, and asks the ledger nothing.
func (b *biller) burst(s *store.Store, budget store.Budget) error {
	for i := range 10 {
		a := storetest.Paid(fmt.Sprint("burst-", i), time.Now())
		if err := s.IntendWithin(ctx, a, budget); err != nil {
			return err
		}
		if err := s.Finish(ctx, storetest.Settle(a, b.call(a))); err != nil {
			return err
		}
		b.answer(a.ID)
	}
	return nil
}

// audit loads a ledger, crashes it, opens it again and compares it with the bill. It returns what is wrong.
func audit(t testing.TB, dir string, opts store.Options) error {
	dsn := "sqlite:" + dir
	s, err := store.Open(ctx, dsn, opts)
	if err != nil {
		return err
	}
	b := newBiller()
	budget := store.Budget{Key: "key-1", Start: store.PeriodStart("month", time.Now()), Limit: cost.USD}
	loadErr := b.load(s, budget)
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c, err := s.Counts(ctx); err == nil && c.Free >= b.free {
			break
		}
	}
	if have, err := s.BudgetBalance(ctx, budget); err != nil || have.Reserved != b.open {
		loadErr = errors.Join(loadErr, err, fmt.Errorf("the budget reserves %v, open attempts can cost %v", have.Reserved, b.open))
	}
	loadErr = errors.Join(loadErr, b.burst(s, budget)) // what the crash leaves in the journal
	s.Crash()
	s, err = store.Open(ctx, dsn, opts)
	if err != nil {
		return errors.Join(loadErr, err)
	}
	defer s.Close()
	checkErr := b.check(s)
	balance, err := s.BudgetBalance(ctx, budget)
	totals, totalsErr := s.Totals(ctx, store.TotalsQuery{Key: "key-1"})
	if err == nil && totalsErr == nil && (len(totals) != 1 || balance != (store.Balance{Spent: totals[0].Cost})) {
		checkErr = errors.Join(checkErr, fmt.Errorf("the budget stands at %+v, the ledger at %+v", balance, totals))
	}
	return errors.Join(loadErr, checkErr, err, totalsErr)
}

func TestAudit(t *testing.T) {
	t.Parallel()
	for _, durability := range []store.Durability{store.Full, store.Normal} {
		if err := audit(t, t.TempDir(), store.Options{Durability: durability}); err != nil {
			t.Error(err)
		}
	}
}

// TestMutants breaks the ledger in many ways; if the audit does not notice one, it is worth nothing.
func TestMutants(t *testing.T) {
	t.Parallel()
	for name, mutate := range store.Mutants() {
		if testing.Short() && !strings.HasPrefix(name, "no ") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			opts := store.Options{Durability: store.Normal}
			mutate(&opts)
			err := audit(t, t.TempDir(), opts)
			if err == nil {
				t.Fatal("not noticed")
			}
			first, _, _ := strings.Cut(err.Error(), "\n")
			t.Logf("noticed: %.150s", first)
		})
	}
}

// copyDir copies the files of a store.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.IsDir() || strings.HasSuffix(f.Name(), "-shm") {
			continue
		}
		copyFile(t, filepath.Join(from, f.Name()), filepath.Join(to, f.Name()))
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}
