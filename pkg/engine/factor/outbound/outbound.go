// Package outbound lets components send HTTP requests, within their allowed_outbound_hosts.
//
// outbound.go decides which request may be sent, dial.go makes connections, roots.go finds the certificates of
// those that may be trusted. What a guest sends is what leaves: no redirect is followed, no body decoded, no proxy
// asked (the environment is the app's and says nothing about the node's network), no header added but Host and
// those that frame a body.
package outbound

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

const (
	// maxIdle bounds the idle connections of a component: to all hosts and, since most components talk to one
	// or two, to one host. They are closed after idleTimeout, which is shorter than what servers commonly allow.
	maxIdle, maxIdlePerHost = 64, 32
	idleTimeout             = 50 * time.Second
	// pingAfter and pingTimeout find dead connections of HTTP/2, which many requests share.
	pingAfter, pingTimeout = 30 * time.Second, 15 * time.Second
	// continueTimeout is how long a request with `Expect: 100-continue` waits before it sends its body.
	continueTimeout = time.Second
	// maxResponseHeader bounds the bytes of a response's head while it is read; wasihttp allows guests as much.
	maxResponseHeader = 256 << 10
	// maxDenialsLogged bounds the destinations that are logged as denied for a component: guests choose them.
	maxDenialsLogged = 16
)

// chainingDomain is the domain of the names that components of an app have among themselves.
const chainingDomain = "spin.internal"

// Config says how requests reach the network. The zero value is what a host wants.
type Config struct {
	// Dial makes a TCP connection; nil is a [net.Dialer] with Go's own resolver, which reads /etc/resolv.conf
	// and /etc/hosts again when they change.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// RootCAs are the authorities to trust; nil are those of the environment, see [New].
	RootCAs *x509.CertPool
	// MaxConnections bounds the open connections of the app; 0 is half of the files that the process may open,
	// so that the other half is there for who sends requests to the app.
	MaxConnections int
	// Log gets a line for each destination that is denied, at most [maxDenialsLogged] for a component; nil
	// discards it.
	Log *slog.Logger
}

// Outbound sends the requests of one app's components. It is safe for concurrent use.
type Outbound struct {
	resolver factor.Resolver
	dialer   *dialer
	log      *slog.Logger

	mu      sync.Mutex
	clients []*client // guarded by mu
}

// New returns the outbound HTTP of app. r resolves templates in allowed_outbound_hosts. If a component may send
// requests, New reads all that is needed to check certificates: the files that SSL_CERT_FILE and SSL_CERT_DIR name,
// else the system's bundle, else Mozilla's, which is built in.
func New(app *lockedapp.App, r factor.Resolver, cfg Config) (*Outbound, error) {
	o := &Outbound{resolver: r, log: cfg.Log}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	roots := func() *x509.CertPool { return cfg.RootCAs }
	if cfg.RootCAs == nil && slices.ContainsFunc(app.Components, func(c lockedapp.Component) bool {
		return len(c.Metadata.AllowedOutboundHosts) > 0
	}) {
		var err error
		if roots, err = readRoots(os.LookupEnv, bundleFiles, bundleFolders); err != nil {
			return nil, fmt.Errorf("outbound HTTP: trusted certificates: %w", err)
		}
	}
	o.dialer = newDialer(cfg, roots, o.closeIdle)
	return o, nil
}

// Client returns the client of component c of the app. It refuses entries of allowed_outbound_hosts that are
// invalid as they stand; if one cannot be resolved, or is invalid then, every request of the component is denied,
// as Spin does it.
func (o *Outbound) Client(c *lockedapp.Component) (wasihttp.Client, error) {
	entries, err := factor.ParseAllowedHosts(c.Metadata.AllowedOutboundHosts)
	if err != nil {
		return nil, err
	}
	cl := &client{
		entries:  entries,
		resolver: o.resolver,
		log:      o.log.With("component", c.ID),
		denied:   make(map[string]bool),
		// Each component has connections of its own, so that none sees what another's have been used for.
		transport: &http.Transport{
			DialContext:            o.dialer.dial,
			DialTLSContext:         o.dialer.dialTLS,
			ForceAttemptHTTP2:      true,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
			DisableCompression:     true,
			MaxIdleConns:           maxIdle,
			MaxIdleConnsPerHost:    maxIdlePerHost,
			IdleConnTimeout:        idleTimeout,
			ExpectContinueTimeout:  continueTimeout,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
	}
	if _, err := cl.allowed(context.Background()); err != nil {
		cl.log.Error("outbound requests will be denied", "err", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clients = append(o.clients, cl)
	return cl, nil
}

// Close closes connections that are not in use; those in use end with their requests.
func (o *Outbound) Close() error {
	o.closeIdle()
	return nil
}

func (o *Outbound) closeIdle() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.clients {
		c.transport.CloseIdleConnections()
	}
}

// client is the [wasihttp.Client] of a component.
type client struct {
	entries   factor.AllowedHosts
	resolver  factor.Resolver
	resolved  atomic.Pointer[factor.AllowedHosts] // nil until the resolver has resolved entries
	transport *http.Transport
	log       *slog.Logger

	mu     sync.Mutex
	denied map[string]bool // guarded by mu; what was logged
}

// Send implements [wasihttp.Client].
func (c *client) Send(r *http.Request, _ wasihttp.SendOptions) (*http.Response, error) {
	if err := c.check(r); err != nil {
		return nil, err
	}
	return c.transport.RoundTrip(r.WithContext(withRequest(r.Context())))
}

// check says why a request must not be sent.
func (c *client) check(r *http.Request) error {
	allowed, err := c.allowed(r.Context())
	if err != nil {
		return c.deny(r)
	}
	host := strings.ToLower(r.URL.Hostname())
	if host == "" || host == "self.alt" {
		if !allowed.AllowsSelf("http", "https") {
			return c.deny(r)
		}
		// What Spin answers where it does not know the address of the app.
		return wasihttp.NewError(wasihttp.HTTPRequestURIInvalid)
	}
	if r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return wasihttp.NewError(wasihttp.HTTPProtocolError)
	}
	var port uint64
	if p := r.URL.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return wasihttp.NewError(wasihttp.HTTPRequestURIInvalid)
		}
	}
	if !allowed.Allows(r.URL.Scheme, host, uint16(port)) {
		return c.deny(r)
	}
	if _, domain, _ := strings.Cut(host, "."); domain == chainingDomain {
		return &wasihttp.ErrorCode{Case: wasihttp.InternalError, Text: "requests to other components are not supported"}
	}
	return nil
}

// allowed returns what the component may reach.
func (c *client) allowed(ctx context.Context) (factor.AllowedHosts, error) {
	if a := c.resolved.Load(); a != nil {
		return *a, nil
	}
	a, err := c.entries.Resolve(ctx, c.resolver)
	if err != nil {
		return factor.AllowedHosts{}, err
	}
	c.resolved.Store(&a)
	return a, nil
}

// deny returns the error of a request that is not allowed, and says once what is missing.
func (c *client) deny(r *http.Request) error {
	destination := "self"
	if r.URL.Host != "" {
		destination = fmt.Sprintf("%s://%.300s", r.URL.Scheme, r.URL.Host)
	}
	c.mu.Lock()
	first := !c.denied[destination] && len(c.denied) < maxDenialsLogged
	if first {
		c.denied[destination] = true
	}
	c.mu.Unlock()
	if first {
		c.log.Warn("outbound request denied: not in allowed_outbound_hosts", "destination", destination)
	}
	return wasihttp.NewError(wasihttp.HTTPRequestDenied)
}
