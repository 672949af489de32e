package wasihttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
)

// seen is what a guest sees of a request.
type seen struct{ method, path, scheme, authority string }

func (g *script) see(q *incomingRequest) (out seen) {
	g.t.Helper()
	g.call("[method]incoming-request.method", self(q), func(c *engine.Call) { out.method = variant(c, methods[:]) })
	g.call("[method]incoming-request.scheme", self(q), func(c *engine.Call) {
		require.True(g.t, c.Option())
		out.scheme = variant(c, schemes[:])
	})
	for name, v := range map[string]*string{"path-with-query": &out.path, "authority": &out.authority} {
		g.call("[method]incoming-request."+name, self(q), func(c *engine.Call) {
			if c.Option() {
				*v = c.Lifter.String()
			}
		})
	}
	return out
}

func TestRequestsAreSeenAsTheyCame(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		line, host string
		want       seen
	}{
		{"GET /a/./b%2f?x=%20&y+z HTTP/1.1", "h:81", seen{"GET", "/a/./b%2f?x=%20&y+z", "http", "h:81"}},
		{"GET /a? HTTP/1.1", "h", seen{"GET", "/a?", "http", "h"}},
		{"GET //a HTTP/1.1", "h", seen{"GET", "//a", "http", "h"}},
		{"GET /\xc3\xa9\" HTTP/1.1", "h", seen{"GET", "/é\"", "http", "h"}},
		{"GET /\xff\xc3\xa9 HTTP/1.1", "h", seen{"GET", "/%FF%C3%A9", "http", "h"}},
		{"PATCH http://other:82/p?q HTTP/1.1", "other:82", seen{"PATCH", "/p?q", "http", "other:82"}},
		{"GET http://other HTTP/1.1", "other", seen{"GET", "/", "http", "other"}},
		{"GET http://other?q/r HTTP/1.1", "other", seen{"GET", "/?q/r", "http", "other"}},
		{"OPTIONS * HTTP/1.1", "h", seen{"OPTIONS", "*", "http", "h"}},
		{"CONNECT h:443 HTTP/1.1", "h:443", seen{"CONNECT", "", "http", "h:443"}},
		{"BREW /pot HTTP/1.1", "h", seen{"BREW", "/pot", "http", "h"}},
		{"TRACE / HTTP/1.1", "h", seen{"TRACE", "/", "http", "h"}},
	} {
		t.Run(tc.line, func(t *testing.T) {
			t.Parallel()
			var got seen
			s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
				got = g.see(q)
				return answer(200, nil, nil)(g, q, p)
			})
			s.Config.DisableGeneralOptionsHandler = true
			answer := exchange(t, s, tc.line+"\r\nHost: "+tc.host+"\r\nConnection: close\r\n\r\n")
			require.True(t, strings.HasPrefix(answer, "HTTP/1.1 200"), answer)
			require.NoError(t, <-failed)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestRequestsThatAreNotFromTheNetwork(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	u, err := url.Parse("https://h/a%2fb?c")
	require.NoError(t, err)
	r := &http.Request{Method: "GET", URL: u, Host: "h", TLS: new(tls.ConnectionState)}
	require.NoError(t, g.serveScript(httptest.NewRecorder(), r, func(q *incomingRequest, p *response) error {
		require.Equal(t, seen{"GET", "/a%2fb?c", "https", "h"}, g.see(q))
		b := g.consume(q)
		n, err := b.reader.Read(t.Context(), make([]byte, 1))
		require.Zero(t, n)
		require.Equal(t, io.EOF, err)
		return answer(200, nil, nil)(g, q, p)
	}))
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	var got []string
	s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
		h := own[*fields](g, "[method]incoming-request.headers", self(q))
		got = g.entries(h)
		require.Equal(g.t, immutable, g.append(h, "a", "b"))
		return answer(200, nil, nil)(g, q, p)
	})
	exchange(t, s, "POST / HTTP/1.1\r\nHost: h\r\nX-B: 2\r\nx-a: 1\r\nX-A: \xff\xfe\r\nConnection: close, x\r\nKeep-Alive: 5\r\n"+
		"Upgrade: h2c\r\nProxy-Connection: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n0\r\n\r\n")
	require.NoError(t, <-failed)
	require.Equal(t, []string{"te", "trailers", "x-a", "1", "x-a", "\xff\xfe", "x-b", "2", "trailer", "x-t"}, got)
}

