package lifecycle

import "syscall"

// lowerPriority gives the calling thread a low priority. Linux keeps one for each thread; where that is refused, nothing changes. It is not
// the lowest: beside processes that leave no core idle, training would never end.
func lowerPriority() { _ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 10) }
