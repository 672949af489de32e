package wasihttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

const (
	// maxPending is how much of a body without content-length waits for more or for its end: a response that
	// is no larger leaves as one packet with its length.
	maxPending = 4 << 10
	// flushDelay bounds how long what the guest wrote waits, and headDelay how long a head waits without any of
	// its body. They leave earlier where the guest begins to wait for something of HTTP, or ends the body. A head
	// can wait longer, since alone it is of little use, and once it left an empty body has no length.
	flushDelay = 500 * time.Microsecond
	headDelay  = 20 * time.Millisecond
	// maxDrain is how large a body of a request may be, and drainTime how long the client may take for it, to be
	// read after the guest has returned, so that the connection can be kept. net/http has the same maxDrain.
	maxDrain  = 256 << 10
	drainTime = 500 * time.Millisecond
	// writeRoom is what the guest may write at once.
	writeRoom = 64 << 10
)

// The faults of an answer; [Proxy.Handle] says when.
var (
	// ErrNoResponse says that the guest returned without an answer.
	ErrNoResponse = errors.New("guest returned without a response")
	// ErrBodyUnfinished says that the guest left the body of its answer without finishing it.
	ErrBodyUnfinished = errors.New("guest did not finish the response's body")

	errContentLength = errors.New("guest's response has an invalid content-length")
)

// response is the answer to one request, on its way to the client. It is the [destination] of its body.
//
// Bytes go to the client at the end of the body, when there are more than maxPending, when the guest begins to
// wait, and flushDelay after they were written; see "When does a response leave?" in RATIONALE.md.
type response struct {
	r       *http.Request
	w       http.ResponseWriter
	control *http.ResponseController
	request *bodyReader

	flushDelay, headDelay time.Duration

	unwatch func() bool // stops watching the context; nil before the first write that may block

	// refused is why the guest has no answer, from its own mouth.
	refused error

	mu        sync.Mutex
	status    int           // guarded by mu; 0 before set
	length    int64         // guarded by mu: the content-length that the guest gave, or -1
	pending   []byte        // guarded by mu: the body so far; nil once it was committed
	written   int64         // guarded by mu: of the body, what HEAD does not send included
	committed bool          // guarded by mu: w has the head
	waits     time.Duration // guarded by mu: how long what was not flushed may wait; 0 if there is nothing
	timer     *time.Timer   // guarded by mu: of waits
	err       error         // guarded by mu: of writing
	ended     ended         // guarded by mu
	handled   bool          // guarded by mu: w is no longer ours

	controlling sync.Mutex
	done        bool // guarded by controlling: control is no longer ours
}

// responseOutparam is the representation of [ResponseOutparam].
type responseOutparam struct{ p *response }

func responseOutparamSet(c *engine.Call) error {
	p := engine.Rep[*responseOutparam](c).p
	if !c.Result() {
		p.refused = errorCode(c)
		return nil
	}
	return p.set(c.Context(), engine.Rep[*outgoingResponse](c))
}

// set makes o the answer.
func (p *response) set(ctx context.Context, o *outgoingResponse) error {
	defer o.drop()
	length, ok := o.length()
	if !ok {
		p.refused = errContentLength
		return nil
	}
	p.mu.Lock()
	h := p.w.Header()
	for _, e := range o.headers.entries {
		h.Add(e.name, e.value)
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else net/http guesses one
	}
	p.status, p.length = o.status, length
	p.later()
	p.mu.Unlock()
	if o.body == nil {
		if length > 0 && p.hasBody() {
			p.abort()
		} else {
			p.finish(nil)
		}
		return nil
	}
	o.sent = true
	return p.failed(o.body.attach(ctx, p))
}

// failed returns what of an error of writing ends the instance: that of the client does not.
func (p *response) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil
	}
	return err
}

// hasBody says whether the client gets a body.
func (p *response) hasBody() bool {
	return p.r.Method != http.MethodHead && p.status != http.StatusNoContent && p.status != http.StatusNotModified
}

