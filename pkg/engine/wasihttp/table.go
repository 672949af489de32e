package wasihttp

import (
	"context"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// Add defines the interfaces of wasi:http that components import in l.
func Add(l *engine.Linker, cfg Config) *Host {
	h := &Host{client: cfg.Client}
	h.state = engine.NewSlot(l, func(i *engine.Instance) *state { return newState(i) })
	for _, i := range h.interfaces() {
		l.Define(i)
	}
	return h
}

func newState(ctx context.Context) *state {
	return &state{ctx: ctx, outgoing: newSemaphore(maxOutgoing)}
}

func (h *Host) of(c *engine.Call) *state { return h.state.Of(c.Instance()) }

// funcs are the host functions of one interface, by WIT name.
type funcs = map[string]engine.HostFunc

// interfaces is the table of wasi:http: which host function stands for which function of the WIT.
func (h *Host) interfaces() []engine.Interface {
	return []engine.Interface{
		{Type: httpTypesType(), Funcs: funcs{
			"http-error-code": httpErrorCode,

			"[constructor]fields":      h.fieldsNew,
			"[static]fields.from-list": h.fieldsFromList,
			"[method]fields.get":       fieldsGet,
			"[method]fields.has":       fieldsHas,
			"[method]fields.set":       fieldsSet,
			"[method]fields.delete":    fieldsDelete,
			"[method]fields.append":    fieldsAppend,
			"[method]fields.entries":   fieldsEntries,
			"[method]fields.clone":     fieldsClone,

			"[method]incoming-request.method":          incomingRequestMethod,
			"[method]incoming-request.path-with-query": incomingRequestPathWithQuery,
			"[method]incoming-request.scheme":          incomingRequestScheme,
			"[method]incoming-request.authority":       incomingRequestAuthority,
			"[method]incoming-request.headers":         incomingRequestHeaders,
			"[method]incoming-request.consume":         incomingRequestConsume,

			"[constructor]outgoing-request":                h.outgoingRequestNew,
			"[method]outgoing-request.body":                outgoingRequestBody,
			"[method]outgoing-request.method":              outgoingRequestMethod,
			"[method]outgoing-request.set-method":          outgoingRequestSetMethod,
			"[method]outgoing-request.path-with-query":     outgoingRequestPathWithQuery,
			"[method]outgoing-request.set-path-with-query": outgoingRequestSetPathWithQuery,
			"[method]outgoing-request.scheme":              outgoingRequestScheme,
			"[method]outgoing-request.set-scheme":          outgoingRequestSetScheme,
			"[method]outgoing-request.authority":           outgoingRequestAuthority,
			"[method]outgoing-request.set-authority":       outgoingRequestSetAuthority,
			"[method]outgoing-request.headers":             outgoingRequestHeaders,

			"[constructor]request-options":                      requestOptionsNew,
			"[method]request-options.connect-timeout":           optionsGet(connectTimeout),
			"[method]request-options.set-connect-timeout":       optionsSet(connectTimeout),
			"[method]request-options.first-byte-timeout":        optionsGet(firstByteTimeout),
			"[method]request-options.set-first-byte-timeout":    optionsSet(firstByteTimeout),
			"[method]request-options.between-bytes-timeout":     optionsGet(betweenBytesTimeout),
			"[method]request-options.set-between-bytes-timeout": optionsSet(betweenBytesTimeout),

			"[static]response-outparam.set": responseOutparamSet,

			"[method]incoming-response.status":  incomingResponseStatus,
			"[method]incoming-response.headers": incomingResponseHeaders,
			"[method]incoming-response.consume": incomingResponseConsume,

			"[method]incoming-body.stream": incomingBodyStream,
			"[static]incoming-body.finish": incomingBodyFinish,

			"[method]future-trailers.subscribe": futureTrailersSubscribe,
			"[method]future-trailers.get":       futureTrailersGet,

			"[constructor]outgoing-response":            h.outgoingResponseNew,
			"[method]outgoing-response.status-code":     outgoingResponseStatusCode,
			"[method]outgoing-response.set-status-code": outgoingResponseSetStatusCode,
			"[method]outgoing-response.headers":         outgoingResponseHeaders,
			"[method]outgoing-response.body":            outgoingResponseBody,

			"[method]outgoing-body.write":  outgoingBodyWrite,
			"[static]outgoing-body.finish": outgoingBodyFinish,

			"[method]future-incoming-response.subscribe": futureResponseSubscribe,
			"[method]future-incoming-response.get":       futureResponseGet,
		}},
		{Type: httpOutgoingHandlerType(), Funcs: funcs{"handle": h.handle}},
	}
}
