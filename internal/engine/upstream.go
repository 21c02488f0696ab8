package engine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"occam/internal/openai"
)

// Options describe one upstream server.
type Options struct {
	Name      string // as the configuration calls it
	Kind      string // OpenAI (or ""), Azure or Anthropic
	PricedAs  string // its name in the price book; "": Name
	BaseURL   string // up to and with the version: https://api.openai.com/v1
	Key       string // "" or "none": no Authorization header
	Messages  bool   // speaks Anthropic's messages too, whatever its Kind: those are passed through
	Simulated bool   // everything that comes from it is labelled so
	Hosted    bool   // its hardware is rented by the hour: its tokens cost nothing more
	Timeouts  Timeouts
}

// Timeouts bound one exchange. A zero field takes its default.
type Timeouts struct {
	Connect   time.Duration // default 5 s
	FirstByte time.Duration // default 60 s
	Idle      time.Duration // default 60 s: silence in the middle of a reply
	Total     time.Duration // default 10 min
	Silence   time.Duration // default 25 s: a peer that acknowledges nothing for so long is gone; in whole seconds, at least 5
}

func (t Timeouts) complete() Timeouts {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.Connect, 5*time.Second)
	set(&t.FirstByte, 60*time.Second)
	set(&t.Idle, 60*time.Second)
	set(&t.Total, 10*time.Minute)
	set(&t.Silence, 25*time.Second)
	return t
}

// alive finds out in so much time that nobody is there any more: silence for two fifths of it, then three questions without an answer.
func (t Timeouts) alive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 2 * t.Silence / 5, Interval: t.Silence / 5, Count: 3}
}

// An Upstream is one OpenAI-compatible server. Its key goes to its own origin and nowhere else: no request can name another
// destination, and redirects are never followed.
type Upstream struct {
	Name      string
	PricedAs  string
	Simulated bool
	Hosted    bool

	kind      string
	messages  bool
	base      *url.URL
	auth      http.Header // what proves who sends
	timeouts  Timeouts
	transport *http.Transport
	gates     sync.Map // model → *gate
	models    atomic.Int64
	shared    gate // of the models beyond maxGates
}

// maxGates bounds how many models of an upstream are watched one by one; a pass-through request may name any.
const maxGates = 256

// gate is the state of one model here.
func (u *Upstream) gate(model string) *gate {
	if g, ok := u.gates.Load(model); ok {
		return g.(*gate)
	}
	if u.models.Add(1) > maxGates {
		return &u.shared
	}
	g, _ := u.gates.LoadOrStore(model, new(gate))
	return g.(*gate)
}

// idleConns is how many idle connections an upstream keeps: a burst should not pay a handshake per request afterwards.
const idleConns = 1024

// NewUpstream checks the options and returns the upstream. It opens no connection.
func NewUpstream(o Options) (*Upstream, error) {
	base, err := url.Parse(strings.TrimSuffix(o.BaseURL, "/"))
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.User != nil || base.Fragment != "" {
		return nil, fmt.Errorf("engine: provider %s: base_url must be http(s)://host[:port]/path, without a user and password", o.Name)
	}
	if o.Kind != "" && o.Kind != OpenAI && o.Kind != Azure && o.Kind != Anthropic {
		return nil, fmt.Errorf("engine: provider %s: type %q must be openai, azure or anthropic", o.Name, o.Kind)
	}
	u := &Upstream{Name: o.Name, PricedAs: cmp.Or(o.PricedAs, o.Name), kind: cmp.Or(o.Kind, OpenAI), messages: o.Messages, Simulated: o.Simulated, Hosted: o.Hosted, base: base, timeouts: o.Timeouts.complete()}
	if o.Key != "" && o.Key != "none" {
		if strings.ContainsFunc(o.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("engine: provider %s: api_key has white space or non-ASCII characters", o.Name)
		}
		u.auth = authorization(o)
	}
	alive := u.timeouts.alive()
	dialer := &net.Dialer{Timeout: u.timeouts.Connect, KeepAliveConfig: alive, Control: guard(privateHost(base.Hostname()), u.timeouts.Silence)}
	u.transport = &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    u.timeouts.Connect,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           idleConns,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // what comes back is passed on as it is; nothing is inflated
		MaxResponseHeaderBytes: 64 << 10,
		WriteBufferSize:        8 << 10,
		ReadBufferSize:         8 << 10,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: alive.Idle, PingTimeout: alive.Interval * time.Duration(alive.Count)},
	}
	return u, nil
}

