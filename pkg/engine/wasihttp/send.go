package wasihttp

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
)

// maxResponseHeader bounds the head of a response that guests get, as a browser does.
const maxResponseHeader = 256 << 10

var (
	errConnectTimeout   = NewError(ConnectionTimeout)
	errFirstByteTimeout = NewError(ConnectionReadTimeout)
	errResponseDropped  = errors.New("guest dropped the response")
)

// futureResponse is the representation of [FutureIncomingResponse]. As a Waitable it is ready when there is a
// response or an error.
type futureResponse struct {
	s       *state
	options SendOptions
	cancel  context.CancelCauseFunc // ends the request and its response; nil if it was never sent
	taken   bool                    // by get

	mu       sync.Mutex
	response *http.Response // guarded by mu
	err      *ErrorCode     // guarded by mu
	dropped  bool           // guarded by mu
	settled  wasi.Signal
}

// handle is outgoing-handler.handle. All but what is wrong with the request itself fails in the future.
func (h *Host) handle(c *engine.Call) error {
	s := h.of(c)
	q := engine.Rep[*outgoingRequest](c)
	defer q.drop()
	var o *requestOptions
	if c.Option() {
		o = engine.Rep[*requestOptions](c)
	}
	r, e := q.request()
	if e != nil {
		c.PutErr()
		e.put(c)
		return nil
	}
	if err := s.hold(resourceOverhead); err != nil {
		return err
	}
	f := &futureResponse{s: s, options: o.send()}
	var p *pipe
	if q.body != nil {
		p = newPipe(s.idle)
		r.Body = p
		if r.ContentLength < 0 && !isProbed(r.Method) {
			p.trailers = declaredTrailers(r.Header)
			r.Trailer = p.trailers
		}
		q.sent = true
		// It does not block: the pipe has room for what was written early.
		if err := q.body.attach(s.ctx, p); err != nil {
			return err
		}
	}
	switch {
	case h.client == nil:
		f.settle(nil, NewError(HTTPRequestDenied))
	case !s.outgoing.tryAcquire():
		f.settle(nil, NewError(ConnectionLimitReached))
	default:
		var ctx context.Context
		ctx, f.cancel = context.WithCancelCause(s.ctx)
		go f.send(h.client, r.WithContext(ctx)) // ends soon after ctx, which ends with the instance or f
		p = nil
	}
	if p != nil {
		_ = p.Close() // nobody reads it; it returns no error
	}
	c.PutOk()
	c.PutOwn(f)
	return nil
}

// isProbed says whether net/http, before it sends the head of a request of unknown length, reads the first byte of
// its body on another goroutine: methods that seldom have one. Trailers would race with the head there.
func isProbed(method string) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "SEARCH":
		return true
	}
	return false
}

// declaredTrailers returns the names that the header Trailer has, as net/http wants them. It is not nil.
func declaredTrailers(h http.Header) http.Header {
	out := http.Header{}
	for _, names := range h["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if checkName(name) == noError && name != "Content-Length" && name != "Trailer" {
				out[name] = nil
			}
		}
	}
	return out
}

// request returns the request as net/http has it, without its body.
func (q *outgoingRequest) request() (*http.Request, *ErrorCode) {
	length, ok := q.length()
	if !ok {
		return nil, NewError(HTTPProtocolError)
	}
	u, ok := q.url()
	switch {
	case !ok:
		return nil, NewError(HTTPRequestURIInvalid)
	case u.Scheme != "" && !slices.Contains(schemes[:], u.Scheme):
		return nil, NewError(HTTPProtocolError)
	case q.method == http.MethodConnect:
		return nil, NewError(HTTPRequestMethodInvalid) // a tunnel is not a body
	}
	r := &http.Request{
		Method: q.method, URL: u, Header: q.headers.header(), Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = []string{""} // else net/http says that it is Go
	}
	switch {
	case q.body == nil && length > 0:
		return nil, &ErrorCode{Case: HTTPRequestBodySize, Number: new(uint64(0))}
	case q.body != nil && q.body.ended == finished:
		r.ContentLength = q.body.written
	case q.body != nil:
		r.ContentLength = length
	}
	return r, nil
}

