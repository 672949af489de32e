package outbound

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
)

func TestDialEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		started, ended := make(chan struct{}), make(chan struct{})
		o, c := newOutbound(t, resolver{}, Config{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(started)
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}}, scheme+"://example.com")
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan error)
		go func() {
			_, err := get(ctx, c, scheme+"://example.com/")
			sent <- err
		}()
		<-started
		require.Len(t, o.dialer.slots, 1)
		cancel()
		<-ended
		require.ErrorIs(t, <-sent, context.Canceled)
	}
}

func TestHandshakeEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	_, c := newOutbound(t, resolver{}, Config{Dial: func(context.Context, string, string) (net.Conn, error) { return here, nil }}, "https://example.com")
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error)
	go func() {
		_, err := get(ctx, c, "https://example.com/")
		sent <- err
	}()
	_, err := there.Read(make([]byte, 1)) // the client's hello
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, <-sent, context.Canceled)
	_, err = io.Copy(io.Discard, there)
	require.NoError(t, err, "the connection is closed")
}

func TestIdleConnectionsGiveWay(t *testing.T) {
	t.Parallel()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	a, b := httptest.NewServer(answer), httptest.NewServer(answer)
	t.Cleanup(a.Close)
	t.Cleanup(b.Close)
	_, c := newOutbound(t, resolver{}, Config{MaxConnections: 1}, "http://127.0.0.1:*")
	for range 3 {
		require.Equal(t, "ok", read(t, c, a.URL))
		require.Equal(t, "ok", read(t, c, b.URL))
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDialer(Config{MaxConnections: 1, Dial: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			return here, there.Close()
		}}, nil, func() {})
		conn, err := d.dial(t.Context(), "tcp", "example.com:80")
		require.NoError(t, err)

		_, err = d.dial(t.Context(), "tcp", "example.com:80")
		requireCase(t, wasihttp.ConnectionLimitReached, err, "limit")

		ctx, cancel := context.WithTimeout(t.Context(), limitTimeout/2)
		defer cancel()
		_, err = d.dial(ctx, "tcp", "example.com:80")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		dialled := make(chan error)
		go func() {
			next, err := d.dial(t.Context(), "tcp", "example.com:80")
			if err == nil {
				err = next.Close()
			}
			dialled <- err
		}()
		synctest.Wait()
		require.NoError(t, conn.Close())
		require.NoError(t, <-dialled)
		_ = conn.Close() // once more frees nothing
		require.Empty(t, d.slots)
	})
}

func TestConnectionsThatBecomeIdleGiveWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var idle atomic.Pointer[net.Conn]
		d := newDialer(Config{MaxConnections: 1, Dial: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			return here, there.Close()
		}}, nil, func() {
			if conn := idle.Load(); conn != nil {
				_ = (*conn).Close()
			}
		})
		conn, err := d.dial(t.Context(), "tcp", "example.com:80")
		require.NoError(t, err)
		time.AfterFunc(limitTimeout/2, func() { idle.Store(&conn) })
		next, err := d.dial(t.Context(), "tcp", "example.com:80")
		require.NoError(t, err)
		require.NoError(t, next.Close())
	})
}

func TestFailedDialFreesItsSlot(t *testing.T) {
	t.Parallel()
	o, c := newOutbound(t, resolver{}, Config{Dial: noNetwork, MaxConnections: 1}, "*://*:*")
	for range 3 {
		_, err := get(t.Context(), c, "http://example.com/")
		require.EqualError(t, err, "dialled example.com:80")
		_, err = get(t.Context(), c, "https://example.com/")
		require.EqualError(t, err, "dialled example.com:443")
	}
	require.Empty(t, o.dialer.slots)
}

func TestDefaultLimitLeavesFiles(t *testing.T) {
	t.Parallel()
	require.GreaterOrEqual(t, defaultLimit(), minConnections)
}
