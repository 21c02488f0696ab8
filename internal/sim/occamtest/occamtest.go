// Package occamtest runs the occam program as a child process, for tests that want the real thing: its wire, its signals, its
// sudden death.
package occamtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"occam/internal/store"
)

// patience is how long the program may take to start or to end before a test gives up.
const patience = 60 * time.Second

// A Build makes the program, and whatever else the tests of one package share, once.
type Build struct {
	Prepare func(b *Build) error // runs after the program is built; may be nil
	Dir     string               // removed by Main
	Program string

	once sync.Once
	err  error
}

// Main runs the tests of a package and removes what the build made. Use it in TestMain: os.Exit(build.Main(m)).
func (b *Build) Main(m *testing.M) int {
	code := m.Run()
	if b.Dir != "" {
		_ = os.RemoveAll(b.Dir)
	}
	return code
}

// File returns the path of a file in Dir.
func (b *Build) File(name string) string { return filepath.Join(b.Dir, name) }

// Need builds the program unless an earlier test did.
func (b *Build) Need(t testing.TB) {
	t.Helper()
	b.once.Do(func() { b.err = b.make() })
	if b.err != nil {
		t.Fatal(b.err)
	}
}

func (b *Build) make() (err error) {
	if b.Dir, err = os.MkdirTemp("", "occam-test-"); err != nil {
		return err
	}
	b.Program = b.File("occam")
	if err := Command("go", "build", "-o", b.Program, "occam"); err != nil || b.Prepare == nil {
		return err
	}
	return b.Prepare(b)
}

// Command runs a program to its end; the error holds what it printed.
func Command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}

// A Process is one running `occam serve`.
type Process struct {
	URL   string // base address of the API, with /v1
	child *exec.Cmd
	ended chan error // its exit, once
	gone  bool
	log   lockedBuffer
}

var apiLine = regexp.MustCompile(`API\s+(http://\S+/v1)`)

// Serve starts the program with a configuration file that says `listen: 127.0.0.1:0`, and waits until it tells its address.
func Serve(t testing.TB, program, config string) *Process {
	t.Helper()
	p := &Process{child: exec.Command(program, "serve", "--config", config), ended: make(chan error, 1)}
	stderr, err := p.child.StderrPipe()
	if err == nil {
		err = p.child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(io.TeeReader(stderr, &p.log))
		for lines.Scan() {
			if m := apiLine.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
		p.ended <- p.child.Wait()
	}()
	select {
	case p.URL = <-address:
	case err := <-p.ended:
		t.Fatalf("occam serve ended: %v\n%s", err, p.Log())
	case <-time.After(patience):
		_ = p.child.Process.Kill()
		t.Fatalf("occam serve does not say where it listens\n%s", p.Log())
	}
	return p
}

// Log returns what the program has written to stderr.
func (p *Process) Log() string { return p.log.String() }

// Stop ends the program as an operator would, and expects a clean end. It does nothing to one that has ended.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if p.gone {
		return
	}
	p.gone = true
	_ = p.child.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("occam serve ended with %v\n%s", err, p.Log())
		}
	case <-time.After(patience):
		_ = p.child.Process.Kill()
		t.Errorf("occam serve did not end within %v of SIGTERM\n%s", patience, p.Log())
	}
}

// Kill ends the program at once, without a chance to tidy up, and waits until it is gone.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.gone = true
	if err := p.child.Process.Kill(); err != nil {
		t.Errorf("occam serve had ended before it was killed: %v\n%s", err, p.Log())
	}
	<-p.ended
}

// Ledger opens the data folder of a program that has ended, verifies the ledger and returns its attempts by request, newest
// request first.
func Ledger(t testing.TB, folder string) []store.Request {
	t.Helper()
	s, err := store.Open(context.Background(), "sqlite:"+folder, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	report, err := s.Verify(context.Background())
	if err != nil || !report.OK() {
		t.Errorf("the ledger does not verify: %v %v", err, report.Problems)
	}
	var all []store.Request
	for cursor := ""; ; {
		page, next, err := s.Requests(context.Background(), store.Filter{Limit: 500}, cursor)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if cursor = next; cursor == "" {
			return all
		}
	}
}

// lockedBuffer collects a child's log while tests may print it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// logBytes bounds what is kept of a program that complains without end.
const logBytes = 1 << 20

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() < logBytes {
		b.buf.Write(p)
	}
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