// send sends the request, within its limits of time.
func (f *futureResponse) send(client Client, r *http.Request) {
	ctx := r.Context()
	limit := &timeLimit{cancel: f.cancel}
	limit.set(f.options.FirstByteTimeout, errFirstByteTimeout)
	r = r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { limit.set(f.options.ConnectTimeout, errConnectTimeout) },
		GotConn: func(httptrace.GotConnInfo) { limit.set(f.options.FirstByteTimeout, errFirstByteTimeout) },
	}))
	p, err := client.Send(r, f.options)
	limit.end()
	if err == nil && headerSize(p.Header) > maxResponseHeader {
		_ = p.Body.Close() // it is not read: its error says nothing
		err = NewError(HTTPResponseHeaderSectionSize)
	}
	if err == nil {
		f.settle(p, nil)
		return
	}
	if e, ok := errors.AsType[*ErrorCode](context.Cause(ctx)); ok {
		err = e
	}
	_ = r.Body.Close() // what the guest still writes goes nowhere; it returns no error
	f.settle(nil, sendError(err))
}

func headerSize(h http.Header) (n int) {
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + fieldOverhead
		}
	}
	return n
}

// settle says what became of the request.
func (f *futureResponse) settle(p *http.Response, e *ErrorCode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.response, f.err = p, e
	if f.dropped || e != nil {
		f.end()
	}
	f.settled.Set(true)
}

// end ends the request and its response. It is called once.
func (f *futureResponse) end() {
	if f.cancel == nil {
		return
	}
	f.cancel(errResponseDropped)
	if f.response != nil {
		_ = f.response.Body.Close() // nobody reads it any more: its error says nothing
	}
	f.s.outgoing.release()
}

// drop is when the guest drops the future; a response that it got from it lives on.
func (f *futureResponse) drop() {
	f.s.release(resourceOverhead)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dropped || f.taken {
		return
	}
	f.dropped = true
	switch {
	case f.response != nil:
		f.end()
	case f.err == nil && f.cancel != nil:
		f.cancel(errResponseDropped) // and send ends the rest
	}
}

// Ready says whether there is a response or an error.
func (f *futureResponse) Ready() bool { return f.settled.Ready() }

// Watch calls wake when there is a response or an error.
func (f *futureResponse) Watch(wake func()) (stop func()) {
	f.s.idle()
	return f.settled.Watch(wake)
}

// take returns the response for the guest.
func (f *futureResponse) take() (*incomingResponse, *ErrorCode) {
	f.taken = true
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	p := f.response
	end := sync.OnceFunc(f.end)
	return &incomingResponse{
		s: f.s, status: p.StatusCode, headers: entriesOf(p.Header),
		body: newBodyReader(&bodyReader{
			body:       p.Body,
			trailer:    func() http.Header { return p.Trailer },
			interrupt:  func() { f.cancel(errResponseDropped); _ = p.Body.Close() }, // the reader has a better error
			dispose:    end,
			idle:       f.s.idle,
			incomplete: HTTPResponseIncomplete,
			between:    f.options.BetweenBytesTimeout,
		}),
	}, nil
}

func futureResponseSubscribe(c *engine.Call) error {
	c.PutOwn(engine.Rep[*futureResponse](c))
	return nil
}

// futureResponseGet puts an option<result<result<own<incoming-response>, error-code>>>.
func futureResponseGet(c *engine.Call) error {
	f := engine.Rep[*futureResponse](c)
	switch {
	case !f.Ready():
		c.PutNone()
		return nil
	case f.taken:
		c.PutSome()
		c.PutErr()
		return nil
	}
	c.PutSome()
	c.PutOk()
	p, e := f.take()
	if e != nil {
		c.PutErr()
		e.put(c)
		return nil
	}
	c.PutOk()
	c.PutOwn(p)
	return nil
}

// timeLimit cancels what takes too long.
type timeLimit struct {
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer // guarded by mu
	ended bool        // guarded by mu
}

// set starts a limit in place of the last one.
func (l *timeLimit) set(d time.Duration, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	if !l.ended {
		l.timer = time.AfterFunc(d, func() { l.cancel(cause) })
	}
}

// end ends the limit.
func (l *timeLimit) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.timer.Stop()
}
