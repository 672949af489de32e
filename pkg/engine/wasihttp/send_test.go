package wasihttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

func TestOutgoingRequestRefusesWhatIsInvalid(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	long := strings.Repeat("a", maxURIBytes)
	for _, tc := range []struct {
		field string
		valid []string
		not   []string
	}{
		{"method", []string{"GET", "HEAD", "PATCH", "CONNECT", "BREW", "x-y"}, []string{"", "A B", "é", "A\r\n", strings.Repeat("M", maxMethodBytes+1)}},
		{"path-with-query", []string{"", "/", "/a?b", "*", "?q", "/é\"<>", "//x", "/%zz"}, []string{"a", "/a b", "/a#b", "/\r\n", "/\x7f", "/" + long}},
		{"scheme", []string{"http", "https", "ftp", "a+b-c.1"}, []string{"", "1a", "a b", "a:", "é", "h" + long}},
		{"authority", []string{"h", "h:80", "[::1]:80", "127.0.0.1", "x.y:65535", "é.example"},
			[]string{"", "u@h", "h/p", "h?q", "h#f", "h:x", "[::1", "a b", ":80", "h\r\n", "h\\", long + "a"}},
	} {
		q := g.request("GET", "http://h/")
		set := func(v string) bool {
			return g.ok("[method]outgoing-request.set-"+tc.field, func(c *engine.Call) {
				c.PutBorrow(q)
				switch tc.field {
				case "method":
					putVariant(c, methods[:], v)
				case "scheme":
					c.PutSome()
					putVariant(c, schemes[:], v)
				default:
					c.PutSome()
					c.PutString(v)
				}
			})
		}
		get := func() (v string) {
			g.call("[method]outgoing-request."+tc.field, self(q), func(c *engine.Call) {
				switch tc.field {
				case "method":
					v = variant(c, methods[:])
				case "scheme":
					require.True(t, c.Option())
					v = variant(c, schemes[:])
				default:
					if c.Option() {
						v = c.Lifter.String()
					}
				}
			})
			return v
		}
		for _, v := range tc.valid {
			require.True(t, set(v), "%s %q", tc.field, v)
			require.Equal(t, v, get())
		}
		before := get()
		for _, v := range tc.not {
			require.False(t, set(v), "%s %.100q", tc.field, v)
			require.Equal(t, before, get())
		}
		if tc.field != "method" {
			require.True(t, g.ok("[method]outgoing-request.set-"+tc.field, func(c *engine.Call) { c.PutBorrow(q); c.PutNone() }))
			g.call("[method]outgoing-request."+tc.field, self(q), func(c *engine.Call) { require.False(t, c.Option()) })
		}
		q.drop()
		require.Zero(t, g.state().held)
	}
}

func TestURLsKeepTheirBytes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ scheme, authority, path, url, uri string }{
		{"", "h", "", "https://h/", "/"},
		{"http", "h:81", "/a%2fb/%7e?x=%20&y", "http://h:81/a%2fb/%7e?x=%20&y", "/a%2fb/%7e?x=%20&y"},
		{"http", "h", "/a?", "http://h/a?", "/a?"},
		{"http", "h", "?q", "http://h/?q", "/?q"},
		{"http", "h", "/é\"|?é", "http:/é\"|?é", "/é\"|?é"},
		{"http", "h", "/%zz", "http:/%zz", "/%zz"},
		{"http", "h", "//x/y", "http://h//x/y", "//x/y"},
		{"http", "h", "*", "http://h/*", "*"},
		{"", "", "/self", "/self", "/self"},
	} {
		q := outgoingRequest{scheme: tc.scheme, authority: tc.authority, path: tc.path}
		u, ok := q.url()
		require.True(t, ok, tc.path)
		require.Equal(t, tc.uri, u.RequestURI(), tc.path)
		require.Equal(t, tc.authority, u.Host)
	}
	_, ok := (&outgoingRequest{scheme: "http", authority: "h", path: "//\""}).url()
	require.False(t, ok)
}

func TestRequestOptions(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	o := own[*requestOptions](g, "[constructor]request-options", nil)
	require.Equal(t, SendOptions{defaultTimeout, defaultTimeout, defaultTimeout}, o.send())
	for i, name := range []string{"connect-timeout", "first-byte-timeout", "between-bytes-timeout"} {
		get := func() (v *uint64) {
			g.call("[method]request-options."+name, self(o), func(c *engine.Call) {
				if c.Option() {
					v = new(c.U64())
				}
			})
			return v
		}
		set := func(v *uint64) {
			require.True(t, g.ok("[method]request-options.set-"+name, func(c *engine.Call) {
				c.PutBorrow(o)
				if v == nil {
					c.PutNone()
					return
				}
				c.PutSome()
				c.PutU64(*v)
			}))
			require.Equal(t, v, get())
		}
		require.Nil(t, get())
		set(new(uint64(5)))
		set(nil)
		set(new(uint64(i + 1)))
	}
	require.Equal(t, SendOptions{1, 2, 3}, o.send())
	require.Equal(t, time.Duration(1), timeout(new(uint64(0))))
	require.Equal(t, time.Duration(1<<63-1), timeout(new(uint64(1<<64-1))))
}

