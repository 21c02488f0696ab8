package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// A lane is one process's own sequence of chain entries. SQLite has one; each process that shares a PostgreSQL database appends
// to its own, so that they need not wait for each other's commits. An epoch counts the owners: whoever takes a lane over
// raises it, and the commits of the former owner, should it be alive after all, no longer find their epoch.
type lane struct {
	head
	epoch int64
	owner string // "": nobody
	beat  int64  // grows with every sign of life
}

const (
	laneBits = 8
	maxLanes = 1 << laneBits // a position's low bits are its lane
)

// readLanes returns every lane as the database records it.
func (s *Store) readLanes(ctx context.Context, db querier) (map[int64]lane, error) {
	rows, err := db.QueryContext(ctx, `SELECT lane, seq, n, hash, epoch, owner, beat FROM lanes ORDER BY lane`)
	if err != nil {
		return nil, fmt.Errorf("store: read the lanes: %w", err)
	}
	defer rows.Close()
	lanes := map[int64]lane{}
	for rows.Next() {
		var l lane
		var hash []byte
		if err := rows.Scan(&l.lane, &l.seq, &l.n, &hash, &l.epoch, &l.owner, &l.beat); err != nil {
			return nil, fmt.Errorf("store: read the lanes: %w", err)
		}
		if len(hash) != sha256.Size {
			return nil, fmt.Errorf("store: lane %d: its hash has %d bytes", l.lane, len(hash))
		}
		copy(l.hash[:], hash)
		lanes[l.lane] = l
	}
	return lanes, rows.Err()
}

// claimLane makes this process the owner of a lane: the one it had before, one that nobody owns, or a new one.
func (s *Store) claimLane(ctx context.Context) (mine lane, err error) {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return lane{}, fmt.Errorf("store: claim a lane: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := s.dialect.lock(ctx, tx, lockLanes); err != nil {
		return lane{}, fmt.Errorf("store: claim a lane: %w", err)
	}
	lanes, err := s.readLanes(ctx, tx)
	if err != nil {
		return lane{}, err
	}
	mine = choose(lanes, s.owner)
	if mine.lane >= maxLanes {
		return lane{}, fmt.Errorf("store: %d processes use this database already, more are not possible", maxLanes)
	}
	mine.epoch++
	mine.owner = s.owner
	_, err = tx.ExecContext(ctx, s.dialect.bind(`INSERT INTO lanes (lane, owner, epoch, beat, seq, n, hash) VALUES (?,?,?,0,0,0,?)
		ON CONFLICT (lane) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch, beat = 0`),
		mine.lane, mine.owner, mine.epoch, mine.hash[:])
	if err != nil {
		return lane{}, fmt.Errorf("store: claim a lane: %w", err)
	}
	// The last commit of a process that was killed may have come through between reading and writing, and none can after it.
	if lanes, err = s.readLanes(ctx, tx); err != nil {
		return lane{}, err
	}
	mine = lanes[mine.lane]
	if err := tx.Commit(); err != nil {
		return lane{}, fmt.Errorf("store: claim a lane: %w", err)
	}
	return mine, s.checkTail(ctx, mine.head)
}

// choose picks the lane that a process should own.
func choose(lanes map[int64]lane, owner string) lane {
	free := lane{head: head{lane: int64(len(lanes))}}
	for n := range int64(len(lanes)) {
		l, ok := lanes[n]
		switch {
		case !ok && free.owner != owner:
			return lane{head: head{lane: n}} // a gap, as an import may leave
		case l.owner == owner:
			return l
		case l.owner == "" && free.lane == int64(len(lanes)):
			free = l
		}
	}
	return free
}

// checkTail compares what a lane's row says with the last entry of its chain.
func (s *Store) checkTail(ctx context.Context, h head) error {
	var last int64
	err := s.write.QueryRowContext(ctx, s.dialect.bind(`SELECT COALESCE(MAX(seq), 0) FROM chain WHERE lane = ?`), h.lane).Scan(&last)
	if err != nil {
		return fmt.Errorf("store: read the chain: %w", err)
	}
	same, err := s.entryIs(ctx, s.write, h)
	if err != nil {
		return err
	}
	if last != h.seq || !same {
		return fmt.Errorf("store: the ledger is damaged: lane %d should end at entry %d, it ends at entry %d or with another hash; "+
			"put a backup back, or import an export", h.lane, h.seq, last)
	}
	return nil
}

// entryIs reports whether the chain holds exactly the entry h.
func (s *Store) entryIs(ctx context.Context, db querier, h head) (bool, error) {
	if h.seq == 0 {
		return true, nil
	}
	var hash []byte
	err := db.QueryRowContext(ctx, s.dialect.bind(`SELECT hash FROM chain WHERE lane = ? AND seq = ?`), h.lane, h.seq).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: read the ledger's chain: %w", err)
	}
	return string(hash) == string(h.hash[:]), nil
}

// checkHeads compares the end of every lane with the head file. It returns a remark to be written into the chain when the
// ledger may go on although something is missing.
func (s *Store) checkHeads(ctx context.Context, mine lane, opts Options) (note string, err error) {
	lanes, err := s.readLanes(ctx, s.write)
	if err != nil {
		return "", err
	}
	outside, err := s.outsideHeads()
	if err != nil {
		return "", err
	}
	if len(outside) == 0 && mine.seq > 0 {
		note = fmt.Sprintf("no head file; went on from entry %d", mine.seq)
	}
	for number, h := range outside {
		same, err := s.entryIs(ctx, s.write, h.head)
		if err != nil {
			return "", err
		}
		if same {
			continue
		}
		found := fmt.Sprintf("the head file says that lane %d has entry %d, the database ends at entry %d", number, h.seq, lanes[number].seq)
		switch {
		case opts.AcceptRollback:
			note = "rollback accepted: " + found
		case opts.Durability == Normal && lanes[number].seq < h.seq && lanes[number].seq >= h.synced:
			note = "entries lost that were not on the disk yet (durability normal): " + found
		default:
			return "", fmt.Errorf("%w: %s. Put the newest database back; or, to go on without the lost entries, "+
				"accept the loss with `occam ledger accept-rollback` (it will be written into the ledger)", ErrRolledBack, found)
		}
	}
	return note, nil
}

