package store

import (
	"crypto/rand"
	"time"
)

// crockford is the ULID alphabet: no I, L, O, U.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID returns a fresh ULID: 48 bits of milliseconds, then 80 random bits, 26 characters that sort by time.
func NewID(at time.Time) string {
	var bits [10]byte
	_, _ = rand.Read(bits[:]) // crypto/rand never fails: it ends the program instead
	return NewIDOf(at, bits)
}

// NewIDOf returns the ULID of a moment and of 80 bits that the caller chooses: the same for the same ones.
func NewIDOf(at time.Time, bits [10]byte) string {
	var raw [16]byte
	ms := uint64(at.UnixMilli())
	for i := range 6 {
		raw[i] = byte(ms >> (40 - 8*i))
	}
	copy(raw[6:], bits[:])
	return ulid(raw)
}

// ulid writes 128 bits in ULID's alphabet.
func ulid(raw [16]byte) string {
	var id [26]byte
	// 128 bits in 26 groups of 5, the first group has only 3 bits.
	var acc, bits uint
	pos := len(id)
	for i := len(raw) - 1; i >= 0; i-- {
		acc |= uint(raw[i]) << bits
		for bits += 8; bits >= 5; bits -= 5 {
			pos--
			id[pos] = crockford[acc&31]
			acc >>= 5
		}
	}
	id[0] = crockford[acc&31]
	return string(id[:])
}
