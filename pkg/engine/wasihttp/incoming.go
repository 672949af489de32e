package wasihttp

import (
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// incomingRequest is the representation of [IncomingRequest].
type incomingRequest struct {
	s        *state
	r        *http.Request
	headers  []field // of r; nil until the guest asks
	body     *bodyReader
	consumed bool
}

func newIncomingRequest(s *state, r *http.Request, body *bodyReader) *incomingRequest {
	q := &incomingRequest{s: s, r: r, body: body}
	if len(r.Trailer) > 0 {
		q.fields() // while nobody reads the body, which changes r.Trailer
	}
	return q
}

func (q *incomingRequest) drop() {
	if !q.consumed {
		q.body.release()
	}
}

// fields returns the headers that the guest sees.
func (q *incomingRequest) fields() []field {
	if q.headers == nil {
		q.headers = entriesOf(q.r.Header)
		if len(q.r.Trailer) > 0 { // net/http took the header out
			names := make([]string, 0, len(q.r.Trailer))
			for name := range q.r.Trailer {
				names = append(names, strings.ToLower(name))
			}
			slices.Sort(names)
			q.headers = append(q.headers, field{"trailer", strings.Join(names, ", ")})
		}
	}
	return q.headers
}

// pathWithQuery returns the path and query as the client sent them; "" if the request has none.
func pathWithQuery(r *http.Request) string {
	uri := r.RequestURI
	switch {
	case r.Method == http.MethodConnect && !strings.HasPrefix(uri, "/"):
		return ""
	case uri == "": // the request is not from the network
		uri = r.URL.RequestURI()
	case uri != "*" && !strings.HasPrefix(uri, "/"): // absolute form
		_, rest, _ := strings.Cut(uri, "://")
		uri = ""
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			uri = rest[i:]
		}
		if !strings.HasPrefix(uri, "/") {
			uri = "/" + uri
		}
	}
	return escapeInvalid(uri)
}

// escapeInvalid percent-encodes what is not ASCII in a text that is not UTF-8: a WIT string must be.
func escapeInvalid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(s) {
		if b := s[i]; b < utf8.RuneSelf {
			out.WriteByte(b)
		} else {
			out.Write([]byte{'%', hex[b>>4], hex[b&15]})
		}
	}
	return out.String()
}

// methods are the cases of WIT's variant method that have a name of their own, in its order.
var methods = [...]string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodConnect,
	http.MethodOptions, http.MethodTrace, http.MethodPatch,
}

// schemes are those of WIT's variant scheme.
var schemes = [...]string{"http", "https"}

// putVariant puts a variant whose cases are names, and then other(string).
func putVariant(c *engine.Call, names []string, v string) {
	if i := slices.Index(names, v); i >= 0 {
		c.PutCase(i)
		return
	}
	c.PutCase(len(names))
	c.PutString(v)
}

// variant reads what putVariant puts.
func variant(c *engine.Call, names []string) string {
	if i := c.Case(); i < len(names) {
		return names[i]
	}
	return c.String()
}

// putOptionString puts an option<string>, none for "".
func putOptionString(c *engine.Call, s string) {
	if s == "" {
		c.PutNone()
		return
	}
	c.PutSome()
	c.PutString(s)
}

func incomingRequestMethod(c *engine.Call) error {
	putVariant(c, methods[:], engine.Rep[*incomingRequest](c).r.Method)
	return nil
}

func incomingRequestPathWithQuery(c *engine.Call) error {
	putOptionString(c, pathWithQuery(engine.Rep[*incomingRequest](c).r))
	return nil
}

func incomingRequestScheme(c *engine.Call) error {
	scheme := "http"
	if engine.Rep[*incomingRequest](c).r.TLS != nil {
		scheme = "https"
	}
	c.PutSome()
	putVariant(c, schemes[:], scheme)
	return nil
}

func incomingRequestAuthority(c *engine.Call) error {
	putOptionString(c, engine.Rep[*incomingRequest](c).r.Host)
	return nil
}

func incomingRequestHeaders(c *engine.Call) error {
	q := engine.Rep[*incomingRequest](c)
	return q.s.putFields(c, q.fields(), true)
}

func incomingRequestConsume(c *engine.Call) error {
	q := engine.Rep[*incomingRequest](c)
	putConsumed(c, &q.consumed, q.s, q.body)
	return nil
}

// putConsumed puts the result of consume: the body, the first time.
func putConsumed(c *engine.Call, consumed *bool, s *state, body *bodyReader) {
	if *consumed {
		c.PutErr()
		return
	}
	*consumed = true
	c.PutOk()
	c.PutOwn(&incomingBody{s: s, reader: body})
}

// incomingResponse is the representation of [IncomingResponse].
type incomingResponse struct {
	s        *state
	status   int
	headers  []field
	body     *bodyReader
	consumed bool
}

func (p *incomingResponse) drop() {
	if !p.consumed {
		p.body.release()
	}
}

func incomingResponseStatus(c *engine.Call) error {
	c.PutU16(uint16(engine.Rep[*incomingResponse](c).status))
	return nil
}

func incomingResponseHeaders(c *engine.Call) error {
	p := engine.Rep[*incomingResponse](c)
	return p.s.putFields(c, p.headers, true)
}

func incomingResponseConsume(c *engine.Call) error {
	p := engine.Rep[*incomingResponse](c)
	putConsumed(c, &p.consumed, p.s, p.body)
	return nil
}
