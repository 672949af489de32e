package outbound

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// resolver resolves each template to its value, and others to an error.
type resolver map[string]string

func (r resolver) Resolve(_ context.Context, template string) (string, error) {
	value, ok := r[template]
	if !ok {
		return "", errors.New("no such variable")
	}
	return value, nil
}

// newOutbound returns the outbound HTTP of an app of one component, and its client.
func newOutbound(t *testing.T, r factor.Resolver, cfg Config, hosts ...string) (*Outbound, wasihttp.Client) {
	t.Helper()
	app := &lockedapp.App{Components: []lockedapp.Component{{ID: "shop", Metadata: lockedapp.ComponentMetadata{AllowedOutboundHosts: hosts}}}}
	o, err := New(app, r, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, o.Close()) })
	c, err := o.Client(&app.Components[0])
	require.NoError(t, err)
	return o, c
}

// get sends a request as wasihttp does.
func get(ctx context.Context, c wasihttp.Client, target string) (*http.Response, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: http.MethodGet, URL: u, Header: http.Header{"User-Agent": {""}}, Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return c.Send(r.WithContext(ctx), wasihttp.SendOptions{})
}

// read sends a request and returns the body of its response.
func read(t *testing.T, c wasihttp.Client, target string) string {
	t.Helper()
	p, err := get(t.Context(), c, target)
	require.NoError(t, err)
	body, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	require.NoError(t, p.Body.Close())
	return string(body)
}

func requireCase(t *testing.T, want wasihttp.Case, err error, about string) {
	t.Helper()
	e, ok := errors.AsType[*wasihttp.ErrorCode](err)
	require.True(t, ok, "%s: %v", about, err)
	require.Equal(t, want, e.Case, about)
}

// noNetwork is a Dial that says that it was asked.
func noNetwork(_ context.Context, _, addr string) (net.Conn, error) {
	return nil, fmt.Errorf("dialled %s", addr)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		hosts   []string
		target  string
		dialled string // or it fails with want
		want    wasihttp.Case
	}{
		{nil, "https://example.com/", "", wasihttp.HTTPRequestDenied},
		{[]string{"https://example.com"}, "https://example.com/a?b", "example.com:443", 0},
		{[]string{"https://example.com"}, "https://EXAMPLE.com:443/", "EXAMPLE.com:443", 0},
		{[]string{"https://example.com"}, "http://example.com/", "", wasihttp.HTTPRequestDenied},
		{[]string{"https://example.com"}, "https://example.com:8443/", "", wasihttp.HTTPRequestDenied},
		{[]string{"https://example.com"}, "https://other.example/", "", wasihttp.HTTPRequestDenied},
		{[]string{"http://[::1]:80"}, "http://[::1]/", "[::1]:80", 0},
		{[]string{"*://10.0.0.0/8:*"}, "http://10.1.2.3:9000/", "10.1.2.3:9000", 0},
		{[]string{"*://*:*"}, "https://[fe80::1%25eth0]/", "", wasihttp.HTTPRequestDenied},
		{[]string{"*://*:*"}, "http://bücher.example/", "", wasihttp.HTTPRequestDenied},
		{[]string{"*://*:*"}, "http://example.com:0/", "", wasihttp.HTTPRequestURIInvalid},
		{[]string{"*://*:*"}, "http://example.com:65536/", "", wasihttp.HTTPRequestURIInvalid},
		{[]string{"*://*:*"}, "ftp://example.com:21/", "", wasihttp.HTTPProtocolError},
		{[]string{"https://{{ host }}"}, "https://example.com/", "example.com:443", 0},
		{[]string{"https://{{ host }}"}, "https://other.example/", "", wasihttp.HTTPRequestDenied},
		{[]string{"https://{{ nothing }}", "*://*:*"}, "https://example.com/", "", wasihttp.HTTPRequestDenied},
		{[]string{"https://{{ bad }}", "*://*:*"}, "https://example.com/", "", wasihttp.HTTPRequestDenied},
		{[]string{"http://example.com"}, "/path", "", wasihttp.HTTPRequestDenied},
		{[]string{"http://self"}, "/path", "", wasihttp.HTTPRequestURIInvalid},
		{[]string{"http://self"}, "http://self.alt/path", "", wasihttp.HTTPRequestURIInvalid},
		{[]string{"http://self"}, "http://self/path", "", wasihttp.HTTPRequestDenied},
		{[]string{"http://example.com"}, "http://cart.spin.internal/", "", wasihttp.HTTPRequestDenied},
		{[]string{"http://*.spin.internal"}, "http://Cart.spin.internal/", "", wasihttp.InternalError},
		{[]string{"*://*:*"}, "http://cart.spin.internal/", "", wasihttp.InternalError},
		{[]string{"*://*:*"}, "http://a.cart.spin.internal/", "a.cart.spin.internal:80", 0},
	} {
		about := fmt.Sprint(tt.hosts, " ", tt.target)
		_, c := newOutbound(t, resolver{"https://{{ host }}": "https://example.com", "https://{{ bad }}": "https://a/b"}, Config{Dial: noNetwork}, tt.hosts...)
		_, err := get(t.Context(), c, tt.target)
		if tt.dialled != "" {
			require.EqualError(t, err, "dialled "+tt.dialled, about)
			continue
		}
		requireCase(t, tt.want, err, about)
	}
}

