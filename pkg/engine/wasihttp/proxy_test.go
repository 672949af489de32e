package wasihttp_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// get returns the answer to a request, its body read.
func do(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	p, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer p.Body.Close()
	b, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	return p, string(b)
}

func request(t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, b)
	require.NoError(t, err)
	return r
}

func TestGuestsAnswer(t *testing.T) {
	for _, c := range []struct{ guest, method, path, body, want string }{
		{"c-hello", "GET", "/", "", "Hello from C!"},
		{"c-spin", "POST", "/echo", "ping", "ping"},
		{"c-spin", "GET", "/nothing", "", "not found\n"},
		{"rust-wasi-http", "PUT", "/a?b=c", "body", "Method::Put /a?b=c\nbody"},
		{"go-raw", "GET", "/", "", "n=1"},
		{"js-hello", "GET", "/x", "", "hello from js: GET /x\n"},
		{"js-app", "POST", "/echo", "ping", "ping"},
	} {
		t.Run(c.guest+c.path, func(t *testing.T) {
			s := serve(t, load(t, c.guest, nil))
			for range 3 {
				p, body := do(t, request(t, c.method, s.URL+c.path, c.body))
				t.Log(p.Status, p.Header)
				require.Contains(t, body, c.want)
			}
		})
	}
}

func TestHeadWire(t *testing.T) {
	s := serve(t, load(t, "c-hello", nil))
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	b := make([]byte, 4096)
	n, err := bufio.NewReader(c).Read(b)
	require.NoError(t, err)
	t.Logf("%s", b[:n])
}

var _ = httptest.NewServer
