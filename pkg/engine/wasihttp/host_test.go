package wasihttp

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/passthrough"
)

// script is a guest whose calls a test makes, one after the other, through the linker and the canonical ABI.
type script struct {
	*passthrough.Guest
	t    testing.TB
	host *Host
	// patient makes what is written leave only where the guest waits or ends, however slow the machine is.
	patient bool
}

func newScript(t testing.TB, cfg Config) *script {
	g := &script{t: t}
	g.Guest = passthrough.New(t, func(l *engine.Linker) { g.host = Add(l, cfg) }, httpTypesType(), httpOutgoingHandlerType())
	return g
}

func (g *script) state() *state { return g.host.state.Of(g.Instance) }

// call calls a function of wasi:http/types, which must not trap.
func (g *script) call(name string, params, result func(*engine.Call)) {
	g.t.Helper()
	require.NoError(g.t, g.Call("wasi:http/types", name, params, result), name)
}

// own calls a function that returns an own.
func own[T any](g *script, name string, params func(*engine.Call)) (out T) {
	g.t.Helper()
	g.call(name, params, func(c *engine.Call) { out = engine.Rep[T](c) })
	return out
}

// okOwn calls a function that returns a result<own<…>, …> that must be ok.
func okOwn[T any](g *script, name string, params func(*engine.Call)) (out T) {
	g.t.Helper()
	g.call(name, params, func(c *engine.Call) {
		require.True(g.t, c.Result(), name)
		out = engine.Rep[T](c)
	})
	return out
}

// ok calls a function that returns a result without payload for ok, and says whether it is ok.
func (g *script) ok(name string, params func(*engine.Call)) (ok bool) {
	g.t.Helper()
	g.call(name, params, func(c *engine.Call) { ok = c.Result() })
	return ok
}

func self(rep any) func(*engine.Call) { return func(c *engine.Call) { c.PutBorrow(rep) } }

// fields makes fields of names and values in turn.
func (g *script) fields(entries ...string) *fields {
	g.t.Helper()
	return okOwn[*fields](g, "[static]fields.from-list", func(c *engine.Call) { putEntries(c, entries) })
}

func putEntries(c *engine.Call, entries []string) {
	c.PutList(len(entries) / 2)
	for i := 0; i < len(entries); i += 2 {
		c.PutString(entries[i])
		c.PutBytes([]byte(entries[i+1]))
	}
}

// entries returns names and values in turn.
func (g *script) entries(f *fields) (out []string) {
	g.t.Helper()
	g.call("[method]fields.entries", self(f), func(c *engine.Call) {
		for range c.List() {
			out = append(out, c.Lifter.String(), string(c.Bytes()))
		}
	})
	return out
}

// response makes an outgoing-response with headers.
func (g *script) response(status int, headers ...string) *outgoingResponse {
	g.t.Helper()
	h := g.fields(headers...)
	p := own[*outgoingResponse](g, "[constructor]outgoing-response", func(c *engine.Call) { c.PutOwn(h) })
	require.True(g.t, g.ok("[method]outgoing-response.set-status-code", func(c *engine.Call) {
		c.PutBorrow(p)
		c.PutU16(uint16(status))
	}))
	return p
}

// set makes o the answer.
func (g *script) set(p *response, o *outgoingResponse) {
	g.t.Helper()
	g.call("[static]response-outparam.set", func(c *engine.Call) {
		c.PutOwn(&responseOutparam{p})
		c.PutOk()
		c.PutOwn(o)
	}, nil)
}

// body takes the body of a message, and its stream.
func (g *script) body(rep any) *outgoingBody {
	g.t.Helper()
	name := "[method]outgoing-response.body"
	if _, ok := rep.(*outgoingRequest); ok {
		name = "[method]outgoing-request.body"
	}
	return okOwn[*outgoingBody](g, name, self(rep))
}

func (g *script) write(b *outgoingBody, s string) {
	g.t.Helper()
	require.NoError(g.t, b.Write(g.Instance, []byte(s)))
}

// finish finishes a body, and returns the error or nil.
func (g *script) finish(b *outgoingBody, trailers *fields) (e *ErrorCode) {
	g.t.Helper()
	g.call("[static]outgoing-body.finish", func(c *engine.Call) {
		c.PutOwn(b)
		if trailers == nil {
			c.PutNone()
			return
		}
		c.PutSome()
		c.PutOwn(trailers)
	}, func(c *engine.Call) {
		if !c.Result() {
			e = errorCode(c)
		}
	})
	return e
}

