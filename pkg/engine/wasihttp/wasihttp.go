// Package wasihttp is the host's half of wasi:http 0.2
// (https://github.com/WebAssembly/WASI/tree/main/wasip2/http): the types, outgoing-handler for guests that
// send requests, and [Proxy] for guests that answer them.
//
// A request is served on one goroutine, from the socket to the guest and back. Files:
//
//	proxy.go         incoming-handler: one request to a guest, and its answer
//	response.go      the answer on its way to the client: head, body, when it leaves
//	incoming.go      incoming-request, incoming-response
//	incomingbody.go  incoming-body, future-trailers: bytes to the guest
//	outgoing.go      outgoing-request, outgoing-response, request-options
//	outgoingbody.go  outgoing-body: bytes from the guest; pipe.go is where those of a request go
//	send.go          outgoing-handler, future-incoming-response
//	fields.go        fields
//	errorcode.go     error-code, and how errors become one
//
// All that a guest, a client or a server sends is taken for hostile: what it can make the host allocate is
// bounded by named constants, and everything that blocks ends with the context of the instance.
package wasihttp

import (
	"context"
	"net/http"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// The resource types of wasi:http, shared by all of its 0.2 versions.
var (
	Fields                 = engine.NewResource("fields", func(rep any) { rep.(*fields).drop() })
	IncomingRequest        = engine.NewResource("incoming-request", func(rep any) { rep.(*incomingRequest).drop() })
	OutgoingRequest        = engine.NewResource("outgoing-request", func(rep any) { rep.(*outgoingRequest).drop() })
	RequestOptions         = engine.NewResource("request-options", nil)
	ResponseOutparam       = engine.NewResource("response-outparam", nil)
	IncomingResponse       = engine.NewResource("incoming-response", func(rep any) { rep.(*incomingResponse).drop() })
	IncomingBody           = engine.NewResource("incoming-body", func(rep any) { rep.(*incomingBody).drop() })
	FutureTrailers         = engine.NewResource("future-trailers", func(rep any) { rep.(*futureTrailers).drop() })
	OutgoingResponse       = engine.NewResource("outgoing-response", func(rep any) { rep.(*outgoingResponse).drop() })
	OutgoingBody           = engine.NewResource("outgoing-body", func(rep any) { rep.(*outgoingBody).drop() })
	FutureIncomingResponse = engine.NewResource("future-incoming-response", func(rep any) { rep.(*futureResponse).drop() })
)

// SendOptions are the limits of one request, as the guest asked for them or with their defaults; none is 0.
// This package enforces them, the first two by the events of [net/http/httptrace]; to a [Client] they are
// information.
type SendOptions struct {
	// ConnectTimeout bounds the time until there is a connection: name lookup, dialling and TLS.
	ConnectTimeout time.Duration
	// FirstByteTimeout bounds the time from there to the head of the response.
	FirstByteTimeout time.Duration
	// BetweenBytesTimeout bounds the time that one read of the response's body takes.
	BetweenBytesTimeout time.Duration
}

// Client sends guests' requests. It is safe for concurrent use.
type Client interface {
	// Send sends r and blocks until the head of the response is there. It is called on a goroutine of its
	// own, and returns soon after the context of r has ended, which it does with the instance at the latest.
	// r.URL.Host is "" if the guest named no authority; the scheme is "" then if it named none either, and
	// else it is http or https. r.Host is "", and r.Header has an empty User-Agent if the guest set none.
	//
	// Send must not follow redirects, nor decode the body ([http.Transport.DisableCompression]). It may
	// change r. An error that is or wraps an [*ErrorCode] reaches the guest as that; others are mapped.
	Send(r *http.Request, o SendOptions) (*http.Response, error)
}

// Config is what guests can reach over HTTP.
type Config struct {
	// Client sends guests' requests; nil refuses each with HTTP-request-denied.
	Client Client
}

// The limits. A guest that exceeds one of fields or memory traps, since WIT has no error for it.
const (
	// maxFieldBytes and maxFields bound one fields resource: names, values and fieldOverhead each. Servers
	// refuse less; the other known host of wasi:http allows as much.
	maxFieldBytes = 128 << 10
	maxFields     = 1 << 10
	// fieldOverhead is what a field costs the host beside its bytes.
	fieldOverhead = 48
	// resourceOverhead is what a resource costs the host beside its content.
	resourceOverhead = 256
	// maxHeld bounds what all resources of an instance hold in the host's memory at once.
	maxHeld = 16 << 20
	// maxURIBytes bounds path-with-query, authority and scheme of an outgoing request, each; longer ones
	// are refused as invalid. Servers accept 8 kB at least, few more than 64 kB.
	maxURIBytes = 64 << 10
	// maxMethodBytes bounds the name of a method.
	maxMethodBytes = 256
	// maxEarlyBody bounds what a guest may write of a body before it hands over its request or response.
	// It is also the size of the pipe through which a request's body is sent.
	maxEarlyBody = 64 << 10
	// maxOutgoing bounds the requests of an instance that wait for their response at once. More fail with
	// connection-limit-reached.
	maxOutgoing = 128
	// defaultTimeout is each of [SendOptions] if the guest sets none.
	defaultTimeout = 600 * time.Second
)

// Host is wasi:http for the instances of one linker.
type Host struct {
	client Client
	state  engine.Slot[*state]
}

// state is what wasi:http knows of one instance. It is used by the goroutine of the guest.
type state struct {
	ctx context.Context // the instance's
	// held is what the resources of the instance hold in the host's memory.
	held int
	// outgoing counts the requests that are on their way.
	outgoing *semaphore
	// response is the answer to the request that the instance serves; nil if it serves none.
	response *response
}

// semaphore counts down from its capacity.
type semaphore struct{ slots chan struct{} }

func newSemaphore(n int) *semaphore { return &semaphore{make(chan struct{}, n)} }

func (s *semaphore) tryAcquire() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *semaphore) release() { <-s.slots }

// hold counts n more bytes of host memory as held; the error is a trap.
func (s *state) hold(n int) error {
	if s.held+n > maxHeld {
		return &engine.Trap{Msg: "wasi:http resources hold more than maxHeld"}
	}
	s.held += n
	return nil
}

func (s *state) release(n int) { s.held -= n }

// idle is called when the guest is about to wait: what it has written leaves first.
func (s *state) idle() {
	if s.response != nil {
		s.response.flush()
	}
}
