package dashboard

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	cookieName     = "occam_session"
	sessionLength  = 12 * time.Hour
	passLength     = 5 * time.Minute // of a program's password
	maxSessions    = 1000
	triesPerMinute = 10  // of one account from one address
	triesOfAddress = 100 // of all accounts from one address
	maxTries       = 10_000
	parallelHashes = 2 // each takes 19 MiB
)

// sessions are the logins that are in force. They end with the process. Only hashes of the cookies are kept.
type sessions struct {
	now    func() time.Time
	hashes chan struct{} // bounds the hashing that goes on at once
	key    [32]byte      // of this process

	mu    sync.Mutex
	open  map[[32]byte]session
	tries map[[32]byte]tries // failed logins by address and account
}

type session struct {
	name  string
	role  Role
	hash  string // of the account's password: it changes with every change of the account
	until time.Time
}

type tries struct {
	since time.Time
	n     int
}

func newSessions(now func() time.Time) *sessions {
	s := &sessions{now: now, hashes: make(chan struct{}, parallelHashes), open: map[[32]byte]session{}, tries: map[[32]byte]tries{}}
	rand.Read(s.key[:]) //nolint:errcheck // never fails
	return s
}

// begin opens a session and returns its cookie's value.
func (s *sessions) begin(account login) string {
	var secret [32]byte
	rand.Read(secret[:]) //nolint:errcheck // never fails
	value := base64.RawURLEncoding.EncodeToString(secret[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= maxSessions {
		s.sweep()
	}
	s.open[sha256.Sum256([]byte(value))] = session{account.name, account.role, account.hash, s.now().Add(sessionLength)}
	return value
}

// sweep ends sessions that ran out, and the oldest one where that is not enough.
func (s *sessions) sweep() {
	var oldest [32]byte
	for id, one := range s.open {
		if !s.now().Before(one.until) {
			delete(s.open, id)
		} else if o, ok := s.open[oldest]; !ok || one.until.Before(o.until) {
			oldest = id
		}
	}
	if len(s.open) >= maxSessions {
		delete(s.open, oldest)
	}
}

// of returns who is logged in. The cookie is looked up by its hash, so the time of a comparison tells nothing about it.
func (s *sessions) of(r *http.Request) session {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return session{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.open[sha256.Sum256([]byte(c.Value))]
	if !s.now().Before(one.until) {
		return session{}
	}
	return one
}

// end closes the session of a request.
func (s *sessions) end(r *http.Request) {
	if c, err := r.Cookie(cookieName); err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, sha256.Sum256([]byte(c.Value)))
	}
}

// endAll closes every session of an account: its password or role changed.
func (s *sessions) endAll(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, one := range s.open {
		if one.name == name {
			delete(s.open, id)
		}
	}
}

// mayTry counts a try to log in and reports whether it is allowed.
func (s *sessions) mayTry(r *http.Request, name string) bool {
	address := addressOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Keys are of one length, whatever is sent as a name; and who tries many names takes no room from other addresses.
	return s.tried(sha256.Sum256([]byte(address)), triesOfAddress) && s.tried(sha256.Sum256([]byte(address+" "+name)), triesPerMinute)
}

// tried counts a try and reports whether there were at most so many within a minute.
func (s *sessions) tried(key [32]byte, most int) bool {
	now := s.now()
	t, known := s.tries[key]
	if !known && len(s.tries) >= maxTries {
		for k, t := range s.tries {
			if now.Sub(t.since) >= time.Minute {
				delete(s.tries, k)
			}
		}
		if len(s.tries) >= maxTries {
			return false
		}
	}
	if now.Sub(t.since) >= time.Minute {
		t = tries{since: now}
	}
	t.n++
	s.tries[key] = t
	return t.n <= most
}

// addressOf is the caller's address; of IPv6 the network of 64 bits, because one customer has all of it.
func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if addr = addr.Unmap(); addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// check verifies a password, a few at a time.
func (s *sessions) check(ctx context.Context, db Database, name, password string) (login, error) {
	select {
	case s.hashes <- struct{}{}:
		defer func() { <-s.hashes }()
	case <-ctx.Done():
		return login{}, ctx.Err()
	}
	return checkPassword(ctx, db, name, password)
}

type whoKey struct{}

// who returns who makes a request. Without accounts everybody on this machine is the admin.
func who(r *http.Request) session {
	s, _ := r.Context().Value(whoKey{}).(session)
	return s
}

// identify finds out who makes a request: by the session's cookie, or, for programs, by name and password on each request.
func (d *Dashboard) identify(r *http.Request) (session, *failure) {
	if caller := who(r); caller.role != Nobody {
		return caller, nil // Trusted has said it
	}
	if !d.Login {
		return session{name: "this machine", role: Admin}, nil
	}
	name, password, basic := r.BasicAuth()
	known := d.sessions.of(r)
	if basic {
		known = d.sessions.recent(name, password)
	}
	if known.role != Nobody {
		now, err := readAccount(r.Context(), d.Database, known.name)
		switch {
		case err != nil:
			return session{}, d.explain(r, err)
		case now.hash == known.hash:
			return known, nil
		}
		// It was changed or removed, perhaps by another process.
	}
	if !basic {
		return session{}, nil
	}
	if !d.sessions.mayTry(r, name) {
		return session{}, tooManyTries()
	}
	account, err := d.sessions.check(r.Context(), d.Database, name, password)
	if err != nil {
		return session{}, d.explain(r, err)
	}
	if account.role != Nobody {
		d.sessions.remember(password, account)
	}
	return session{name: name, role: account.role}, nil
}

// pass is under what a program's right password is remembered for a while, so that not each of its calls costs 19 MiB and counts as
// a try. It tells nothing about the password without the key, which ends with the process.
func (s *sessions) pass(name, password string) [32]byte {
	mac := hmac.New(sha256.New, s.key[:])
	fmt.Fprintf(mac, "%d %s %s", len(name), name, password)
	return [32]byte(mac.Sum(nil))
}

func (s *sessions) recent(name, password string) session {
	id := s.pass(name, password)
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.open[id]; ok && s.now().Before(one.until) {
		return one
	}
	return session{}
}

func (s *sessions) remember(password string, account login) {
	id := s.pass(account.name, password)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= maxSessions {
		s.sweep()
	}
	s.open[id] = session{account.name, account.role, account.hash, s.now().Add(passLength)}
}

func tooManyTries() *failure {
	return &failure{http.StatusTooManyRequests, "There were too many tries to log in.", "More than ten a minute look like guessing.", "Wait a minute and try again."}
}

type loginPage struct {
	Next  string `json:"-"`
	Wrong bool   `json:"-"`
	Name  string `json:"-"`
}

// loginForm shows the form.
func (d *Dashboard) loginForm(r *http.Request) (any, error) {
	return &loginPage{Next: localPath(r.FormValue("next"))}, nil
}

// login checks name and password and opens a session.
func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) {
	name, password := strings.TrimSpace(r.PostFormValue("name")), r.PostFormValue("password")
	next := localPath(r.PostFormValue("next"))
	if !d.Login {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	if !d.sessions.mayTry(r, name) {
		d.fail(w, r, tooManyTries())
		return
	}
	account, err := d.sessions.check(r.Context(), d.Database, name, password)
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	if account.role == Nobody {
		d.Log.Warn("dashboard: a login failed", "account", short(name), "from", addressOf(r))
		d.render(w, r, "login", http.StatusUnauthorized, &loginPage{Next: next, Wrong: true, Name: name})
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: d.sessions.begin(account), Path: "/", HttpOnly: true, Secure: !d.plainLoopback(r),
		SameSite: http.SameSiteStrictMode, MaxAge: int(sessionLength / time.Second)})
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// plainLoopback reports whether a browser on this machine speaks to us without TLS, where some refuse Secure cookies.
func (d *Dashboard) plainLoopback(r *http.Request) bool {
	ip, err := netip.ParseAddr(bareHost(r.Host))
	return r.TLS == nil && fromLoopback(r.RemoteAddr) && (bareHost(r.Host) == "localhost" || err == nil && ip.IsLoopback())
}

// logout ends the session.
func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) {
	d.sessions.end(r)
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", HttpOnly: true, MaxAge: -1, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// localPath returns where to go after the login, if that is on this server.
func localPath(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}
