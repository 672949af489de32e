package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// handlerFunc is a handler in Go.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

func (f handlerFunc) handle(w http.ResponseWriter, r *http.Request) error { return f(w, r) }

// appOf returns an app with a trigger for each route, in the order of the routes' text. Each calls the component of the
// same index: c0, c1, ….
func appOf(routes ...string) *lockedapp.App {
	app := &lockedapp.App{Metadata: lockedapp.Metadata{Name: "shop"}}
	for i, r := range routes {
		config, err := json.Marshal(map[string]string{"route": r, "component": fmt.Sprintf("c%d", i)})
		if err != nil {
			panic(err)
		}
		app.Triggers = append(app.Triggers, lockedapp.Trigger{ID: fmt.Sprintf("t%d", i), Type: "http", Config: config})
	}
	return app
}

// running is a server that serves until the test ends.
type running struct {
	*Server
	t    testing.TB
	log  *logBuffer
	stop context.CancelFunc
	done chan error
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// start runs a server whose components are handlers, by the index of their route.
func start(t testing.TB, cfg Config, tune func(*Server), handlers ...handlerFunc) *running {
	t.Helper()
	log := &logBuffer{}
	cfg.Listen = "127.0.0.1:0"
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := newServer(cfg, func(id string) (handler, bool) {
		var i int
		if _, err := fmt.Sscanf(id, "c%d", &i); err != nil || i >= len(handlers) {
			return nil, false
		}
		return handlers[i], true
	})
	require.NoError(t, err)
	if tune != nil {
		tune(s)
	}
	return serve(t, s, log)
}

func serve(t testing.TB, s *Server, log *logBuffer) *running {
	t.Helper()
	require.NoError(t, s.Listen(t.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: s, t: t, log: log, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Serve(ctx) }() // ends with stop
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-r.done)
	})
	return r
}

// drained waits for the end of Serve.
func (r *running) drained() {
	r.t.Helper()
	err := <-r.done
	r.done <- err
	require.NoError(r.t, err)
}

// client is a connection to a server, below HTTP.
type client struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func (r *running) dial() *client {
	r.t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = c.Close() })
	require.NoError(r.t, c.SetDeadline(time.Now().Add(patience)))
	return &client{c.(*net.TCPConn), r.t, bufio.NewReader(c)}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	_, err := fmt.Fprintf(c, format, args...)
	require.NoError(c.t, err)
}

// response reads a response to a request of that method.
func (c *client) response(method string) *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	require.NoError(c.t, err)
	return res
}

// rest reads to the end of the connection.
func (c *client) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	require.NoError(c.t, err)
	return string(b)
}

func text(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return string(b)
}

// echoHeaders answers with the headers that begin with "Spin-" and a few more, one a line.
func echoHeaders(w http.ResponseWriter, r *http.Request) error {
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if strings.HasPrefix(name, "Spin-") {
			fmt.Fprintf(w, "%s: %s\n", strings.ToLower(name), strings.Join(r.Header[name], " AND "))
		}
	}
	return nil
}

func hello(w http.ResponseWriter, _ *http.Request) error {
	_, err := io.WriteString(w, "hello")
	return err
}

// http1 and http2 return clients of one protocol.
func http1(t testing.TB) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func http2(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (r *running) url(path string) string { return "http://" + r.Addr().String() + path }

func TestRequestReachesTheComponentOfItsRoute(t *testing.T) {
	t.Parallel()
	say := func(s string) handlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.WriteString(w, s)
			return err
		}
	}
	app := appOf("/a", "/a/...", "/:x/b")
	app.Triggers = append(app.Triggers,
		lockedapp.Trigger{ID: "p", Type: "http", Config: []byte(`{"component":"c0","route":{"private":true}}`)},
		lockedapp.Trigger{ID: "other", Type: "redis", Config: []byte(`{"component":"none"}`)},
		lockedapp.Trigger{ID: "s", Type: "http", Config: []byte(`{"route":"/static","static_response":
			{"status_code":203,"headers":{"x-a":"b"},"body":"static","later":1}}`)},
		lockedapp.Trigger{ID: "e", Type: "http", Config: []byte(`{"route":"/empty","static_response":{}}`)},
	)
	s := start(t, Config{App: app}, nil, say("exact"), say("wildcard"), say("param"))
	for name, c := range map[string]*http.Client{"HTTP/1.1": http1(t), "HTTP/2.0": http2(t)} {
		for path, want := range map[string]string{
			"/a": "200 exact", "/a?b=/c": "200 exact", "/a/c": "200 wildcard", "/z/b": "200 param", "/z": "404 ", "/A": "404 ",
			"/static": "203 static", "/empty": "200 ",
			"/.well-known/spin/health":  "200 OK",
			"/.well-known/spin/info":    "200 {\n  \"name\": \"shop\"\n}",
			"/.well-known/spin/other":   "404 ",
			"/.well-known/spin/":        "404 ",
			"/.well-known/spin/health/": "404 ",
		} {
			res, err := c.Get(s.url(path))
			require.NoError(t, err)
			require.Equal(t, name, res.Proto)
			require.Equal(t, want, fmt.Sprintf("%d %s", res.StatusCode, text(t, res)), "%s %s", name, path)
			require.Equal(t, path == "/static", res.Header.Get("X-A") == "b")
		}
	}
}

