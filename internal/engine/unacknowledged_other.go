//go:build !linux

package engine

import (
	"syscall"
	"time"
)

// limitUnacknowledged does nothing: this system has no such limit. The timeouts of a call hold.
func limitUnacknowledged(syscall.RawConn, time.Duration) error { return nil }