func TestOutgoingResponseRefusesWhatIsInvalid(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	p := g.response(200)
	status := func() (n uint16) {
		g.call("[method]outgoing-response.status-code", self(p), func(c *engine.Call) { n = c.U16() })
		return n
	}
	for _, s := range []uint16{0, 99, 100, 103, 199, 1000, 65535} {
		require.False(t, g.ok("[method]outgoing-response.set-status-code", func(c *engine.Call) { c.PutBorrow(p); c.PutU16(s) }))
		require.Equal(t, uint16(200), status())
	}
	require.True(t, g.ok("[method]outgoing-response.set-status-code", func(c *engine.Call) { c.PutBorrow(p); c.PutU16(999) }))
	require.Equal(t, uint16(999), status())

	b := g.body(p)
	require.False(t, g.ok("[method]outgoing-response.body", self(p)))
	okOwn[any](g, "[method]outgoing-body.write", self(b))
	require.False(t, g.ok("[method]outgoing-body.write", self(b)))
	for _, bad := range []string{"", "-1", "+1", "1x", "99999999999999999999"} {
		require.False(t, g.ok("[method]outgoing-response.body", self(g.response(200, "content-length", bad))), bad)
	}
	require.False(t, g.ok("[method]outgoing-response.body", self(g.response(200, "content-length", "1", "content-length", "1"))))
}

func TestEarlyBodiesAreBounded(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	p := g.response(200)
	b := g.body(p)
	require.Equal(t, maxEarlyBody, b.Room())
	g.write(b, strings.Repeat("x", maxEarlyBody))
	require.Zero(t, b.Room())
	require.False(t, b.Ready())
	b.Watch(func() {})()
	require.ErrorContains(t, b.Write(g, []byte("x")), "before its message is sent")
	b.drop()
	p.drop()
	require.Zero(t, g.state().held)

	var err error
	for range maxHeld/maxEarlyBody + 1 {
		if err = g.body(g.response(200)).Write(g, make([]byte, maxEarlyBody)); err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "maxHeld")
}

// upstream is a server that echoes a request in its answer.
func upstream(t testing.TB) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Got")
		w.Header()["X-Two"] = []string{"1", "\xff"}
		w.Header().Set("Connection", "close")
		w.WriteHeader(203)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = fmt.Fprintf(w, "%s %s %d %v %v %s", r.Method, r.RequestURI, r.ContentLength, r.Header, r.Trailer, body)
		w.Header().Set("X-Got", "all")
	}))
	t.Cleanup(s.Close)
	return s
}

// receive reads a response: status, headers, body and trailers.
func (g *script) receive(p *incomingResponse) string {
	g.t.Helper()
	var status uint16
	g.call("[method]incoming-response.status", self(p), func(c *engine.Call) { status = c.U16() })
	h := g.entries(own[*fields](g, "[method]incoming-response.headers", self(p)))
	b := g.consume(p)
	require.False(g.t, g.ok("[method]incoming-response.consume", self(p)))
	body, err := io.ReadAll(readerOf(g, b))
	require.NoError(g.t, err)
	trailers, e := g.trailers(b)
	require.Nil(g.t, e)
	p.drop()
	h = h[:len(h)-len(h)%2]
	for i := 0; i < len(h); i += 2 {
		if h[i] == "date" {
			h = append(h[:i], h[i+2:]...)
			break
		}
	}
	return fmt.Sprintf("%d %q %s %q", status, h, body, trailers)
}