func TestRequestBodyAndTrailers(t *testing.T) {
	t.Parallel()
	for name, skip := range map[string]bool{"read": false, "skipped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
				b := g.consume(q)
				require.False(g.t, g.ok("[method]incoming-request.consume", self(q)))
				okOwn[any](g, "[method]incoming-body.stream", self(b))
				require.False(g.t, g.ok("[method]incoming-body.stream", self(b)))
				if !skip {
					got, err := io.ReadAll(readerOf(g, b))
					require.NoError(g.t, err)
					require.Equal(g.t, "hello, "+strings.Repeat("x", 100000), string(got))
				}
				trailers, e := g.trailers(b)
				require.Nil(g.t, e)
				require.Equal(g.t, []string{"x-t", "1", "x-t", "2"}, trailers)
				return answer(200, nil, nil)(g, q, p)
			})
			exchange(t, s, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"+
				"7\r\nhello, \r\n186a0\r\n"+strings.Repeat("x", 100000)+"\r\n0\r\nX-T: 1\r\nX-T: 2\r\n\r\n")
			require.NoError(t, <-failed)
		})
	}
}

// readerOf reads a body as its stream does.
func readerOf(g *script, b *incomingBody) io.Reader { return streamReader{g.Instance, b.reader} }

type streamReader struct {
	ctx context.Context
	r   *bodyReader
}

func (r streamReader) Read(p []byte) (int, error) { return r.r.Read(r.ctx, p) }

func TestBodyWithoutTrailers(t *testing.T) {
	t.Parallel()
	s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
		b := g.consume(q)
		f := own[*futureTrailers](g, "[static]incoming-body.finish", func(c *engine.Call) { c.PutOwn(b) })
		wait(g.t, f)
		for _, want := range []bool{true, false} { // only once
			g.call("[method]future-trailers.get", self(f), func(c *engine.Call) {
				require.True(g.t, c.Option())
				require.Equal(g.t, want, c.Result())
				if want {
					require.True(g.t, c.Result())
					require.False(g.t, c.Option())
				}
			})
		}
		return answer(200, nil, nil)(g, q, p)
	})
	exchange(t, s, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
	require.NoError(t, <-failed)
}

func TestBrokenRequestBody(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, head, body string }{
		{"bad chunk", "Transfer-Encoding: chunked", "zz\r\n"},
		{"bad trailer", "Transfer-Encoding: chunked", "0\r\nno colon\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
				b := g.consume(q)
				_, err := io.ReadAll(readerOf(g, b))
				require.Equal(g.t, NewError(HTTPProtocolError), err)
				_, e := g.trailers(b)
				require.Equal(g.t, NewError(HTTPProtocolError), e)
				return answer(200, nil, nil)(g, q, p)
			})
			got := exchange(t, s, "POST / HTTP/1.1\r\nHost: h\r\n"+tc.head+"\r\n\r\n"+tc.body)
			require.Equal(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", got)
			require.NoError(t, <-failed)
		})
	}
}

func TestMaxBytesIsBodySize(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	r := httptest.NewRequest("POST", "/", strings.NewReader("hello"))
	w := httptest.NewRecorder()
	r.Body = http.MaxBytesReader(w, r.Body, 4)
	require.NoError(t, g.serveScript(w, r, func(q *incomingRequest, p *response) error {
		b := g.consume(q)
		_, err := io.ReadAll(readerOf(g, b))
		require.Equal(t, &ErrorCode{Case: HTTPRequestBodySize, Number: new(uint64(4))}, err)
		return answer(413, nil, nil)(g, q, p)
	}))
	require.Equal(t, 413, w.Code)
}

