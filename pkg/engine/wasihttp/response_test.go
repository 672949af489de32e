package wasihttp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// scripted is what a guest does with one request.
type scripted func(g *script, q *incomingRequest, p *response) error

// serve serves one connection at a time with guest, whose errors it sends to the channel.
func serve(t testing.TB, guest scripted) (*httptest.Server, <-chan error) {
	t.Helper()
	g := newScript(t, Config{})
	g.patient = true
	failed := make(chan error, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := &headWatch{ResponseWriter: w}
		err := g.serveScript(head, r, func(q *incomingRequest, p *response) error { return guest(g, q, p) })
		failed <- err
		if _, late := errors.AsType[*LateError](err); err == nil || late {
			return
		}
		if head.sent {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(s.Close)
	return s, failed
}

type headWatch struct {
	http.ResponseWriter
	sent bool
}

func (w *headWatch) WriteHeader(status int)      { w.sent = true; w.ResponseWriter.WriteHeader(status) }
func (w *headWatch) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// dial sends text to the server and returns the connection.
func dial(t testing.TB, s *httptest.Server, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, text)
	require.NoError(t, err)
	return c
}

// exchange sends one request, and returns what came back until the connection was closed, without its date.
func exchange(t testing.TB, s *httptest.Server, request string) string {
	t.Helper()
	b, err := io.ReadAll(dial(t, s, request))
	require.NoError(t, err)
	date := regexp.MustCompile("Date: [^\r]*\r\n")
	return date.ReplaceAllString(string(b), "")
}

const (
	getClose  = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
	headClose = "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
)

// answer is a guest that answers with headers and a body of chunks.
func answer(status int, headers []string, trailers []string, chunks ...string) scripted {
	return func(g *script, _ *incomingRequest, p *response) error {
		o := g.response(status, headers...)
		b := g.body(o)
		g.set(p, o)
		for _, c := range chunks {
			g.write(b, c)
		}
		var f *fields
		if trailers != nil {
			f = g.fields(trailers...)
		}
		if e := g.finish(b, f); e != nil {
			return e
		}
		return nil
	}
}

func TestResponsesOnTheWire(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", maxPending+1)
	for _, tc := range []struct {
		name    string
		guest   scripted
		request string
		want    string
	}{
		{
			"a small body has its length", answer(200, nil, nil, "he", "llo"), getClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
		},
		{
			"an empty body has its length", answer(200, nil, nil), getClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		},
		{
			"a body that was not taken is empty", func(g *script, _ *incomingRequest, p *response) error {
				g.set(p, g.response(404, "X-A", "1", "x-a", "2"))
				return nil
			}, getClose,
			"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\n\r\n",
		},
		{
			"a large body is chunked", answer(200, nil, nil, big), getClose,
			"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1001\r\n" + big + "\r\n0\r\n\r\n",
		},
		{
			"a length that the guest gave is kept", answer(200, []string{"content-length", "4097", "content-type", "a/b"}, nil, big), getClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 4097\r\nContent-Type: a/b\r\nConnection: close\r\n\r\n" + big,
		},
		{
			"trailers follow a small body", answer(200, nil, []string{"x-t", "1", "content-length", "9", "x-t", "2"}, "hello"), getClose,
			"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\nX-T: 2\r\n\r\n",
		},
		{
			"declared trailers follow an empty body", answer(200, []string{"trailer", "x-t"}, []string{"x-t", "1"}), getClose,
			"HTTP/1.1 200 OK\r\nTrailer: x-t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n",
		},
		{
			"HEAD has the length of a small body", answer(200, nil, nil, "hello"), headClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
		},
		{
			"HEAD has the length that the guest gave", answer(200, []string{"content-length", "4097"}, nil, big), headClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 4097\r\nConnection: close\r\n\r\n",
		},
		{
			"HEAD may have a length without body", func(g *script, _ *incomingRequest, p *response) error {
				g.set(p, g.response(200, "content-length", "7"))
				return nil
			}, headClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n",
		},
		{
			"HEAD of a large body has no length", answer(200, nil, nil, big), headClose,
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
		},
		{
			"204 has no body", answer(204, nil, nil, "dropped"), getClose,
			"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
		},
		{
			"304 has no body", answer(304, []string{"etag", `"e"`}, nil, "dropped"), getClose,
			"HTTP/1.1 304 Not Modified\r\nEtag: \"e\"\r\nConnection: close\r\n\r\n",
		},
		{
			"a status may be unknown", answer(799, nil, nil, ""), getClose,
			"HTTP/1.1 799 status code 799\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		},
		{
			"a body may be written before the response is set", func(g *script, _ *incomingRequest, p *response) error {
				o := g.response(200)
				b := g.body(o)
				g.write(b, "early, ")
				g.write(b, "finished")
				require.Nil(g.t, g.finish(b, nil))
				g.set(p, o)
				require.Zero(g.t, g.state().held)
				return nil
			}, getClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\nearly, finished",
		},
		{
			"HTTP/1.0 gets a body without chunks", answer(200, nil, nil, big), "GET / HTTP/1.0\r\n\r\n",
			"HTTP/1.0 200 OK\r\n\r\n" + big,
		},
		{
			"header values keep their bytes", answer(200, []string{"x-a", "\xff\xfe"}, nil), getClose,
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: \xff\xfe\r\nConnection: close\r\n\r\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, tc.guest)
			require.Equal(t, tc.want, exchange(t, s, tc.request))
			require.NoError(t, <-failed)
		})
	}
}

