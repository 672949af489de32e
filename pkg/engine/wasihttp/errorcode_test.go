package wasihttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

func TestErrorCodesPassTheABI(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	require.Len(t, httpTypesErrorCode.Cases, int(InternalError)+1)
	require.Equal(t, "internal-error", InternalError.String())
	require.Equal(t, "error-code 99", Case(99).String())
	for c := range Case(len(httpTypesErrorCode.Cases)) {
		codes := []*ErrorCode{NewError(c)}
		switch c.payload() {
		case noPayload:
		case optionU64:
			codes = append(codes, &ErrorCode{Case: c, Number: new(uint64(1 << 40))})
		case optionU32:
			codes = append(codes, &ErrorCode{Case: c, Number: new(uint64(1 << 30))})
		case optionString:
			codes = append(codes, &ErrorCode{Case: c, Text: "text"})
		default:
			codes = append(codes, &ErrorCode{Case: c, Text: "text"}, &ErrorCode{Case: c, Number: new(uint64(7))},
				&ErrorCode{Case: c, Text: "text", Number: new(uint64(7))})
		}
		for _, e := range codes {
			var got *ErrorCode
			g.call("http-error-code", self(fmt.Errorf("wrapped: %w", e)), func(c *engine.Call) {
				require.True(t, c.Option())
				got = errorCode(c)
			})
			require.Equal(t, e, got)
			p := &response{}
			g.call("[static]response-outparam.set", func(c *engine.Call) {
				c.PutOwn(&responseOutparam{p})
				c.PutErr()
				e.put(c)
			}, nil)
			require.Equal(t, e, p.refused)
		}
	}
	g.call("http-error-code", self(io.ErrNoProgress), func(c *engine.Call) { require.False(t, c.Option()) })
	require.Equal(t, `HTTP-response-header-size 7 "x"`, (&ErrorCode{Case: HTTPResponseHeaderSize, Text: "x", Number: new(uint64(7))}).Error())
}

func TestErrorsBecomeErrorCodes(t *testing.T) {
	t.Parallel()
	dial := func(err error) error {
		return &url.Error{Op: "Get", URL: "http://h/", Err: &net.OpError{Op: "dial", Net: "tcp", Err: err}}
	}
	syscallError := func(op string, n syscall.Errno) error {
		return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, n)}
	}
	for _, tc := range []struct {
		name string
		err  error
		want *ErrorCode
	}{
		{"an error-code", fmt.Errorf("x: %w", NewError(HTTPRequestDenied)), NewError(HTTPRequestDenied)},
		{"unknown name", dial(&net.DNSError{Err: "no such host", IsNotFound: true}), noAddress()},
		{"name server fails", dial(&net.DNSError{Err: "server misbehaving", IsTemporary: true}), noAddress()},
		{"name server is silent", dial(&net.DNSError{Err: "timeout", IsTimeout: true}), NewError(DNSTimeout)},
		{"refused", dial(syscallError("connect", syscall.ECONNREFUSED)), NewError(ConnectionRefused)},
		{"no route", dial(syscallError("connect", syscall.EHOSTUNREACH)), NewError(DestinationIPUnroutable)},
		{"no network", dial(syscallError("connect", syscall.ENETUNREACH)), NewError(DestinationIPUnroutable)},
		{"no address", dial(syscallError("connect", syscall.EADDRNOTAVAIL)), noAddress()},
		{"dial times out", dial(os.ErrDeadlineExceeded), NewError(ConnectionTimeout)},
		{"dial times out in the kernel", dial(syscallError("connect", syscall.ETIMEDOUT)), NewError(ConnectionTimeout)},
		{"another failure to dial", dial(syscallError("connect", syscall.EPERM)), NewError(ConnectionRefused)},
		{"read times out", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, NewError(ConnectionReadTimeout)},
		{"deadline of a context", context.DeadlineExceeded, NewError(ConnectionReadTimeout)},
		{"reset", syscallError("read", syscall.ECONNRESET), NewError(ConnectionTerminated)},
		{"broken pipe", syscallError("write", syscall.EPIPE), NewError(ConnectionTerminated)},
		{"closed", &url.Error{Op: "Get", Err: io.EOF}, NewError(ConnectionTerminated)},
		{"canceled", context.Canceled, NewError(ConnectionTerminated)},
		{"unknown authority", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, NewError(TLSProtocolError)},
		{"wrong host", x509.HostnameError{Certificate: new(x509.Certificate)}, NewError(TLSProtocolError)},
		{"not TLS", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, NewError(TLSProtocolError)},
		{"alert", &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, NewError(TLSProtocolError)},
		{"no HTTP", errors.New("malformed HTTP response"), NewError(HTTPProtocolError)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tc.want, sendError(tc.err))
		})
	}
}

