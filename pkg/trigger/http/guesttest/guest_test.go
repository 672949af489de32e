package guesttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/keyvalue"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/variables"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
	trigger "github.com/spinkube/containerd-shim-spin-go/pkg/trigger/http"
)

// server serves one guest, on the route /... .
type server struct {
	trigger *trigger.Server
	url     string
	stop    func()        // ends it and waits
	log     *bytes.Buffer // to be read after stop
}

func serve(t testing.TB, name string) *server {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../../../shared"
	}
	wasm, err := os.ReadFile(filepath.Join(shared, "guests", "built", name+".wasm"))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("guests are missing: ", err)
		}
		t.Skip("SKIPPED: set SHARED to the folder that holds guests/built: ", err)
	}
	e, err := engine.New(t.Context(), engine.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(context.Background())) })
	compiled, err := e.Compile(t.Context(), wasm)
	require.NoError(t, err)

	app := &lockedapp.App{
		Components: []lockedapp.Component{{ID: "cart", Config: map[string]string{"greeting": "hello"}}},
		Triggers:   []lockedapp.Trigger{{ID: "t", Type: "http", Config: []byte(`{"component":"cart","route":"/..."}`)}},
	}
	vars, err := variables.New(app, func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	stores, err := keyvalue.New(app, keyvalue.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stores.Close()) })
	l := e.NewLinker()
	wasi.Add(l, wasi.Config{})
	host := wasihttp.Add(l, wasihttp.Config{})
	require.NoError(t, vars.Link(l, &app.Components[0]))
	require.NoError(t, stores.Link(l, &app.Components[0]))
	pre, err := l.Link(compiled)
	require.NoError(t, err)
	proxy, err := host.Proxy(pre)
	require.NoError(t, err)

	out := &server{log: &bytes.Buffer{}}
	s, err := trigger.New(trigger.Config{
		Listen: "127.0.0.1:0", App: app,
		Components: map[string]trigger.Component{"cart": {Pre: pre, Proxy: proxy}},
		Log:        slog.New(slog.NewTextHandler(out.log, nil)),
	})
	require.NoError(t, err)
	require.NoError(t, s.Listen(t.Context()))
	out.trigger = s
	out.url = "http://" + s.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }() // ends with stop
	out.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(out.stop)
	return out
}

// clients are one for each protocol.
func clients(t *testing.T) map[string]*http.Client {
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	one := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(two.CloseIdleConnections)
	t.Cleanup(one.CloseIdleConnections)
	return map[string]*http.Client{"HTTP/1.1": {Transport: one}, "HTTP/2.0": {Transport: two}}
}

// ask returns the status and body of a response.
func ask(c *http.Client, method, url string, body io.Reader) (string, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return "", err
	}
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %s", res.StatusCode, b), err
}

func TestGuests(t *testing.T) {
	t.Parallel()
	for _, guest := range []struct {
		name    string
		answers map[string]string // by path
	}{
		{"c-hello", map[string]string{"/": "200 Hello from C!\n"}},
		{"go-raw", map[string]string{"/a": "n=1"}},
		{"js-hello", map[string]string{"/a/b": "200 hello from js: GET /a/b\n"}},
		{"c-spin", map[string]string{
			"/echo": "200 ", "/var": "200 hello\n", "/none": "404 not found\n", "/big": "200 abcdefghijklm",
			"/hdr?x=y": "\nspin-full-url: http://", "/trap": "500 ", "/nores": "500 ",
		}},
		{"rust-wasi-http", map[string]string{"/teapot": "418 "}},
	} {
		t.Run(guest.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, guest.name)
			for proto, c := range clients(t) {
				var all sync.WaitGroup
				for range 64 {
					all.Go(func() {
						for path, want := range guest.answers {
							got, err := ask(c, "GET", s.url+path, nil)
							if err != nil || !strings.Contains(got, want) {
								t.Errorf("%s %s: %.200q, %v", proto, path, got, err)
							}
						}
					})
				}
				all.Wait()
			}
		})
	}
}

