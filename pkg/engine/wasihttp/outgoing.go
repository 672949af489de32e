package wasihttp

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// message is what outgoing-request and outgoing-response have in common.
type message struct {
	s       *state
	headers *fields
	body    *outgoingBody // once the guest took it
	sent    bool
}

// newMessage reads the headers of a new message.
func (h *Host) newMessage(c *engine.Call) (message, error) {
	m := message{s: h.of(c), headers: engine.Rep[*fields](c)}
	return m, m.s.hold(resourceOverhead)
}

func (m *message) drop() {
	m.s.release(resourceOverhead)
	m.headers.drop()
	if !m.sent && m.body != nil {
		m.body.drop()
	}
}

// length returns the content-length in the headers, -1 if there is none. ok is false if it is not one number.
func (m *message) length() (n int64, ok bool) {
	values := m.headers.values("content-length")
	if len(values) == 0 {
		return -1, true
	}
	v, err := strconv.ParseUint(values[0], 10, 63)
	return int64(v), err == nil && len(values) == 1
}

// putBody puts the result of body: the body, the first time.
func (m *message) putBody(c *engine.Call, tooLong Case) error {
	n, ok := m.length()
	if m.body != nil || !ok {
		c.PutErr()
		return nil
	}
	m.body = &outgoingBody{s: m.s, declared: n, tooLong: tooLong}
	c.PutOk()
	c.PutOwn(m.body)
	return nil
}

// outgoingResponse is the representation of [OutgoingResponse].
type outgoingResponse struct {
	message
	status int
}

func (h *Host) outgoingResponseNew(c *engine.Call) error {
	m, err := h.newMessage(c)
	if err != nil {
		return err
	}
	c.PutOwn(&outgoingResponse{message: m, status: http.StatusOK})
	return nil
}

func outgoingResponseStatusCode(c *engine.Call) error {
	c.PutU16(uint16(engine.Rep[*outgoingResponse](c).status))
	return nil
}

// outgoingResponseSetStatusCode refuses what is no final status.
func outgoingResponseSetStatusCode(c *engine.Call) error {
	p, status := engine.Rep[*outgoingResponse](c), int(c.U16())
	putOk(c, status >= 200 && status <= 999)
	if status >= 200 && status <= 999 {
		p.status = status
	}
	return nil
}

func outgoingResponseHeaders(c *engine.Call) error {
	p := engine.Rep[*outgoingResponse](c)
	return p.s.putFields(c, p.headers.entries, true)
}

func outgoingResponseBody(c *engine.Call) error {
	return engine.Rep[*outgoingResponse](c).putBody(c, HTTPResponseBodySize)
}

// putOk puts a result without payloads.
func putOk(c *engine.Call, ok bool) {
	if ok {
		c.PutOk()
	} else {
		c.PutErr()
	}
}

// outgoingRequest is the representation of [OutgoingRequest]. In its texts "" is none.
type outgoingRequest struct {
	message
	method, path, scheme, authority string
}

func (q *outgoingRequest) drop() {
	q.s.release(q.textSize())
	q.message.drop()
}

func (q *outgoingRequest) textSize() int {
	return len(q.path) + len(q.scheme) + len(q.authority)
}

func (h *Host) outgoingRequestNew(c *engine.Call) error {
	m, err := h.newMessage(c)
	if err != nil {
		return err
	}
	c.PutOwn(&outgoingRequest{message: m, method: http.MethodGet})
	return nil
}

func outgoingRequestBody(c *engine.Call) error {
	return engine.Rep[*outgoingRequest](c).putBody(c, HTTPRequestBodySize)
}

func outgoingRequestMethod(c *engine.Call) error {
	putVariant(c, methods[:], engine.Rep[*outgoingRequest](c).method)
	return nil
}

func outgoingRequestSetMethod(c *engine.Call) error {
	q, v := engine.Rep[*outgoingRequest](c), variant(c, methods[:])
	return q.set(c, &q.method, v, len(v) <= maxMethodBytes && isToken(v))
}

func outgoingRequestPathWithQuery(c *engine.Call) error {
	putOptionString(c, engine.Rep[*outgoingRequest](c).path)
	return nil
}

func outgoingRequestSetPathWithQuery(c *engine.Call) error {
	q, v := engine.Rep[*outgoingRequest](c), ""
	if c.Option() {
		v = c.String()
	}
	return q.set(c, &q.path, v, validPath(v))
}

func outgoingRequestScheme(c *engine.Call) error {
	q := engine.Rep[*outgoingRequest](c)
	if q.scheme == "" {
		c.PutNone()
		return nil
	}
	c.PutSome()
	putVariant(c, schemes[:], q.scheme)
	return nil
}

func outgoingRequestSetScheme(c *engine.Call) error {
	q := engine.Rep[*outgoingRequest](c)
	if !c.Option() {
		return q.set(c, &q.scheme, "", true)
	}
	v := variant(c, schemes[:])
	return q.set(c, &q.scheme, v, validScheme(v))
}

