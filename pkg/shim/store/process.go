package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
)

const (
	// prepareTimeout ends a prepare process that hangs. Compiling the largest guests known takes 15 s of one core.
	prepareTimeout = 4 * time.Minute
	// maxBlobs bounds the blobs that one prepare process may ask for: more than an image has layers.
	maxBlobs = 4096
	// maxDocument is the size up to which a blob is kept to look digests up in, and maxDocuments that of all of them: manifests,
	// indexes and locked apps are at most 4 MiB.
	maxDocument  = 4 << 20
	maxDocuments = 64 << 20
	// maxStderr bounds what is kept of the words of a dying process.
	maxStderr = 8 << 10
)

// job is a task for one prepare process.
type job struct {
	request handoff.Request
	work    *work
	input   *os.File // or nil
	image   *Image   // or nil
}

func resolveJob(w *work, src Source) job {
	j := job{request: handoff.Request{Step: handoff.StepResolve}, work: w, input: src.Rootfs, image: src.Image}
	j.request.Rootfs = src.Rootfs != nil
	if i := src.Image; i != nil {
		j.request.Image = &handoff.Descriptor{MediaType: i.MediaType, Digest: i.Digest, Size: i.Size}
	}
	return j
}

// run runs a prepare process and returns its last message. Nothing of the process is left when it returns.
func (s *Store) run(ctx context.Context, j job) (handoff.Ask, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, prepareTimeout, fmt.Errorf("not done after %v", prepareTimeout))
	defer cancel()
	conn, theirs, err := handoff.NewConn()
	if err != nil {
		return handoff.Ask{}, fmt.Errorf("start prepare process: %w", err)
	}
	defer conn.Close()
	out, err := os.Open(j.work.out)
	if err != nil {
		_ = theirs.Close()
		return handoff.Ask{}, fmt.Errorf("start prepare process: %w", err)
	}
	stderr := &tail{}
	cmd := exec.Command(s.cfg.Binary, "prepare")
	cmd.Args[0] = "containerd-shim-spin-v2"
	cmd.Dir, cmd.Env, cmd.Stderr = "/", []string{"PATH=/"}, stderr
	cmd.ExtraFiles = []*os.File{theirs, out}
	if j.input != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, j.input)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if os.Geteuid() == 0 {
		// In a process namespace of its own nothing outlives the process, and nothing else can be seen.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	}
	wait, err := s.cfg.Start(cmd)
	_, _ = theirs.Close(), out.Close()
	if err != nil {
		return handoff.Ask{}, fmt.Errorf("start prepare process: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	done, talkErr := s.talk(ctx, conn, j)
	if talkErr != nil {
		_ = cmd.Process.Kill()
	}
	waitErr := wait()
	stop()
	switch {
	case ctx.Err() != nil:
		return done, fmt.Errorf("prepare process: %w", context.Cause(ctx))
	case talkErr == nil && waitErr != nil, errors.Is(talkErr, io.EOF), errors.Is(talkErr, syscall.ECONNRESET), errors.Is(talkErr, syscall.EPIPE):
		return done, fmt.Errorf("prepare process died: %s", death(waitErr, stderr))
	case talkErr != nil:
		return done, fmt.Errorf("prepare process: %w", talkErr)
	case done.NotApp:
		return done, ErrNotApp
	case done.Error != "":
		return done, errors.New(handoff.Printable(done.Error))
	}
	return done, nil
}

// talk answers a prepare process until it is done.
func (s *Store) talk(ctx context.Context, conn *handoff.Conn, j job) (handoff.Ask, error) {
	if err := conn.Send(j.request, nil); err != nil {
		return handoff.Ask{}, err
	}
	blobs := &blobServer{image: j.image}
	defer blobs.wait()
	for range maxBlobs {
		var ask handoff.Ask
		file, err := conn.Receive(&ask)
		if file != nil {
			_ = file.Close() // nobody asked for it
		}
		if err != nil || ask.Done {
			return ask, err
		}
		answer, pipe := blobs.open(ctx, ask.Blob)
		err = conn.Send(answer, pipe)
		if pipe != nil {
			_ = pipe.Close()
		}
		if err != nil {
			return handoff.Ask{}, err
		}
	}
	return handoff.Ask{}, fmt.Errorf("asked for more than %d blobs", maxBlobs)
}

// blobServer hands out the blobs of one image. The only digests it knows are the image's own, and those that stand in a document
// that it has handed out: nobody can read what belongs to another image by guessing its digest.
type blobServer struct {
	image *Image

	mu        sync.Mutex
	documents [][]byte // guarded by mu
	total     int      // guarded by mu: their size
	copying   sync.WaitGroup
}

func (b *blobServer) wait() { b.copying.Wait() }

func (b *blobServer) knows(digest string) bool {
	if b.image == nil || checkDigest(digest) != nil {
		return false
	}
	if digest == b.image.Digest {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.documents {
		if bytes.Contains(d, []byte(digest)) {
			return true
		}
	}
	return false
}

// open answers a wish for a blob; pipe is where it can be read.
func (b *blobServer) open(ctx context.Context, digest string) (answer handoff.Answer, pipe *os.File) {
	if !b.knows(digest) {
		return handoff.Answer{Error: "no document of this image names the blob"}, nil
	}
	content, err := b.image.Open(ctx, digest)
	if err != nil {
		return handoff.Answer{Error: err.Error(), NotExist: errors.Is(err, fs.ErrNotExist)}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		_ = content.Close()
		return handoff.Answer{Error: err.Error()}, nil
	}
	b.copying.Go(func() { // ends with the blob, or when the process closes its end of the pipe, at the latest by dying
		defer content.Close()
		defer w.Close()
		b.copy(w, content)
	})
	return handoff.Answer{}, r
}

// copy copies a blob into the pipe. A document is kept before its last byte is sent, so that the process cannot ask for what stands
// in it too early.
func (b *blobServer) copy(w io.Writer, content io.Reader) {
	head, err := io.ReadAll(io.LimitReader(content, maxDocument))
	if err != nil {
		return // the pipe ends early, and what comes out is not of the right size
	}
	if len(head) < maxDocument {
		b.mu.Lock()
		if b.total += len(head); b.total <= maxDocuments {
			b.documents = append(b.documents, head)
		}
		b.mu.Unlock()
	}
	if _, err := w.Write(head); err != nil {
		return
	}
	_, _ = io.Copy(w, content)
}

// tail keeps the last bytes of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - maxStderr; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

// death says how a process ended, with the line that tells most of what it wrote.
func death(err error, stderr *tail) string {
	reason := "without a word"
	if err != nil {
		reason = err.Error()
	}
	stderr.mu.Lock()
	defer stderr.mu.Unlock()
	first := ""
	for line := range strings.Lines(string(stderr.b)) {
		if line = strings.TrimSpace(line); first == "" || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			first = line
		}
	}
	if first != "" {
		reason += ": " + handoff.Printable(first)
	}
	return reason
}