// request makes an outgoing-request for a URL without query.
func (g *script) request(method, url string, headers ...string) *outgoingRequest {
	g.t.Helper()
	h := g.fields(headers...)
	q := own[*outgoingRequest](g, "[constructor]outgoing-request", func(c *engine.Call) { c.PutOwn(h) })
	scheme, rest, _ := strings.Cut(url, "://")
	authority, path, _ := strings.Cut(rest, "/")
	for name, put := range map[string]func(*engine.Call){
		"method":          func(c *engine.Call) { putVariant(c, methods[:], method) },
		"scheme":          func(c *engine.Call) { c.PutSome(); putVariant(c, schemes[:], scheme) },
		"authority":       func(c *engine.Call) { putOptionString(c, authority) },
		"path-with-query": func(c *engine.Call) { c.PutSome(); c.PutString("/" + path) },
	} {
		require.True(g.t, g.ok("[method]outgoing-request.set-"+name, func(c *engine.Call) { c.PutBorrow(q); put(c) }), name)
	}
	return q
}

// handle sends q.
func (g *script) handle(q *outgoingRequest, o *requestOptions) (f *futureResponse, e *ErrorCode) {
	g.t.Helper()
	require.NoError(g.t, g.Call("wasi:http/outgoing-handler", "handle", func(c *engine.Call) {
		c.PutOwn(q)
		if o == nil {
			c.PutNone()
			return
		}
		c.PutSome()
		c.PutOwn(o)
	}, func(c *engine.Call) {
		if c.Result() {
			f = engine.Rep[*futureResponse](c)
		} else {
			e = errorCode(c)
		}
	}))
	return f, e
}

// wait blocks until w is ready.
func wait(t testing.TB, w interface {
	Ready() bool
	Watch(func()) func()
}) {
	t.Helper()
	woken := make(chan struct{}, 1)
	defer w.Watch(func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	for !w.Ready() {
		select {
		case <-woken:
		case <-t.Context().Done():
			t.Fatal("not ready")
		}
	}
}

// get waits for the response, which it takes.
func (g *script) get(f *futureResponse) (p *incomingResponse, e *ErrorCode) {
	g.t.Helper()
	wait(g.t, f)
	g.call("[method]future-incoming-response.get", self(f), func(c *engine.Call) {
		require.True(g.t, c.Option())
		require.True(g.t, c.Result())
		if c.Result() {
			p = engine.Rep[*incomingResponse](c)
		} else {
			e = errorCode(c)
		}
	})
	return p, e
}

// consume takes the body of an incoming message.
func (g *script) consume(rep any) *incomingBody {
	g.t.Helper()
	name := "[method]incoming-request.consume"
	if _, ok := rep.(*incomingResponse); ok {
		name = "[method]incoming-response.consume"
	}
	return okOwn[*incomingBody](g, name, self(rep))
}

// trailers finishes a body and waits for its trailers.
func (g *script) trailers(b *incomingBody) (entries []string, e *ErrorCode) {
	g.t.Helper()
	f := own[*futureTrailers](g, "[static]incoming-body.finish", func(c *engine.Call) { c.PutOwn(b) })
	wait(g.t, own[*futureTrailers](g, "[method]future-trailers.subscribe", self(f)))
	var trailers *fields
	g.call("[method]future-trailers.get", self(f), func(c *engine.Call) {
		require.True(g.t, c.Option())
		require.True(g.t, c.Result())
		if !c.Result() {
			e = errorCode(c)
		} else if c.Option() {
			trailers = engine.Rep[*fields](c)
		}
	})
	if trailers != nil {
		entries = g.entries(trailers)
		trailers.drop()
	}
	f.drop()
	return entries, e
}

// serveScript is what Proxy.Handle does, with the script's guest in place of one that exports a handler.
func (g *script) serveScript(w http.ResponseWriter, r *http.Request, guest func(q *incomingRequest, p *response) error) error {
	p := newResponse(w, r)
	if g.patient {
		p.flushDelay, p.headDelay = time.Hour, time.Hour
	}
	s := g.state()
	s.ctx, s.response = r.Context(), p
	defer func() { s.ctx, s.response = context.Background(), nil }()
	q := newIncomingRequest(s, r, p.request)
	defer q.drop()
	return p.end(guest(q, p))
}
