package gateway

import (
	"bytes"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// A room is the memory that the process may take, and whether there is some left.
type room struct {
	size     int64        // bytes; 0: no bound is known
	measured atomic.Int64 // Unix nanoseconds of the last measurement
	full     atomic.Bool
}

// roomAge is for how long a measurement counts.
const roomAge = 20 * time.Millisecond

// crowded reports whether nine tenths of the room are taken. A request that is let in then could be the one that ends the process.
func (r *room) crowded() bool {
	if r.size == 0 {
		return false
	}
	now := time.Now().UnixNano()
	last := r.measured.Load()
	if now-last < int64(roomAge) || !r.measured.CompareAndSwap(last, now) {
		return r.full.Load()
	}
	r.full.Store(residentBytes() > r.size/10*9)
	return r.full.Load()
}

// share is how much of a limit on the bodies in flight fits: a body stands in memory up to three times while it is read, changed and
// sent, and its reply once.
func (r *room) share(limit int64) int64 {
	if r.size == 0 {
		return limit
	}
	return min(limit, r.size/4)
}

// residentBytes is the process's own memory that is in RAM, without files that are mapped; 0 where the system does not say.
func residentBytes() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(statm)
	if err != nil || len(fields) < 3 {
		return 0
	}
	resident, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	mapped, _ := strconv.ParseInt(string(fields[2]), 10, 64)
	return (resident - mapped) * int64(os.Getpagesize())
}
