package gateway

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

const (
	crashesAllowed = 3    // of the same input at the same place, before it is turned away there unread
	maxPoisons     = 1024 // inputs that are remembered; more push out the oldest
)

// A quarantine remembers inputs that crashed what read them, so that one request sent over and over costs no more than a look-up.
// While nothing has crashed it costs one load.
type quarantine struct {
	known   atomic.Int64
	mu      sync.Mutex
	crashes map[poison]int
	oldest  []poison
}

// A poison is an input that crashed something.
type poison struct {
	where string // a specialist, or "" for the gateway itself
	hash  uint64
}

// crashed counts a crash and reports whether it is the one from which on the input is turned away.
func (q *quarantine) crashed(where string, hash uint64) (last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.crashes == nil {
		q.crashes = map[poison]int{}
	}
	p := poison{where, hash}
	if q.crashes[p] == 0 {
		if len(q.oldest) == maxPoisons {
			delete(q.crashes, q.oldest[0])
			q.oldest = q.oldest[1:]
		}
		q.oldest = append(q.oldest, p)
		q.known.Store(int64(len(q.oldest)))
	}
	q.crashes[p]++
	return q.crashes[p] == crashesAllowed
}

// holds reports whether an input is turned away.
func (q *quarantine) holds(where string, hash uint64) bool {
	if q.known.Load() == 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.crashes[poison{where, hash}] >= crashesAllowed
}

var bodySeed = maphash.MakeSeed()

func bodyHash(body []byte) uint64 { return maphash.Bytes(bodySeed, body) }
