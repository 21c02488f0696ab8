package dashboard

import (
	"context"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"occam/internal/store"
)

func escape(s string) string     { return url.QueryEscape(s) }
func escapePath(s string) string { return url.PathEscape(s) }

// guarded is a dashboard with a login, the admin's password and a viewer "eva".
func guarded(t *testing.T) (server *httptest.Server, password, viewerPassword string, d Options) {
	t.Helper()
	s := openStore(t)
	password, err := FirstPassword(t.Context(), s)
	must(t, err)
	if again, err := FirstPassword(t.Context(), s); err != nil || again != "" {
		t.Fatalf("a second first password: %q, %v", again, err)
	}
	viewerPassword, err = setAccount(t.Context(), s, "eva", Viewer, "")
	must(t, err)
	d = Options{Source: s, Database: s, Login: true, Tasks: fixedTasks(ticketTask())}
	return serve(t, d), password, viewerPassword, d
}

// browser is a client that keeps cookies and follows no redirects.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	return &http.Client{Jar: jar, Transport: ownPage{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ownPage says, as browsers do, that a request comes from one of our own pages, unless it says something else.
type ownPage struct{}

func (ownPage) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("X-Silent") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return http.DefaultTransport.RoundTrip(r)
}

func logIn(t *testing.T, c *http.Client, base, name, password string) *http.Response {
	t.Helper()
	reply, err := c.PostForm(base+"/login", url.Values{"name": {name}, "password": {password}, "next": {"/requests"}})
	must(t, err)
	reply.Body.Close()
	return reply
}

func TestLogin(t *testing.T) {
	server, password, _, _ := guarded(t)
	c := browser(t)
	reply, err := c.Get(server.URL + "/requests?task=x")
	must(t, err)
	if reply.StatusCode != http.StatusSeeOther || reply.Header.Get("Location") != "/login?next="+escape("/requests?task=x") {
		t.Fatalf("without a session: %d to %s", reply.StatusCode, reply.Header.Get("Location"))
	}
	if reply := logIn(t, c, server.URL, "admin", "wrong-password"); reply.StatusCode != http.StatusUnauthorized || len(reply.Cookies()) > 0 {
		t.Errorf("a wrong password: status %d, cookies %v", reply.StatusCode, reply.Cookies())
	}
	reply = logIn(t, c, server.URL, "admin", password)
	if reply.StatusCode != http.StatusSeeOther || reply.Header.Get("Location") != "/requests" {
		t.Fatalf("the right password: %d to %s", reply.StatusCode, reply.Header.Get("Location"))
	}
	if k := reply.Cookies()[0]; !k.HttpOnly || k.SameSite != http.SameSiteStrictMode || k.MaxAge <= 0 {
		t.Errorf("the cookie is %+v", k)
	}
	if reply, err = c.Get(server.URL + "/"); err != nil || reply.StatusCode != 200 {
		t.Errorf("with a session: %v, %v", reply.StatusCode, err)
	}
	_, err = c.PostForm(server.URL+"/logout", nil)
	must(t, err)
	if reply, err = c.Get(server.URL + "/"); err != nil || reply.StatusCode != http.StatusSeeOther {
		t.Errorf("after the logout: %v, %v", reply.StatusCode, err)
	}
}

