package http

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// briefly makes quiet connections leave soon, and those that the server closes at once.
func briefly(s *Server) {
	s.timeouts.retire = 20 * time.Millisecond
	s.timeouts.lastWord = 20 * time.Millisecond
}

func TestQuietConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/..."), MaxConnections: 3}, briefly, hello)
	var quiet []*client
	for range 3 {
		c := s.dial()
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		require.Equal(t, "hello", text(t, c.response("GET")))
		quiet = append(quiet, c)
	}
	c := s.dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	require.Equal(t, "hello", text(t, c.response("GET")))
	require.Empty(t, quiet[0].rest())
}

func TestSilentConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/..."), MaxConnections: 3}, func(s *Server) { s.timeouts.welcome = 20 * time.Millisecond }, hello)
	silent := make([]*client, 10)
	for i := range silent {
		silent[i] = s.dial()
	}
	c := s.dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	require.Equal(t, "hello", text(t, c.response("GET")))
	require.Empty(t, silent[0].rest())
}

func TestBusyConnectionsLetOthersWait(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	s := start(t, Config{App: appOf("/..."), MaxConnections: 2}, briefly, func(w http.ResponseWriter, r *http.Request) error {
		entered <- struct{}{}
		<-leave
		return hello(w, r)
	})
	var busy []*client
	for range 3 {
		c := s.dial()
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		busy = append(busy, c)
	}
	<-entered
	<-entered
	leave <- struct{}{}
	<-entered // the third, in the place of the first that was answered
	close(leave)
	for _, c := range busy {
		res := c.response("GET")
		require.Equal(t, "hello", text(t, res))
	}
}

// TestManyConnectionsAndFewFiles serves in a process of its own, with a limit of open files that is far below the
// number of connections.
func TestManyConnectionsAndFewFiles(t *testing.T) {
	const connections, files = 150, 48
	if limit := os.Getenv("TEST_MAX_CONNECTIONS"); limit != "" {
		serveWithFewFiles(t, limit, files)
		return
	}
	for name, limit := range map[string]string{"within the limit": "0", "until none is left": strconv.Itoa(connections)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManyConnectionsAndFewFiles$")
			cmd.Env = append(os.Environ(), "TEST_MAX_CONNECTIONS="+limit)
			stdin, err := cmd.StdinPipe()
			require.NoError(t, err)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			cmd.Stderr = os.Stderr
			require.NoError(t, cmd.Start())
			var addr string
			_, err = fmt.Fscanf(stdout, "%s\n", &addr)
			require.NoError(t, err)

			var all sync.WaitGroup
			for range connections {
				all.Go(func() {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(patience))
					_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
					b := make([]byte, 12)
					if _, err := io.ReadFull(c, b); err != nil || string(b) != "HTTP/1.1 200" {
						t.Errorf("%q, %v", b, err)
					}
					_, _ = io.Copy(io.Discard, c) // the connection stays until the server wants its place
				})
			}
			all.Wait()
			require.NoError(t, stdin.Close())
			_, _ = io.Copy(io.Discard, stdout)
			require.NoError(t, cmd.Wait())
		})
	}
}

func serveWithFewFiles(t *testing.T, limit string, files uint64) {
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files}))
	n, err := strconv.Atoi(limit)
	require.NoError(t, err)
	s := start(t, Config{App: appOf("/..."), MaxConnections: n}, func(s *Server) {
		briefly(s)
		s.timeouts.idle = 500 * time.Millisecond
	}, hello)
	fmt.Println(s.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.stop()
	s.drained()
	require.Equal(t, n > 0, strings.Contains(s.log.String(), "too many open files"))
}

