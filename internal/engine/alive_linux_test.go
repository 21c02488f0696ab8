package engine

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// F18: a connection whose other end is gone without a word ends within 30 s: the options that make it so are set on what is really
// dialled.
func TestF18SilentConnectionsEndInThirtySeconds(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	u := newUpstream(t, server.URL, Timeouts{})
	conn, err := u.transport.DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(level, option int) (value int) {
		t.Helper()
		if err := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, option) }); err != nil {
			t.Fatal(err)
		}
		return value
	}
	if get(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 1 {
		t.Error("no keep-alive")
	}
	idle, interval, count := get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	if found := time.Duration(idle+interval*count) * time.Second; found > 30*time.Second {
		t.Errorf("a silent peer is found out after %v", found)
	}
	if limit := time.Duration(get(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)) * time.Millisecond; limit <= 0 || limit > 30*time.Second {
		t.Errorf("bytes may stay unacknowledged for %v", limit)
	}
	if h2 := u.transport.HTTP2; h2.SendPingTimeout+h2.PingTimeout > 30*time.Second {
		t.Errorf("a silent HTTP/2 peer is found out after %v", h2.SendPingTimeout+h2.PingTimeout)
	}
}

// lineRole says which of the three processes of TestF18PacketsAreDropped this one is.
const lineRole = "OCCAM_TEST_LINE_ROLE"

// F18: a provider stands behind a virtual cable, in a network namespace of its own, and the cable is cut: every packet is lost and
// nobody says so. Every kind of call notices within the time that Timeouts.Silence sets, 25 s unless it is set, and leaves nothing.
func TestF18PacketsAreDropped(t *testing.T) {
	switch os.Getenv(lineRole) {
	case "caller":
		callOverCutLine(t)
		return
	case "provider":
		provideOverLine(t)
		return
	}
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	t.Parallel()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("iproute2, which lays the virtual cable, is not installed")
	}
	caller := again(t, "caller", syscall.CLONE_NEWUSER|syscall.CLONE_NEWNET)
	out, err := caller.CombinedOutput()
	if caller.Process == nil {
		t.Skipf("this machine permits no network namespaces: %v", err)
	}
	if strings.Contains(string(out), "no cable") {
		t.Skipf("this machine permits no virtual cables: %s", out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// again is this test as another process, in namespaces of its own.
func again(t *testing.T, role string, namespaces uintptr) *exec.Cmd {
	command := exec.Command(os.Args[0], "-test.run=^TestF18PacketsAreDropped$", "-test.v")
	command.Env = append(os.Environ(), lineRole+"="+role)
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if namespaces&syscall.CLONE_NEWUSER != 0 {
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return command
}

func ip(arguments string) error {
	out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", arguments, err, out)
	}
	return nil
}

// provideOverLine is the provider: one path streams a piece and goes on for ever, one is silent, one answers. It cuts its end of the
// cable when it is told to.
func provideOverLine(t *testing.T) {
	for deadline := time.Now().Add(time.Minute); ip("addr add 10.77.0.2/24 dev far") != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no cable came")
		}
	}
	if err := ip("link set far up"); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/answers", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "{}") })
	asked := make(chan bool, 1)
	mux.HandleFunc("/v1/silent", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- true
		<-r.Context().Done()
	})
	mux.HandleFunc("/v1/streams", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: {}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	l, err := net.Listen("tcp", "10.77.0.2:8080")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = http.Serve(l, mux) }()
	fmt.Println("\nlistening")
	words := bufio.NewScanner(os.Stdin)
	words.Scan()
	<-asked
	fmt.Println("\nasked")
	words.Scan()
	if err := ip("link set far down"); err != nil {
		t.Fatal(err)
	}
	fmt.Println("\ncut")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// callOverCutLine makes one call of each kind, has the cable cut, and measures when each of them ends.
func callOverCutLine(t *testing.T) {
	silence, most := 5*time.Second, 15*time.Second
	if os.Getenv("OCCAM_FAULTS") != "" {
		silence, most = 0, 30*time.Second // as it is in use
	}
	tell := layCable(t)
	u := newUpstream(t, "http://10.77.0.2:8080/v1", Timeouts{Silence: silence})
	call := func(path string) (*Reply, error) {
		return u.Send(context.Background(), &Call{Path: path, Body: []byte("{}"), Header: http.Header{}})
	}
	before := runtime.NumGoroutine()
	stream, err := call("/streams")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := stream.Body.Read(make([]byte, 100)); n == 0 {
		t.Fatal(err)
	}
	type end struct {
		what string
		err  error
		at   time.Time
	}
	ends := make(chan end, 3)
	go func() { _, err := call("/silent"); ends <- end{"no first byte", err, time.Now()} }()
	tell("asked")
	kept, err := call("/answers")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, kept.Body)
	_ = kept.Body.Close() // its connection waits for the next call
	tell("cut")
	cut := time.Now()
	go func() { _, err := stream.Body.Read(make([]byte, 100)); ends <- end{"inside a stream", err, time.Now()} }()
	go func() {
		_, err := call("/answers")
		ends <- end{"a new call over a connection that was kept", err, time.Now()}
	}()
	for range 3 {
		select {
		case e := <-ends:
			fmt.Printf("%s: %v after %v\n", e.what, e.err, e.at.Sub(cut).Round(100*time.Millisecond))
			wantFailure(t, e.err, Broken)
		case <-time.After(most - time.Since(cut)):
			t.Fatalf("a call is still waiting %v after every packet was dropped", most)
		}
	}
	_ = stream.Body.Close()
	u.Close()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// layCable starts the provider at the other end of a virtual cable. tell gives it a word and waits until it repeats it.
func layCable(t *testing.T) (tell func(string)) {
	provider := again(t, "provider", syscall.CLONE_NEWNET)
	in, err := provider.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := provider.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the provider ends with the thread that started it
	if err := provider.Start(); err != nil {
		t.Fatalf("no cable: %v", err)
	}
	t.Cleanup(func() { _ = provider.Process.Kill(); _ = provider.Wait() })
	for _, step := range []string{fmt.Sprintf("link add near type veth peer name far netns %d", provider.Process.Pid), "addr add 10.77.0.1/24 dev near", "link set near up"} {
		if err := ip(step); err != nil {
			t.Fatalf("no cable: %v", err)
		}
	}
	lines := bufio.NewScanner(out)
	until := func(word string) {
		for lines.Scan() {
			if lines.Text() == word {
				return
			}
		}
		t.Fatalf("the provider ended before it said %q", word)
	}
	until("listening")
	return func(word string) {
		if _, err := fmt.Fprintln(in, word); err != nil {
			t.Fatal(err)
		}
		until(word)
	}
}
