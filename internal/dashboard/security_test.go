package dashboard

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestNoWayAroundTheLogin (S11): 300 ways of writing a request for a protected page, without a session. None is answered with it.
func TestNoWayAroundTheLogin(t *testing.T) {
	s := openStore(t)
	seed(t, s, traffic{requests: 3, days: 1, task: "ticket-triage"})
	o := everything(s)
	o.Login = true
	_, err := FirstPassword(t.Context(), s)
	must(t, err)
	_, server := start(t, o)
	address := strings.TrimPrefix(server.URL, "http://")
	protected := []string{"/", "/requests", "/requests/R000001", "/tasks/ticket-triage", "/api/overview", "/api/keys", "/api/settings", "/settings", "/keys", "/ledger"}
	variants := []func(path string) (target, host, header string){
		func(p string) (string, string, string) { return p, address, "" },
		func(p string) (string, string, string) { return "http://" + address + p, address, "" },
		func(p string) (string, string, string) { return "http://localhost" + p, "evil.example", "" },
		func(p string) (string, string, string) { return "http://evil.example" + p, address, "" },
		func(p string) (string, string, string) { return "/" + p, address, "" },
		func(p string) (string, string, string) { return "//login/.." + p, address, "" },
		func(p string) (string, string, string) { return "/login/.." + p, address, "" },
		func(p string) (string, string, string) { return "/login/%2e%2e" + p, address, "" },
		func(p string) (string, string, string) { return "/assets/..%2f.." + p, address, "" },
		func(p string) (string, string, string) { return "/assets/%2e%2e%2f" + p, address, "" },
		func(p string) (string, string, string) { return "/./" + strings.TrimPrefix(p, "/"), address, "" },
		func(p string) (string, string, string) { return "/%2e" + p, address, "" },
		func(p string) (string, string, string) { return p + ";x=/login", address, "" },
		func(p string) (string, string, string) { return "/login;" + p, address, "" },
		func(p string) (string, string, string) { return p + "?next=/login", address, "" },
		func(p string) (string, string, string) { return p + "%00", address, "" },
		func(p string) (string, string, string) { return strings.ToUpper(p), address, "" },
		func(p string) (string, string, string) { return p + "/", address, "" },
		func(p string) (string, string, string) { return p, address, "X-HTTP-Method-Override: POST" },
		func(p string) (string, string, string) { return p, address, "X-Original-URL: /login" },
		func(p string) (string, string, string) { return p, address, "X-Rewrite-URL: /login" },
		func(p string) (string, string, string) { return p, address, "X-Forwarded-For: 127.0.0.1" },
		func(p string) (string, string, string) { return p, address, "X-Forwarded-Host: localhost" },
		func(p string) (string, string, string) { return p, address, OperatorHeader + ": admin" },
		func(p string) (string, string, string) { return p, address, "Authorization: Bearer admin" },
		func(p string) (string, string, string) { return p, address, "Authorization: Basic YWRtaW46" },
		func(p string) (string, string, string) { return p, address, "Cookie: " + cookieName + "=" },
		func(p string) (string, string, string) {
			return p, address, "Cookie: " + cookieName + "=AAAA; role=admin"
		},
		func(p string) (string, string, string) { return p, "localhost", "" },
		func(p string) (string, string, string) { return p, "[::1]", "Forwarded: for=127.0.0.1;host=localhost" },
	}
	tried := 0
	for _, path := range protected {
		for i, variant := range variants {
			target, host, header := variant(path)
			status, body := raw(t, address, target, host, header)
			tried++
			if strings.Contains(body, "support-app") || strings.Contains(body, `"keys":`) || strings.Contains(body, "Saved this month") || strings.Contains(body, `"accounts"`) ||
				status == http.StatusOK && !strings.Contains(body, `action="/login"`) {
				t.Errorf("%s by way %d (%s, Host %s, %s): status %d: %.120s", path, i, target, host, header, status, body)
			}
		}
	}
	if tried < 300 {
		t.Errorf("only %d ways were tried", tried)
	}
}

// raw sends a request as it is written.
func raw(t *testing.T, address, target, host, header string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	if header != "" {
		header += "\r\n"
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n", target, host, header)
	must(t, err)
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer reply.Body.Close()
	text := make([]byte, 64<<10)
	n, _ := bufio.NewReader(reply.Body).Read(text)
	return reply.StatusCode, string(text[:n])
}

// TestUnknownHostsAreRefused (S11): whatever is no name of ours is refused before anything is read.
func TestUnknownHostsAreRefused(t *testing.T) {
	handler := New(Options{Source: openStore(t), Hosts: []string{"occam.example"}})
	for _, host := range []string{"evil.example", "occam.example.evil", "xoccam.example", "localhost.evil.example", "127.0.0.1.nip.io", "0x7f000001", "2130706433", "10.0.0.1", ""} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host, r.RemoteAddr = host, "127.0.0.1:1"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusMisdirectedRequest {
			t.Errorf("host %q: status %d", host, w.Code)
		}
	}
}