func TestCookieIsSecureWhereTheHostHasAName(t *testing.T) {
	s := openStore(t)
	password, err := FirstPassword(t.Context(), s)
	must(t, err)
	handler := New(Options{Source: s, Database: s, Login: true, Hosts: []string{"occam.example"}})
	r := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(url.Values{"name": {"admin"}, "password": {password}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Host, r.RemoteAddr = "occam.example", "127.0.0.1:1" // a proxy on this machine that ends TLS
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if k := w.Result().Cookies(); len(k) != 1 || !k[0].Secure {
		t.Errorf("the cookie is %+v", k)
	}
}

func TestGuessingIsSlowedDown(t *testing.T) {
	server, password, _, _ := guarded(t)
	c := browser(t)
	for i := range triesPerMinute {
		if reply := logIn(t, c, server.URL, "admin", "wrong-password"); reply.StatusCode != http.StatusUnauthorized {
			t.Fatalf("try %d: status %d", i, reply.StatusCode)
		}
	}
	if reply := logIn(t, c, server.URL, "admin", password); reply.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one try more: status %d", reply.StatusCode)
	}
}

func TestTriesAreForgottenAfterAMinute(t *testing.T) {
	now := fixedNow
	s := newSessions(func() time.Time { return now })
	r := httptest.NewRequest(http.MethodPost, "/login", nil)
	for range triesPerMinute {
		if !s.mayTry(r, "admin") {
			t.Fatal("refused too early")
		}
	}
	if s.mayTry(r, "admin") {
		t.Error("not refused")
	}
	if !s.mayTry(r, "eva") {
		t.Error("another account is refused")
	}
	if now = now.Add(time.Minute); !s.mayTry(r, "admin") {
		t.Error("still refused after a minute")
	}
	now = now.Add(time.Minute)
	for i := range 3 * maxTries {
		if allowed := s.mayTry(r, strconv.Itoa(i)); allowed != (i < triesOfAddress) {
			t.Fatalf("try %d, each of another account: %v", i, allowed)
		}
	}
	elsewhere := httptest.NewRequest(http.MethodPost, "/login", nil)
	elsewhere.RemoteAddr = "198.51.100.7:1234"
	if !s.mayTry(elsewhere, "admin") {
		t.Error("tries from one address refuse those from another")
	}
	now = now.Add(time.Minute)
	before := memory()
	for i := range 100 {
		s.mayTry(r, strings.Repeat("x", 1<<20)+strconv.Itoa(i))
	}
	if held := memory() - before; held > 50<<20 {
		t.Errorf("a hundred tries with names of 1 MB hold %d MB", held>>20)
	}
	runtime.KeepAlive(s)
}

// memory is what is in use.
func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestSessionsEnd(t *testing.T) {
	now := fixedNow
	s := newSessions(func() time.Time { return now })
	with := func(value string) session {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.AddCookie(&http.Cookie{Name: cookieName, Value: value})
		return s.of(r)
	}
	first := s.begin(login{name: "admin", role: Admin})
	for range maxSessions { // more than fit: the oldest goes
		now = now.Add(time.Millisecond)
		s.begin(login{name: "eva", role: Viewer})
	}
	if with(first).role != Nobody || len(s.open) > maxSessions {
		t.Errorf("%d sessions are open", len(s.open))
	}
	value := s.begin(login{name: "admin", role: Admin})
	if with(value).role != Admin || with(value+"x").role != Nobody {
		t.Error("the session is not told apart from another")
	}
	if s.endAll("admin"); with(value).role != Nobody {
		t.Error("the session outlives its account's change")
	}
	value = s.begin(login{name: "admin", role: Admin})
	if now = now.Add(sessionLength); with(value).role != Nobody {
		t.Error("the session does not run out")
	}
}

// cells is the least role of every route. A route that is not here fails the test: whoever adds one must say who may use it.
var cells = map[Role]string{
	Nobody: `GET /assets/{file}, GET /login, POST /login`,
	Viewer: `GET /{$}, GET /api/overview, GET /requests, GET /api/requests, GET /requests/{id}, GET /api/requests/{id}, GET /tasks/{name}, GET /api/tasks/{name},
		GET /api/tasks, GET /api/models, GET /api/{$}, GET /spend, GET /api/spend, GET /ledger, GET /api/ledger, GET /breakeven, GET /api/breakeven, GET /groups, GET /api/groups,
		GET /tasks/{name}/data, GET /api/tasks/{name}/data, GET /review, GET /api/review, GET /keys, GET /api/keys, GET /keys/{id}, GET /api/keys/{id},
		GET /batches, GET /api/batches, GET /settings, GET /api/settings, GET /events, GET /, POST /logout, POST /settings/password, POST /api/settings/password`,
	Reviewer: `POST /review/{id}, POST /api/review/{id}`,
	Admin: `POST /tasks/{name}/command, POST /api/tasks/{name}/command, POST /ledger/verify, POST /api/ledger/verify, POST /ledger/invoice, POST /api/ledger/invoice,
		POST /tasks/{name}/cancel-training, POST /api/tasks/{name}/cancel-training, POST /groups/{id}, POST /api/groups/{id}, POST /batches/{id}, POST /api/batches/{id}, POST /tasks/{name}/data, POST /api/tasks/{name}/data, POST /keys, POST /api/keys, POST /keys/{id}, POST /api/keys/{id},
		POST /settings/accounts, POST /api/settings/accounts`,
}

// TestRolesAndRoutes (S07) tries every route of the router with every role, and every method that a route does not have.
func TestRolesAndRoutes(t *testing.T) {
	s := openStore(t)
	o := everything(s)
	o.Login = true
	d, server := start(t, o)
	clients := map[Role]*http.Client{Nobody: browser(t)}
	for _, who := range []login{{name: "admin", role: Admin}, {name: "eva", role: Viewer}, {name: "rita", role: Reviewer}} {
		password, err := setAccount(t.Context(), s, who.name, who.role, "")
		must(t, err)
		clients[who.role] = browser(t)
		logIn(t, clients[who.role], server.URL, who.name, password)
	}
	want := map[string]Role{}
	for role, list := range cells {
		for _, pattern := range strings.Split(list, ",") {
			want[strings.TrimSpace(pattern)] = role
		}
	}
	for _, r := range d.Routes() {
		least, known := want[r.pattern()]
		if !known || least != r.Least {
			t.Errorf("%s is for %s: no cell of the table says so", r.pattern(), r.Least)
		}
		delete(want, r.pattern())
		for role, c := range clients {
			tryCell(t, c, server.URL, r, role)
		}
	}
	for pattern := range want {
		t.Errorf("the table has a cell for %s, which the router does not", pattern)
	}
}

// tryCell sends one request with one role.
func tryCell(t *testing.T, c *http.Client, base string, r Route, role Role) {
	t.Helper()
	if r.Path == "/logout" {
		return // would end the sessions of this test; TestLogin tries it
	}
	path := strings.NewReplacer("{$}", "", "{id}", "none", "{name}", "ticket-triage", "{file}", "none").Replace(r.Path)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, r.Method, base+path, nil)
	must(t, err)
	reply, err := c.Do(request)
	must(t, err)
	body := make([]byte, 2048)
	n, _ := reply.Body.Read(body)
	reply.Body.Close()
	own := strings.Contains(string(body[:n]), "present password") // the route's own refusal, not that of the role
	barred := reply.StatusCode == http.StatusUnauthorized && path != "/login" || reply.StatusCode == http.StatusForbidden && !own ||
		strings.HasPrefix(reply.Header.Get("Location"), "/login?")
	if barred != (role < r.Least) {
		t.Errorf("%s as %s: status %d to %q", r.pattern(), role, reply.StatusCode, reply.Header.Get("Location"))
	}
}

