package dashboard

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// contentPolicy lets a page load its own style, script, images and data, and nothing else from anywhere.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guard refuses callers from other machines and requests for a host name that is not ours (DNS rebinding), and sends the
// headers that keep a page to itself.
func (d *Dashboard) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !d.ownHost(r.Host):
			http.Error(w, "dashboard: unknown host name. Open it by the address that occam printed, or add the name to the dashboard's hosts.",
				http.StatusMisdirectedRequest)
		case !d.Login && !fromLoopback(r.RemoteAddr):
			http.Error(w, "dashboard: only this machine may look, because no login is set up. Use an SSH tunnel.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ownHost reports whether a Host header names this server: the loopback interface, one of the configured names, or, where there
// is a login, an address.
func (d *Dashboard) ownHost(hostport string) bool {
	host := bareHost(hostport)
	if host == "localhost" || d.hosts[host] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsLoopback() || d.Login) // an address cannot be rebound, a name can
}

// bareHost is a Host header without its port, in lower case.
func bareHost(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// isAPI reports whether a program asks.
func isAPI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/api/") }

// maxForm bounds what a form or an API call may send.
const maxForm = 1 << 20

// allow lets a route's callers through if their role is enough. Others are led to the login, or told so.
func (d *Dashboard) allow(to Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit := int64(maxForm)
		if strings.HasSuffix(r.URL.Path, "/ledger/invoice") {
			limit = maxInvoice
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		if to.Least == Nobody {
			to.handler.ServeHTTP(w, r)
			return
		}
		caller, refused := d.identify(r)
		switch {
		case refused != nil:
			d.fail(w, r, refused)
		case to.Method != http.MethodGet && !d.fromOwnPage(r):
			d.fail(w, r, &failure{http.StatusForbidden, "The request does not say which page it comes from.", "A login in a browser is only good for our own pages.",
				"Programs send the account's name and password instead."})
		case caller.role >= to.Least:
			to.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, caller)))
		case caller.role != Nobody:
			d.fail(w, r, &failure{http.StatusForbidden, "Your account may look, not change.", "It has the role " + caller.role.String() + ".", "Ask an admin."})
		case r.Method == http.MethodGet && !isAPI(r) && r.URL.Path != "/events":
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="occam", charset="UTF-8"`)
			d.fail(w, r, &failure{http.StatusUnauthorized, "You are not logged in.", "There is no session, or it ran out.", "Log in, or send the account's name and password."})
		}
	})
}

// fromOwnPage reports whether a request that would change something may rely on a session's cookie. http.CrossOriginProtection
// refuses what comes from elsewhere; this refuses what says nothing, which no browser does.
func (d *Dashboard) fromOwnPage(r *http.Request) bool {
	if _, err := r.Cookie(cookieName); err != nil || !d.Login {
		return true // nothing to ride on
	}
	if _, _, basic := r.BasicAuth(); basic {
		return true
	}
	return r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
}

func fromLoopback(remote string) bool {
	addr, err := netip.ParseAddrPort(remote)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}
