package store

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"occam/internal/store/storetest/faultdisk"
)

// WithDisk puts a disk under SQLite, as a VFS, and under the journal.
func (o Options) WithDisk(d *faultdisk.Disk) Options {
	o.vfs = d.Name()
	o.openFile = func(path string) (diskFile, error) { return d.Open(path) }
	return o
}

// Crash ends the store as kill -9 would, as far as that is possible in one process: nothing that waits is written, and the
// write-ahead log stays as it is until the test ends.
func (s *Store) Crash() {
	s.once.Do(func() {
		s.writer.setBroken(errors.New("crashed"))
		s.stop()
		close(s.writer.quit)
		<-s.writer.stopped
		if s.dialect == sqlite {
			_ = s.journaled.applier.close() // broken as it is, it applies nothing
		}
		s.tasks.Wait()
		s.err = s.lock.Close() // the system does that when a process dies
	})
}

// SchemaVersion is the version that this binary knows.
func SchemaVersion() int { return schemaVersion }

// A mutant breaks one thing about the ledger. mutate changes the statements of a transaction.
type mutant struct {
	ledgerDB
	mutate func([]statement) []statement
}

func (m *mutant) apply(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) (bool, error) {
	return m.ledgerDB.apply(ctx, accounts, func(b map[accountID]Balance) []statement { return m.mutate(build(b)) })
}

// hasty says that a transaction is durable before it is: it writes behind the caller's back.
type hasty struct {
	ledgerDB
	mu      sync.Mutex
	pending []func()
}

func (h *hasty) apply(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	statements := build(map[accountID]Balance{})
	h.pending = append(h.pending, func() {
		_, _ = h.ledgerDB.apply(ctx, nil, func(map[accountID]Balance) []statement { return statements })
	})
	if len(h.pending) > 8 { // a batch of batches
		for _, write := range h.pending {
			write()
		}
		h.pending = nil
	}
	return true, nil
}

// forgetful drops whole transactions that a condition selects, and says that they were written.
type forgetful struct {
	ledgerDB
	drop func([]statement) bool
}

func (f *forgetful) apply(ctx context.Context, accounts []account, build func(map[accountID]Balance) []statement) (bool, error) {
	var statements []statement
	probe := build(map[accountID]Balance{})
	if f.drop(probe) {
		return true, nil
	}
	return f.ledgerDB.apply(ctx, accounts, func(b map[accountID]Balance) []statement {
		statements = build(b)
		for i := range statements { // go on where the database is, as a forgetful writer would
			if statements[i].query == moveHead {
				statements[i] = statement{strings.Replace(moveHead, " AND seq = ?", " AND ? >= 0", 1), statements[i].args, mustBeOurs}
			}
		}
		return statements
	})
}

// A badFile is a file of the journal that does not do what it says.
type badFile struct {
	diskFile
	write func(diskFile, []byte, int64) (int, error)
	read  func(diskFile, []byte, int64) (int, error)
}

func (f *badFile) WriteAt(b []byte, at int64) (int, error) {
	if f.write == nil {
		return f.diskFile.WriteAt(b, at)
	}
	return f.write(f.diskFile, b, at)
}

func (f *badFile) ReadAt(b []byte, at int64) (int, error) {
	if f.read == nil {
		return f.diskFile.ReadAt(b, at)
	}
	return f.read(f.diskFile, b, at)
}

// badJournal makes the journal's files bad ones.
func badJournal(f badFile) func(*Options) {
	return func(o *Options) {
		o.openFile = func(path string) (diskFile, error) {
			bad := f
			var err error
			bad.diskFile, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
			return &bad, err
		}
	}
}

// unwritten says that it has written, and has not.
func unwritten(_ diskFile, b []byte, _ int64) (int, error) { return len(b), nil }

// lateWrites writes what it was given when it is given more.
func lateWrites() func(diskFile, []byte, int64) (int, error) {
	write := func() {}
	return func(f diskFile, b []byte, at int64) (int, error) {
		write()
		b = slices.Clone(b)
		write = func() { _, _ = f.WriteAt(b, at) }
		return len(b), nil
	}
}

// without drops the statements that a condition selects.
func without(drop func(statement) bool) func([]statement) []statement {
	return func(all []statement) []statement { return slices.DeleteFunc(all, drop) }
}

// changing changes an argument of the statements of one query.
func changing(query string, change func(args []any)) func([]statement) []statement {
	return func(all []statement) []statement {
		for i := range all {
			if all[i].query == query {
				all[i].args = slices.Clone(all[i].args)
				change(all[i].args)
			}
		}
		return all
	}
}

