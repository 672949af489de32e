package wasihttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
)

// do returns the answer to a request, and its body.
func do(t testing.TB, c *http.Client, method, url, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	p, err := c.Do(r)
	require.NoError(t, err)
	defer p.Body.Close()
	b, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	return p, string(b)
}

// noErrors fails if the guest failed.
func (g *guest) noErrors(t testing.TB) {
	t.Helper()
	select {
	case err := <-g.failed:
		t.Fatal(err)
	default:
	}
}

func TestGuestsAnswer(t *testing.T) {
	t.Parallel()
	type exchange struct {
		method, path, body string
		status             int
		want               string
	}
	for name, exchanges := range map[string][]exchange{
		"c-hello": {
			{"GET", "/", "", 200, "Hello from C!\n"},
			{"POST", "/", "not read", 200, "Hello from C!\n"},
		},
		"c-spin": {
			{"POST", "/echo", "ping", 200, "ping"},
			{"POST", "/echo", strings.Repeat("0123456789", 100000), 200, strings.Repeat("0123456789", 100000)},
			{"GET", "/big", "", 200, strings.Repeat(letters(4096), 256)},
			{"GET", "/nothing", "", 404, "not found\n"},
		},
		"rust-wasi-http": {
			{"PUT", "/a%2f?b=c", "body", 200, "Method::Put /a%2f?b=c\nbody"},
			{"BREW", "/teapot", "", 418, "Method::Other(\"BREW\") /teapot\n"},
		},
		"rust-stream": {
			{"POST", "/echo", strings.Repeat("0123456789", 100000), 200, strings.Repeat("0123456789", 100000)},
			{"GET", "/stream", "", 200, "chunk 0\nchunk 1\nchunk 2\nchunk 3\nchunk 4\n"},
			{"PUT", "/", "", 405, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := load(t, name, nil)
			s := serve(t, g)
			for _, x := range exchanges {
				for range 3 {
					p, body := do(t, s.Client(), x.method, s.URL+x.path, x.body)
					require.Equal(t, x.status, p.StatusCode)
					require.True(t, x.want == body, "%s %s: %.200q", x.method, x.path, body)
				}
			}
			g.noErrors(t)
		})
	}
}

// letters is what /big of c-spin repeats.
func letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return string(b)
}

func TestGuestSeesHeaders(t *testing.T) {
	t.Parallel()
	g := load(t, "c-spin", nil)
	s := serve(t, g)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/hdr", nil)
	require.NoError(t, err)
	r.Header = http.Header{"X-B": {"2", "\xff"}, "X-A": {"1"}, "User-Agent": {""}, "Accept-Encoding": {"br"}}
	p, err := s.Client().Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	require.NoError(t, p.Body.Close())
	require.Equal(t, "accept-encoding: br\nx-a: 1\nx-b: 2\nx-b: \xff\n", string(body))
	require.Equal(t, []string{"text/plain"}, p.Header["Content-Type"])
	g.noErrors(t)
}

func TestGuestFails(t *testing.T) {
	t.Parallel()
	g := load(t, "c-spin", nil)
	s := serve(t, g)
	p, body := do(t, s.Client(), "GET", s.URL+"/trap", "")
	require.Equal(t, 500, p.StatusCode)
	require.Empty(t, body)
	trap, ok := errors.AsType[*engine.Trap](<-g.failed)
	require.True(t, ok)
	require.Equal(t, "unreachable", trap.Msg)
	p, body = do(t, s.Client(), "GET", s.URL+"/nores", "")
	require.Equal(t, 500, p.StatusCode)
	require.Empty(t, body)
	require.ErrorIs(t, <-g.failed, wasihttp.ErrNoResponse)
	p, _ = do(t, s.Client(), "POST", s.URL+"/echo", "still here")
	require.Equal(t, 200, p.StatusCode)
}

func TestTrapAfterTheHeadBreaksTheBody(t *testing.T) {
	t.Parallel()
	g := load(t, "rust-stream", nil)
	s := serve(t, g)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/trap-after", nil)
	require.NoError(t, err)
	p, err := s.Client().Do(r)
	require.NoError(t, err)
	require.Equal(t, 200, p.StatusCode)
	body, err := io.ReadAll(p.Body)
	require.Equal(t, io.ErrUnexpectedEOF, err)
	require.NoError(t, p.Body.Close())
	require.Equal(t, "first\n", string(body))
	require.ErrorAs(t, <-g.failed, new(*engine.Trap))
}

// TestHammerGuests has 64 clients at once, each of which must find a world without traces of the others.
func TestHammerGuests(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"go-raw": "n=1", "js-hello": "hello from js: GET /%d\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := load(t, name, nil)
			s := serve(t, g)
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					for range 2 {
						p, err := s.Client().Get(fmt.Sprintf("%s/%d", s.URL, i))
						if err != nil {
							t.Error(err)
							return
						}
						body, err := io.ReadAll(p.Body)
						_ = p.Body.Close()
						want := strings.Replace(want, "%d", fmt.Sprint(i), 1)
						if err != nil || !strings.Contains(string(body), want) {
							t.Errorf("%q: %v", body, err)
						}
					}
				})
			}
			wg.Wait()
			g.noErrors(t)
		})
	}
}

