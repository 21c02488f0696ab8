package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"occam/internal/config"
)

// listenerVariable tells a process which of its descriptors is the listener that it goes on with.
const listenerVariable = "OCCAM_LISTENER"

// untilRestart returns a context that ends with ctx, and at SIGUSR2 where the configuration can be read. restarting returns the
// listener for the process that goes on, nil where none is to. Whoever connects in between waits in the listener's queue.
func (s *server) untilRestart(ctx context.Context, a *app) (_ context.Context, restarting func() *os.File) {
	ctx, cancel := context.WithCancel(ctx)
	var heir atomic.Pointer[os.File]
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR2)
	go func() {
		defer signal.Stop(asked)
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
			}
			file, err := s.bequeath(a)
			if err != nil {
				s.log.Error("the server was not restarted", "error", err)
				continue
			}
			heir.Store(file)
			cancel()
			return
		}
	}()
	return ctx, func() *os.File { cancel(); return heir.Load() }
}

// bequeath returns a second descriptor of the listener, if a new process could start.
func (s *server) bequeath(a *app) (*os.File, error) {
	cfg, err := config.Load(s.path, a.getenv)
	if err != nil {
		return nil, err
	}
	if _, err := cfg.TaskList(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	listener, ok := s.listener.(*net.TCPListener)
	if !ok {
		return nil, errors.New("its listener cannot be handed over")
	}
	return listener.File()
}

// restart replaces this process by a new one of the same program, as it is on the disk now, which goes on with the listener.
func restart(listener *os.File) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	fd := listener.Fd()
	if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil { // it outlives the program
		return fmt.Errorf("restart: hand over the listener: %w", err)
	}
	environment := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LISTEN_") })
	return fmt.Errorf("restart: start %s: %w", program, syscall.Exec(program, os.Args, append(environment, listenerVariable+"="+strconv.Itoa(int(fd)))))
}

// inherited returns the listener that the process was started with: by itself, before a restart, or by systemd (LISTEN_FDS); nil
// where there is none. It must be the one that the configuration names.
func inherited(address string) (net.Listener, error) {
	fd, err := strconv.Atoi(os.Getenv(listenerVariable))
	switch {
	case err == nil:
		_ = os.Unsetenv(listenerVariable)
	case os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) && os.Getenv("LISTEN_FDS") == "1":
		fd = 3 // where systemd's begin
	default:
		return nil, nil
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("the socket that the program was started with is no listener: %w", err)
	}
	if !listensOn(listener, address) {
		at := listener.Addr()
		_ = listener.Close()
		return nil, fmt.Errorf("the program was started with a socket on %s: write that as listen in the configuration, or start it anew", at)
	}
	return listener, nil
}

// listensOn reports whether a listener is what listening on an address would give.
func listensOn(l net.Listener, address string) bool {
	is, ok := l.Addr().(*net.TCPAddr)
	want, err := net.ResolveTCPAddr("tcp", address)
	if !ok || err != nil {
		return false
	}
	anywhere := want.IP == nil || want.IP.IsUnspecified()
	return (want.Port == 0 || want.Port == is.Port) && anywhere == is.IP.IsUnspecified() && (anywhere || want.IP.Equal(is.IP))
}
