package wasihttp

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"sync"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
)

// errBodyAborted is what the client reads of a body that the guest did not finish.
var errBodyAborted = errors.New("guest dropped the request's body before its end")

// pipe carries the body of an outgoing request from the guest, as its [destination], to the goroutine of the
// HTTP client, as an [io.ReadCloser]. It holds at most maxEarlyBody bytes.
type pipe struct {
	// trailers is the request's Trailer; nil if it can have none. It is filled in by the Read that returns io.EOF,
	// which is when net/http allows that.
	trailers http.Header
	idle     func() // called where the guest is about to wait

	mu         sync.Mutex
	readable   sync.Cond   // of mu: bytes came, or the end
	buf        []byte      // guarded by mu
	start, end int         // guarded by mu: what of buf was not read
	last       error       // guarded by mu: what the reader gets after the bytes
	finished   http.Header // guarded by mu: the trailers that the guest gave
	closed     bool        // guarded by mu: nobody reads any more
	room       wasi.Signal
}

func newPipe(idle func()) *pipe {
	p := &pipe{idle: idle}
	p.readable.L = &p.mu
	p.room.Set(true)
	return p
}

// Read implements [io.Reader].
func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.start == p.end && p.last == nil && !p.closed {
		p.readable.Wait()
	}
	switch {
	case p.closed:
		return 0, http.ErrBodyReadAfterClose
	case p.start == p.end:
		if p.trailers != nil {
			maps.Copy(p.trailers, p.finished)
			p.finished = nil
		}
		return 0, p.last
	}
	n := copy(b, p.buf[p.start:p.end])
	p.start += n
	if p.start == p.end {
		p.start, p.end = 0, 0
	}
	p.room.Set(true)
	return n, nil
}

// Close implements [io.Closer]: the client needs no more of the body.
func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.buf, p.start, p.end = true, nil, 0, 0
	p.readable.Broadcast()
	p.room.Set(true)
	return nil
}

// put takes as much of b as there is room for.
func (p *pipe) put(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, io.ErrClosedPipe
	}
	if p.buf == nil {
		p.buf = make([]byte, maxEarlyBody)
	}
	if p.start > 0 {
		p.end = copy(p.buf, p.buf[p.start:p.end])
		p.start = 0
	}
	n := copy(p.buf[p.end:], b)
	p.end += n
	p.room.Set(p.end < len(p.buf))
	p.readable.Signal()
	return n, nil
}

// write implements [destination]. The pipe keeps no part of b.
func (p *pipe) write(ctx context.Context, b []byte) error {
	for {
		n, err := p.put(b)
		if b = b[n:]; err != nil || len(b) == 0 {
			return err
		}
		p.idle()
		if _, err := wasi.Wait(ctx, &p.room); err != nil {
			return err
		}
	}
}

func (p *pipe) finish(trailers http.Header) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished, p.last = trailers, io.EOF
	p.readable.Signal()
}

func (p *pipe) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = errBodyAborted
	p.readable.Signal()
}

// Room implements [wasi.Pacer].
func (p *pipe) Room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 1
	}
	return maxEarlyBody - (p.end - p.start)
}

// Ready implements [wasi.Pacer].
func (p *pipe) Ready() bool { return p.Room() > 0 }

// Watch implements [wasi.Pacer].
func (p *pipe) Watch(wake func()) (stop func()) {
	p.idle()
	return p.room.Watch(wake)
}
