package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Bounds on connections, against clients that send their bytes one by one.
const (
	defaultHeaderPatience = 10 * time.Second
	idlePatience          = 2 * time.Minute
	maxHeaderBytes        = 64 << 10
)

// Serve serves the gateway on a listener until ctx ends; then it drains: /readyz fails, new connections are refused, and
// requests in flight have the given time to end before they are cut. It returns nil after a clean end, and an error when
// requests had to be cut or the listener failed.
func (s *Server) Serve(ctx context.Context, l net.Listener, grace time.Duration) error {
	web := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.headerPatience,
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
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
	err := web.Shutdown(ending)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(errors.New("gateway: requests were still in flight at the end of the grace period and were cut"), web.Close())
	}
	return err
}