func TestDrain(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	slow := func(w http.ResponseWriter, r *http.Request) error {
		entered <- struct{}{}
		<-leave
		return hello(w, r)
	}
	s := start(t, Config{App: appOf("/slow", "/fast", "/begun")}, nil, slow, hello, func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		return slow(w, r)
	})
	ask := func(path string) *client {
		c := s.dial()
		c.send("GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path)
		return c
	}
	inFlight := ask("/slow")
	<-entered
	begun := ask("/begun")
	<-entered
	quiet := ask("/fast")
	require.Equal(t, "hello", text(t, quiet.response("GET")))
	late := ask("/fast")
	require.Equal(t, "hello", text(t, late.response("GET")))
	silent, lateToo := s.dial(), s.dial()

	overHTTP2 := http2(t)
	result := make(chan string)
	go func() {
		res, err := overHTTP2.Get(s.url("/slow"))
		if err != nil {
			result <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		result <- string(b)
	}()
	<-entered

	s.stop()
	require.Eventually(t, s.listener.draining.Load, patience, time.Millisecond)
	// In the moment that they have, quiet connections may still bring a request.
	late.send("GET /fast HTTP/1.1\r\nHost: h\r\n\r\n")
	lateToo.send("GET /fast HTTP/1.1\r\nHost: h\r\n\r\n")
	for _, c := range []*client{late, lateToo} {
		res := c.response("GET")
		require.True(t, res.Close)
		require.Equal(t, "hello", text(t, res))
		require.Empty(t, c.rest())
	}
	require.Empty(t, quiet.rest())
	require.Empty(t, silent.rest())
	select {
	case err := <-s.done:
		t.Fatalf("the server did not wait for requests in flight: %v", err)
	default:
	}
	close(leave)
	res := inFlight.response("GET")
	require.True(t, res.Close)
	require.Equal(t, "hello", text(t, res))
	require.Equal(t, "begunhello", text(t, begun.response("GET")))
	require.Empty(t, begun.rest())
	require.Equal(t, "hello", <-result)
	s.drained()
	_, err := net.Dial("tcp", s.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestDrainEmptiesTheQueue(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := newListener(tcp.(*net.TCPListener), timeouts{retire: patience}, 10, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = l.Close() })
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
	}
	l.drain()
	require.NoError(t, l.SetDeadline(time.Unix(1, 0))) // as if the process had not come to accept before
	for range 3 {
		c, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestDrainTellsIdleClientsOfHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, Config{App: appOf("/...")}, briefly, hello)
	res, err := http2(t).Get(s.url("/"))
	require.NoError(t, err)
	require.Equal(t, "hello", text(t, res))
	s.stop()
	s.drained()
}

// TestHammerDrain ends servers while clients that keep their connections ask as fast as they can. Each request whose
// bytes the server has taken must be answered.
func TestHammerDrain(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		s := start(t, Config{App: appOf("/...")}, func(s *Server) { s.timeouts.retire = 100 * time.Millisecond },
			func(w http.ResponseWriter, r *http.Request) error {
				if round%2 == 0 {
					<-time.After(time.Millisecond)
				}
				return hello(w, r)
			})
		var clients sync.WaitGroup
		warm := make(chan struct{}, 16)
		for range cap(warm) {
			clients.Go(func() {
				c, err := net.Dial("tcp", s.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				client := &client{TCPConn: c.(*net.TCPConn), t: t}
				if err := askUntilClosed(client, func() { warm <- struct{}{} }); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		for range cap(warm) {
			<-warm
		}
		s.stop()
		clients.Wait()
		s.drained()
	}
}

// askUntilClosed sends requests on one connection until a response says that it is the last.
func askUntilClosed(c *client, first func()) error {
	tr := &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return c.TCPConn, nil },
		MaxConnsPerHost: 1,
	}
	for {
		req, err := http.NewRequest("POST", "http://h/", strings.NewReader("x")) // which no client repeats by itself
		if err != nil {
			return err
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || string(b) != "hello" {
			return fmt.Errorf("%q, %w", b, err)
		}
		if first != nil {
			first()
			first = nil
		}
		if res.Close {
			return nil
		}
	}
}
