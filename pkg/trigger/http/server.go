// Package http is the HTTP trigger: it serves a Spin app's components over HTTP/1.1 and HTTP/2 without TLS.
//
// A request passes through these steps, in [Server.ServeHTTP]:
//
//	check    is it a request for an origin server, and clear where it ends (request.go)
//	route    which component's is it (route.go, order.go, router.go)
//	tell     the component in headers what Spin tells (headers.go)
//	call     a fresh instance of the component (package engine, package wasihttp)
//	conclude a status, a broken connection and a log line if that failed (status.go)
//
// How many connections there are and how they end is in conn.go, limits and their reasons are in limits.go. See
// "Why are routes kept in a B-tree?" in RATIONALE.md, and what follows there.
package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// wellKnown is what the paths begin with that no component gets.
const wellKnown = "/.well-known/spin/"

// Config says what a [Server] serves.
type Config struct {
	// Listen is the address to listen on, host:port.
	Listen string
	App    *lockedapp.App
	// Components are the app's components that HTTP triggers call, by id.
	Components map[string]Component
	// Log gets one line for each request that failed by a component's fault. nil discards them.
	Log *slog.Logger
	// MaxRequests is how many requests components work on at once; more are answered with 503. 0 means 1000.
	MaxRequests int
	// MaxConnections is how many connections there are at once; more wait. 0 means 4096, or half of the files that
	// the process may open if that is less.
	MaxConnections int
}

// Component is a component that handles HTTP.
type Component struct {
	Pre   *engine.InstancePre
	Proxy *wasihttp.Proxy
}

// handler answers the requests of one component. The error is one of [wasihttp.Proxy.Handle].
type handler interface {
	handle(w http.ResponseWriter, r *http.Request) error
}

// Server is the HTTP trigger of one app.
type Server struct {
	config   Config
	log      *slog.Logger
	router   *router
	info     []byte        // the answer to /.well-known/spin/info
	requests chan struct{} // one is held by each request that a component works on
	timeouts timeouts
	listener *listener
}

// New returns a server for cfg.App. It does not listen yet.
func New(cfg Config) (*Server, error) {
	return newServer(cfg, func(id string) (handler, bool) {
		c, ok := cfg.Components[id]
		return c, ok
	})
}

func newServer(cfg Config, handlerOf func(component string) (handler, bool)) (*Server, error) {
	s := &Server{config: cfg, log: cfg.Log, timeouts: defaultTimeouts}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxRequests == 0 {
		cfg.MaxRequests = defaultMaxRequests
	}
	s.requests = make(chan struct{}, cfg.MaxRequests)
	if err := checkMetadata(cfg.App); err != nil {
		return nil, err
	}
	var routes []*route
	for i := range cfg.App.Triggers {
		t := &cfg.App.Triggers[i]
		if t.Type != triggerType {
			continue
		}
		r, err := newRoute(t, handlerOf)
		if err != nil {
			return nil, fmt.Errorf("trigger %q: %w", t.ID, err)
		}
		if r != nil {
			routes = append(routes, r)
		}
	}
	s.route(routes)
	info, err := appInfo(cfg.App)
	s.info = info
	return s, err
}

// newRoute returns the route of a trigger, or nil if the trigger is private.
func newRoute(t *lockedapp.Trigger, handlerOf func(component string) (handler, bool)) (*route, error) {
	c, err := decodeTrigger(t)
	if err != nil {
		return nil, err
	}
	to := target{static: c.Static}
	if c.Component != nil {
		h, ok := handlerOf(*c.Component)
		if !ok {
			return nil, fmt.Errorf("component %q handles no HTTP", *c.Component)
		}
		to.component, to.handler = *c.Component, h
	}
	if c.Route.private {
		return nil, nil
	}
	r, err := parseRoute(c.Route.pattern)
	if err != nil {
		return nil, err
	}
	r.target = to
	return r, nil
}

// route makes the router, and warns of routes that are never used.
func (s *Server) route(routes []*route) {
	t, replaced, by := newRouter(routes)
	for i, r := range replaced {
		s.log.Warn("route is used twice, the last one counts", "route", r.raw, "component", by[i].target.component, "unused", r.target.component)
	}
	for _, r := range t.routes {
		if strings.HasPrefix(r.full, wellKnown) {
			s.log.Warn("route is reserved and never used", "route", r.raw, "component", r.target.component)
		}
	}
	s.router = t
}

// appInfo is what the server tells about the app.
func appInfo(app *lockedapp.App) ([]byte, error) {
	return json.MarshalIndent(struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
		Digest  string `json:"oci_image_digest,omitempty"`
	}{app.Metadata.Name, app.Metadata.Version, app.Metadata.OCIImageDigest.String()}, "", "  ")
}

// Listen binds the address. From then on connections are accepted by the kernel; Serve answers them.
func (s *Server) Listen(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		reason := err
		if e, ok := errors.AsType[*os.SyscallError](err); ok {
			reason = e.Err
		}
		return fmt.Errorf("listen on %s: %w", s.config.Listen, reason)
	}
	limit := s.config.MaxConnections
	if limit == 0 {
		limit = connectionLimit()
	}
	s.listener = newListener(l.(*net.TCPListener), s.timeouts, limit, s.log)
	return nil
}