// changingOutcomes changes the columns of outcomes, whether they come alone or together with their intents.
func changingOutcomes(change func(outcome []any)) func([]statement) []statement {
	alone := changing(closeAttempt, change)
	together := changing(insertAttempt, func(a []any) {
		if a[intentColumns] == string(Settled) || a[intentColumns] == string(Estimated) {
			change(a[intentColumns:])
		}
	})
	return func(all []statement) []statement { return together(alone(all)) }
}

const recoveredReason = "process ended before the outcome"

func has(all []statement, query string, arg any) bool {
	return slices.ContainsFunc(all, func(s statement) bool { return s.query == query && slices.Contains(s.args, arg) })
}

// Mutants are ledgers that are broken on purpose: each must fail a test.
func Mutants() map[string]func(*Options) {
	of := func(mutate func([]statement) []statement) func(*Options) {
		return func(o *Options) { o.wrap = func(l ledgerDB) ledgerDB { return &mutant{l, mutate} } }
	}
	forget := func(drop func([]statement) bool) func(*Options) {
		return func(o *Options) { o.wrap = func(l ledgerDB) ledgerDB { return &forgetful{ledgerDB: l, drop: drop} } }
	}
	var batches atomic.Int64
	isEntry := func(s statement, k kind) bool { return s.query == insertEntry && s.args[2] == int64(k) }
	return map[string]func(*Options){
		"intents are not written":        forget(func(all []statement) bool { return has(all, insertAttempt, string(Pending)) }),
		"one batch in three is dropped":  forget(func([]statement) bool { return batches.Add(1)%3 == 0 }),
		"answers before it is durable":   func(o *Options) { o.wrap = func(l ledgerDB) ledgerDB { return &hasty{ledgerDB: l} } },
		"outcomes are not written":       of(changingOutcomes(func(a []any) { a[0] = string(Pending) })),
		"no recovery after a crash":      forget(func(all []statement) bool { return has(all, closeAttempt, recoveredReason) }),
		"free rows are dropped":          forget(func(all []statement) bool { return has(all, insertAttempt, string(Free)) }),
		"no chain":                       of(without(func(s statement) bool { return s.query == insertEntry })),
		"outcomes are not in the chain":  of(without(func(s statement) bool { return isEntry(s, kindOutcome) })),
		"sums are added twice":           of(func(all []statement) []statement { return append(all, filter(all, insertRollup)...) }),
		"sums are not kept":              of(without(func(s statement) bool { return s.query == insertRollup })),
		"budgets are not kept":           of(without(func(s statement) bool { return s.query == insertBalance })),
		"holds are not freed":            of(without(func(s statement) bool { return s.query == deleteHolds })),
		"costs in whole micro-dollars":   of(changingOutcomes(func(a []any) { a[3] = a[3].(int64) / 1000 * 1000 })),
		"the cost of another row":        of(changingOutcomes(func(a []any) { a[3] = a[3].(int64) + 1 })),
		"the price's version is lost":    of(changingOutcomes(func(a []any) { a[2] = "" })),
		"hashes do not cover the last":   of(changing(insertEntry, func(a []any) { a[5] = make([]byte, 32) })),
		"recovered calls cost nothing":   of(changingOutcomes(recoverAsVoid)),
		"the intent's bound is not kept": of(changing(insertAttempt, func(a []any) { a[15] = int64(0) })),
		"rows are written twice":         of(twice),
		"the journal is not written":     badJournal(badFile{write: unwritten}),
		"the journal is written later":   badJournal(badFile{write: lateWrites()}),
		"the journal is not read back":   badJournal(badFile{read: func(diskFile, []byte, int64) (int, error) { return 0, io.EOF }}),
	}
}

func filter(all []statement, query string) []statement {
	return slices.DeleteFunc(slices.Clone(all), func(s statement) bool { return s.query != query })
}

func recoverAsVoid(a []any) {
	if a[12] == recoveredReason {
		a[0], a[3], a[4], a[5] = string(Void), int64(0), int64(0), int64(0)
	}
}

// twice writes every attempt again under another name.
func twice(all []statement) []statement {
	for _, s := range filter(all, insertAttempt) {
		s.args = slices.Clone(s.args)
		s.args[0], s.args[1] = s.args[0].(int64)+1<<20, s.args[1].(string)+"-again"
		all = append(all, s)
	}
	return all
}
