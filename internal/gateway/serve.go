package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Bounds on connections, against clients that send their bytes one by one.
const (
	defaultHeaderPatience = 10 * time.Second
	idlePatience          = 2 * time.Minute
	maxHeaderBytes        = 64 << 10
)

// lastRequests is how long connections that are kept alive may send one more request after a stop: it is answered and told that the
// connection ends. A connection that is closed while a request is on its way to it is an error in the app.
const lastRequests = 300 * time.Millisecond

// Serve serves the gateway on a listener until ctx ends; then it drains: /readyz fails, new connections are refused, requests on
// those that are there are answered as the last ones, and requests in flight have the given time to end before they are cut. It
// returns nil after a clean end, and an error when requests had to be cut or the listener failed.
func (s *Server) Serve(ctx context.Context, l net.Listener, grace time.Duration) error {
	var connections atomic.Int64
	web := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.draining.Load() {
				w.Header().Set("Connection", "close")
			}
			s.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: s.headerPatience,
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed, http.StateHijacked:
				connections.Add(-1)
			}
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.Drain()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	_ = l.Close() // what waits to be accepted is refused, or somebody else's who has the same listener
	<-failed
	last := time.Now().Add(min(lastRequests, grace/2))
	for connections.Load() > 0 && time.Now().Before(last) {
		time.Sleep(5 * time.Millisecond)
	}
	err := web.Shutdown(ending)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(errors.New("gateway: requests were still in flight at the end of the grace period and were cut"), web.Close())
	}
	return err
}