func authorization(o Options) http.Header {
	switch o.Kind {
	case Azure:
		return http.Header{"Api-Key": {o.Key}}
	case Anthropic:
		return http.Header{"X-Api-Key": {o.Key}}
	}
	return http.Header{"Authorization": {"Bearer " + o.Key}}
}

// Kind is the kind of server: OpenAI, Azure or Anthropic.
func (u *Upstream) Kind() string { return u.kind }

// Close drops the idle connections.
func (u *Upstream) Close() { u.transport.CloseIdleConnections() }

var errForbiddenAddress = errors.New("link-local and metadata addresses are never dialled, private ones only when base_url names them")

// guard looks at the address that is dialled, and bounds how long sent bytes may stay unacknowledged, where the system can do that.
func guard(private bool, silence time.Duration) func(network, address string, c syscall.RawConn) error {
	allowed := guardAddress(private)
	return func(network, address string, c syscall.RawConn) error {
		if err := allowed(network, address, c); err != nil {
			return err
		}
		return limitUnacknowledged(c, silence)
	}
}

// shared is the address range of carriers and clouds, where some keep their metadata; embedded is IPv4 inside of IPv6.
var (
	shared   = netip.MustParsePrefix("100.64.0.0/10")
	embedded = netip.MustParsePrefix("64:ff9b::/96")
)

// guardAddress looks at the address that is really dialled, after name resolution, so that no name can lead elsewhere later.
func guardAddress(private bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		ip := at.Addr().Unmap()
		if embedded.Contains(ip) {
			b := ip.As16()
			ip = netip.AddrFrom4([4]byte(b[12:]))
		}
		forbidden := ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() ||
			(!private && (ip.IsPrivate() || ip.IsLoopback() || shared.Contains(ip)))
		if forbidden {
			return errForbiddenAddress
		}
		return nil
	}
}

// privateHost reports whether a host's name says that it stands in the own network: an address, localhost, a single label
// (a container's or a machine's name) or one of the endings kept for private networks.
func privateHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	for _, ending := range []string{".localhost", ".local", ".internal", ".lan", ".svc", ".home.arpa", ".test"} {
		if strings.HasSuffix(host, ending) {
			return true
		}
	}
	return false
}

func isTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &verify) || errors.As(err, &record) || errors.As(err, &unknown)
}

// A Call is one request to an upstream.
type Call struct {
	API    openai.API  // shape of the body; "" for what is passed on without knowing it
	Method string      // "" is POST
	Path   string      // below the base URL: "/chat/completions"
	Query  string      // without the question mark
	Header http.Header // already reduced to what may be sent on
	Body   []byte
	Upload io.Reader // sent instead of Body while it is read, Size bytes; only as it is, never translated
	Size   int64
}

// A Reply is what an upstream answered. Body must be closed. Reads from it fail with a *Failure.
type Reply struct {
	Status int
	Header http.Header
	Length int64 // of the body, -1 if unknown
	Usage  bool  // it was translated: as a stream it ends with usage, asked for or not
	Body   io.ReadCloser
}

// Finish reads the little that a stream may still send after its end mark, so that its connection can be used again.
func (r *Reply) Finish() {
	b, ok := r.Body.(*watchedBody)
	if !ok {
		return
	}
	b.dog.hurry(finishPatience)
	_, _ = io.CopyN(io.Discard, b.ReadCloser, 1<<10) // whatever goes wrong, Close follows
}

const finishPatience = 100 * time.Millisecond

// Send makes one exchange. A reply with any status is a Reply; the error is always a *Failure.
func (u *Upstream) Send(ctx context.Context, c *Call) (*Reply, error) {
	prepared, translation, err := u.prepare(c)
	if err != nil {
		return nil, err
	}
	reply, err := u.exchange(ctx, prepared)
	if err != nil {
		return nil, err
	}
	if translation == nil {
		return reply, nil
	}
	if err := u.translate(translation, reply); err != nil {
		_ = reply.Body.Close()
		return nil, err
	}
	return reply, nil
}

