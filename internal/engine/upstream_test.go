package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func newUpstream(t *testing.T, url string, timeouts Timeouts) *Upstream {
	t.Helper()
	u, err := NewUpstream(Options{Name: "up", BaseURL: url, Key: "sk-secret-canary", Timeouts: timeouts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// rawServer answers every connection with a function: for what net/http would never send.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					serve(c)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String() + "/v1"
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunked(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

func post(u *Upstream) (*Reply, error) {
	return u.Send(context.Background(), &Call{Path: "/chat/completions", Body: []byte("{}"), Header: http.Header{}})
}

func wantFailure(t *testing.T, err error, kind Kind) {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) || f.Kind != kind {
		t.Errorf("got %v, want a failure of kind %s", err, kind)
		return
	}
	if e := f.Reply(); strings.Contains(e.Message, "127.0.0.1") || strings.Contains(e.Message, "sk-") || e.Status < 429 {
		t.Errorf("the app would see %+v", e)
	}
}

// F15: an upstream that never answers.
func TestNoFirstByte(t *testing.T) {
	url := rawServer(t, func(net.Conn) { time.Sleep(5 * time.Second) })
	_, err := post(newUpstream(t, url, Timeouts{FirstByte: 30 * time.Millisecond}))
	wantFailure(t, err, Timeout)
}

// F16, F18: an upstream that goes silent in the middle, whether or not its connection still lives.
func TestSilenceInTheMiddle(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		fmt.Fprint(c, streamHead+chunked("data: 1\n\n"))
		time.Sleep(5 * time.Second)
	})
	reply, err := post(newUpstream(t, url, Timeouts{Idle: 30 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	got, err := io.ReadAll(reply.Body)
	wantFailure(t, err, Timeout)
	if string(got) != "data: 1\n\n" {
		t.Errorf("%q", got)
	}
}

// F19: an upstream that trickles never looks idle; the total deadline ends it.
func TestTheTotalDeadlineEndsATrickle(t *testing.T) {
	url := rawServer(t, func(c net.Conn) {
		fmt.Fprint(c, streamHead)
		for range 1000 {
			if _, err := fmt.Fprint(c, chunked("x")); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	reply, err := post(newUpstream(t, url, Timeouts{Idle: time.Second, Total: 100 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	got, err := io.ReadAll(reply.Body)
	wantFailure(t, err, Timeout)
	if len(got) == 0 {
		t.Error("nothing came before the deadline")
	}
}

// F17: a connection that breaks before, in and after the headers.
func TestBrokenConnections(t *testing.T) {
	reset := func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }
	for name, serve := range map[string]func(net.Conn){
		"before the headers": reset,
		"in the headers":     func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-"); reset(c) },
		"in the body": func(c net.Conn) {
			fmt.Fprint(c, streamHead+chunked("data: 1\n\n"))
			time.Sleep(20 * time.Millisecond)
			reset(c)
		},
		"in a length body": func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort") },
		"no HTTP":          func(c net.Conn) { fmt.Fprint(c, "hello\r\n\r\n") },
	} {
		reply, err := post(newUpstream(t, rawServer(t, serve), Timeouts{}))
		if err == nil {
			_, err = io.ReadAll(reply.Body)
			reply.Body.Close()
		}
		var f *Failure
		if !errors.As(err, &f) || f.Kind != Broken {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	l.Close()
	_, err := post(newUpstream(t, "http://"+l.Addr().String(), Timeouts{}))
	wantFailure(t, err, Refused)
	var f *Failure
	if errors.As(err, &f); f.Sent() {
		t.Error("nothing was sent, so nothing can be billed")
	}
}

// S01, S02: a redirect is not followed, so the key stays with its origin.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var visited bool
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited = true }))
	defer canary.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, canary.URL+"/latest/meta-data", status)
		}))
		_, err := post(newUpstream(t, server.URL, Timeouts{}))
		wantFailure(t, err, Rubbish)
		server.Close()
	}
	if visited {
		t.Error("the redirect was followed")
	}
}

// S02: what is dialled is checked after name resolution.
func TestForbiddenAddresses(t *testing.T) {
	for address, want := range map[string]struct{ named, unnamed bool }{ // by a private name, by a public one
		"169.254.169.254:80":          {},
		"[fe80::1]:80":                {},
		"[::ffff:169.254.169.254]:80": {},
		"[64:ff9b::a9fe:a9fe]:80":     {}, // the same through NAT64
		"[64:ff9b::5db8:d822]:443":    {named: true, unnamed: true},
		"100.100.100.200:80":          {named: true}, // a cloud's metadata in the carriers' range
		"[fd00:ec2::254]:80":          {named: true}, // another's
		"0.0.0.0:80":                  {},
		"224.0.0.1:80":                {},
		"127.0.0.1:80":                {named: true},
		"[::1]:80":                    {named: true},
		"10.1.2.3:80":                 {named: true},
		"192.168.0.1:80":              {named: true},
		"[::ffff:10.0.0.1]:80":        {named: true},
		"93.184.216.34:443":           {named: true, unnamed: true},
		"[2606:2800:220:1::1]:443":    {named: true, unnamed: true},
		"rubbish":                     {},
	} {
		if got := guardAddress(true)("tcp", address, nil) == nil; got != want.named {
			t.Errorf("%s under a private name: dialled %v", address, got)
		}
		if got := guardAddress(false)("tcp", address, nil) == nil; got != want.unnamed {
			t.Errorf("%s under a public name: dialled %v", address, got)
		}
	}
	for host, private := range map[string]bool{"localhost": true, "vllm": true, "10.0.0.5": true, "gpu.internal": true, "vllm.default.svc": true,
		"vllm.default.svc.cluster.local": true, "api.openai.com": false, "localhost.evil.com": false, "127.0.0.1.nip.io": false, "8.8.8.8": true} {
		if privateHost(host) != private {
			t.Errorf("%s: private %v", host, !private)
		}
	}
	for _, base := range []string{"http://169.254.169.254/v1", "http://[::ffff:169.254.169.254]/v1", "http://[::ffff:a9fe:a9fe]/v1",
		"http://2852039166/v1", "http://0xa9fea9fe/v1", "http://0251.0376.0251.0376/v1", "http://169.254.169.254.:80/v1"} {
		_, err := post(newUpstream(t, base, Timeouts{}))
		wantFailure(t, err, Refused)
	}
}

// S02: a public name that leads to a forbidden address, at once or after it led to a public one, is not dialled.
func TestS02NamesThatLeadElsewhere(t *testing.T) {
	var answer atomic.Value
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := dns.ReadFrom(buf)
			if err != nil {
				return
			}
			end := 12
			for end < n && buf[end] != 0 {
				end += 1 + int(buf[end])
			}
			question := buf[12 : end+5]
			reply := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			if question[len(question)-3] == 1 { // A
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, net.ParseIP(answer.Load().(string)).To4()...)
			}
			_, _ = dns.WriteTo(reply, from)
		}
	}()
	before := net.DefaultResolver
	defer func() { net.DefaultResolver = before }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", dns.LocalAddr().String())
	}}
	u := newUpstream(t, "http://api.provider.example/v1", Timeouts{Connect: 50 * time.Millisecond})
	for _, to := range []string{"192.0.2.1", "169.254.169.254", "127.0.0.1", "10.0.0.1", "100.100.100.200"} {
		answer.Store(to)
		_, err := post(u)
		wantFailure(t, err, Refused)
		if forbidden := errors.Is(err, errForbiddenAddress); forbidden != (to != "192.0.2.1") { // that one is public, and nobody is there
			t.Errorf("%s: %v", to, err)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for _, o := range []Options{{BaseURL: ""}, {BaseURL: "api.openai.com/v1"}, {BaseURL: "ftp://x/"}, {BaseURL: "http:///v1"},
		{BaseURL: "https://user:hunter2@x/v1"}, {BaseURL: "https://x/v1#f"}, {BaseURL: "https://x/v1", Key: "sk-a\nX: y"}, {BaseURL: "https://x/v1", Key: "sk a"}} {
		if _, err := NewUpstream(o); err == nil {
			t.Errorf("accepted %+v", o)
		} else if strings.Contains(err.Error(), "sk a") || strings.Contains(err.Error(), "sk-a") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

func TestTheKeyIsSentAndBodiesAreNotInflated(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer sk-secret-canary" || r.URL.Path != "/v1/chat/completions" || r.Header.Get("Accept-Encoding") != "" {
			w.WriteHeader(400)
		}
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "compressed")
	}))
	defer server.Close()
	reply, err := post(newUpstream(t, server.URL+"/v1/", Timeouts{}))
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	got, _ := io.ReadAll(reply.Body)
	if reply.Status != 200 || string(got) != "compressed" || reply.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d %q", reply.Status, got)
	}
}

