package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// copyBuffer is how much is copied at once, in bytes: what a pipe takes without splitting the writes of others.
const copyBuffer = 4 << 10

// streams are the worker's standard input, output and error where it has no terminal: pipes, which are copied to and from what the
// client gave, so that a worker never sees that a client is gone.
type streams struct {
	runc runc.IO // nil with a terminal

	copies sync.WaitGroup // of output
	files  []*os.File     // the clients' ends

	mu    sync.Mutex
	stdin *os.File // keeps a client's FIFO from ending before CloseIO; guarded by mu
}

// openStreams opens what the worker gets; copying begins with start. With a terminal the caller copies, and only standard input is kept.
func openStreams(ctx context.Context, id string, std stdio.Stdio, uid, gid int) (*streams, error) {
	s := &streams{}
	if std.Terminal {
		return s, nil
	}
	uri, err := url.Parse(std.Stdout)
	if err != nil {
		return nil, fmt.Errorf("standard output: %w", err)
	}
	switch uri.Scheme {
	case "binary", "binary-v2":
		s.runc, err = process.NewBinaryIO(ctx, id, uri)
	case "", "fifo", "file":
		s.runc, err = newPipes(std, uid, gid)
	default:
		err = fmt.Errorf("unknown scheme %q", uri.Scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("standard output: %w", err)
	}
	return s, nil
}

// pipes are pipes for what a client gave. What it did not give is /dev/null, which can be written to: a guest that prints is no error.
type pipes struct {
	runc.IO
	null *os.File
}

func newPipes(std stdio.Stdio, uid, gid int) (runc.IO, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	given, err := runc.NewPipeIO(uid, gid, func(o *runc.IOOption) {
		o.OpenStdin, o.OpenStdout, o.OpenStderr = std.Stdin != "", std.Stdout != "", std.Stderr != ""
	})
	if err != nil {
		_ = null.Close()
		return nil, err
	}
	return &pipes{given, null}, nil
}

// Set gives runc, and by it the worker, its ends.
func (p *pipes) Set(cmd *exec.Cmd) {
	p.IO.Set(cmd)
	if cmd.Stdout == nil {
		cmd.Stdout = p.null
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.null
	}
}

// CloseAfterStart closes the worker's ends of output here, so that reading ends with the worker.
func (p *pipes) CloseAfterStart() error {
	err := p.null.Close()
	if c, ok := p.IO.(runc.StartCloser); ok {
		err = errors.Join(err, c.CloseAfterStart())
	}
	return err
}

// Close closes all that is open.
func (p *pipes) Close() error {
	_ = p.null.Close()
	return p.IO.Close()
}

// start copies, once the worker has its ends of the pipes. stderr gets what goes to standard error, too.
func (s *streams) start(ctx context.Context, std stdio.Stdio, stderr io.Writer) error {
	if s.runc == nil || s.runc.Stdin() == nil && s.runc.Stdout() == nil && s.runc.Stderr() == nil {
		return nil // a terminal, nothing, or a program that reads the pipes itself
	}
	if r := s.runc.Stdout(); r != nil {
		w, err := s.openOutput(std.Stdout)
		if err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
		s.copies.Go(func() { copyOutput(ctx, w, r, io.Discard) })
	}
	if r := s.runc.Stderr(); r != nil {
		w, err := s.openOutput(std.Stderr)
		if err != nil {
			return fmt.Errorf("standard error: %w", err)
		}
		s.copies.Go(func() { copyOutput(ctx, w, r, stderr) })
	}
	if std.Stdin == "" {
		return nil
	}
	r, err := s.open(std.Stdin, os.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := s.keepStdin(std.Stdin); err != nil {
		return err
	}
	go func() { // ends when all writers of the FIFO have closed it, or with close
		_, _ = io.Copy(s.runc.Stdin(), r)
		_ = s.runc.Stdin().Close()
	}()
	return nil
}

// copyOutput ends when no process has the worker's end any more, and tells the client so by closing to. What a client does not take
// is dropped, so that the worker lives on. also gets all, too.
func copyOutput(ctx context.Context, to *os.File, from io.Reader, also io.Writer) {
	defer to.Close()
	buf := make([]byte, copyBuffer)
	// io.MultiWriter and the hidden methods of from make io.CopyBuffer use buf.
	if _, err := io.CopyBuffer(io.MultiWriter(also, to), struct{ io.Reader }{from}, buf); err != nil && !errors.Is(err, fs.ErrClosed) {
		log.G(ctx).WithError(err).Warn("container: copy output")
		_, _ = io.Copy(io.Discard, from)
	}
}

// openOutput opens what the client reads: a FIFO, or a file by its name or URI.
func (s *streams) openOutput(name string) (*os.File, error) {
	uri, err := url.Parse(name)
	if err != nil {
		return nil, err
	}
	if uri.Scheme != "" {
		name = uri.Path
	}
	if uri.Scheme == "file" {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		return s.open(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeNamedPipe == 0 {
		return s.open(name, os.O_APPEND|os.O_WRONLY)
	}
	// Open for reading too: it neither waits for a reader now nor breaks when there is none later, as while containerd restarts.
	return s.open(name, os.O_RDWR|unix.O_NONBLOCK)
}

func (s *streams) open(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(name, flags, 0o644)
	if err == nil {
		s.files = append(s.files, f)
	}
	return f, err
}

// keepStdin opens the write end of a client's FIFO, whose read end is open.
func (s *streams) keepStdin(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stdin = f
	return nil
}

func (s *streams) closeStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil {
		return nil
	}
	err := s.stdin.Close()
	s.stdin = nil
	return err
}

// drain waits until all output of a dead worker is copied.
func (s *streams) drain(ctx context.Context, most time.Duration) {
	done := make(chan struct{})
	go func() { // ends with close at the latest
		s.copies.Wait()
		close(done)
	}()
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
		log.G(ctx).Warn("container: output is still not read, dropping it")
	}
}

// close ends all copying.
func (s *streams) close() {
	_ = s.closeStdin()
	if s.runc != nil {
		_ = s.runc.Close()
	}
	for _, f := range s.files {
		_ = f.Close()
	}
}
