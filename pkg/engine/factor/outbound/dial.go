package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
)

const (
	// minConnections is what an app can open however few files its process may.
	minConnections = 16
	// limitTimeout is how long a request waits for one of the app's connections to be closed.
	limitTimeout = 30 * time.Second
	// idleInterval is how often it looks meanwhile for one that is idle.
	idleInterval = time.Second
)

// dialer makes the connections of an app, not more than its limit at once.
type dialer struct {
	connect   func(ctx context.Context, network, addr string) (net.Conn, error)
	tls       func() *tls.Config
	slots     chan struct{} // full when no more connections may be made
	closeIdle func()        // closes connections that nobody uses
}

func newDialer(cfg Config, roots func() *x509.CertPool, closeIdle func()) *dialer {
	d := &dialer{connect: cfg.Dial, closeIdle: closeIdle}
	if d.connect == nil {
		d.connect = (&net.Dialer{Resolver: &net.Resolver{PreferGo: true}}).DialContext
	}
	limit := cfg.MaxConnections
	if limit <= 0 {
		limit = defaultLimit()
	}
	d.slots = make(chan struct{}, limit)
	// Certificates are parsed when the first of the app's requests needs them, which takes milliseconds.
	d.tls = sync.OnceValue(func() *tls.Config {
		return &tls.Config{RootCAs: roots(), NextProtos: []string{"h2", "http/1.1"}}
	})
	return d
}

// defaultLimit is half of the files that the process may open.
func defaultLimit() int {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return minConnections
	}
	return int(min(max(files.Cur/2, minConnections), 1<<20))
}

// requestKey is the key of the request's context in the context that a dial function gets.
type requestKey struct{}

// withRequest returns ctx, the context of a request, such that the dial for it ends when it does. [net/http] lets
// dials go on for the sake of later requests: guests could then leave any number of them behind.
func withRequest(ctx context.Context) context.Context {
	return context.WithValue(ctx, requestKey{}, ctx)
}

// untilRequestEnds returns a context for a dial function that got ctx.
func untilRequestEnds(ctx context.Context) (context.Context, func()) {
	request, ok := ctx.Value(requestKey{}).(context.Context)
	if !ok {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(request, cancel)
	return ctx, func() { stop(); cancel() }
}

// dial makes a connection.
func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, done := untilRequestEnds(ctx)
	defer done()
	return d.limited(ctx, network, addr)
}

// dialTLS makes a connection and performs the TLS handshake on it.
func (d *dialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, done := untilRequestEnds(ctx)
	defer done()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	conn, err := d.limited(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := d.tls().Clone()
	config.ServerName = host
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error says why
		return nil, err
	}
	return secure, nil
}

// limited makes a connection when there is a slot for it, and frees that with it.
func (d *dialer) limited(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := d.acquire(ctx); err != nil {
		return nil, err
	}
	conn, err := d.connect(ctx, network, addr)
	if err != nil {
		<-d.slots
		return nil, err
	}
	return &limitedConn{Conn: conn, free: sync.OnceFunc(func() { <-d.slots })}, nil
}

// acquire takes a slot. Where there is none it looks for idle connections, which are of no use to anybody else.
func (d *dialer) acquire(ctx context.Context) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	default:
	}
	end := time.NewTimer(limitTimeout)
	defer end.Stop()
	again := time.NewTicker(idleInterval)
	defer again.Stop()
	for {
		d.closeIdle()
		select {
		case d.slots <- struct{}{}:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return wasihttp.NewError(wasihttp.ConnectionLimitReached)
		}
	}
}

// limitedConn is a connection that has a slot until it is closed.
type limitedConn struct {
	net.Conn
	free func()
}

// Close closes the connection.
func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