func TestSendAndReceive(t *testing.T) {
	t.Parallel()
	const head = `203 ["content-type" "text/plain; charset=utf-8" "x-two" "1" "x-two" "\xff"] `
	for _, tc := range []struct {
		name string
		send func(g *script, url string) (*futureResponse, *ErrorCode)
		want string
	}{
		{"only what the guest set", func(g *script, url string) (*futureResponse, *ErrorCode) {
			return g.handle(g.request("DELETE", url+"/x%2f", "X-A", "1", "x-a", "2"), nil)
		}, `DELETE /x%2f 0 map[X-A:[1 2]] map[] `},
		{"a body that is written after the request was sent", func(g *script, url string) (*futureResponse, *ErrorCode) {
			q := g.request("POST", url+"/")
			b := g.body(q)
			f, e := g.handle(q, nil)
			g.write(b, "hello, ")
			g.write(b, "world")
			require.Nil(g.t, g.finish(b, nil))
			return f, e
		}, `POST / -1 map[] map[] hello, world`},
		{"a body that was finished before has its length", func(g *script, url string) (*futureResponse, *ErrorCode) {
			q := g.request("PUT", url+"/")
			b := g.body(q)
			g.write(b, "hello")
			require.Nil(g.t, g.finish(b, nil))
			return g.handle(q, nil)
		}, `PUT / 5 map[Content-Length:[5]] map[] hello`},
		{"a declared length", func(g *script, url string) (*futureResponse, *ErrorCode) {
			q := g.request("POST", url+"/", "content-length", "5")
			b := g.body(q)
			f, e := g.handle(q, nil)
			g.write(b, "hello")
			require.Nil(g.t, g.finish(b, nil))
			return f, e
		}, `POST / 5 map[Content-Length:[5]] map[] hello`},
		{"trailers, declared and not", func(g *script, url string) (*futureResponse, *ErrorCode) {
			q := g.request("POST", url+"/", "trailer", "x-t, content-length")
			b := g.body(q)
			f, e := g.handle(q, nil)
			g.write(b, "hello")
			require.Nil(g.t, g.finish(b, g.fields("x-t", "1", "x-u", "2")))
			return f, e
		}, `POST / -1 map[] map[X-T:[1] X-U:[2]] hello`},
		{"an empty body of GET is none", func(g *script, url string) (*futureResponse, *ErrorCode) {
			q := g.request("GET", url+"/")
			b := g.body(q)
			f, e := g.handle(q, nil)
			require.Nil(g.t, g.finish(b, nil))
			return f, e
		}, `GET / 0 map[] map[] `},
		{"a large body", func(g *script, url string) (*futureResponse, *ErrorCode) {
			q := g.request("POST", url+"/")
			b := g.body(q)
			f, e := g.handle(q, nil)
			g.write(b, strings.Repeat("x", 10*maxEarlyBody))
			require.Nil(g.t, g.finish(b, nil))
			return f, e
		}, `POST / -1 map[] map[] ` + strings.Repeat("x", 10*maxEarlyBody)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			client, _ := newClient(t)
			g := newScript(t, Config{Client: client})
			f, e := tc.send(g, upstream(t).URL)
			require.Nil(t, e)
			p, e := g.get(f)
			require.Nil(t, e)
			g.call("[method]future-incoming-response.get", self(f), func(c *engine.Call) { // once more
				require.True(t, c.Option())
				require.False(t, c.Result())
			})
			f.drop()
			require.Equal(t, head+tc.want+` ["x-got" "all"]`, g.receive(p))
			require.Empty(t, g.state().outgoing.slots)
		})
	}
}

func TestHandleRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		make func(g *script) *outgoingRequest
		want Case
	}{
		{"another scheme", func(g *script) *outgoingRequest { return g.request("GET", "ftp://h/") }, HTTPProtocolError},
		{"a path that cannot be sent", func(g *script) *outgoingRequest { return g.request("GET", "http://h//\"") }, HTTPRequestURIInvalid},
		{"CONNECT", func(g *script) *outgoingRequest { return g.request("CONNECT", "http://h/") }, HTTPRequestMethodInvalid},
		{"a bad content-length", func(g *script) *outgoingRequest { return g.request("GET", "http://h/", "content-length", "x") }, HTTPProtocolError},
		{"a content-length without body", func(g *script) *outgoingRequest { return g.request("GET", "http://h/", "content-length", "1") }, HTTPRequestBodySize},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			client, _ := newClient(t)
			g := newScript(t, Config{Client: client})
			f, e := g.handle(tc.make(g), nil)
			require.Nil(t, f)
			require.Equal(t, tc.want, e.Case)
			require.Zero(t, g.state().held)
		})
	}
}

func TestWithoutClientRequestsAreDenied(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	q := g.request("POST", "http://h/")
	b := g.body(q)
	f, e := g.handle(q, nil)
	require.Nil(t, e)
	require.Equal(t, io.ErrClosedPipe, b.Write(g, []byte("x")))
	require.Equal(t, 1, b.Room())
	_, e = g.get(f)
	require.Equal(t, NewError(HTTPRequestDenied), e)
	f.drop()
	b.drop()
}