// TestForeignPagesCannotPost (S13): forms, JSON as text/plain, and requests that hide where they come from.
func TestForeignPagesCannotPost(t *testing.T) {
	server, password, _, _ := guarded(t)
	c := browser(t)
	logIn(t, c, server.URL, "admin", password)
	for _, h := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}, {"Origin": {"null"}}, {"X-Silent": {"no origin at all"}}} {
		for _, kind := range []string{"application/x-www-form-urlencoded", "text/plain", "application/json"} {
			r, err := http.NewRequest(http.MethodPost, server.URL+"/logout", strings.NewReader("{}"))
			must(t, err)
			r.Header = h.Clone()
			r.Header.Set("Content-Type", kind)
			reply, err := c.Do(r)
			must(t, err)
			reply.Body.Close()
			if reply.StatusCode != http.StatusForbidden {
				t.Errorf("%v %s: status %d", h, kind, reply.StatusCode)
			}
		}
	}
	if reply, err := c.Get(server.URL + "/"); err != nil || reply.StatusCode != 200 {
		t.Error("a foreign page ended the session")
	}
}

func TestAPIWithAPassword(t *testing.T) {
	server, _, viewerPassword, _ := guarded(t)
	try := func(name, password string) int {
		r, err := http.NewRequest(http.MethodGet, server.URL+"/api/overview", nil)
		must(t, err)
		r.SetBasicAuth(name, password)
		reply, err := http.DefaultClient.Do(r)
		must(t, err)
		reply.Body.Close()
		return reply.StatusCode
	}
	if got := try("eva", viewerPassword); got != 200 {
		t.Errorf("the right password: %d", got)
	}
	if got := try("eva", "wrong-password"); got != http.StatusUnauthorized {
		t.Errorf("a wrong password: %d", got)
	}
	if got := try("nobody", "wrong-password"); got != http.StatusUnauthorized {
		t.Errorf("an unknown account: %d", got)
	}
}