// exchange sends a call as it is.
func (u *Upstream) exchange(ctx context.Context, c *Call) (*Reply, error) {
	ctx, dog := newWatchdog(ctx, u.timeouts)
	at := *u.base
	at.Path, at.RawQuery = at.Path+c.Path, c.Query
	req := (&http.Request{
		Method: c.Method, URL: &at, Host: u.base.Host, Header: c.Header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: int64(len(c.Body)),
	}).WithContext(ctx)
	if req.Method == "" {
		req.Method = http.MethodPost
	}
	if len(c.Body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(c.Body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.Body)), nil }
	}
	if c.Upload != nil {
		req.ContentLength, req.Body = c.Size, io.NopCloser(&fedReader{c.Upload, dog})
	}
	for name, value := range u.auth {
		req.Header[name] = value
	}
	if u.kind == Anthropic && req.Header["Anthropic-Version"] == nil {
		req.Header["Anthropic-Version"] = []string{anthropicVersion}
	}
	if key, ok := req.Header["Idempotency-Key"]; ok { // spelled so, the transport would send the call again by itself: one that no row stands for
		delete(req.Header, "Idempotency-Key")
		req.Header["idempotency-key"] = key
	}
	res, err := u.transport.RoundTrip(req)
	if err != nil {
		failure := u.failure(ctx, err)
		dog.stop()
		return nil, failure
	}
	dog.feed()
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		_ = res.Body.Close()
		dog.stop()
		return nil, &Failure{Upstream: u.Name, Kind: Rubbish,
			Err: fmt.Errorf("it answered with a redirect (%d); redirects are not followed, fix base_url", res.StatusCode)}
	}
	return &Reply{Status: res.StatusCode, Header: res.Header, Length: res.ContentLength,
		Body: &watchedBody{ReadCloser: res.Body, ctx: ctx, upstream: u, dog: dog}}, nil
}

// A watchdog cancels an exchange that does not get on: one timer for the first byte, the silence in between and the total. Bytes come
// often and the timer goes off hardly ever, so it is not put off with each of them: it looks when the last ones came.
type watchdog struct {
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	began    time.Time
	fed      atomic.Int64 // nanoseconds from began to the last bytes; 0: there were none
	idle     time.Duration
	total    time.Duration
	hurrying atomic.Bool
}

func newWatchdog(ctx context.Context, t Timeouts) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	d := &watchdog{cancel: cancel, idle: t.Idle, total: t.Total, began: time.Now()}
	d.timer = time.AfterFunc(min(t.FirstByte, t.Total), d.bite)
	return ctx, d
}

// bite ends the exchange, unless bytes came since the timer was set.
func (d *watchdog) bite() {
	fed, age := time.Duration(d.fed.Load()), time.Since(d.began)
	switch left := min(fed+d.idle, d.total) - age; {
	case d.hurrying.Load():
		d.cancel(errIdle)
	case age >= d.total:
		d.cancel(errTotal)
	case fed == 0:
		d.cancel(errFirstByte)
	case left > 0:
		d.timer.Reset(left)
	default:
		d.cancel(errIdle)
	}
}

// feed says that bytes came.
func (d *watchdog) feed() {
	age := max(time.Since(d.began), 1)
	if d.fed.Swap(int64(age)) == 0 {
		d.timer.Reset(max(min(d.idle, d.total-age), 0))
	}
}

// A fedReader feeds the watchdog while an upload gets on: no first byte can come before its end.
type fedReader struct {
	io.Reader
	dog *watchdog
}

func (r *fedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.dog.feed()
	return n, err
}

// hurry leaves the exchange only a little time.
func (d *watchdog) hurry(wait time.Duration) {
	d.hurrying.Store(true)
	d.timer.Reset(wait)
}

func (d *watchdog) stop() {
	d.timer.Stop()
	d.cancel(context.Canceled)
}

// A watchedBody feeds the watchdog with every read and explains why a read failed.
type watchedBody struct {
	io.ReadCloser
	ctx      context.Context
	upstream *Upstream
	dog      *watchdog
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
	case err != nil:
		err = b.upstream.failure(b.ctx, err)
	default:
		b.dog.feed()
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.dog.stop()
	return err
}