func TestResponsesHaveNoHeadersOfOurs(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/a", "/x/...")}, nil, func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Content-Type"] = nil
		w.WriteHeader(http.StatusOK)
		return nil
	}, func(http.ResponseWriter, *http.Request) error { return wasihttp.ErrNoResponse })
	for _, path := range []string{"/a", "/none", "/x/y"} {
		for name, c := range map[string]*http.Client{"HTTP/1.1": http1(t), "HTTP/2.0": http2(t)} {
			res, err := c.Get(s.url(path))
			require.NoError(t, err)
			require.Empty(t, text(t, res))
			require.Zero(t, res.ContentLength, "%s %s", name, path)
			require.Equal(t, []string{"Content-Length", "Date"}, slices.Sorted(maps.Keys(res.Header)), "%s %s", name, path)
		}
	}
}

func TestHeadersTellTheComponentOfItsRequest(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/base/:path_segment/:path-end/...", "/")}, nil, echoHeaders, echoHeaders)
	c := s.dial()
	addr := c.LocalAddr().String()
	c.send("GET /base/p%%20q/end/rest/?key=va/lue HTTP/1.1\r\nHost: example.com\r\n" +
		"spin-full-url: forged\r\nSPIN-CLIENT-ADDR: forged\r\nspin-other: forged\r\nspin-path-match-x: forged\r\n\r\n")
	require.Equal(t, `spin-base-path: /
spin-client-addr: `+addr+`
spin-component-route: /base/:path_segment/:path-end
spin-full-url: http://example.com/base/p%20q/end/rest/?key=va/lue
spin-matched-route: /base/:path_segment/:path-end/...
spin-path-info: /rest/
spin-path-match-path-end: end
spin-path-match-path-segment: p%20q
spin-raw-component-route: /base/:path_segment/:path-end/...
`, text(t, c.response("GET")))
	c.send("GET / HTTP/1.1\r\nHost: EXAMPLE.com:80\r\n\r\n")
	require.Equal(t, `spin-base-path: /
spin-client-addr: `+addr+`
spin-component-route: /
spin-full-url: http://EXAMPLE.com:80/
spin-matched-route: 
spin-path-info: 
spin-raw-component-route: /
`, text(t, c.response("GET")))

	req, err := http.NewRequest("GET", s.url("/base/a/b?"), nil)
	require.NoError(t, err)
	req.Host = "two.example"
	res, err := http2(t).Do(req)
	require.NoError(t, err)
	require.Contains(t, text(t, res), "spin-full-url: http://two.example/base/a/b?\n")
}

