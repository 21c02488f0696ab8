package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// An entry is one link of the chain with the row it vouches for.
type entry struct {
	lane, seq  int64
	kind       kind
	n          int64
	note       string
	hash       []byte
	row        *row  // nil when there is none
	unreadable error // what of it could not be read
}

func (e *entry) id() string {
	if e.row == nil {
		return "unknown"
	}
	return e.row.ID
}

// walkPage is how many entries are read at a time.
const walkPage = 2048

// walk calls visit for every entry after a place in the chain, lane by lane, in order.
func (s *Store) walk(ctx context.Context, db querier, after head, visit func(*entry) error) error {
	query := s.dialect.bind(`SELECT c.lane, c.seq, c.kind, c.n, c.note, c.hash, a.n IS NOT NULL, ` + coalesced + `
		FROM (SELECT * FROM chain WHERE (lane, seq) > (?, ?) ORDER BY lane, seq LIMIT ?) c
		LEFT JOIN attempts a ON a.n = c.n ORDER BY c.lane, c.seq`)
	for {
		page, err := s.walkPage(ctx, db, query, after)
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := visit(e); err != nil {
				return err
			}
			after.lane, after.seq = e.lane, e.seq
		}
		if len(page) < walkPage {
			return nil
		}
	}
}

// coalesced is rowColumns of the joined table; of a missing row, values that Scan can take.
var coalesced = func() string {
	text := " id request_id key_id task tier provider model intent_price state price reason "
	var columns []string
	for _, c := range strings.Split(rowColumns, ",") {
		c = strings.TrimSpace(c)
		if strings.Contains(text, " "+c+" ") {
			columns = append(columns, "COALESCE(a."+c+", '')")
		} else {
			columns = append(columns, "COALESCE(a."+c+", 0)")
		}
	}
	return strings.Join(columns, ", ")
}()

func (s *Store) walkPage(ctx context.Context, db querier, query string, after head) ([]*entry, error) {
	rows, err := db.QueryContext(ctx, query, after.lane, after.seq, walkPage)
	if err != nil {
		return nil, fmt.Errorf("store: read the chain: %w", err)
	}
	defer rows.Close()
	var page []*entry
	for rows.Next() {
		e, err := scanEntry(rows)
		if err != nil {
			return nil, fmt.Errorf("store: read the chain: %w", err)
		}
		page = append(page, e)
	}
	return page, rows.Err()
}

func scanEntry(rows *sql.Rows) (*entry, error) {
	e, r := &entry{}, &row{}
	var kindNumber int64
	var hasRow bool
	into, finish := r.targets()
	into = append([]any{&e.lane, &e.seq, &kindNumber, &e.n, &e.note, &e.hash, &hasRow}, into...)
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	if e.kind = kind(kindNumber); int64(e.kind) != kindNumber {
		e.unreadable = errors.New("unknown kind")
	}
	if hasRow {
		e.row, e.unreadable = r, errors.Join(e.unreadable, finish())
	}
	return e, nil
}
