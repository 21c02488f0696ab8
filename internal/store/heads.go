package store

import (
	"context"
	"encoding/hex"
	"fmt"
)

// A ChainHead is the last entry of one lane's chain. Whoever notes it down elsewhere can show later that nothing before it was
// changed.
type ChainHead struct {
	Lane  int64  `json:"lane"`
	Entry int64  `json:"entry"`
	Hash  string `json:"hash"` // SHA-256, hexadecimal
}

// Heads returns the last entry of every lane that has one, by lane.
func (s *Store) Heads(ctx context.Context) ([]ChainHead, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT lane, seq, hash FROM lanes WHERE seq > 0 ORDER BY lane`)
	if err != nil {
		return nil, fmt.Errorf("store: read the heads of the chain: %w", err)
	}
	defer rows.Close()
	var all []ChainHead
	for rows.Next() {
		var h ChainHead
		var hash []byte
		if err := rows.Scan(&h.Lane, &h.Entry, &hash); err != nil {
			return nil, fmt.Errorf("store: read the heads of the chain: %w", err)
		}
		h.Hash = hex.EncodeToString(hash)
		all = append(all, h)
	}
	return all, rows.Err()
}