// TestProgramsMayCallOften: a right password counts as one try, a change of it ends what was remembered, and a wrong one is never
// remembered.
func TestProgramsMayCallOften(t *testing.T) {
	s := openStore(t)
	password, err := FirstPassword(t.Context(), s)
	must(t, err)
	d, server := start(t, Options{Source: s, Database: s, Login: true})
	for i := range 3 * triesPerMinute {
		if got := basic(t, server.URL, "admin", password); got != 200 {
			t.Fatalf("call %d: status %d", i, got)
		}
	}
	if w := request(t, d, "/api/settings/accounts", url.Values{"name": {"admin"}, "do": {"reset"}}); w.Code != 200 {
		t.Fatalf("reset: %d %s", w.Code, w.Body)
	}
	if got := basic(t, server.URL, "admin", password); got != http.StatusUnauthorized {
		t.Errorf("the old password: status %d", got)
	}
	for range triesPerMinute {
		basic(t, server.URL, "admin", "wrong-password")
	}
	if got := basic(t, server.URL, "admin", "wrong-password"); got != http.StatusTooManyRequests {
		t.Errorf("many wrong ones: status %d", got)
	}
}

func TestAccounts(t *testing.T) {
	s := openStore(t)
	_, err := FirstPassword(t.Context(), s)
	must(t, err)
	if _, err := setAccount(t.Context(), s, "admin", Viewer, ""); err == nil {
		t.Error("the last admin was made a viewer")
	}
	if err := removeFor(t, s, "admin"); err == nil {
		t.Error("the last admin was removed")
	}
	for _, name := range []string{"", "Big", "a b", "../x", hostile, strings.Repeat("a", 65)} {
		if _, err := setAccount(t.Context(), s, name, Viewer, ""); err == nil {
			t.Errorf("the name %q was accepted", name)
		}
	}
	for _, password := range []string{"short", strings.Repeat("x", 201)} {
		if _, err := setAccount(t.Context(), s, "eva", Viewer, password); err == nil {
			t.Errorf("a password of %d bytes was accepted", len(password))
		}
	}
	_, err = setAccount(t.Context(), s, "eva", Admin, "correct horse battery")
	must(t, err)
	if eva, err := checkPassword(t.Context(), s, "eva", "correct horse battery"); eva.role != Admin || err != nil {
		t.Errorf("eva is %s, %v", eva.role, err)
	}
	if eva, _ := checkPassword(t.Context(), s, "eva", "correct horse batterz"); eva.role != Nobody {
		t.Errorf("a wrong password makes eva %s", eva.role)
	}
	must(t, removeFor(t, s, "admin"))
	all, err := listAccounts(t.Context(), s)
	must(t, err)
	if len(all) != 1 || all[0].name != "eva" || strings.Contains(all[0].hash, "correct horse") {
		t.Errorf("the accounts are %+v", all)
	}
}