func outgoingRequestAuthority(c *engine.Call) error {
	putOptionString(c, engine.Rep[*outgoingRequest](c).authority)
	return nil
}

func outgoingRequestSetAuthority(c *engine.Call) error {
	q := engine.Rep[*outgoingRequest](c)
	if !c.Option() {
		return q.set(c, &q.authority, "", true)
	}
	v := c.String()
	return q.set(c, &q.authority, v, validAuthority(v))
}

// set makes v the value of field if it is valid, and puts the result.
func (q *outgoingRequest) set(c *engine.Call, field *string, v string, valid bool) error {
	if valid {
		had := q.textSize()
		*field = v
		if err := q.s.hold(q.textSize() - had); err != nil {
			return err
		}
	}
	putOk(c, valid)
	return nil
}

func outgoingRequestHeaders(c *engine.Call) error {
	q := engine.Rep[*outgoingRequest](c)
	return q.s.putFields(c, q.headers.entries, true)
}

// validPath says whether v may be a path and query: "", "*", or what begins with a slash or is a query only.
// It may hold bytes that a URI should escape, since guests pass on what they got; none that ends a request line.
func validPath(v string) bool {
	if len(v) > maxURIBytes {
		return false
	}
	if v != "" && v != "*" && v[0] != '/' && v[0] != '?' {
		return false
	}
	return !strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' })
}

// validScheme follows RFC 3986, section 3.1.
func validScheme(v string) bool {
	if v == "" || len(v) > maxURIBytes {
		return false
	}
	for i := range len(v) {
		switch b := v[i]; {
		case 'a' <= b|0x20 && b|0x20 <= 'z':
		case i > 0 && ('0' <= b && b <= '9' || b == '+' || b == '-' || b == '.'):
		default:
			return false
		}
	}
	return true
}

// validAuthority says whether v is a host with or without a port. RFC 9110, section 4.2.4, has no user there.
func validAuthority(v string) bool {
	if v == "" || len(v) > maxURIBytes || strings.ContainsAny(v, "@/?#\\") {
		return false
	}
	u, err := url.Parse("http://" + v)
	return err == nil && u.Host == v && u.Hostname() != ""
}

// url returns the URL of the request; ok is false if it cannot be sent.
func (q *outgoingRequest) url() (u *url.URL, ok bool) {
	u = &url.URL{Scheme: q.scheme, Host: q.authority}
	if u.Scheme == "" && u.Host != "" {
		u.Scheme = "https"
	}
	path, query, has := strings.Cut(q.path, "?")
	if path == "" {
		path = "/"
	}
	u.RawQuery, u.ForceQuery = query, has && query == ""
	decoded, err := url.PathUnescape(path)
	u.Path, u.RawPath = decoded, path
	if err == nil && u.EscapedPath() == path {
		return u, true
	}
	// The bytes of the path are not as Go would write them. Opaque is written as it is, but for this:
	if strings.HasPrefix(path, "//") {
		return nil, false
	}
	u.Path, u.RawPath, u.Opaque = "", "", path
	return u, true
}

// requestOptions is the representation of [RequestOptions]. Nil is none.
type requestOptions struct{ connect, firstByte, betweenBytes *uint64 }

func requestOptionsNew(c *engine.Call) error {
	c.PutOwn(new(requestOptions))
	return nil
}

// optionsGet is the getter of one of the options.
func optionsGet(field func(*requestOptions) **uint64) engine.HostFunc {
	return func(c *engine.Call) error {
		v := *field(engine.Rep[*requestOptions](c))
		if v == nil {
			c.PutNone()
			return nil
		}
		c.PutSome()
		c.PutU64(*v)
		return nil
	}
}

// optionsSet is the setter of one of the options.
func optionsSet(field func(*requestOptions) **uint64) engine.HostFunc {
	return func(c *engine.Call) error {
		v := field(engine.Rep[*requestOptions](c))
		*v = nil
		if c.Option() {
			*v = new(c.U64())
		}
		c.PutOk()
		return nil
	}
}

// The fields of requestOptions.
func connectTimeout(o *requestOptions) **uint64      { return &o.connect }
func firstByteTimeout(o *requestOptions) **uint64    { return &o.firstByte }
func betweenBytesTimeout(o *requestOptions) **uint64 { return &o.betweenBytes }

// send returns the options of a request; o may be nil.
func (o *requestOptions) send() SendOptions {
	if o == nil {
		o = new(requestOptions)
	}
	return SendOptions{timeout(o.connect), timeout(o.firstByte), timeout(o.betweenBytes)}
}

// timeout returns a duration of the guest, in nanoseconds. 0 is the shortest there is, and the longest is
// what Go can express, 292 years.
func timeout(v *uint64) time.Duration {
	if v == nil {
		return defaultTimeout
	}
	return time.Duration(min(max(*v, 1), math.MaxInt64))
}