func TestBodyOfRequestMustHaveItsLength(t *testing.T) {
	t.Parallel()
	client, _ := newClient(t)
	g := newScript(t, Config{Client: client})
	q := g.request("POST", upstream(t).URL+"/", "content-length", "5")
	b := g.body(q)
	f, e := g.handle(q, nil)
	require.Nil(t, e)
	g.write(b, "hell")
	require.Equal(t, &ErrorCode{Case: HTTPRequestBodySize, Number: new(uint64(4))}, g.finish(b, nil))
	_, e = g.get(f)
	require.NotNil(t, e)
}

// held is a [Client] whose Send waits for the end of the request's context.
type held struct{ started chan bool }

func (h held) Send(r *http.Request, _ SendOptions) (*http.Response, error) {
	h.started <- true
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

func TestOutgoingRequestsAreBounded(t *testing.T) {
	t.Parallel()
	client := held{make(chan bool, maxOutgoing)}
	g := newScript(t, Config{Client: client})
	fs := make([]*futureResponse, maxOutgoing)
	for i := range fs {
		fs[i], _ = g.handle(g.request("GET", "http://h/"), nil)
	}
	f, e := g.handle(g.request("GET", "http://h/"), nil)
	require.Nil(t, e)
	_, e = g.get(f)
	require.Equal(t, NewError(ConnectionLimitReached), e)
	for _, f := range fs {
		f.drop()
		wait(t, f) // its goroutine has ended
	}
	require.Empty(t, g.state().outgoing.slots)
}

func TestRequestsEndWithTheInstance(t *testing.T) {
	t.Parallel()
	client := held{make(chan bool, 1)}
	g := newScript(t, Config{Client: client})
	ctx, cancel := context.WithCancel(t.Context())
	g.state().ctx = ctx
	f, _ := g.handle(g.request("GET", "http://h/"), nil)
	<-client.started
	require.False(t, f.Ready())
	cancel()
	_, e := g.get(f)
	require.Equal(t, NewError(ConnectionTerminated), e)
	require.Empty(t, g.state().outgoing.slots)
}

// body is the body of a response from a [Client] of a test.
type body struct {
	read   func(p []byte) (int, error)
	closed chan bool
}

func (b body) Read(p []byte) (int, error) { return b.read(p) }
func (b body) Close() error               { close(b.closed); return nil }

type clientFunc func(r *http.Request) (*http.Response, error)

func (f clientFunc) Send(r *http.Request, _ SendOptions) (*http.Response, error) { return f(r) }

func TestResponsesAreClosedWhenDropped(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]func(g *script, f *futureResponse){
		"the future": func(g *script, f *futureResponse) { wait(g.t, f); f.drop() },
		"the future, before there is a response": func(_ *script, f *futureResponse) {
			f.drop()
		},
		"the response": func(g *script, f *futureResponse) { p, _ := g.get(f); f.drop(); p.drop() },
		"the body": func(g *script, f *futureResponse) {
			p, _ := g.get(f)
			f.drop()
			b := g.consume(p)
			p.drop()
			b.drop()
		},
		"the trailers": func(g *script, f *futureResponse) {
			p, _ := g.get(f)
			b := g.consume(p)
			p.drop()
			f.drop()
			own[*futureTrailers](g, "[static]incoming-body.finish", func(c *engine.Call) { c.PutOwn(b) }).drop()
		},
		"the body, while it is read ahead": func(g *script, f *futureResponse) {
			p, _ := g.get(f)
			f.drop()
			b := g.consume(p)
			p.drop()
			b.reader.Ready()
			b.drop()
			b.reader.settle()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed := make(chan bool)
			g := newScript(t, Config{Client: clientFunc(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: body{func([]byte) (int, error) {
					<-closed
					return 0, errors.New("closed")
				}, closed}}, nil
			})})
			f, e := g.handle(g.request("GET", "http://h/"), nil)
			require.Nil(t, e)
			drop(g, f)
			<-closed
		})
	}
}

func TestBetweenBytesTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan bool)
		sent := 0
		between := 3 * time.Second
		b := newBodyReader(&bodyReader{
			body: body{func(p []byte) (int, error) {
				if sent++; sent <= 5 {
					time.Sleep(between - 1)
					return 1, nil
				}
				<-closed
				return 0, errors.New("closed")
			}, closed},
			idle:       func() {},
			incomplete: HTTPResponseIncomplete,
			between:    between,
		})
		b.interrupt = func() { _ = b.body.Close() }
		start := time.Now()
		n, err := io.Copy(io.Discard, streamReader{t.Context(), b})
		require.Equal(t, int64(5), n)
		require.Equal(t, NewError(ConnectionReadTimeout), err)
		require.Equal(t, 5*(between-1)+between, time.Since(start))
	})
}

