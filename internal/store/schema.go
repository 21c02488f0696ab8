package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// migrations are applied in order, each in one transaction together with the version it leads to. They are written for
// SQLite; toPostgres translates. A migration that was released never changes: add another.
var migrations = [][]string{
	{ // 1: the ledger
		`CREATE TABLE lanes (
			lane INTEGER PRIMARY KEY, owner TEXT NOT NULL, epoch INTEGER NOT NULL, beat INTEGER NOT NULL,
			seq INTEGER NOT NULL, n INTEGER NOT NULL, hash BLOB NOT NULL) STRICT`,
		`CREATE TABLE attempts (
			n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request_id TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
			key_id TEXT NOT NULL, task TEXT NOT NULL, tier TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
			audit INTEGER NOT NULL, simulated INTEGER NOT NULL, input_hash INTEGER NOT NULL,
			intent_price TEXT NOT NULL, intent_low INTEGER NOT NULL, intent_high INTEGER NOT NULL,
			state TEXT NOT NULL, closed_at INTEGER NOT NULL, price TEXT NOT NULL,
			cost INTEGER NOT NULL, cost_low INTEGER NOT NULL, cost_high INTEGER NOT NULL, reference INTEGER NOT NULL,
			input INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
			output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
			reason TEXT NOT NULL, answered INTEGER NOT NULL, confidence REAL NOT NULL, status INTEGER NOT NULL,
			latency INTEGER NOT NULL) STRICT`,
		`CREATE INDEX attempts_request ON attempts (request_id)`,
		`CREATE INDEX attempts_task ON attempts (task, n)`,
		`CREATE INDEX attempts_model ON attempts (model, n)`,
		`CREATE INDEX attempts_key ON attempts (key_id, n)`,
		`CREATE INDEX attempts_tier ON attempts (tier, n)`,
		`CREATE INDEX attempts_open ON attempts (n) WHERE state = 'open'`,
		`CREATE INDEX attempts_odd ON attempts (state, n) WHERE state NOT IN ('settled', 'free')`,
		`CREATE INDEX attempts_failed ON attempts (n) WHERE status >= 400`,
		`CREATE TABLE chain (
			lane INTEGER NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, n INTEGER NOT NULL, note TEXT NOT NULL,
			hash BLOB NOT NULL, PRIMARY KEY (lane, seq)) STRICT, WITHOUT ROWID`,
		`CREATE TABLE rollups (
			span INTEGER NOT NULL, bucket INTEGER NOT NULL, lane INTEGER NOT NULL,
			task TEXT NOT NULL, tier TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, key_id TEXT NOT NULL,
			state TEXT NOT NULL, flags INTEGER NOT NULL,
			attempts INTEGER NOT NULL, cost INTEGER NOT NULL, cost_low INTEGER NOT NULL, cost_high INTEGER NOT NULL,
			reference INTEGER NOT NULL, input INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
			output INTEGER NOT NULL, reasoning INTEGER NOT NULL, latency INTEGER NOT NULL,
			PRIMARY KEY (span, bucket, lane, task, tier, provider, model, key_id, state, flags)) STRICT, WITHOUT ROWID`,
		`CREATE TABLE latencies (
			day INTEGER NOT NULL, lane INTEGER NOT NULL, task TEXT NOT NULL, tier TEXT NOT NULL, model TEXT NOT NULL,
			step INTEGER NOT NULL, attempts INTEGER NOT NULL,
			PRIMARY KEY (day, lane, task, tier, model, step)) STRICT, WITHOUT ROWID`,
		`CREATE TABLE rates (
			minute INTEGER NOT NULL, lane INTEGER NOT NULL, task TEXT NOT NULL, requests INTEGER NOT NULL,
			PRIMARY KEY (minute, lane, task)) STRICT, WITHOUT ROWID`,
		`CREATE TABLE days (
			day INTEGER NOT NULL, lane INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
			PRIMARY KEY (day, lane)) STRICT, WITHOUT ROWID`,
	},
	{ // 2: what the lifecycle and the dashboard keep, and budgets
		`CREATE TABLE examples (
			pos INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, request_id TEXT NOT NULL,
			at INTEGER NOT NULL, text TEXT NOT NULL, input_hash INTEGER NOT NULL, gold INTEGER NOT NULL,
			uniform INTEGER NOT NULL) STRICT`,
		`CREATE INDEX examples_task ON examples (task, pos)`,
		`CREATE INDEX examples_request ON examples (request_id)`,
		`CREATE INDEX examples_at ON examples (at)`,
		`CREATE TABLE labels (
			pos INTEGER PRIMARY KEY AUTOINCREMENT, example TEXT NOT NULL REFERENCES examples (id) ON DELETE CASCADE,
			at INTEGER NOT NULL, key_id TEXT NOT NULL, source TEXT NOT NULL, prompt TEXT NOT NULL, output TEXT NOT NULL,
			trainable INTEGER NOT NULL, revoked_at INTEGER NOT NULL, UNIQUE (example, key_id, source)) STRICT`,
		`CREATE INDEX labels_key ON labels (key_id)`,
		`CREATE TABLE models (
			pos INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, tier TEXT NOT NULL, hash TEXT NOT NULL,
			bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, certificate TEXT NOT NULL, report TEXT NOT NULL) STRICT`,
		`CREATE INDEX models_task ON models (task, pos)`,
		`CREATE TABLE model_parts (hash TEXT NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (hash, part)) STRICT`,
		`CREATE TABLE tasks (
			name TEXT PRIMARY KEY, state TEXT NOT NULL, version INTEGER NOT NULL, data TEXT NOT NULL,
			updated_at INTEGER NOT NULL) STRICT`,
		`CREATE TABLE transitions (
			task TEXT NOT NULL, version INTEGER NOT NULL, from_state TEXT NOT NULL, to_state TEXT NOT NULL, reason TEXT NOT NULL,
			actor TEXT NOT NULL, at INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (task, version)) STRICT`,
		`CREATE TABLE keys (
			id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, hint TEXT NOT NULL,
			created_at INTEGER NOT NULL, revoked_at INTEGER NOT NULL, limits TEXT NOT NULL) STRICT`,
		`CREATE TABLE reviews (
			id TEXT PRIMARY KEY, task TEXT NOT NULL, request_id TEXT NOT NULL, example TEXT NOT NULL, at INTEGER NOT NULL,
			priority REAL NOT NULL, reason TEXT NOT NULL, suggestion TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL,
			lease_until INTEGER NOT NULL, closed_at INTEGER NOT NULL, output TEXT NOT NULL) STRICT`,
		`CREATE INDEX reviews_waiting ON reviews (task, priority) WHERE state = 'waiting'`,
		`CREATE INDEX reviews_request ON reviews (request_id)`,
		`CREATE TABLE jobs (
			id TEXT PRIMARY KEY, kind TEXT NOT NULL, task TEXT NOT NULL, payload TEXT NOT NULL, state TEXT NOT NULL,
			owner TEXT NOT NULL, lease_until INTEGER NOT NULL, tries INTEGER NOT NULL, max_tries INTEGER NOT NULL,
			run_at INTEGER NOT NULL, created_at INTEGER NOT NULL, ended_at INTEGER NOT NULL, cancel INTEGER NOT NULL,
			progress REAL NOT NULL, note TEXT NOT NULL, result TEXT NOT NULL, failure TEXT NOT NULL) STRICT`,
		`CREATE UNIQUE INDEX jobs_active ON jobs (kind, task) WHERE state IN ('queued', 'running')`,
		`CREATE INDEX jobs_created ON jobs (created_at)`,
		`CREATE TABLE records (
			kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, value TEXT NOT NULL, updated_at INTEGER NOT NULL,
			PRIMARY KEY (kind, name)) STRICT`,
		`CREATE TABLE budgets (
			name TEXT NOT NULL, period INTEGER NOT NULL, spent INTEGER NOT NULL, reserved INTEGER NOT NULL,
			PRIMARY KEY (name, period)) STRICT`,
		`CREATE TABLE holds (
			n INTEGER NOT NULL, name TEXT NOT NULL, period INTEGER NOT NULL, amount INTEGER NOT NULL,
			PRIMARY KEY (n, name, period)) STRICT`,
	},
	{ // 3: notices in the chain, found without reading all of it
		`CREATE INDEX chain_notices ON chain (lane, seq) WHERE kind = 101`,
	},
	{ // 4: files of batches, where processes that share the database need them
		`CREATE TABLE file_parts (name TEXT NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (name, start)) STRICT`,
	},
	{ // 5: an hour's sums over everything (see hourTotals); the minutes of one task
		`INSERT INTO rollups SELECT -3600, bucket, lane, '', '', '', '', '', state, flags, SUM(attempts), SUM(cost), SUM(cost_low),
			SUM(cost_high), SUM(reference), SUM(input), SUM(cached), SUM(cache_write), SUM(output), SUM(reasoning), SUM(latency)
			FROM rollups WHERE span = 3600 GROUP BY bucket, lane, state, flags`,
		`CREATE INDEX rates_task ON rates (task, minute)`,
	},
}

