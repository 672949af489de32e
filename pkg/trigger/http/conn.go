package http

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// This file implements connections: how many there are, and how they end. A connection is quiet while nothing has
// arrived on it since it was accepted or the last response was sent. Only quiet connections are ended by the server of
// its own accord, and each has a moment in which a request may still arrive, so that no request is lost that a client
// has sent. For example, a draining server gives each quiet connection that moment, and answers on the others with
// "Connection: close".

// http2Preface begins a connection of HTTP/2.
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// listener accepts connections and knows those that are open. It implements [net.Listener].
type listener struct {
	*net.TCPListener
	timeouts timeouts
	log      *slog.Logger
	places   chan struct{} // one is taken by each connection
	closed   chan struct{} // closed when no more connections are accepted

	end      time.Time // when no more is taken from the kernel's queue; set before draining
	draining atomic.Bool
	crowded  atomic.Bool // a connection waits for a place, or for files

	mu   sync.Mutex
	open map[*conn]struct{} // guarded by mu
	gone sync.Cond          // on mu: a connection has left open, or has turned out to be HTTP/2
}

func newListener(tcp *net.TCPListener, t timeouts, limit int, log *slog.Logger) *listener {
	l := &listener{
		TCPListener: tcp, timeouts: t, log: log,
		places: make(chan struct{}, limit), closed: make(chan struct{}),
		open: map[*conn]struct{}{},
	}
	l.gone.L = &l.mu
	return l
}

// Accept waits for a connection, and for a place for it. It fails only when the listener is closed or has drained.
func (l *listener) Accept() (net.Conn, error) {
	if !l.takePlace() {
		return nil, net.ErrClosed
	}
	for backoff := time.Duration(0); ; {
		tcp, err := l.acceptTCP()
		if err == nil {
			l.crowded.Store(false)
			return l.add(tcp), nil
		}
		if l.draining.Load() || errors.Is(err, net.ErrClosed) {
			<-l.places
			return nil, net.ErrClosed
		}
		if backoff == 0 {
			l.log.Warn("no connections can be accepted for now", "err", err)
			l.crowd()
		}
		backoff = min(max(2*backoff, acceptBackoff), maxAcceptBackoff)
		select {
		case <-time.After(backoff):
		case <-l.closed:
		}
	}
}

// acceptTCP accepts a connection. Where the deadline of draining is over, it takes those that wait in the kernel's queue
// before it fails: the kernel resets them once the listener is closed, with the requests that they have sent.
func (l *listener) acceptTCP() (*net.TCPConn, error) {
	tcp, err := l.AcceptTCP()
	if !l.draining.Load() || !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(l.end) {
		return tcp, err
	}
	_ = l.SetDeadline(time.Now().Add(leftoverWait)) // fails only if closed
	return l.AcceptTCP()
}

// takePlace waits for a place; it reports false if there will be none.
func (l *listener) takePlace() bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	l.log.Debug("no place for another connection", "limit", cap(l.places))
	l.crowd()
	select {
	case l.places <- struct{}{}:
		return true
	case <-l.closed:
		return false
	}
}

func (l *listener) add(tcp *net.TCPConn) *conn {
	c := &conn{TCPConn: tcp, l: l, quiet: true, fresh: true, listening: true}
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.mu.Unlock()
	c.retire()
	return c
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[c]; ok {
		delete(l.open, c)
		<-l.places
		l.gone.Broadcast()
	}
}

// crowd makes quiet connections leave until there is a place.
func (l *listener) crowd() {
	l.crowded.Store(true)
	l.retire()
}

// drain makes quiet connections leave, now and from now on, and ends Accept when the kernel's queue is empty.
func (l *listener) drain() {
	l.end = time.Now().Add(2 * l.timeouts.retire)
	l.draining.Store(true)
	_ = l.SetDeadline(time.Now().Add(l.timeouts.retire)) // fails only if closed
	time.AfterFunc(l.timeouts.retire, func() { close(l.closed) })
	l.retire()
}

func (l *listener) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.retire()
	}
}

// wait waits until no connection is open but those that keep is true of.
func (l *listener) wait(keep func(*conn) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.anyBut(keep) {
		l.gone.Wait()
	}
}

// +checklocks:l.mu
func (l *listener) anyBut(keep func(*conn) bool) bool {
	for c := range l.open {
		if !keep(c) {
			return true
		}
	}
	return false
}

// conn is a client's connection. It implements [net.Conn]; net/http or its HTTP/2 uses it.
type conn struct {
	*net.TCPConn
	l *listener

	http2 atomic.Bool
	ended atomic.Bool // the client has sent all, or was cut off
	deaf  atomic.Bool // Read finds nothing more: where the next request begins is not known
	said  atomic.Bool // CloseWrite was called

	mu        sync.Mutex
	quiet     bool   // guarded by mu
	fresh     bool   // guarded by mu: it has had no response yet
	retired   bool   // guarded by mu: it is quiet and about to end
	listening bool   // guarded by mu: what arrives is a head
	head      []byte // guarded by mu: what has arrived of a head
	preface   int    // guarded by mu: how much of http2Preface has arrived; -1: something else has

	writeDeadline time.Time // guarded by mu: net/http's
}