// later makes sure that what was written leaves soon.
//
// +checklocks:p.mu
func (p *response) later() {
	d := p.flushDelay
	if p.written == 0 || !p.hasBody() {
		d = p.headDelay
	}
	if p.waits != 0 && p.waits <= d {
		return
	}
	p.waits = d
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.flush)
	} else {
		p.timer.Reset(d)
	}
}

// flush sends what was written.
func (p *response) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waits != 0 && !p.handled {
		p.flushLocked()
	}
}

// +checklocks:p.mu
func (p *response) flushLocked() {
	p.commit()
	p.waits = 0
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.err != nil {
		return
	}
	err := p.control.Flush()
	if errors.Is(err, http.ErrNotSupported) || p.r.Method == http.MethodHead {
		return // who cannot flush keeps nothing; and HTTP/2 ends the stream with a head that is all
	}
	p.err = err
}

// commit hands the head to net/http, and what is pending of the body.
//
// +checklocks:p.mu
func (p *response) commit() {
	if p.committed {
		return
	}
	p.committed = true
	if p.request.end() == nil {
		// The guest may read on while it writes. Recorders and HTTP/2 need not be asked.
		_ = p.control.EnableFullDuplex()
	}
	if p.r.ProtoMajor == 1 && !p.request.wanted() && !p.smallRequest() {
		p.w.Header().Set("Connection", "close") // so that the client need not send all of it
	}
	p.w.WriteHeader(p.status)
	pending := p.pending
	p.pending = nil
	if len(pending) > 0 {
		p.send(pending)
	}
}

// askForRequest makes a client go on that waits for "100 Continue" before it sends the body. net/http does so too, at
// the first read, but not once the head of the answer was sent: a guest that answers while it reads would then wait
// for a client that waits for it.
//
// Differences from the specification:
//   - HTTP/2 does not tell that a client waits; it goes by net/http.
func (p *response) askForRequest() {
	if p.r.ProtoMajor != 1 || !p.r.ProtoAtLeast(1, 1) || !strings.EqualFold(p.r.Header.Get("Expect"), "100-continue") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.committed {
		return
	}
	h := p.w.Header()
	own := maps.Clone(h)
	clear(h) // net/http sends with any head what there is
	p.w.WriteHeader(http.StatusContinue)
	maps.Copy(h, own)
}

// smallRequest says whether the body of the request is worth reading to keep the connection: it may be small, and
// the client sends it without being asked to.
func (p *response) smallRequest() bool {
	return p.r.ContentLength <= maxDrain && p.r.Header["Expect"] == nil // a length of -1 is unknown
}

// send hands b to net/http.
//
// +checklocks:p.mu
func (p *response) send(b []byte) {
	if p.err == nil {
		_, p.err = p.w.Write(b)
	}
}

// write implements [destination].
func (p *response) write(ctx context.Context, b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written += int64(len(b))
	switch {
	case p.err != nil:
	case !p.hasBody():
		if p.written > maxPending && !p.committed {
			p.commit() // so that HEAD has a content-length where GET has one
		}
	case !p.committed && p.length < 0 && len(p.pending)+len(b) <= maxPending:
		p.pending = append(p.pending, b...)
	default:
		if p.unwatch == nil {
			p.unwatch = context.AfterFunc(ctx, p.cutOff)
		}
		p.commit()
		p.send(b)
	}
	if p.err != nil {
		return NewError(ConnectionTerminated)
	}
	p.later()
	return nil
}

// finish implements [destination]: it sends the end where net/http can do that before the guest returns, which
// is where the length of the body is known.
func (p *response) finish(trailers http.Header) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = finished
	if p.err != nil {
		return
	}
	known := p.length >= 0
	if !p.committed && !known && len(trailers) == 0 {
		known = true
		if p.hasBody() || p.r.Method == http.MethodHead && p.written > 0 {
			p.w.Header().Set("Content-Length", strconv.FormatInt(p.written, 10))
		}
	}
	if len(trailers) > 0 {
		p.flushLocked() // else net/http gives the body a length, and it can have no trailers
		h := p.w.Header()
		for name, values := range trailers {
			h[http.TrailerPrefix+name] = values
		}
	} else if known {
		p.flushLocked()
	}
}