// schemaVersion is the version this binary reads and writes.
var schemaVersion = len(migrations)

// migrate brings the database up to schemaVersion. A database that a newer binary has migrated is refused, untouched.
func migrate(ctx context.Context, db *sql.DB, d dialect) error {
	for {
		more, err := migrateNext(ctx, db, d)
		if err != nil || !more {
			return err
		}
	}
}

// migrateNext applies the next migration, with the version it leads to, in one transaction. more is false when there is none.
func migrateNext(ctx context.Context, db *sql.DB, d dialect) (more bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("store: open the database: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := d.lock(ctx, tx, lockSchema); err != nil {
		return false, fmt.Errorf("store: migrate the database: %w", err)
	}
	if _, err := tx.ExecContext(ctx, d.ddl(`CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL) STRICT`)); err != nil {
		return false, fmt.Errorf("store: read the schema version: %w", err)
	}
	have, err := readVersion(ctx, tx)
	if err != nil || have == schemaVersion {
		return false, err
	}
	for _, statement := range append(slices.Clone(migrations[have]), fmt.Sprintf(`INSERT INTO schema_version VALUES (%d)`, have+1)) {
		if _, err := tx.ExecContext(ctx, d.ddl(statement)); err != nil {
			return false, fmt.Errorf("store: migrate the database from version %d to %d: %w, in %.60s…", have, have+1, err, statement)
		}
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("store: migrate the database from version %d to %d: %w", have, have+1, err)
	}
	return true, nil
}