func TestFaultsOfGuests(t *testing.T) {
	t.Parallel()
	const (
		failed500 = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
		cut       = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	)
	trap := &engine.Trap{Msg: "unreachable"}
	for _, tc := range []struct {
		name  string
		guest scripted
		want  string
		err   error
	}{
		{"no response", func(*script, *incomingRequest, *response) error { return nil }, failed500, ErrNoResponse},
		{"trap before the response", func(*script, *incomingRequest, *response) error { return trap }, failed500, trap},
		{"error as response", func(g *script, _ *incomingRequest, p *response) error {
			g.call("[static]response-outparam.set", func(c *engine.Call) {
				c.PutOwn(&responseOutparam{p})
				c.PutErr()
				(&ErrorCode{Case: InternalError, Text: "why"}).put(c)
			}, nil)
			return nil
		}, failed500, &ErrorCode{Case: InternalError, Text: "why"}},
		{"content-length that is no number", func(g *script, _ *incomingRequest, p *response) error {
			g.set(p, g.response(200, "content-length", "-1"))
			return nil
		}, failed500, errContentLength},
		{"two content-lengths", func(g *script, _ *incomingRequest, p *response) error {
			g.set(p, g.response(200, "content-length", "1", "content-length", "1"))
			return nil
		}, failed500, errContentLength},
		{"body neither finished nor dropped", func(g *script, _ *incomingRequest, p *response) error {
			o := g.response(200)
			b := g.body(o)
			g.set(p, o)
			g.write(b, "hello")
			return nil
		}, cut, ErrBodyUnfinished},
		{"body dropped without finish", func(g *script, _ *incomingRequest, p *response) error {
			o := g.response(200)
			b := g.body(o)
			g.set(p, o)
			g.write(b, "hello")
			b.drop()
			return nil
		}, cut, ErrBodyUnfinished},
		{"body dropped before the response is set", func(g *script, _ *incomingRequest, p *response) error {
			o := g.response(200)
			b := g.body(o)
			g.write(b, "hello")
			b.drop()
			g.set(p, o)
			return nil
		}, strings.TrimSuffix(cut, "5\r\nhello\r\n"), ErrBodyUnfinished},
		{"trap in the body", func(g *script, _ *incomingRequest, p *response) error {
			o := g.response(200)
			b := g.body(o)
			g.set(p, o)
			g.write(b, "hello")
			return trap
		}, cut, trap},
		{"less than content-length", func(g *script, _ *incomingRequest, p *response) error {
			o := g.response(200, "content-length", "6")
			b := g.body(o)
			g.set(p, o)
			g.write(b, "hello")
			require.Equal(g.t, &ErrorCode{Case: HTTPResponseBodySize, Number: new(uint64(5))}, g.finish(b, nil))
			return nil
		}, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello", ErrBodyUnfinished},
		{"more than content-length", func(g *script, _ *incomingRequest, p *response) error {
			o := g.response(200, "content-length", "6")
			b := g.body(o)
			g.set(p, o)
			g.write(b, "hello")
			require.Equal(g.t, &ErrorCode{Case: HTTPResponseBodySize, Number: new(uint64(7))}, b.Write(g, []byte("!!")))
			require.NotNil(g.t, g.finish(b, nil))
			return nil
		}, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello", ErrBodyUnfinished},
		{"content-length without body", func(g *script, _ *incomingRequest, p *response) error {
			g.set(p, g.response(200, "content-length", "6"))
			return nil
		}, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n", ErrBodyUnfinished},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, tc.guest)
			require.Equal(t, tc.want, exchange(t, s, getClose))
			require.Equal(t, tc.err, <-failed)
		})
	}
}

func TestTrapAfterTheResponseLeavesItWhole(t *testing.T) {
	t.Parallel()
	trap := &engine.Trap{Msg: "unreachable"}
	for name, body := range map[string]string{"small": "hello", "chunked": strings.Repeat("x", 2*maxPending)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
				require.NoError(g.t, answer(200, nil, nil, body)(g, q, p))
				return trap
			})
			p, err := http.Get(s.URL)
			require.NoError(t, err)
			got, err := io.ReadAll(p.Body)
			require.NoError(t, err)
			require.NoError(t, p.Body.Close())
			require.Equal(t, body, string(got))
			err = <-failed
			require.ErrorAs(t, err, new(*LateError))
			require.ErrorIs(t, err, trap)
		})
	}
}