// An overtaken is a database in which something else happens just before each change.
type overtaken struct {
	Database
	first func()
}

func (o overtaken) Update(ctx context.Context, f func(*store.Tx) error) error {
	o.first()
	return o.Database.Update(ctx, f)
}

// TestOwnPasswordKeepsTheRole changes a password while an admin takes the role away, or the account.
func TestOwnPasswordKeepsTheRole(t *testing.T) {
	for what, meanwhile := range map[string]func(*testing.T, *store.Store){
		"made a viewer": func(t *testing.T, s *store.Store) {
			_, err := setAccount(t.Context(), s, "eva", Viewer, "correct horse battery")
			must(t, err)
		},
		"removed": func(t *testing.T, s *store.Store) { _ = removeFor(t, s, "eva") },
	} {
		s := openStore(t)
		for _, name := range []string{"admin", "eva"} {
			_, err := setAccount(t.Context(), s, name, Admin, "correct horse battery")
			must(t, err)
		}
		server := serve(t, Options{Source: s, Database: overtaken{s, func() { meanwhile(t, s) }}, Login: true})
		form := url.Values{"old": {"correct horse battery"}, "new": {"another horse battery"}}
		r, err := http.NewRequest(http.MethodPost, server.URL+"/api/settings/password", strings.NewReader(form.Encode()))
		must(t, err)
		r.SetBasicAuth("eva", "correct horse battery")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		reply, err := http.DefaultClient.Do(r)
		must(t, err)
		reply.Body.Close()
		if eva, err := checkPassword(t.Context(), s, "eva", "another horse battery"); eva.role > Viewer || err != nil {
			t.Errorf("%s meanwhile, eva is %s (%v)", what, eva.role, err)
		}
	}
}

func TestNextPageIsOurs(t *testing.T) {
	for next, want := range map[string]string{"/requests?a=b": "/requests?a=b", "": "/", "//evil.example": "/", "https://evil.example": "/",
		`/\evil.example`: "/", "/a\r\nSet-Cookie: x": "/"} {
		if got := localPath(next); got != want {
			t.Errorf("localPath(%q) = %q, want %q", next, got, want)
		}
	}
}

func removeFor(t *testing.T, s Database, name string) error {
	_, err := changeAccount(t.Context(), s, accountChange{name: name, remove: true, seen: -1, by: "test", at: fixedNow})
	return err
}

// TestSessionsEndInOtherProcesses: what another process changes of an account ends its sessions here too, and the password that a
// program was let in with.
func TestSessionsEndInOtherProcesses(t *testing.T) {
	server, _, password, o := guarded(t)
	for what, change := range map[string]func(){
		"a new password": func() {
			_, err := setAccount(t.Context(), o.Database, "eva", Viewer, "correct horse battery")
			must(t, err)
		},
		"removed":       func() { must(t, removeFor(t, o.Database, "eva")) },
		"made an admin": func() { _, err := setAccount(t.Context(), o.Database, "eva", Admin, ""); must(t, err) },
	} {
		_, err := setAccount(t.Context(), o.Database, "eva", Viewer, password)
		must(t, err)
		c := browser(t)
		logIn(t, c, server.URL, "eva", password)
		status := func() int {
			reply, err := c.Get(server.URL + "/requests")
			must(t, err)
			reply.Body.Close()
			return reply.StatusCode
		}
		if got := []int{status(), basic(t, server.URL, "eva", password)}; got[0] != http.StatusOK || got[1] != http.StatusOK {
			t.Fatalf("before: %v", got)
		}
		change()
		if got := []int{status(), basic(t, server.URL, "eva", password)}; got[0] != http.StatusSeeOther || got[1] != http.StatusUnauthorized {
			t.Errorf("%s: %v", what, got)
		}
	}
}
