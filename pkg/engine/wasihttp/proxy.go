package wasihttp

import (
	"net/http"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// Proxy calls the incoming-handler of one component. It is safe for concurrent use.
type Proxy struct {
	host   *Host
	handle *engine.ExportFunc
}

// Proxy returns the incoming-handler of a component that was linked with h. The error is an
// [engine.ErrNoExport] if it has none of version 0.2.
func (h *Host) Proxy(pre *engine.InstancePre) (*Proxy, error) {
	t := httpIncomingHandlerType()
	handle, err := pre.Func(t.Name, t.Funcs[0].Name, t.Funcs[0].Type)
	if err != nil {
		return nil, err
	}
	return &Proxy{h, handle}, nil
}

// Handle calls the guest's handler with r and streams its answer to w. It returns when the guest has; the end of
// an answer whose length was not known before its head was sent leaves when the caller returns to net/http.
// i must be fresh, and instantiated with a context that ends with r's; the caller closes it. w must be that of
// net/http, or have an Unwrap method ([http.ResponseController]).
//
// Handle writes nothing to w before the guest gave an answer, so that the caller may answer these errors
// itself: [ErrNoResponse]; an [*ErrorCode], with which the guest refused to answer; and any other if w has no
// head yet. Once w has its head the caller must abort the connection ([http.ErrAbortHandler]), so that the
// client sees that the body is not complete; [ErrBodyUnfinished] is always such. After a [*LateError] there is
// nothing to abort. Others are a [*engine.Trap], an [*engine.ExitError], or those of the client's connection.
func (p *Proxy) Handle(i *engine.Instance, w http.ResponseWriter, r *http.Request) error {
	s := p.host.state.Of(i)
	answer := newResponse(w, r)
	s.response = answer
	request := newIncomingRequest(s, r, answer.request)
	return answer.end(p.handle.Call(i, func(c *engine.Call) {
		c.PutOwn(request)
		c.PutOwn(&responseOutparam{answer})
	}, nil))
}

// newResponse returns the answer to r, with the reader of its body.
func newResponse(w http.ResponseWriter, r *http.Request) *response {
	p := &response{r: r, w: w, control: http.NewResponseController(w), flushDelay: flushDelay, headDelay: headDelay}
	body := r.Body
	if body == nil {
		body = http.NoBody
	}
	p.request = newBodyReader(&bodyReader{
		body:       body,
		trailer:    func() http.Header { return r.Trailer },
		interrupt:  p.interruptRequest,
		idle:       p.flush,
		begin:      p.askForRequest,
		incomplete: HTTPProtocolError,
	})
	return p
}
