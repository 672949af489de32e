package http

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
)

// answer is the response to one request. It knows whether its head has been sent: only before that the status can
// change.
type answer struct {
	http.ResponseWriter
	last    func() bool // whether the connection is to end with this response
	started atomic.Bool
	// send bounds the time in which a client of HTTP/2 takes no sendChunk, or its stream ends: what a stream waits for
	// is not seen by its connection, which bounds that for HTTP/1. 0 is no bound.
	send  time.Duration
	timer *time.Timer // of send; nil before the first write
}

// WriteHeader sends the head, or one that is only informational.
func (a *answer) WriteHeader(code int) {
	if code >= 200 {
		a.started.Store(true)
		if a.last() {
			a.Header().Set("Connection", "close")
		}
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write sends a part of the body.
func (a *answer) Write(p []byte) (n int, err error) {
	if !a.started.Load() {
		a.WriteHeader(http.StatusOK)
	}
	if a.send == 0 {
		return a.ResponseWriter.Write(p)
	}
	for {
		a.limit()
		written, err := a.ResponseWriter.Write(p[n:min(n+sendChunk, len(p))])
		a.timer.Stop()
		n += written
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// FlushError sends what is buffered.
func (a *answer) FlushError() error {
	if !a.started.Load() {
		a.WriteHeader(http.StatusOK)
	}
	if a.send > 0 {
		a.limit()
		defer a.timer.Stop()
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// limit starts the time in which the client must take what is written now.
func (a *answer) limit() {
	if a.timer != nil {
		a.timer.Reset(a.send)
		return
	}
	control := http.NewResponseController(a.ResponseWriter)
	a.timer = time.AfterFunc(a.send, func() { _ = control.SetWriteDeadline(time.Unix(1, 0)) }) // long ago
}

// Unwrap returns net/http's writer, for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// status answers with a status and nothing else.
func (a *answer) status(code int) {
	clear(a.Header())
	a.content(code, nil)
}

// busy answers that the request may be tried again: other requests have what it needs.
func (a *answer) busy() {
	clear(a.Header())
	a.Header()["Retry-After"] = []string{"1"}
	a.content(http.StatusServiceUnavailable, nil)
}

// document answers with a body.
func (a *answer) document(contentType string, body []byte) {
	a.Header()["Content-Type"] = []string{contentType}
	a.content(http.StatusOK, body)
}

// content answers with a status and a body.
func (a *answer) content(code int, body []byte) {
	if code != http.StatusNoContent && code != http.StatusNotModified {
		a.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	a.WriteHeader(code)
	_, _ = a.Write(body) // an error is the client's; so it is that there is no body to HEAD
}

// refuse answers a request that is at fault, and ends the connection: what such a client sends next is not worth
// guessing.
func (a *answer) refuse(code int) {
	a.last = func() bool { return true }
	a.status(code)
}

// conclude turns what a component's handling of r ended with into a status and a log line.
func (s *Server) conclude(a *answer, r *http.Request, t *route, err error) {
	if err == nil {
		return
	}
	log := s.log.With("component", t.target.component, "route", t.raw, "method", r.Method, "err", err)
	if _, late := errors.AsType[*wasihttp.LateError](err); late {
		log.Error("guest failed after its response")
		return
	}
	if errors.Is(r.Context().Err(), context.Canceled) {
		log.Debug("client left")
		abort(r)
	}
	if a.started.Load() {
		log.Error("response broke off")
		abort(r)
	}
	if errors.Is(err, engine.ErrNoMemory) {
		log.Error("no room for an instance")
		a.busy()
		return
	}
	log.Error("no response from guest")
	a.status(http.StatusInternalServerError)
}

// abort ends r's connection, or only its stream in HTTP/2, so that the client sees that its response is not complete.
// It does not return.
func abort(r *http.Request) {
	if c := connOf(r); c != nil {
		c.abort(!r.ProtoAtLeast(1, 1))
	}
	panic(http.ErrAbortHandler)
}