// TestRequestThatIsNotReadKeepsTheConnectionInOrder sends two requests at once, where the guest does not read the
// first: the second is answered, or the connection ends, but the first's body never passes for a request.
func TestRequestThatIsNotReadKeepsTheConnectionInOrder(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("GET /body HTTP/1.1\r\nHost: h\r\n\r\n", 20000)
	polls := func(then scripted) scripted {
		return func(g *script, q *incomingRequest, p *response) error {
			if q.r.URL.Path == "/body" {
				g.t.Error("a body passed for a request")
			}
			if q.r.Method == "POST" {
				b := g.consume(q)
				b.reader.Ready() // it begins to read ahead
				b.drop()
			}
			return then(g, q, p)
		}
	}
	streamed := func(g *script, q *incomingRequest, p *response) error {
		o := g.response(200)
		b := g.body(o)
		g.set(p, o)
		g.write(b, strings.Repeat("x", 2*maxPending))
		if q.r.Method == "POST" {
			q.body.Ready()
		}
		require.Nil(g.t, g.finish(b, nil))
		return nil
	}
	const small = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
	const stalled = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\nGET /body HTTP/1.1\r\nHost: h\r\n\r\n"
	large := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 640000\r\n\r\n" + big
	for _, tc := range []struct {
		name, first string
		guest       scripted
		answers     int
		err         error
	}{
		{"small body, not read", small, answer(200, nil, nil, "a"), 2, nil},
		{"large body, not read", large, answer(200, nil, nil, "a"), 1, nil},
		{"small body, polled", small, polls(answer(200, nil, nil, "a")), 2, nil},
		{"large body, polled", large, polls(answer(200, nil, nil, "a")), 1, nil},
		{"body that does not come, not read", stalled, answer(200, nil, nil, "a"), 1, nil},
		{"body that does not come, polled", stalled, polls(answer(200, nil, nil, "a")), 1, nil},
		{"body that does not come, polled while the response is on its way", stalled, streamed, 1, nil},
		{"body that does not come, not read, and no answer", stalled, func(*script, *incomingRequest, *response) error { return nil }, 1, ErrNoResponse},
		{"small body, not read, and no answer", small, func(*script, *incomingRequest, *response) error { return nil }, 2, ErrNoResponse},
		{"body that waits for 100 Continue", strings.Replace(stalled, "Content", "Expect: 100-continue\r\nContent", 1), answer(200, nil, nil, "a"), 1, nil},
		{"body that does not come, and no answer", stalled, polls(func(*script, *incomingRequest, *response) error { return nil }), 1, ErrNoResponse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, tc.guest)
			c := dial(t, s, "")
			go func() { _, _ = io.WriteString(c, tc.first+getClose) }() // ends with the connection
			in := bufio.NewReader(c)
			answers := 0
			for {
				p, err := http.ReadResponse(in, nil)
				if err != nil {
					break
				}
				_, err = io.Copy(io.Discard, p.Body)
				if err != nil {
					break
				}
				answers++
			}
			require.Equal(t, tc.answers, answers)
			if tc.err != nil {
				require.ErrorIs(t, <-failed, tc.err)
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
		b := g.consume(q)
		got, err := io.ReadAll(readerOf(g, b))
		require.NoError(g.t, err)
		return answer(200, nil, nil, string(got))(g, q, p)
	})
	c := dial(t, s, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
	in := bufio.NewReader(c)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = io.WriteString(c, "hello")
	require.NoError(t, err)
	rest, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Contains(t, string(rest), "\r\n\r\nhello")
	require.NoError(t, <-failed)
}

// TestExpectContinueBesideAnAnswer has a guest that answers before it reads, and a client that sends nothing before it is
// asked to.
func TestExpectContinueBesideAnAnswer(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]bool{"blocking": false, "polled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
				in := g.consume(q)
				o := g.response(200, "x-own", "1")
				b := g.body(o)
				g.set(p, o)
				if poll {
					_, err := wasi.Wait(g.Instance, in.reader)
					require.NoError(g.t, err)
				}
				got, err := io.ReadAll(readerOf(g, in))
				require.NoError(g.t, err)
				g.write(b, string(got))
				require.Nil(g.t, g.finish(b, nil))
				return nil
			})
			c := dial(t, s, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
			in := bufio.NewReader(c)
			for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n", "HTTP/1.1 200 OK\r\n"} {
				line, err := in.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, want, line)
			}
			_, err := io.WriteString(c, "hello")
			require.NoError(t, err)
			rest, err := io.ReadAll(in)
			require.NoError(t, err)
			require.Contains(t, string(rest), "X-Own: 1\r\n")
			require.Contains(t, string(rest), "hello")
			require.NoError(t, <-failed)
		})
	}
}

// TestEchoIsDuplex has a client that waits for each byte before it sends the next, with reads that block and with
// reads that are polled.
func TestEchoIsDuplex(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]bool{"blocking": false, "polled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
				in := g.consume(q).reader
				o := g.response(200)
				b := g.body(o)
				g.set(p, o)
				chunk := make([]byte, 100)
				for {
					if poll {
						wait(g.t, in)
					}
					n, err := in.Read(g.Instance, chunk)
					g.write(b, string(chunk[:n]))
					if err != nil {
						require.Equal(g.t, io.EOF, err)
						require.Nil(g.t, g.finish(b, nil))
						return nil
					}
				}
			})
			body, w := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, body)
			require.NoError(t, err)
			p, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			for _, b := range []byte("hello") {
				_, err := w.Write([]byte{b})
				require.NoError(t, err)
				got := make([]byte, 1)
				_, err = io.ReadFull(p.Body, got)
				require.NoError(t, err)
				require.Equal(t, b, got[0])
			}
			require.NoError(t, w.Close())
			rest, err := io.ReadAll(p.Body)
			require.NoError(t, err)
			require.Empty(t, rest)
			require.NoError(t, p.Body.Close())
			require.NoError(t, <-failed)
		})
	}
}

// TestContextEndsReads ends the context while the guest waits for the client.
func TestContextEndsReads(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := errors.New("deadline of the request")
	s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
		b := g.consume(q)
		n, err := b.reader.Read(ctx, make([]byte, 10))
		require.NoError(g.t, err)
		require.Equal(g.t, 5, n)
		go cancel(ended) // ends at once
		_, err = b.reader.Read(ctx, make([]byte, 10))
		require.Error(g.t, err)
		return context.Cause(ctx)
	})
	got := exchange(t, s, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\nhello")
	require.Contains(t, got, "HTTP/1.1 500")
	require.Contains(t, got, "Connection: close")
	require.Equal(t, ended, <-failed)
}