// takeOver closes what the dead owner of a lane left open, and leaves the lane to the next process that needs one. It does
// nothing when the owner shows a sign of life.
func (s *Store) takeOver(ctx context.Context, l ledgerDB, dead lane) error {
	result, err := s.write.ExecContext(ctx, s.dialect.bind(`UPDATE lanes SET epoch = epoch + 1, owner = '', beat = 0
		WHERE lane = ? AND epoch = ? AND beat = ?`), dead.lane, dead.epoch, dead.beat)
	if err != nil {
		return fmt.Errorf("store: take over lane %d: %w", dead.lane, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err
	}
	lanes, err := s.readLanes(ctx, s.write) // the owner may have committed just before
	if err != nil {
		return err
	}
	mine := lanes[dead.lane]
	closed, err := s.closeOpen(ctx, mine.lane, func(batch []*event) error {
		made, err := s.append(ctx, l, mine.head, mine.epoch, batch)
		if err != nil {
			return err
		}
		mine.head = made.end
		return s.heads.write(mine.head, made.durable)
	})
	if closed > 0 {
		s.log.Warn("ledger: closed attempts that a dead process left open", "attempts", closed, "lane", dead.lane)
	}
	return err
}

// closeOpen closes every open attempt of a lane, lines of batches aside. Whether it was sent is not known, so it cost between nothing and its upper
// bound, which counts as spent until somebody knows better.
func (s *Store) closeOpen(ctx context.Context, laneNumber int64, commit func([]*event) error) (closed int, err error) {
	rows, err := s.queryRows(ctx, s.write, leftOpen+` ORDER BY n`, laneNumber)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	holds, err := s.readHolds(ctx, s.write)
	if err != nil {
		return 0, err
	}
	for from := 0; from < len(rows); from += maxBatch {
		batch := make([]*event, 0, maxBatch)
		for _, r := range rows[from:min(from+maxBatch, len(rows))] {
			r.State, r.Price, r.closedAt = Estimated, r.intentPrice, s.now().UnixNano()
			r.Cost, r.CostLow, r.CostHigh = r.intentHigh, 0, r.intentHigh
			r.Reason, r.holds = "process ended before the outcome", holds[r.n]
			if r.Price == "" {
				r.State, r.Cost, r.CostHigh = Unpriced, 0, 0
			}
			batch = append(batch, &event{kind: kindOutcome, row: r})
		}
		if err := commit(batch); err != nil {
			return closed, fmt.Errorf("store: close attempts left open: %w", err)
		}
		closed += len(batch)
	}
	return closed, nil
}

// releaseLane leaves the lane of a process that ends in good order to the next process. When that fails, or attempts are open,
// others find out by its silence.
func (s *Store) releaseLane() {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	if mine := s.writer.lane(); !s.hasOpen(ctx, mine) {
		_, _ = s.write.ExecContext(ctx, s.dialect.bind(`UPDATE lanes SET owner = '' WHERE lane = ? AND epoch = ?`), mine, s.writer.epoch.Load())
	}
}

// watchLanes shows this process's own life, and takes over the lanes of processes that show none for a lease. It compares
// beats that it has seen itself, so no clocks of different machines are compared, and a database that was away gives every
// process a full lease to come back.
func (s *Store) watchLanes(ctx context.Context, lease time.Duration) {
	type sighting struct {
		epoch, beat int64
		since       time.Time
	}
	seen := map[int64]sighting{}
	l := s.ledger()
	defer l.close()
	tick := time.NewTicker(lease / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lanes, err := s.beat(ctx)
		if err != nil {
			clear(seen)
			continue
		}
		for number, have := range lanes {
			was := seen[number]
			if number == s.writer.lane() || was.epoch != have.epoch || was.beat != have.beat || was.since.IsZero() {
				seen[number] = sighting{have.epoch, have.beat, time.Now()}
				continue
			}
			if time.Since(was.since) < lease || have.owner == "" && !s.hasOpen(ctx, number) {
				continue
			}
			if err := s.takeOver(ctx, l, have); err != nil && ctx.Err() == nil {
				s.log.Warn("ledger: take over a lane", "lane", number, "error", err)
			}
			delete(seen, number)
		}
	}
}

// beat shows this process's life and returns all lanes. Their heads go into the head file, so that each process's file vouches
// for every lane.
func (s *Store) beat(ctx context.Context) (map[int64]lane, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	mine, epoch := s.writer.lane(), s.writer.epoch.Load()
	if _, err := s.write.ExecContext(ctx, s.dialect.bind(`UPDATE lanes SET beat = beat + 1 WHERE lane = ? AND epoch = ?`), mine, epoch); err != nil {
		return nil, err
	}
	lanes, err := s.readLanes(ctx, s.write)
	if err != nil {
		return nil, err
	}
	for number, l := range lanes {
		if number != mine && l.seq > 0 {
			if err := s.heads.write(l.head, true); err != nil {
				return nil, err
			}
		}
	}
	return lanes, nil
}

func (s *Store) hasOpen(ctx context.Context, laneNumber int64) bool {
	var n int64
	err := s.read.QueryRowContext(ctx, s.dialect.bind(`SELECT COUNT(*) FROM attempts WHERE `+leftOpen), laneNumber).Scan(&n)
	return err == nil && n > 0
}