func TestClientRefusesInvalidHosts(t *testing.T) {
	t.Parallel()
	o, err := New(&lockedapp.App{}, resolver{}, Config{})
	require.NoError(t, err)
	_, err = o.Client(&lockedapp.Component{Metadata: lockedapp.ComponentMetadata{AllowedOutboundHosts: []string{"example.com"}}})
	require.EqualError(t, err, `allowed_outbound_hosts: "example.com": no scheme, write https://host or *://host:port`)
}

func TestUserinfoIsDenied(t *testing.T) {
	t.Parallel()
	_, c := newOutbound(t, resolver{}, Config{Dial: noNetwork}, "*://*:*")
	r := (&http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: "user@example.com", Path: "/"}, Header: http.Header{}}).WithContext(t.Context())
	_, err := c.Send(r, wasihttp.SendOptions{})
	requireCase(t, wasihttp.HTTPRequestDenied, err, "userinfo")
}

func TestDenialsAreLogged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	_, c := newOutbound(t, resolver{}, Config{Dial: noNetwork, Log: log}, "https://example.com")
	for range 3 {
		for i := range maxDenialsLogged + 10 {
			_, err := get(t.Context(), c, fmt.Sprintf("https://%d.example/secret?token=s3cr3t", i))
			require.Error(t, err)
		}
		_, _ = get(t.Context(), c, "/self")
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, maxDenialsLogged)
	require.Contains(t, lines[1], `level=WARN msg="outbound request denied: not in allowed_outbound_hosts" component=shop destination=https://1.example`)
	require.NotContains(t, out.String(), "s3cr3t")

	out.Reset()
	newOutbound(t, resolver{}, Config{Dial: noNetwork, Log: log}, "https://{{ host }}")
	require.Contains(t, out.String(), `level=ERROR msg="outbound requests will be denied" component=shop err="allowed_outbound_hosts: \"https://{{ host }}\": no such variable"`)
}

func TestRequestLeavesAsItIs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		var head strings.Builder
		for in := bufio.NewReader(conn); ; {
			line, err := in.ReadString('\n')
			head.WriteString(line)
			if err != nil || line == "\r\n" {
				break
			}
		}
		got <- head.String()
		_, _ = io.WriteString(conn, "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nraw")
	}()
	_, c := newOutbound(t, resolver{}, Config{}, "http://127.0.0.1:*")
	p, err := get(t.Context(), c, "http://"+l.Addr().String()+"/a%2fb?c")
	require.NoError(t, err)
	require.Equal(t, "GET /a%2fb?c HTTP/1.1\r\nHost: "+l.Addr().String()+"\r\n\r\n", <-got)
	require.Equal(t, http.StatusFound, p.StatusCode)
	body, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	require.Equal(t, "raw", string(body))
}

// tlsServer answers each request with its protocol.
func tlsServer(t *testing.T, http2 bool) (s *httptest.Server, roots *x509.CertPool) {
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, roots
}

func TestTLS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		http2 bool
		proto string
	}{{true, "HTTP/2.0"}, {false, "HTTP/1.1"}} {
		s, roots := tlsServer(t, tt.http2)
		_, c := newOutbound(t, resolver{}, Config{RootCAs: roots}, "https://127.0.0.1:*", "https://localhost:*")
		require.Equal(t, tt.proto, read(t, c, s.URL))

		_, c = newOutbound(t, resolver{}, Config{RootCAs: x509.NewCertPool()}, "https://127.0.0.1:*")
		_, err := get(t.Context(), c, s.URL)
		_, ok := errors.AsType[x509.UnknownAuthorityError](err)
		require.True(t, ok, "%v", err)

		// The certificate is for another name.
		_, c = newOutbound(t, resolver{}, Config{RootCAs: roots, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
		}}, "https://other.invalid:*")
		_, err = get(t.Context(), c, "https://other.invalid/")
		_, ok = errors.AsType[x509.HostnameError](err)
		require.True(t, ok, "%v", err)
	}
}

func TestConnectionsAreKeptByComponent(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	o, a := newOutbound(t, resolver{}, Config{}, "http://127.0.0.1:*")
	b, err := o.Client(&lockedapp.Component{ID: "cart", Metadata: lockedapp.ComponentMetadata{AllowedOutboundHosts: []string{"http://127.0.0.1:*"}}})
	require.NoError(t, err)
	for range 3 {
		require.Equal(t, "ok", read(t, a, s.URL))
		require.Equal(t, "ok", read(t, b, s.URL))
	}
	require.EqualValues(t, 2, opened.Load())
	require.Len(t, o.dialer.slots, 2)
	require.NoError(t, o.Close())
	require.Empty(t, o.dialer.slots)
}