// connKey is the key of a connection in the context of its requests.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection of a request in HTTP/1, or nil.
func connOf(r *http.Request) *conn {
	if r.ProtoMajor != 1 {
		return nil
	}
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// Read reads what the client sends.
func (c *conn) Read(p []byte) (int, error) {
	if c.deaf.Load() {
		return 0, io.EOF
	}
	n, err := c.TCPConn.Read(p)
	if n > 0 && c.arrived(p[:n]) {
		c.l.mu.Lock()
		c.l.gone.Broadcast()
		c.l.mu.Unlock()
	}
	if err != nil {
		if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
			c.ended.Store(true)
		}
	}
	return n, err
}

// arrived takes note of what the client has sent, and reports whether this made the connection one of HTTP/2.
func (c *conn) arrived(p []byte) (http2 bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired { // it was just in time, and has as long as any for the rest of its head
		_ = c.TCPConn.SetReadDeadline(time.Now().Add(c.l.timeouts.header))
	}
	c.quiet, c.retired = false, false
	for i := 0; i < len(p) && c.preface >= 0 && c.preface < len(http2Preface); i++ {
		if p[i] != http2Preface[c.preface] {
			c.preface = -1
			break
		}
		if c.preface++; c.preface == len(http2Preface) {
			c.listening, c.head = false, nil
			c.http2.Store(true)
			return true
		}
	}
	if c.listening && len(c.head) <= maxHeadSize {
		c.head = append(c.head, p...)
	}
	return false
}

// begin is called when a request in HTTP/1 has arrived. It returns what is known of the request's head, to be used
// before the response ends.
func (c *conn) begin() (head []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		_ = c.TCPConn.SetReadDeadline(time.Time{})
	}
	c.quiet, c.retired, c.listening = false, false, false
	return c.head
}

// answered is called when a response in HTTP/1 has been sent and the connection may bring another request.
func (c *conn) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quiet, c.fresh, c.listening = true, false, true
	if c.head = c.head[:0]; cap(c.head) > maxKeptHead {
		c.head = nil
	}
}

// retire ends the connection unless something arrives within a moment, or has, or the connection is not to leave.
func (c *conn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retireLocked()
}

// +checklocks:c.mu
func (c *conn) retireLocked() {
	if !c.quiet || c.retired || !c.l.draining.Load() && !c.l.crowded.Load() {
		return
	}
	c.retired = true
	moment := c.l.timeouts.retire
	if c.fresh && !c.l.draining.Load() {
		moment = c.l.timeouts.welcome
	}
	_ = c.TCPConn.SetReadDeadline(time.Now().Add(moment))
}

// SetReadDeadline sets until when Read waits.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retireLocked(); c.retired {
		return nil
	}
	return c.TCPConn.SetReadDeadline(t)
}

// Write sends p. It fails if the client takes none of it for too long.
func (c *conn) Write(p []byte) (n int, err error) {
	for {
		chunk := p[n:min(n+sendChunk, len(p))]
		c.extendWriteDeadline()
		written, err := c.TCPConn.Write(chunk)
		n += written
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// SetWriteDeadline sets until when Write waits at most.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeDeadline = t
	return c.TCPConn.SetWriteDeadline(t)
}

func (c *conn) extendWriteDeadline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Now().Add(c.l.timeouts.send)
	if w := c.writeDeadline; !w.IsZero() && w.Before(t) {
		t = w
	}
	_ = c.TCPConn.SetWriteDeadline(t) // fails only if closed
}

// CloseWrite ends what is sent to the client, and then discards what it sends until it ends too, or for so long that it
// must have read the response. See https://www.rfc-editor.org/rfc/rfc9112#section-9.6.
func (c *conn) CloseWrite() error {
	c.said.Store(true)
	if err := c.TCPConn.CloseWrite(); err != nil {
		return err
	}
	end := time.Now().Add(c.l.timeouts.lastWords)
	for buf := make([]byte, 8<<10); ; {
		wait := time.Now().Add(c.l.timeouts.lastWord)
		if wait.After(end) {
			wait = end
		}
		if err := c.TCPConn.SetReadDeadline(wait); err != nil {
			return err
		}
		if _, err := c.TCPConn.Read(buf); err != nil {
			c.ended.Store(true)
			return nil
		}
	}
}

// Close ends the connection: in HTTP/1 with CloseWrite if the client may still be sending.
func (c *conn) Close() error {
	c.mu.Lock()
	quiet := c.quiet
	c.mu.Unlock()
	if !quiet && !c.http2.Load() && !c.ended.Load() && !c.said.Load() {
		_ = c.CloseWrite()
	}
	err := c.TCPConn.Close()
	c.l.remove(c)
	return err
}

// abort makes the coming Close one that the client cannot take for the end of a response. Where the end of the
// connection is the end of the response, that takes a reset.
func (c *conn) abort(reset bool) {
	c.ended.Store(true)
	c.deaf.Store(true)
	if reset {
		_ = c.SetLinger(0)
	}
}
