package container

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/go-runc"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// play runs a script with the streams, as runc would start a worker, calls the functions, and waits until all output is copied.
func play(t *testing.T, std stdio.Stdio, script string, during ...func()) (stderr string) {
	t.Helper()
	s, err := openStreams(t.Context(), "c", std, os.Getuid(), os.Getgid())
	require.NoError(t, err)
	defer s.close()
	cmd := exec.Command("/bin/sh", "-c", script)
	s.runc.Set(cmd)
	require.NoError(t, cmd.Start())
	if c, ok := s.runc.(runc.StartCloser); ok {
		require.NoError(t, c.CloseAfterStart())
	}
	var first head
	require.NoError(t, s.start(t.Context(), std, &first))
	require.NoError(t, s.closeStdin())
	for _, f := range during {
		f()
	}
	require.NoError(t, cmd.Wait())
	s.drain(t.Context(), time.Minute)
	return first.line()
}

func fifoIn(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, unix.Mkfifo(path, 0o600))
	return path
}

// reader reads a FIFO to its end, as a client does.
func reader(t *testing.T, path string) <-chan string {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	// Hold the FIFO open for a moment, so that it has not ended before the other side opens it.
	hold, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	got := make(chan string, 1)
	one := make([]byte, 1)
	go func() {
		n, _ := io.ReadFull(f, one)
		_ = hold.Close()
		rest, _ := io.ReadAll(f)
		_ = f.Close()
		got <- string(one[:n]) + string(rest)
	}()
	return got
}

func TestStreams(t *testing.T) {
	t.Parallel()
	t.Run("FIFOs end when the worker does", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		std := stdio.Stdio{Stdout: fifoIn(t, dir, "out"), Stderr: fifoIn(t, dir, "err")}
		out, stderr := reader(t, std.Stdout), reader(t, std.Stderr)
		require.Equal(t, "panic: oh no", play(t, std, "echo to out; echo panic: oh no >&2; echo more >&2"))
		require.Equal(t, "to out\n", <-out)
		require.Equal(t, "panic: oh no\nmore\n", <-stderr)
	})
	t.Run("a FIFO without a reader blocks nobody", func(t *testing.T) {
		t.Parallel()
		play(t, stdio.Stdio{Stdout: fifoIn(t, t.TempDir(), "out")}, "echo to out")
	})
	t.Run("a file gets both outputs", func(t *testing.T) {
		t.Parallel()
		name := filepath.Join(t.TempDir(), "made", "log")
		uri := "file://" + name
		play(t, stdio.Stdio{Stdout: uri, Stderr: uri}, "echo a; sleep 0; echo b >&2")
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.ElementsMatch(t, []byte("a\nb\n"), b)
	})
	t.Run("standard input ends with CloseIO and the client", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		std := stdio.Stdio{Stdin: fifoIn(t, dir, "in"), Stdout: fifoIn(t, dir, "out")}
		client, err := os.OpenFile(std.Stdin, os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = client.WriteString("hello")
		require.NoError(t, err)
		out := reader(t, std.Stdout)
		play(t, std, "cat", func() { require.NoError(t, client.Close()) })
		require.Equal(t, "hello", <-out)
	})
	t.Run("what is not there can be written to", func(t *testing.T) {
		t.Parallel()
		play(t, stdio.Stdio{}, "echo to nobody && echo to nobody >&2")
		play(t, stdio.Stdio{Stdin: fifoIn(t, t.TempDir(), "in")}, "echo to nobody && echo to nobody >&2")
	})
	t.Run("unknown schemes are refused", func(t *testing.T) {
		t.Parallel()
		_, err := openStreams(t.Context(), "c", stdio.Stdio{Stdout: "npipe://x"}, 0, 0)
		require.ErrorContains(t, err, `unknown scheme "npipe"`)
	})
}
