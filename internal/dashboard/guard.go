package dashboard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// contentPolicy lets a page load its own style, script, images and data, and nothing else from anywhere.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guard refuses callers from other machines and requests for a host name that is not ours (DNS rebinding), and sends the
// headers that keep a page to itself.
func (d *dashboard) guard(next http.Handler) http.Handler {
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
		case !fromLoopback(r.RemoteAddr):
			http.Error(w, "dashboard: only this machine may look, because no login is set up. Use an SSH tunnel.", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ownHost reports whether a Host header names this server: the loopback interface, or one of the configured names.
func (d *dashboard) ownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || d.hosts[host] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func fromLoopback(remote string) bool {
	addr, err := netip.ParseAddrPort(remote)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}