func TestFaultsAreLogged(t *testing.T) {
	t.Parallel()
	s := serve(t, "c-spin")
	for path, c := range map[string]string{"/trap": "HTTP/1.1", "/nores": "HTTP/2.0"} {
		got, err := ask(clients(t)[c], "GET", s.url+path, nil)
		require.NoError(t, err)
		require.Equal(t, "500 ", got)
	}
	s.stop()
	log := s.log.String()
	require.Equal(t, 2, strings.Count(log, "\n"), log)
	require.Regexp(t, `level=ERROR msg="no response from guest" component=cart route=/... method=GET err="trap: unreachable\\nwasm stack:\\n\\t.+"`, log)
	require.Contains(t, log, `component=cart route=/... method=GET err="guest returned without a response"`)
}

func TestComponentsSeeOneOfEachHeader(t *testing.T) {
	t.Parallel()
	s := serve(t, "c-spin")
	for proto, c := range clients(t) {
		req, err := http.NewRequest("GET", s.url+"/hdr?q", nil)
		require.NoError(t, err)
		req.Host = "shop.example"
		req.Header.Set("Spin-Full-Url", "forged")
		req.Header.Set("Spin-Forged", "forged")
		req.Header.Set("X-Kept", "1")
		req.Header.Set("Keep-Alive", "1")
		res, err := c.Do(req)
		require.NoError(t, err)
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		headers := map[string][]string{}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			headers[name] = append(headers[name], value)
		}
		for name, want := range map[string]string{
			"spin-full-url": "http://shop.example/hdr?q", "spin-path-info": "/hdr", "spin-matched-route": "/...", "spin-base-path": "/",
			"spin-raw-component-route": "/...", "spin-component-route": "", "x-kept": "1",
		} {
			require.Equal(t, []string{want}, headers[name], "%s %s", proto, name)
		}
		require.Len(t, headers["spin-client-addr"], 1)
		for _, name := range []string{"spin-forged", "host", "keep-alive", "connection"} {
			require.NotContains(t, headers, name, proto)
		}
	}
}

func TestBodiesStream(t *testing.T) {
	t.Parallel()
	s := serve(t, "c-spin")
	const size = 32 << 20
	for proto, c := range clients(t) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				res, err := c.Post(s.url+"/echo", "", io.LimitReader(pattern{}, size))
				if err != nil {
					t.Error(proto, err)
					return
				}
				defer res.Body.Close()
				n, err := io.Copy(&checker{}, res.Body)
				if err != nil || n != size {
					t.Error(proto, n, err)
				}
			})
		}
		all.Wait()
	}
}

// pattern reads as one byte for ever, checker takes nothing else.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type checker struct{}

func (*checker) Write(p []byte) (int, error) {
	if i := bytes.IndexFunc(p, func(c rune) bool { return c != 'x' }); i >= 0 {
		return i, fmt.Errorf("byte %q", p[i])
	}
	return len(p), nil
}

func TestClientsThatLeave(t *testing.T) {
	t.Parallel()
	s := serve(t, "c-spin")
	for range 20 {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		_, err = io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nbegun")
		require.NoError(t, err)
		b := make([]byte, 12)
		_, err = io.ReadFull(c, b)
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 200", string(b))
		require.NoError(t, c.Close())
	}
	s.stop()
	require.NotContains(t, s.log.String(), "ERROR")
}

// TestHammerDrain ends a server while clients ask, each by keeping its connection until it is told not to.
func TestHammerDrain(t *testing.T) {
	t.Parallel()
	s := serve(t, "c-hello")
	var all sync.WaitGroup
	begun := make(chan struct{}, 32)
	for range cap(begun) {
		all.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for first := true; ; first = false {
				res, err := (&http.Client{Transport: tr}).Post(s.url, "text/plain", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || string(b) != "Hello from C!\n" {
					t.Errorf("%q, %v", b, err)
				}
				if first {
					begun <- struct{}{}
				}
				if res.Close {
					return
				}
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	s.stop()
	all.Wait()
}

// BenchmarkServeHTTP is a request in process, from net/http's handler to the guest and back.
func BenchmarkServeHTTP(b *testing.B) {
	s := serve(b, "c-hello")
	r := httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		s.trigger.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Body.String() != "Hello from C!\n" {
			b.Fatal(w.Code, w.Body)
		}
	}
}