// abort implements [destination].
func (p *response) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = aborted
}

// Room implements [wasi.Pacer]: the guest waits for the client in write.
func (p *response) Room() int { return writeRoom }

// Ready implements [wasi.Pacer].
func (p *response) Ready() bool { return true }

// Watch implements [wasi.Pacer].
func (p *response) Watch(func()) (stop func()) { return func() {} }

// cutOff ends writes to the client that block.
func (p *response) cutOff() {
	p.withControl(func() { _ = p.control.SetWriteDeadline(time.Now()) }) // a recorder has none, and does not block
}

// interruptRequest ends a read from the client that blocks.
func (p *response) interruptRequest() { p.limitRequest(0) }

// limitRequest bounds the time of reads from the client.
func (p *response) limitRequest(d time.Duration) {
	p.withControl(func() {
		if p.control.SetReadDeadline(time.Now().Add(d)) != nil { // the request is not from the network
			_ = p.request.body.Close() // its error says nothing that the read does not
		}
	})
}

// withControl calls f unless the request has been handled.
func (p *response) withControl(f func()) {
	p.controlling.Lock()
	defer p.controlling.Unlock()
	if !p.done {
		f()
	}
}

// leaveRequest ends reading the request, and makes sure that net/http does not take what is left of its body for
// the next request; see "Why is a request's body read to its end after the guest?" in RATIONALE.md.
func (p *response) leaveRequest() {
	b := p.request
	b.leave()
	if p.r.ProtoMajor != 1 {
		if b.reads() {
			p.interruptRequest()
			b.settle()
		}
		return
	}
	if errors.Is(b.end(), io.EOF) {
		return
	}
	p.limitRequest(drainTime)
	if p.smallRequest() {
		b.drain(maxDrain)
	} else {
		b.settle()
	}
	if !errors.Is(b.end(), io.EOF) {
		closeConnection(p.w)
	}
}

// closeConnection makes net/http close the connection of w after the response, whether its head was sent or not.
// That is what MaxBytesReader says of itself, and nothing else can.
func closeConnection(w http.ResponseWriter) {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("too long")), 1).Read(make([]byte, 2))
}

// end is when the guest has returned, or failed with err. It returns the error of the request.
func (p *response) end(err error) error {
	p.mu.Lock()
	complete := p.ended == finished && p.err == nil
	if p.waits != 0 && !complete && p.err == nil {
		p.flushLocked() // what the guest sent before it failed
	}
	p.mu.Unlock()
	p.leaveRequest()
	if p.unwatch != nil {
		p.unwatch()
	}
	p.controlling.Lock()
	p.done = true
	p.controlling.Unlock()

	p.mu.Lock()
	defer p.mu.Unlock()
	p.handled = true
	if p.timer != nil {
		p.timer.Stop()
	}
	switch {
	case err != nil && (complete || p.committed && p.r.Method == http.MethodHead):
		// For HEAD the head was all; HTTP/2 may have ended the context with it.
		return &LateError{err}
	case err != nil:
		return err
	case p.refused != nil:
		return p.refused
	case p.status == 0:
		return ErrNoResponse
	case p.err != nil:
		return fmt.Errorf("write response: %w", p.err)
	case p.ended != finished:
		return ErrBodyUnfinished
	}
	return nil
}

// LateError says that the guest failed after its answer was complete: the answer stands.
type LateError struct{ Err error }

// Error returns what the guest failed with.
func (e *LateError) Error() string { return "after the response: " + e.Err.Error() }

// Unwrap returns what the guest failed with.
func (e *LateError) Unwrap() error { return e.Err }