func TestFaultsOfComponents(t *testing.T) {
	t.Parallel()
	trap := &engine.Trap{Msg: "unreachable", Frames: []string{"cart.f", "cart.g"}}
	s := start(t, Config{App: appOf("/early", "/late", "/after", "/silent")}, nil,
		func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Secret", "1")
			return trap
		},
		func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			return trap
		},
		func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "complete")
			return &wasihttp.LateError{Err: trap}
		},
		func(http.ResponseWriter, *http.Request) error { return wasihttp.ErrNoResponse })
	for name, c := range map[string]*http.Client{"HTTP/1.1": http1(t), "HTTP/2.0": http2(t)} {
		for _, path := range []string{"/early", "/silent"} {
			res, err := c.Get(s.url(path))
			require.NoError(t, err)
			require.Equal(t, 500, res.StatusCode, name)
			require.Empty(t, res.Header.Get("X-Secret"))
			require.Empty(t, text(t, res))
		}
		res, err := c.Get(s.url("/late"))
		require.NoError(t, err)
		_, err = io.ReadAll(res.Body)
		require.Error(t, err, "%s: the body is broken", name)
		res, err = c.Get(s.url("/after"))
		require.NoError(t, err)
		require.Equal(t, "complete", text(t, res))
	}

	c := s.dial()
	c.send("GET /late HTTP/1.0\r\n\r\n")
	_, err := io.ReadAll(c)
	require.ErrorContains(t, err, "reset", "in HTTP/1.0 an orderly end would be the end of the body")

	var lines []string
	for line := range strings.Lines(s.log.String()) {
		if strings.Contains(line, "level=ERROR") {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 9, "one line each")
	require.Contains(t, lines[0], `msg="no response from guest" component=c0 route=/early method=GET err="trap: unreachable\nwasm stack:\n\tcart.f\n\tcart.g"`)
	require.Contains(t, s.log.String(), `msg="no response from guest" component=c3 route=/silent method=GET err="guest returned without a response"`)
	require.Contains(t, s.log.String(), `msg="response broke off" component=c1`)
	require.Contains(t, s.log.String(), `msg="guest failed after its response" component=c2`)
}

func TestClientThatLeavesIsNoFault(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	left := make(chan struct{})
	s := start(t, Config{App: appOf("/...")}, nil, func(_ http.ResponseWriter, r *http.Request) error {
		close(entered)
		<-r.Context().Done()
		defer close(left)
		return errors.New("context canceled")
	})
	c := s.dial()
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	require.NoError(t, c.Close())
	<-left
	s.stop()
	s.drained()
	require.Contains(t, s.log.String(), `level=DEBUG msg="client left" component=c0`)
	require.NotContains(t, s.log.String(), "ERROR")
}

func TestSmallWritesLeaveAtOnce(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	s := start(t, Config{App: appOf("/...")}, nil, func(w http.ResponseWriter, _ *http.Request) error {
		for range 3 {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
		return nil
	})
	res, err := http1(t).Get(s.url("/"))
	require.NoError(t, err)
	for range 3 {
		b := make([]byte, 2)
		n, err := res.Body.Read(b)
		require.NoError(t, err)
		require.Equal(t, "x", string(b[:n]))
		next <- struct{}{}
	}
	require.Empty(t, text(t, res))
}

func TestConcurrentRequestsAreLimited(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	s := start(t, Config{App: appOf("/..."), MaxRequests: 2}, nil, func(w http.ResponseWriter, r *http.Request) error {
		entered <- struct{}{}
		<-leave
		return hello(w, r)
	})
	c := http1(t)
	got := make(chan string)
	for range 2 {
		go func() {
			res, err := c.Get(s.url("/"))
			if err != nil {
				got <- err.Error()
				return
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			got <- string(b)
		}()
		<-entered
	}
	res, err := c.Get(s.url("/"))
	require.NoError(t, err)
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "1", res.Header.Get("Retry-After"))
	require.Empty(t, text(t, res))
	res, err = c.Get(s.url("/.well-known/spin/health"))
	require.NoError(t, err)
	require.Equal(t, "OK", text(t, res))
	close(leave)
	require.Equal(t, "hello", <-got)
	require.Equal(t, "hello", <-got)
	go func() { <-entered }()
	res, err = c.Get(s.url("/"))
	require.NoError(t, err)
	require.Equal(t, "hello", text(t, res))
}

func TestListenSaysWhyNot(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/")}, nil, hello)
	for listen, want := range map[string]string{
		s.Addr().String(): "listen on " + s.Addr().String() + ": address already in use",
		"192.0.2.1:80":    "listen on 192.0.2.1:80: cannot assign requested address",
		"nonsense":        "listen on nonsense: listen tcp: address nonsense: missing port in address",
	} {
		other, err := New(Config{Listen: listen, App: &lockedapp.App{}})
		require.NoError(t, err)
		require.EqualError(t, other.Listen(t.Context()), want)
	}
}

func TestNoRoomForAnInstanceIsNotTheGuestsFault(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, nil, func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("instantiate: %w", engine.ErrNoMemory)
	})
	res, err := http1(t).Get(s.url("/"))
	require.NoError(t, err)
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "1", res.Header.Get("Retry-After"))
	require.Empty(t, text(t, res))
}