// TestNobodyLooksWithoutALogin (S12): without a login only this machine may look, however it is reached.
func TestNobodyLooksWithoutALogin(t *testing.T) {
	handler := New(everything(openStore(t)))
	for remote, want := range map[string]int{"127.0.0.1:5": 200, "[::1]:5": 200, "192.0.2.7:5": 403, "[2001:db8::1]:5": 403, "10.0.0.9:5": 403, "nonsense": 403} {
		for _, path := range []string{"/", "/api/overview", "/keys", "/assets/app.css"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host, r.RemoteAddr = "localhost", remote
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != want && !(want == 200 && path == "/assets/app.css") {
				t.Errorf("%s from %s: status %d, want %d", path, remote, w.Code, want)
			}
		}
	}
}

var inline = regexp.MustCompile(`(?i)<script(?:\s+[^>]*)?>[^<]|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:|<iframe|<object|<embed`)

// TestNothingInline (S14): no page holds a script, a style or a handler of its own, so that the policy needs no exception. The
// browser's test sees that no page breaks the policy.
func TestNothingInline(t *testing.T) {
	files, err := filepath.Glob("web/*.html")
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		if found := inline.Find(text); found != nil {
			t.Errorf("%s holds %q", file, found)
		}
	}
	for name, address := range fixturePages(t) {
		_, header, body := get(t, address)
		if found := inline.FindString(body); found != "" {
			t.Errorf("%s holds %q", name, found)
		}
		if policy := header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: policy %q", name, policy)
		}
	}
}

// TestUnknownNamesCostTheSame (S17): a login with an unknown name does the same work as one with a wrong password. The work is counted
// in memory, which argon2id takes 19 MiB of, because a clock on a busy machine tells little.
func TestUnknownNamesCostTheSame(t *testing.T) {
	s := openStore(t)
	_, err := setAccount(t.Context(), s, "eva", Admin, "correct horse battery")
	must(t, err)
	cost := func(name string) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		found, err := checkPassword(t.Context(), s, name, "a wrong password")
		must(t, err)
		runtime.ReadMemStats(&after)
		if found.role != Nobody {
			t.Fatalf("%s got in", name)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	cost("eva")
	known, unknown := cost("eva"), cost("nobody-of-this-name")
	if ratio := float64(unknown) / float64(known); known < argonMemory<<10 || ratio < 0.95 || ratio > 1.05 {
		t.Errorf("a known name took %d bytes of work, an unknown one %d", known, unknown)
	}
	for _, hash := range []string{nobodysHash, hashPassword("x")} {
		if !strings.HasPrefix(hash, fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$", argonMemory, argonTime, argonLanes)) {
			t.Errorf("the hash %.40s… was made at another cost", hash)
		}
	}
}

// TestTimeOfUnknownNames measures the same with a clock, where OCCAM_QUIET says that nothing else runs: ± 5 %.
func TestTimeOfUnknownNames(t *testing.T) {
	if os.Getenv("OCCAM_QUIET") == "" {
		t.Skip("set OCCAM_QUIET on a quiet machine: a busy one cannot tell 5 %")
	}
	s := openStore(t)
	_, err := setAccount(t.Context(), s, "eva", Admin, "correct horse battery")
	must(t, err)
	var took [2]time.Duration
	for range 60 {
		for i, name := range []string{"eva", "nobody-of-this-name"} {
			began := time.Now()
			_, err := checkPassword(t.Context(), s, name, "a wrong password")
			must(t, err)
			took[i] += time.Since(began)
		}
	}
	if ratio := float64(took[1]) / float64(took[0]); ratio < 0.95 || ratio > 1.05 {
		t.Errorf("an unknown name takes %.3f times as long", ratio)
	}
}

// TestGuessingFromManyNames (S17): the tries are counted for each account and address, whichever way the password comes.
func TestGuessingFromManyNames(t *testing.T) {
	server, password, _, _ := guarded(t)
	for range triesPerMinute {
		if got := basic(t, server.URL, "admin", "wrong-password"); got != http.StatusUnauthorized {
			t.Fatalf("status %d", got)
		}
	}
	if got := basic(t, server.URL, "admin", password); got != http.StatusTooManyRequests {
		t.Errorf("the eleventh try, with the right password: %d", got)
	}
	if reply := logIn(t, browser(t), server.URL, "admin", password); reply.StatusCode != http.StatusTooManyRequests {
		t.Errorf("by the form: %d", reply.StatusCode)
	}
}

func basic(t *testing.T, base, name, password string) int {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, base+"/api/overview", nil)
	must(t, err)
	r.SetBasicAuth(name, password)
	reply, err := http.DefaultClient.Do(r)
	must(t, err)
	reply.Body.Close()
	return reply.StatusCode
}
