package http

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// body is a request's body. While the response has no head, a read fails that waits for the client for too long.
type body struct {
	io.ReadCloser
	original *http.Request
	request  *http.Request // what handlers get
	answer   *answer
	control  *http.ResponseController
	timeout  time.Duration
	timer    *time.Timer // nil before the first read
	begun    atomic.Bool // somebody has begun to read
	ended    atomic.Bool // the body was read to its end

	mu      sync.Mutex
	reading bool // guarded by mu: a read may be interrupted
}

// newBody returns the body of r, whose answer is a. net/http looks at r.Body, so that r remains as it is.
func newBody(r *http.Request, a *answer, timeout time.Duration) *body {
	b := &body{
		ReadCloser: r.Body, original: r, request: r.WithContext(r.Context()),
		answer: a, control: http.NewResponseController(a.ResponseWriter), timeout: timeout,
	}
	b.request.Body = b
	return b
}

// Read reads from the client.
func (b *body) Read(p []byte) (n int, err error) {
	b.begun.Store(true)
	if b.answer.started.Load() {
		n, err = b.ReadCloser.Read(p)
	} else {
		n, err = b.readWithin(p)
	}
	if errors.Is(err, io.EOF) {
		b.request.Trailer = b.original.Trailer
		b.ended.Store(true)
	}
	return n, err
}

func (b *body) readWithin(p []byte) (int, error) {
	b.setReading(true)
	if b.timer == nil {
		b.timer = time.AfterFunc(b.timeout, b.interrupt)
	} else {
		b.timer.Reset(b.timeout)
	}
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.setReading(false)
	return n, err
}

func (b *body) setReading(reading bool) {
	b.mu.Lock()
	b.reading = reading
	b.mu.Unlock()
}

// interrupt makes a read that waits fail, unless a response has been begun meanwhile.
func (b *body) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reading && !b.answer.started.Load() {
		_ = b.control.SetReadDeadline(time.Unix(1, 0)) // long ago
	}
}

// Close does nothing: what is left of the body is read, or is not, after the response.
func (b *body) Close() error { return nil }

// drain reads what is left of the body in HTTP/1, so that the connection can be used again, and reports whether it can.
// Preconditions: nobody else reads. The response is complete.
func (b *body) drain(timeout time.Duration) bool {
	if b.ended.Load() {
		return true
	}
	_ = b.control.SetReadDeadline(time.Now().Add(timeout))
	if _, err := io.CopyN(io.Discard, b.ReadCloser, maxDrainSize+1); !errors.Is(err, io.EOF) {
		return false
	}
	_ = b.control.SetReadDeadline(time.Time{})
	return true
}
