package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hidden is a request that stands inside another one and must never be served.
const hidden = `{"model":"gpt-4o","messages":[{"role":"user","content":"smuggled"}]}`

// smugglings are requests whose end two servers could see at different places, by name.
func smugglings() map[string]string {
	inner := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden)
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	all := map[string]string{
		"two lengths":             head + "Content-Length: 2\r\nContent-Length: 100\r\n\r\n{}" + inner,
		"two equal lengths":       head + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + inner,
		"a list of lengths":       head + "Content-Length: 2, 100\r\n\r\n{}" + inner,
		"a list of equal lengths": head + "Content-Length: 2, 2\r\n\r\n{}" + inner,
		"length with a plus":      head + "Content-Length: +2\r\n\r\n{}" + inner,
		"length with zeros":       head + "Content-Length: 0002\r\n\r\n{}" + inner,
		"length negative":         head + "Content-Length: -2\r\n\r\n{}" + inner,
		"length hex":              head + "Content-Length: 0x2\r\n\r\n{}" + inner,
		"length with a space":     head + "Content-Length: 1 0\r\n\r\n{}" + inner,
		"length empty":            head + "Content-Length: \r\n\r\n" + inner,
		"length overflows":        head + "Content-Length: 18446744073709551618\r\n\r\n{}" + inner,
		"length folded":           head + "Content-Length:\r\n 2\r\n\r\n{}" + inner,
		"space before the colon":  head + "Content-Length : 2\r\n\r\n{}" + inner,
		"underscore":              head + "Content_Length: 2\r\n\r\n" + inner,
		"bare CR in a header":     head + "X: a\rContent-Length: 2\r\n\r\n{}" + inner,
		"NUL in a header":         head + "X: a\x00b\r\nContent-Length: 2\r\n\r\n{}" + inner,
		"bare LF everywhere":      strings.ReplaceAll(head+"Content-Length: 2\r\n\r\n{}", "\r\n", "\n") + inner,
		"bare LF after the head":  head + "Content-Length: 2\r\n\n{}" + inner,
		"chunk size overflow":     head + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + inner,
		"chunk size negative":     head + "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + inner,
		"chunk size hex prefix":   head + "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + inner,
		"chunk size with spaces":  head + "Transfer-Encoding: chunked\r\n\r\n 2 \r\n{}\r\n0\r\n\r\n" + inner,
		"chunk with bare LF":      head + "Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n" + inner,
		"chunk longer than said":  head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + inner,
		"chunk extension":         head + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("a", 20000) + "\r\n{}\r\n0\r\n\r\n" + inner,
		"chunk extension with LF": head + "Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\n{}\r\n0\r\n\r\n" + inner,
		"trailer":                 head + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 100\r\n\r\n" + inner,
		"HTTP/1.0 with TE":        "POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
		"HTTP/0.9":                "POST /v1/chat/completions\r\n" + inner,
		"HTTP/2 preface":          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner,
		"two hosts":               head + "Host: y\r\nContent-Length: 2\r\n\r\n{}",
		"GET with a body":         "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " + fmt.Sprint(len(inner)) + "\r\n\r\n" + inner,
		"upgrade":                 head + "Connection: Upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\n{}" + inner,
		"expect":                  head + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}" + inner,
	}
	for i, te := range []string{"Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding:\tchunked", "Transfer-Encoding: xchunked",
		"Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
		"Transfer-Encoding: \x0bchunked", "Transfer-Encoding: chunked\x00", "Transfer-Encoding:\r\n chunked", "Transfer_Encoding: chunked", "Transfer-Encoding: \"chunked\"",
		"Transfer-Encoding: chunked;q=0.5", "transfer-encoding: CHUNKED", "Foo: bar\nTransfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"} {
		all[fmt.Sprintf("CL.TE %d: %q", i, te)] = head + fmt.Sprintf("Content-Length: %d\r\n%s\r\n\r\n0\r\n\r\n%s", 5+len(inner), te, inner)
		all[fmt.Sprintf("TE.CL %d: %q", i, te)] = head + fmt.Sprintf("Content-Length: 4\r\n%s\r\n\r\n%s0\r\n\r\n", te, chunk(inner))
	}
	return all
}

// S22: none of them desynchronises the gateway, alone or behind nginx and HAProxy: the hidden request is never served, one request
// gets at most one answer, and the next client's request over the same connections gets its own.
func TestS22SmugglingCorpus(t *testing.T) {
	w := newWorld(t)
	address, _ := w.serve()
	fronts := map[string]string{"alone": address}
	for name, front := range map[string]func(_ *testing.T, gateway, options string) string{"nginx": nginx, "haproxy": haproxy} {
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("%s is not installed: the gateway is not tried behind it", name)
			continue
		}
		fronts[name] = front(t, address, "")
	}
	corpus := smugglings()
	for name, front := range fronts {
		for what, request := range corpus {
			answer := raw(t, front, request)
			if got := strings.Count(answer, "HTTP/1.1 ") + strings.Count(answer, "HTTP/1.0 "); got > 1 && !strings.Contains(answer, " 100 Continue") {
				t.Errorf("%s, %s: %d answers to one request:\n%.500s", name, what, got, answer)
			}
			if strings.Contains(answer, "chatcmpl") {
				t.Errorf("%s, %s: a hidden request was answered:\n%.500s", name, what, answer)
			}
			res, err := http.Post("http://"+front+"/v1/chat/completions", "application/json", strings.NewReader(plainBody))
			if err != nil {
				t.Fatalf("%s, after %s: %v", name, what, err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || string(body) != w.reply() {
				t.Errorf("%s, after %s the next client got %d %s", name, what, res.StatusCode, body)
			}
		}
		t.Logf("%s: %d requests", name, len(corpus))
	}
	for _, body := range w.seen() {
		if body != plainBody {
			t.Errorf("the provider got %s", body)
		}
	}
	if n := len(w.seen()); n != len(fronts)*len(corpus) {
		t.Errorf("the provider got %d requests, not %d", n, len(fronts)*len(corpus))
	}
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// front starts a proxy and waits until it listens.
func front(t *testing.T, address, file, config, program string, args ...string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, args...)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	wait(t, program+" listens", func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return address
}

// nginx passes requests on to the gateway. options are those of what it listens on: http2, or none.
func nginx(t *testing.T, gateway, options string) string {
	dir, address := t.TempDir(), freeAddress(t)
	file := filepath.Join(dir, "nginx.conf")
	return front(t, address, file, fmt.Sprintf(`daemon off; master_process off; error_log %[1]s/error.log; pid %[1]s/pid;
events {}
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  underscores_in_headers on;
  upstream gateway { server %[2]s; keepalive 1; }
  server { listen %[3]s%[4]s; location / { proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off; } }
}`, dir, gateway, address, options), "nginx", "-p", dir, "-e", dir+"/error.log", "-c", file)
}

func haproxy(t *testing.T, gateway, options string) string {
	address := freeAddress(t)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	return front(t, address, file, fmt.Sprintf(`defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  http-reuse always
frontend f
  bind %s%s
  default_backend b
backend b
  server s %s
`, address, options, gateway), "haproxy", "-db", "-f", file)
}
