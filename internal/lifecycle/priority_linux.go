package lifecycle

import "syscall"

// lowerPriority gives the calling thread the lowest priority. Linux keeps one for each thread; where that is refused, nothing changes.
func lowerPriority() { _ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19) }