// TestResponsesLeaveAtOnce has a guest that writes and then waits for the client to say that it got it.
func TestResponsesLeaveAtOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 204} {
		got := make(chan bool)
		s, failed := serve(t, func(g *script, _ *incomingRequest, p *response) error {
			p.flushDelay, p.headDelay = flushDelay, headDelay
			o := g.response(status)
			b := g.body(o)
			g.set(p, o)
			<-got // the head
			g.write(b, "one")
			if status == 200 {
				<-got
				g.write(b, strings.Repeat("2", 2*maxPending))
				<-got
				g.write(b, "three")
				<-got
			}
			require.Nil(g.t, g.finish(b, nil))
			return nil
		})
		c := bufio.NewReader(dial(t, s, getClose))
		p, err := http.ReadResponse(c, nil)
		require.NoError(t, err)
		got <- true
		if status == 200 {
			for _, want := range []string{"one", strings.Repeat("2", 2*maxPending), "three"} {
				b := make([]byte, len(want))
				_, err := io.ReadFull(p.Body, b)
				require.NoError(t, err)
				require.Equal(t, want, string(b))
				got <- true
			}
		}
		_, err = p.Body.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.NoError(t, <-failed)
	}
}

// TestFinishedResponseDoesNotWaitForTheGuest has a guest that works on after its answer.
func TestFinishedResponseDoesNotWaitForTheGuest(t *testing.T) {
	t.Parallel()
	for name, guest := range map[string]scripted{
		"empty":    answer(200, nil, nil),
		"small":    answer(200, nil, nil, "hello"),
		"declared": answer(200, []string{"content-length", "8192"}, nil, strings.Repeat("x", 8192)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan bool)
			s, failed := serve(t, func(g *script, q *incomingRequest, p *response) error {
				require.NoError(g.t, guest(g, q, p))
				<-got
				return nil
			})
			p, err := http.Get(s.URL)
			require.NoError(t, err)
			_, err = io.ReadAll(p.Body)
			require.NoError(t, err)
			require.NoError(t, p.Body.Close())
			got <- true
			require.NoError(t, <-failed)
		})
	}
}

// TestWriteToClientThatLeft ends with an error for the guest, and not with the end of the instance.
func TestWriteToClientThatLeft(t *testing.T) {
	t.Parallel()
	s, failed := serve(t, func(g *script, _ *incomingRequest, p *response) error {
		o := g.response(200)
		b := g.body(o)
		g.set(p, o)
		for {
			if err := b.Write(context.Background(), make([]byte, 64<<10)); err != nil {
				require.Equal(g.t, NewError(ConnectionTerminated), err)
				return nil
			}
		}
	})
	c := dial(t, s, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	_, err := io.ReadFull(c, make([]byte, 1<<10))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.ErrorContains(t, <-failed, "write response")
}

// TestSlowClientDoesNotHoldAnEndedInstance ends the context while a write blocks.
func TestSlowClientDoesNotHoldAnEndedInstance(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	ended := errors.New("deadline of the request")
	s, failed := serve(t, func(g *script, _ *incomingRequest, p *response) error {
		o := g.response(200)
		b := g.body(o)
		g.set(p, o)
		for {
			if err := b.Write(ctx, make([]byte, 1<<20)); err != nil {
				return context.Cause(ctx)
			}
		}
	})
	c := dial(t, s, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	_, err := io.ReadFull(c, make([]byte, 1<<10))
	require.NoError(t, err)
	cancel(ended)
	require.Equal(t, ended, <-failed)
}