func TestCancelling(t *testing.T) {
	url := rawServer(t, func(c net.Conn) { time.Sleep(5 * time.Second) })
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := newUpstream(t, url, Timeouts{}).Send(ctx, &Call{Path: "/x", Header: http.Header{}})
	var f *Failure
	if !errors.As(err, &f) || f.Kind != Cancelled {
		t.Errorf("%v", err)
	}
}

// A call whose connection breaks is not sent a second time by itself, whatever its headers say: each call stands in the ledger once.
func TestNoCallIsSentTwiceByItself(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if calls.Add(1) == 1 {
			return // the connection is kept
		}
		if got := r.Header.Get("Idempotency-Key"); got != "k" {
			t.Errorf("the header arrived as %q", got)
		}
		panic(http.ErrAbortHandler) // after the call was read, and perhaps billed
	}))
	defer server.Close()
	u := newUpstream(t, server.URL, Timeouts{})
	for i, want := range []Kind{"", Broken} {
		reply, err := u.Send(context.Background(), &Call{Path: "/x", Header: http.Header{"Idempotency-Key": {"k"}}, Body: []byte(`{}`)})
		if want != "" {
			wantFailure(t, err, want)
			continue
		}
		if err != nil {
			t.Fatal(i, err)
		}
		_, _ = io.Copy(io.Discard, reply.Body)
		_ = reply.Body.Close()
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("the provider was called %d times", n)
	}
}