// requireVersion refuses a database that this binary cannot read as it is.
func requireVersion(ctx context.Context, db querier) error {
	have, err := readVersion(ctx, db)
	if err == nil && have < schemaVersion {
		err = fmt.Errorf("store: the database has the older schema version %d: start `occam serve` once, which brings it up to %d", have, schemaVersion)
	}
	return err
}

// readVersion returns the database's schema version, 0 when it is new.
func readVersion(ctx context.Context, db querier) (int, error) {
	var have int
	if err := db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&have); err != nil {
		return 0, fmt.Errorf("store: read the schema version: %w", err)
	}
	if have > schemaVersion {
		return 0, fmt.Errorf("store: the database has schema version %d, this binary knows up to %d: "+
			"it was used by a newer occam; install that version or restore a backup taken before the upgrade", have, schemaVersion)
	}
	return have, nil
}

// A dialect is what differs between the SQL of the two databases.
type dialect int

const (
	sqlite dialect = iota
	postgres
)

var toPostgres = strings.NewReplacer(
	"INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "INTEGER", "BIGINT", "BLOB", "BYTEA", "REAL", "DOUBLE PRECISION",
	" STRICT, WITHOUT ROWID", "", " STRICT", "")

// ddl returns a statement of the schema in the dialect.
func (d dialect) ddl(statement string) string {
	if d == postgres {
		return toPostgres.Replace(statement)
	}
	return statement
}

// bind returns a query with ? placeholders in the dialect. Queries hold no ? in literals.
func (d dialect) bind(query string) string {
	if d == sqlite {
		return query
	}
	var b strings.Builder
	for i, part := range strings.Split(query, "?") {
		if i > 0 {
			fmt.Fprintf(&b, "$%d", i)
		}
		b.WriteString(part)
	}
	return b.String()
}
