package wasihttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
)

// readAhead is how much of a body is read ahead while the guest waits for several things at once, and how
// much is skipped at once where the guest wants the trailers only.
const readAhead = 32 << 10

var errBetweenBytes = NewError(ConnectionReadTimeout)

// bodyReader reads the body of a request or a response for the guest: as a [wasi.Source] and [wasi.Waitable]
// for its stream, and then for its trailers.
//
// Reads run on the guest's goroutine. Where the guest waits for the body and something else, a goroutine
// reads ahead. A read of a client's connection cannot be taken back without losing the connection, so that
// this goroutine outlives the stream: it ends with its one read.
type bodyReader struct {
	body io.ReadCloser
	// trailer returns the trailers, after EOF.
	trailer func() http.Header
	// interrupt makes a read of body that blocks return. It is called at most once.
	interrupt func()
	// dispose is called when nobody will read on; nil if there is nothing to do then.
	dispose func()
	// idle is called where the guest is about to wait.
	idle func()
	// begin is called by the guest's goroutine before body is read for the first time; nil if there is nothing to
	// do then.
	begin func()
	// incomplete is the error of a body that ends too early.
	incomplete Case
	// between bounds each read; 0 is no bound.
	between time.Duration

	unwatch func() bool // stops watching the context; nil before the first read that blocks
	timer   *time.Timer // of between; used by who reads

	mu       sync.Mutex
	buf      []byte      // while busy, the goroutine's; else guarded by mu
	data     []byte      // guarded by mu: what was read ahead, part of buf
	err      error       // guarded by mu: what reading ended with, io.EOF or an *ErrorCode
	cut      error       // guarded by mu: why reading was interrupted
	used     bool        // guarded by mu: the guest began to read
	busy     bool        // guarded by mu: a goroutine reads ahead
	released bool        // guarded by mu: nobody will read on
	settled  wasi.Signal // off while busy
}

// newBodyReader completes b, of which body and the functions are set.
func newBodyReader(b *bodyReader) *bodyReader {
	if b.body == http.NoBody {
		b.err = io.EOF
	}
	return b
}

// read reads body once.
func (b *bodyReader) read(p []byte) (int, error) {
	if b.between > 0 {
		if b.timer == nil {
			b.timer = time.AfterFunc(b.between, func() { b.cutOff(errBetweenBytes) })
		} else {
			b.timer.Reset(b.between)
		}
		defer b.timer.Stop()
	}
	n, err := b.body.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut != nil {
		err = b.cut
	}
	return n, bodyError(err, b.incomplete)
}

// cutOff ends a read that blocks, and all later ones; they fail with cause.
func (b *bodyReader) cutOff(cause error) {
	b.mu.Lock()
	first := b.cut == nil
	if first {
		b.cut = cause
	}
	b.mu.Unlock()
	if first {
		b.interrupt()
	}
}

// use takes note that the guest reads.
func (b *bodyReader) use() {
	b.mu.Lock()
	first := !b.used && b.err == nil
	b.used = true
	b.mu.Unlock()
	if first && b.begin != nil {
		b.begin()
	}
}

// Read implements [wasi.Source]. It does not block while the reader is Ready.
func (b *bodyReader) Read(ctx context.Context, p []byte) (int, error) {
	b.use()
	b.mu.Lock()
	busy := b.busy
	b.mu.Unlock()
	if busy {
		b.idle()
		if _, err := wasi.Wait(ctx, &b.settled); err != nil {
			return 0, err
		}
	}
	b.mu.Lock()
	n := copy(p, b.data)
	b.data = b.data[n:]
	err := b.err
	b.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	if err != nil {
		return 0, err
	}
	b.idle()
	if b.unwatch == nil {
		b.unwatch = context.AfterFunc(ctx, func() { b.cutOff(context.Cause(ctx)) })
	}
	n, err = b.read(p)
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
	return n, err
}

// Ready says whether a Read would not block. If that is not known it begins to read ahead.
func (b *bodyReader) Ready() bool {
	b.use()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.data) > 0 || b.err != nil {
		return true
	}
	if !b.busy {
		b.busy = true
		b.settled.Set(false)
		if b.buf == nil {
			b.buf = make([]byte, readAhead)
		}
		go b.readAhead() // ends with its one read, which the owner of the reader interrupts
	}
	return false
}

