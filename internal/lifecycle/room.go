package lifecycle

import (
	"os"
	"runtime"
)

// besideServing runs f so that it takes no place from those that serve: on a thread of its own and of low priority (on Linux),
// while one more goroutine may run at once than before. The system then shares the cores, and prefers whoever serves.
func besideServing[T any](f func() (T, error)) (result T, err error) {
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and its priority with it
		lowerPriority()
		result, err = f()
	}()
	<-done
	if os.Getenv("GOMAXPROCS") != "" {
		runtime.GOMAXPROCS(before)
	} else {
		runtime.SetDefaultGOMAXPROCS()
	}
	return result, err
}
