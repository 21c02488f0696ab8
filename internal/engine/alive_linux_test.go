package engine

import (
	"net"
	"net/http/httptest"
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
