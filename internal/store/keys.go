package store

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"occam/internal/cost"
)

// Keys is the group of virtual keys: what apps send instead of the provider's key.
type Keys struct{ t *Tx }

// Keys returns the group.
func (t *Tx) Keys() Keys { return Keys{t} }

// A Key is a virtual key. The secret itself is not stored.
type Key struct {
	ID      string // ULID: stands in the ledger
	Name    string
	Role    string   // what it may do, as the server defines roles
	Hash    [32]byte // SHA-256 of the secret, which has 256 random bits of its own
	Hint    string   // start of the secret, to recognise it by
	Created time.Time
	Revoked time.Time // zero: valid
	Limits  KeyLimits
}

// KeyLimits bound what a key may do. Zero values do not bound.
type KeyLimits struct {
	Budget            cost.Amount `json:"budget_nano_usd,omitempty"` // per Period
	Period            string      `json:"period,omitempty"`          // "day" or "month", in UTC
	RequestsPerMinute int         `json:"requests_per_minute,omitempty"`
	TokensPerMinute   int         `json:"tokens_per_minute,omitempty"`
	Escalations       int         `json:"escalations_per_minute,omitempty"` // of a task's requests to a model that costs money
	Degrade           string      `json:"degrade,omitempty"`                // model that answers when Budget is too small for the one asked for
	Models            []string    `json:"models,omitempty"`
	Tasks             []string    `json:"tasks,omitempty"`
	LabelsPerDay      int         `json:"labels_per_day,omitempty"`
}

const (
	secretPrefix = "occam-"
	secretLetter = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretLength = 43 // letters of 5.95 bits: 256 bits
)

// NewSecret returns a random secret of 256 bits, "occam-" and 43 letters and digits.
func NewSecret() string {
	secret := []byte(secretPrefix)
	for len(secret) < len(secretPrefix)+secretLength {
		var b [64]byte
		_, _ = rand.Read(b[:]) // crypto/rand never fails: it ends the program instead
		for _, v := range b {
			// Bytes from 248 on would favour the first letters.
			if v < 248 && len(secret) < len(secretPrefix)+secretLength {
				secret = append(secret, secretLetter[v%62])
			}
		}
	}
	return string(secret)
}

// HashSecret is how a secret is stored and found. A secret has 256 random bits, so a fast hash without salt keeps it.
func HashSecret(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// Matches reports, in constant time, whether secret is the key's.
func (k *Key) Matches(secret string) bool {
	hash := HashSecret(secret)
	return subtle.ConstantTimeCompare(hash[:], k.Hash[:]) == 1
}

// Create makes a key and returns its secret, which is shown once and cannot be read back.
func (g Keys) Create(name, role string, limits KeyLimits) (Key, string, error) {
	secret := NewSecret()
	now := g.t.now()
	k := Key{ID: NewID(now), Name: clip(name, maxName), Role: role, Hash: HashSecret(secret), Hint: secret[:len(secretPrefix)+4],
		Created: moment(nanos(now)), Limits: limits}
	text, err := json.Marshal(limits)
	if err != nil {
		return Key{}, "", fmt.Errorf("store: create a key: %w", err)
	}
	_, err = g.t.exec(`INSERT INTO keys (`+keyColumns+`) VALUES (?,?,?,?,?,?,0,?)`,
		k.ID, k.Name, k.Role, k.Hash[:], k.Hint, nanos(now), string(text))
	g.t.changed = true
	return k, secret, err
}

const keyColumns = `id, name, role, hash, hint, created_at, revoked_at, limits`

// List returns all keys, revoked ones too, oldest first.
func (g Keys) List() ([]Key, error) {
	var all []Key
	err := g.t.all(func(rows *sql.Rows) error {
		var k Key
		var hash []byte
		var created, revoked int64
		var limits string
		if err := rows.Scan(&k.ID, &k.Name, &k.Role, &hash, &k.Hint, &created, &revoked, &limits); err != nil {
			return err
		}
		copy(k.Hash[:], hash)
		k.Created, k.Revoked = moment(created), moment(revoked)
		if err := json.Unmarshal([]byte(limits), &k.Limits); err != nil {
			return fmt.Errorf("key %s: limits: %w", k.ID, err)
		}
		all = append(all, k)
		return nil
	}, `SELECT `+keyColumns+` FROM keys ORDER BY created_at, id`)
	return all, err
}

// SetLimits changes what a key may do.
func (g Keys) SetLimits(id string, limits KeyLimits) error {
	text, err := json.Marshal(limits)
	if err != nil {
		return fmt.Errorf("store: key %s: %w", id, err)
	}
	g.t.changed = true
	return g.t.change(fmt.Errorf("store: key %s: %w", id, ErrNotFound), `UPDATE keys SET limits = ? WHERE id = ?`, string(text), id)
}

// Revoke makes a key invalid for good. Revoking it again does nothing.
func (g Keys) Revoke(id string) error {
	g.t.changed = true
	return g.t.change(fmt.Errorf("store: key %s: %w", id, ErrNotFound),
		`UPDATE keys SET revoked_at = CASE WHEN revoked_at = 0 THEN ? ELSE revoked_at END WHERE id = ?`, nanos(g.t.now()), id)
}