// TestBodyOfRequestWaitsForTheServer fills the pipe: then the guest waits, until the client reads or is done.
func TestBodyOfRequestWaitsForTheServer(t *testing.T) {
	t.Parallel()
	for name, closes := range map[string]bool{"it reads on": false, "it needs no more": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			full := make(chan bool)
			g := newScript(t, Config{Client: clientFunc(func(r *http.Request) (*http.Response, error) {
				<-full
				if closes {
					require.NoError(t, r.Body.Close())
				} else {
					_, err := io.CopyN(io.Discard, r.Body, 10)
					require.NoError(t, err)
				}
				<-r.Context().Done()
				return nil, r.Context().Err()
			})})
			q := g.request("POST", "http://h/")
			h := own[*fields](g, "[method]outgoing-request.headers", self(q))
			require.Equal(t, immutable, g.append(h, "a", "b"))
			b := g.body(q)
			f, e := g.handle(q, nil)
			require.Nil(t, e)
			g.write(b, strings.Repeat("x", maxEarlyBody-1))
			require.Equal(t, 1, b.Room())
			g.write(b, "x")
			require.False(t, b.Ready())
			full <- true
			wait(t, b)
			if closes {
				require.Equal(t, io.ErrClosedPipe, b.Write(g, []byte("x")))
			} else {
				require.Equal(t, 10, b.Room())
				ctx, cancel := context.WithCancelCause(t.Context())
				ended := errors.New("ended")
				cancel(ended)
				require.Equal(t, ended, b.Write(ctx, make([]byte, 11)))
			}
			f.drop()
			wait(t, f)
		})
	}
}

func TestTimeLimitsFollowTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var causes []error
		limit := &timeLimit{cancel: func(cause error) { causes = append(causes, cause) }}
		limit.set(2*time.Second, errFirstByteTimeout)
		time.Sleep(time.Second)
		limit.set(2*time.Second, errConnectTimeout)
		time.Sleep(time.Second)
		limit.set(2*time.Second, errFirstByteTimeout)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Equal(t, []error{errFirstByteTimeout}, causes)
		limit.end()
		limit.set(time.Second, errConnectTimeout)
		time.Sleep(2 * time.Second)
		require.Len(t, causes, 1)
	})
}

func TestIncompleteResponse(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(s.Close)
	client, _ := newClient(t)
	g := newScript(t, Config{Client: client})
	f, _ := g.handle(g.request("GET", s.URL+"/"), nil)
	p, e := g.get(f)
	require.Nil(t, e)
	b := g.consume(p)
	got, err := io.ReadAll(readerOf(g, b))
	require.Equal(t, "hello", string(got))
	require.Equal(t, NewError(HTTPResponseIncomplete), err)
	_, e = g.trailers(b)
	require.Equal(t, NewError(HTTPResponseIncomplete), e)
}

// FuzzURL checks what passes for the parts of a URL: it is written to a request line as one word, and to the right
// host.
func FuzzURL(f *testing.F) {
	f.Add("http", "h:80", "/a%2f?b")
	f.Add("https", "[::1]", "*")
	f.Add("", "", "//x\"")
	f.Add("http", "a@b", "/é#")
	f.Fuzz(func(t *testing.T, scheme, authority, path string) {
		if scheme != "" && !validScheme(scheme) || authority != "" && !validAuthority(authority) || !validPath(path) {
			return
		}
		u, ok := (&outgoingRequest{scheme: scheme, authority: authority, path: path}).url()
		if !ok {
			return
		}
		require.Equal(t, authority, u.Host)
		uri := u.RequestURI()
		require.NotEmpty(t, uri)
		require.False(t, strings.ContainsAny(uri, " \t\r\n\x00"), "%q", uri)
		require.True(t, uri == "*" || uri[0] == '/', "%q", uri)
	})
}

// FuzzPathWithQuery checks what guests see of the target of a request.
func FuzzPathWithQuery(f *testing.F) {
	for _, uri := range []string{"/a?b", "*", "http://h/p?q", "http://h?q/r", "h:443", "", "://", "x", "/\xff"} {
		f.Add("GET", uri)
		f.Add("CONNECT", uri)
	}
	f.Fuzz(func(t *testing.T, method, uri string) {
		if uri == "" { // never from the network
			return
		}
		got := pathWithQuery(&http.Request{Method: method, RequestURI: uri})
		require.True(t, got == "" && method == "CONNECT" || got == "*" || strings.HasPrefix(got, "/"), "%q", got)
	})
}