// Addr returns the address that Listen has bound.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers requests until ctx ends. Then it accepts no more connections, answers the requests that have arrived,
// each as the last of its connection, and returns nil when no connection is left; how long that takes is up to components
// and clients.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler:                      s,
		Protocols:                    new(http.Protocols),
		ReadHeaderTimeout:            s.timeouts.header,
		IdleTimeout:                  s.timeouts.idle,
		MaxHeaderBytes:               maxHeadSize,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnContext:                  withConn,
		ConnState:                    connState,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	defer context.AfterFunc(ctx, s.listener.drain)()
	if err := server.Serve(s.listener); ctx.Err() == nil {
		return fmt.Errorf("serve HTTP on %s: %w", s.Addr(), err)
	}
	// Shutdown drops requests of HTTP/1 that it finds half read: it must not begin before the last is answered.
	// All that is left for it is to tell idle clients of HTTP/2 to go.
	s.listener.wait(func(c *conn) bool { return c.http2.Load() })
	_ = server.Shutdown(ctx) // which has ended: Shutdown does not wait
	s.listener.wait(func(*conn) bool { return false })
	return nil
}

// connState tells a connection of HTTP/1 that a response has been sent.
func connState(nc net.Conn, state http.ConnState) {
	if c, ok := nc.(*conn); ok && state == http.StateIdle && !c.http2.Load() {
		c.answered()
	}
}

// ServeHTTP answers one request. It is called by net/http, for many requests at once.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var raw []byte
	c := connOf(r)
	if c != nil {
		raw = c.begin()
	}
	a := &answer{ResponseWriter: w}
	if r.ProtoMajor != 1 {
		a.send = s.timeouts.send
	}
	if r.Body == http.NoBody {
		s.serve(a, r, raw)
		return
	}
	b := newBody(r, a, s.timeouts.body)
	s.serve(a, b.request, raw)
	if c != nil {
		s.finish(c, a, b)
	}
}

// serve is the path of a request.
func (s *Server) serve(a *answer, r *http.Request, raw []byte) {
	a.last = func() bool { return r.Close || s.listener.draining.Load() || s.listener.crowded.Load() }
	path, refusal := checkRequest(r, raw)
	switch {
	case refusal != 0:
		a.refuse(refusal)
		return
	case r.RequestURI == "*":
		a.status(http.StatusOK)
		return
	case strings.HasPrefix(path, wellKnown):
		s.serveWellKnown(a, path)
		return
	}

	var room [8]string
	route, captures := s.router.match(path, room[:0])
	switch {
	case route == nil:
		a.status(http.StatusNotFound)
		return
	case route.target.static != nil:
		route.target.static.serve(a)
		return
	}

	select {
	case s.requests <- struct{}{}:
		defer func() { <-s.requests }()
	default:
		a.busy()
		return
	}
	stripHeaders(r.Header)
	route.setHeaders(r, path, captures)
	s.conclude(a, r, route, route.target.handler.handle(a, r))
}

// handle calls a fresh instance of the component.
func (c Component) handle(w http.ResponseWriter, r *http.Request) error {
	i, err := c.Pre.Instantiate(r.Context())
	if err != nil {
		return fmt.Errorf("instantiate: %w", err)
	}
	err = c.Proxy.Handle(i, w, r)
	if closeErr := i.Close(); err == nil && closeErr != nil {
		err = &wasihttp.LateError{Err: closeErr}
	}
	return err
}

// finish ends the exchange of a request in HTTP/1 whose body may not have been read to its end. Nothing may wait for
// the client any more than for a moment.
func (s *Server) finish(c *conn, a *answer, b *body) {
	if b.ended.Load() {
		return
	}
	_ = b.control.EnableFullDuplex() // else the response's head waits for the request's body
	_ = a.FlushError()
	waits := b.request.Header.Get("Expect") != "" && !b.begun.Load() // for "100 Continue", which reading would send
	if waits || !b.drain(s.timeouts.drain) {
		c.deaf.Store(true)
		closeAfter(a.ResponseWriter)
	}
}

// closeAfter makes net/http close the connection of w, which is its own, after the response, even if the head has been
// sent. That is what MaxBytesReader does when it finds too much; there is no other way.
func closeAfter(w http.ResponseWriter) {
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, io.NopCloser(strings.NewReader("too much")), 1))
}

// serveWellKnown answers what the server itself is asked.
func (s *Server) serveWellKnown(a *answer, path string) {
	switch strings.TrimPrefix(path, wellKnown) {
	case "health":
		a.document("text/plain; charset=utf-8", []byte("OK"))
	case "info":
		a.document("application/json", s.info)
	default:
		a.status(http.StatusNotFound)
	}
}

// serve answers with what the app's configuration says.
func (s *staticResponse) serve(a *answer) {
	h := a.Header()
	for name, value := range s.Headers {
		h.Set(name, value)
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else net/http guesses one
	}
	a.content(s.Status, []byte(s.Body))
}