func (b *bodyReader) readAhead() {
	n, err := b.read(b.buf)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data, b.err, b.busy = b.buf[:n], err, false
	b.settled.Set(true)
}

// Watch calls wake when a Read may no longer block.
func (b *bodyReader) Watch(wake func()) (stop func()) {
	b.idle()
	return b.settled.Watch(wake)
}

// end returns what reading ended with; nil if there is more to read.
func (b *bodyReader) end() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.data) > 0 {
		return nil
	}
	return b.err
}

// Close implements [wasi.Source]: the stream was dropped. The trailers may still be wanted.
func (b *bodyReader) Close() {}

// release says that nobody will read on.
func (b *bodyReader) release() {
	b.mu.Lock()
	b.released = true
	b.mu.Unlock()
	if b.dispose != nil {
		b.dispose()
	}
}

// wanted says whether the guest is likely to read on.
func (b *bodyReader) wanted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used && !b.released
}

// reads says whether a goroutine reads ahead.
func (b *bodyReader) reads() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy
}

// settle waits until no goroutine reads.
func (b *bodyReader) settle() {
	if b.reads() {
		_, _ = wasi.Wait(context.Background(), &b.settled) // no error: the context does not end
	}
}

// leave stops watching the context: reading has ended, or will be interrupted.
func (b *bodyReader) leave() {
	if b.unwatch != nil {
		b.unwatch()
	}
}

// drain skips what is left, if it is at most limit bytes.
func (b *bodyReader) drain(limit int) {
	b.settle()
	b.mu.Lock()
	b.data = nil
	err := b.err
	b.mu.Unlock()
	skip := make([]byte, readAhead)
	for err == nil && limit > 0 {
		var n int
		n, err = b.read(skip)
		limit -= n
	}
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
}

// incomingBody is the representation of [IncomingBody].
type incomingBody struct {
	s      *state
	reader *bodyReader
	stream *wasi.Input // once the guest took it
}

func (b *incomingBody) drop() {
	b.closeStream()
	b.reader.release()
}

func (b *incomingBody) closeStream() {
	if b.stream != nil {
		b.stream.Close()
	}
}

func incomingBodyStream(c *engine.Call) error {
	b := engine.Rep[*incomingBody](c)
	if b.stream != nil {
		c.PutErr()
		return nil
	}
	b.stream = wasi.NewInput(b.s.ctx, b.reader)
	c.PutOk()
	c.PutOwn(b.stream)
	return nil
}

func incomingBodyFinish(c *engine.Call) error {
	b := engine.Rep[*incomingBody](c)
	b.closeStream()
	c.PutOwn(&futureTrailers{s: b.s, reader: b.reader})
	return nil
}

// futureTrailers is the representation of [FutureTrailers]. It skips what is left of the body while it is
// asked. As a Waitable it is ready when the end was reached.
type futureTrailers struct {
	s      *state
	reader *bodyReader
	skip   []byte
	taken  bool
}

// Ready skips what is there, and says whether the body has ended.
func (t *futureTrailers) Ready() bool {
	for t.reader.end() == nil {
		if !t.reader.Ready() {
			return false
		}
		if t.skip == nil {
			t.skip = make([]byte, readAhead)
		}
		// It does not block, and the reader keeps the error.
		_, _ = t.reader.Read(t.s.ctx, t.skip)
	}
	return true
}

// Watch calls wake when more of the body is there.
func (t *futureTrailers) Watch(wake func()) (stop func()) { return t.reader.Watch(wake) }

func (t *futureTrailers) drop() { t.reader.release() }

func futureTrailersSubscribe(c *engine.Call) error {
	c.PutOwn(engine.Rep[*futureTrailers](c))
	return nil
}

// futureTrailersGet puts an option<result<result<option<trailers>, error-code>>>.
func futureTrailersGet(c *engine.Call) error {
	t := engine.Rep[*futureTrailers](c)
	switch {
	case t.taken:
		c.PutSome()
		c.PutErr()
		return nil
	case !t.Ready():
		c.PutNone()
		return nil
	}
	t.taken = true
	c.PutSome()
	c.PutOk()
	if e, ok := errors.AsType[*ErrorCode](t.reader.end()); ok {
		c.PutErr()
		e.put(c)
		return nil
	}
	c.PutOk()
	entries := entriesOf(t.reader.trailer())
	if len(entries) == 0 {
		c.PutNone()
		return nil
	}
	c.PutSome()
	return t.s.putFields(c, entries, true)
}
