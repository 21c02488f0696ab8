package lifecycle

import (
	"os"
	"runtime"
)

// makeRoom lets one more goroutine run at once while a model is trained, so that the one that trains takes no place from those that
// serve: the system's scheduler, which prefers who has waited to who computes on and on, then shares the cores among all. The
// returned function takes that back.
func makeRoom() (giveBack func()) {
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + 1)
	return func() {
		if os.Getenv("GOMAXPROCS") != "" {
			runtime.GOMAXPROCS(before)
		} else {
			runtime.SetDefaultGOMAXPROCS()
		}
	}
}