// roundTrip is a [Client] of net/http.
type roundTrip struct{ http.RoundTripper }

func (r roundTrip) Send(q *http.Request, _ SendOptions) (*http.Response, error) {
	return r.RoundTrip(q)
}

// newClient returns a client, and the transport that it uses.
func newClient(t testing.TB) (roundTrip, *http.Transport) {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return roundTrip{tr}, tr
}

// listen serves each connection with f.
func listen(t testing.TB, f func(c net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan bool)
	go func() { // ends with l
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// readHead reads the head of a request.
func readHead(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }

// TestFailuresOfServers maps what net/http itself returns.
func TestFailuresOfServers(t *testing.T) {
	t.Parallel()
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, refusing.Close())
	https := httptest.NewUnstartedServer(http.NotFoundHandler())
	https.Config.ErrorLog = log.New(io.Discard, "", 0)
	https.StartTLS()
	t.Cleanup(https.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	short := func(o *requestOptions) { o.firstByte = new(uint64(1)) }
	for _, tc := range []struct {
		name, url string
		options   func(*requestOptions)
		want      Case
	}{
		{"nobody listens", "http://" + refusing.Addr().String() + "/", nil, ConnectionRefused},
		{"certificate is not trusted", https.URL + "/", nil, TLSProtocolError},
		{"server speaks no TLS", "https://" + plain.Listener.Addr().String() + "/", nil, TLSProtocolError},
		{"name is unknown", "http://name.invalid/", nil, DNSError},
		{"connection is closed", "http://" + listen(t, readHead) + "/", nil, ConnectionTerminated},
		{"answer is no HTTP", "http://" + listen(t, func(c net.Conn) {
			readHead(c)
			_, _ = io.WriteString(c, "hello\r\n\r\n")
		}) + "/", nil, HTTPProtocolError},
		{"head is too large", "http://" + listen(t, func(c net.Conn) {
			readHead(c)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nx: %0*d\r\nContent-Length: 0\r\n\r\n", maxResponseHeader, 1)
		}) + "/", nil, HTTPResponseHeaderSectionSize},
		{"head does not come", "http://" + listen(t, func(c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
		}) + "/", short, ConnectionReadTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			client, tr := newClient(t)
			resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
			}}
			tr.DialContext = (&net.Dialer{Resolver: resolver}).DialContext
			g := newScript(t, Config{Client: client})
			o := new(requestOptions)
			if tc.options != nil {
				tc.options(o)
			}
			f, e := g.handle(g.request("GET", tc.url), o)
			require.Nil(t, e)
			_, e = g.get(f)
			require.NotNil(t, e)
			require.Equal(t, tc.want, e.Case, e)
			f.drop()
			require.Empty(t, g.state().outgoing.slots)
		})
	}
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	client, tr := newClient(t)
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	g := newScript(t, Config{Client: client})
	f, e := g.handle(g.request("GET", "http://h/"), &requestOptions{connect: new(uint64(time.Millisecond))})
	require.Nil(t, e)
	_, e = g.get(f)
	require.Equal(t, NewError(ConnectionTimeout), e)
}