// TestEchoTakesNoMemory streams much more than the host may keep. The client reads only what it has sent.
func TestEchoTakesNoMemory(t *testing.T) {
	g := load(t, "c-spin", nil)
	s := serve(t, g)
	const size, allowed = 128 << 20, 24 << 20
	do(t, s.Client(), "POST", s.URL+"/echo", "warm")
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/echo", io.LimitReader(zeroes{}, size))
	require.NoError(t, err)
	p, err := s.Client().Do(r)
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, p.Body)
	require.NoError(t, err)
	require.NoError(t, p.Body.Close())
	require.Equal(t, int64(size), n)
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.Sys)-int64(before.Sys), int64(allowed))
	g.noErrors(t)
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestClientLeaves ends the guest, wherever it waits for the client.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"c-spin", "rust-stream"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := load(t, name, nil)
			s := serve(t, g)
			body, w := io.Pipe()
			r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/echo", body)
			require.NoError(t, err)
			p, err := s.Client().Do(r)
			require.NoError(t, err)
			_, err = io.WriteString(w, "hello")
			require.NoError(t, err)
			_, err = io.ReadFull(p.Body, make([]byte, 5))
			require.NoError(t, err)
			require.NoError(t, p.Body.Close()) // closes the connection
			require.NoError(t, w.CloseWithError(io.ErrUnexpectedEOF))
			require.Error(t, <-g.failed)
		})
	}
}

func TestGuestsSend(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(201)
		_, _ = fmt.Fprintf(w, "%s %s %v", r.Method, r.RequestURI, r.Header)
	}))
	t.Cleanup(upstream.Close)
	authority := strings.TrimPrefix(upstream.URL, "http://")
	t.Run("c-spin", func(t *testing.T) {
		t.Parallel()
		g := load(t, "c-spin", newTransport(t))
		s := serve(t, g)
		g.upstream.Store(authority)
		for range 3 {
			_, body := do(t, s.Client(), "GET", s.URL+"/fetch", "")
			require.Equal(t, "upstream 201: GET /up map[]", body)
		}
		g.noErrors(t)
	})
	t.Run("c-spin, denied", func(t *testing.T) {
		t.Parallel()
		g := load(t, "c-spin", nil)
		s := serve(t, g)
		p, body := do(t, s.Client(), "GET", s.URL+"/fetch", "")
		require.Equal(t, 502, p.StatusCode)
		require.Equal(t, fmt.Sprintf("response error %d\n", wasihttp.HTTPRequestDenied), body)
	})
	t.Run("js-app", func(t *testing.T) {
		t.Parallel()
		g := load(t, "js-app", newTransport(t))
		s := serve(t, g)
		_, body := do(t, s.Client(), "GET", s.URL+"/fetch?u="+upstream.URL+"/x", "")
		require.Contains(t, body, "status=201 body=GET /x map[")
		p, body := do(t, s.Client(), "POST", s.URL+"/echo", strings.Repeat("js", 100000))
		require.Equal(t, "POST", p.Header.Get("X-Method"))
		require.True(t, body == strings.Repeat("js", 100000), "%.100q", body)
		g.noErrors(t)
	})
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	g := load(t, "c-spin", nil)
	s := httptest.NewUnstartedServer(g)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	tr := &http.Transport{Protocols: s.Config.Protocols}
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr}
	for _, x := range []struct{ method, path, body, want string }{
		{"POST", "/echo", "ping", "ping"},
		{"POST", "/big", strings.Repeat("not read", 100000), strings.Repeat(letters(4096), 256)},
		{"HEAD", "/nothing", "", ""},
	} {
		p, body := do(t, c, x.method, s.URL+x.path, x.body)
		require.Equal(t, 2, p.ProtoMajor)
		require.True(t, x.want == body, "%s %s: %.200q", x.method, x.path, body)
	}
	g.noErrors(t)
	p, _ := do(t, c, "GET", s.URL+"/nores", "")
	require.Equal(t, 500, p.StatusCode)
	require.ErrorIs(t, <-g.failed, wasihttp.ErrNoResponse)

	// The stream, and so the context, ends with the head of an answer to HEAD, while the guest may still write.
	p, _ = do(t, c, "HEAD", s.URL+"/big", "")
	require.Equal(t, 200, p.StatusCode)
	g.running.Wait()
	select {
	case err := <-g.failed:
		require.ErrorAs(t, err, new(*wasihttp.LateError))
	default:
	}
}

// TestNothingIsLeftRunning counts goroutines after requests of every kind.
func TestNothingIsLeftRunning(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(upstream.Close)
	client := newTransport(t)
	g := load(t, "c-spin", client)
	g.upstream.Store(strings.TrimPrefix(upstream.URL, "http://"))
	before := runtime.NumGoroutine()
	s := httptest.NewServer(g)
	for _, path := range []string{"/echo", "/trap", "/nores", "/nothing"} {
		do(t, s.Client(), "POST", s.URL+path, "body")
	}
	// The client leaves while the guest waits for upstream.
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	_, err = io.WriteString(c, "GET /fetch HTTP/1.1\r\nHost: h\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for range 3 { // trap, nores, and the client
		require.Error(t, <-g.failed)
	}
	s.CloseClientConnections()
	s.Close()
	client.CloseIdleConnections()
	upstream.CloseClientConnections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for runtime.NumGoroutine() > before && ctx.Err() == nil {
		runtime.Gosched()
	}
	stacks := make([]byte, 1<<20)
	require.LessOrEqual(t, runtime.NumGoroutine(), before, "%s", stacks[:runtime.Stack(stacks, true)])
}

func TestProxyNeedsTheExport(t *testing.T) {
	t.Parallel()
	e, err := engine.New(t.Context(), engine.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(context.WithoutCancel(t.Context()))) })
	c, err := e.Compile(t.Context(), []byte("\x00asm\x0d\x00\x01\x00"))
	require.NoError(t, err)
	l := e.NewLinker()
	h := wasihttp.Add(l, wasihttp.Config{})
	pre, err := l.Link(c)
	require.NoError(t, err)
	_, err = h.Proxy(pre)
	require.ErrorIs(t, err, engine.ErrNoExport)
}
