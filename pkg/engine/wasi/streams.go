package wasi

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// chunk is how many bytes a stream moves at once: enough that the cost of a host call does not show, and
// little enough that thousands of streams may each hold as much.
const chunk = 64 << 10

// Source is where the bytes of an [Input] come from.
//
// A Source whose Read never blocks for long, or which buffers by itself, is a [Waitable] too: its Read
// then does not block while it is Ready, and the Input never starts a goroutine for it.
type Source interface {
	// Read is like that of io.Reader: it blocks until there is at least one byte, and ends with io.EOF.
	// It returns soon after ctx has ended. There is one Read at a time.
	Read(ctx context.Context, p []byte) (int, error)
	// Close is called once, when the stream has been dropped and no Read runs.
	Close()
}

// Input is the representation of [InputStream]: a stream of bytes to the guest. It reads its source on
// the guest's goroutine, as many bytes as the guest asks for. Only where the guest wants to do something
// else while a source that is no Waitable blocks, a goroutine reads one chunk ahead; it ends with that
// chunk, or with Close.
//
// An Input is used by the goroutine of its guest. As a [Waitable] it is ready when a read would not
// block.
type Input struct {
	ctx   context.Context // the instance's
	src   Source
	paced Waitable // the source, if it is one

	mu     sync.Mutex
	buf    *[chunk]byte       // while ahead is set, the reading goroutine's; else guarded by mu
	data   []byte             // guarded by mu: read and not yet taken, part of buf
	err    error              // guarded by mu: what the source ended with; io.EOF once that was told
	ahead  context.CancelFunc // guarded by mu: ends the goroutine that reads ahead; nil if there is none
	closed bool               // guarded by mu
	loaded Signal             // set while mu is held: off while ahead is set
}

// NewInput returns a stream that reads src. ctx is the context of the instance: if it ends while the
// guest waits, the instance ends.
func NewInput(ctx context.Context, src Source) *Input {
	paced, _ := src.(Waitable)
	return &Input{ctx: ctx, src: src, paced: paced}
}

// buffers holds buffers that no call or stream uses.
var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// settled says whether a read has an answer without asking the source.
//
// +checklocks:in.mu
func (in *Input) settled() bool { return len(in.data) > 0 || in.err != nil || in.closed }

// load reads at most n of the next bytes.
//
// Preconditions: the caller owns in.buf; n is at most chunk.
func (in *Input) load(ctx context.Context, n uint64) ([]byte, error) {
	if in.buf == nil {
		in.buf = buffers.Get().(*[chunk]byte)
	}
	got, err := in.src.Read(ctx, in.buf[:n])
	return in.buf[:got], err
}

// Ready says whether a read would not block. If that is not known it begins to read.
func (in *Input) Ready() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.settled() {
		return true
	}
	if in.paced != nil {
		return in.paced.Ready()
	}
	if in.ahead == nil {
		var ctx context.Context
		ctx, in.ahead = context.WithCancel(in.ctx)
		in.loaded.Set(false)
		go in.readAhead(ctx) // ends with its one read; Close cancels it and waits
	}
	return false
}

func (in *Input) readAhead(ctx context.Context) {
	data, err := in.load(ctx, chunk)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.data, in.err = data, err
	in.ahead()
	in.ahead = nil
	in.loaded.Set(true)
}

// Watch calls wake when a read may no longer block.
func (in *Input) Watch(wake func()) (stop func()) {
	if in.paced != nil {
		return in.paced.Watch(wake)
	}
	return in.loaded.Watch(wake)
}

// fill blocks until a read does not block; if it must it reads at most n bytes. It fails only if ctx
// ends.
func (in *Input) fill(ctx context.Context, n uint64) error {
	for {
		in.mu.Lock()
		settled, ahead := in.settled(), in.ahead != nil
		in.mu.Unlock()
		switch {
		case settled:
			return nil
		case ahead:
			if _, err := Wait(ctx, &in.loaded); err != nil {
				return err
			}
		default:
			data, err := in.load(ctx, n)
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			in.mu.Lock()
			in.data, in.err = data, err
			in.mu.Unlock()
		}
	}
}

// take returns at most limit bytes, which are valid until release: the caller calls it when it is done
// with them. Unless block is set these may be none; with it they are none only if limit is 0. The error
// is what the source ended with, and io.EOF from then on.
func (in *Input) take(limit uint64, block bool) ([]byte, error) {
	if limit > 0 && (block || in.Ready()) {
		if err := in.fill(in.ctx, min(limit, chunk)); err != nil {
			return nil, err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.closed:
		return nil, io.EOF
	case in.ahead != nil:
		return nil, nil
	case len(in.data) == 0 && in.err != nil:
		err := in.err
		in.err = io.EOF
		return nil, err
	}
	n := min(limit, uint64(len(in.data)))
	out := in.data[:n:n]
	in.data = in.data[n:]
	return out, nil
}

// release gives the buffer back if nothing is left in it, so that a stream that is only open holds none.
func (in *Input) release() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ahead == nil && in.buf != nil && len(in.data) == 0 {
		buffers.Put(in.buf)
		in.buf, in.data = nil, nil
	}
}

// Close ends the stream and closes its source; reads then find it closed. It may be called twice.
func (in *Input) Close() {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	in.closed = true
	ahead := in.ahead
	in.mu.Unlock()
	if ahead != nil {
		ahead()
		_, _ = Wait(context.Background(), &in.loaded) // no error: the context does not end
	}
	in.mu.Lock()
	in.data = nil
	in.mu.Unlock()
	in.release()
	in.src.Close()
}

// Sink is where the bytes of an [Output] go.
type Sink interface {
	// Write takes all of p or fails. It blocks until p, which is the guest's memory, is no longer needed,
	// and returns soon after ctx has ended. To the guest io.ErrClosedPipe says that the stream is closed,
	// any other error that the operation failed.
	Write(ctx context.Context, p []byte) error
	// Flush sends what Write kept.
	Flush(ctx context.Context) error
	// Close is called once, when the stream has been dropped.
	Close()
}

// Pacer is what a [Sink] is too if the guest shall be able to do something else while the sink takes
// nothing. The Waitable is ready when Room is not 0.
type Pacer interface {
	Waitable
	// Room returns how many bytes Write takes now without blocking. It is not 0 if Write would fail.
	Room() int
}

// Output is the representation of [OutputStream]: a stream of bytes from the guest. What the guest writes
// goes to the sink before the call returns. It is used by the goroutine of its guest.
//
// Differences from the specification: a write of more than check-write allowed does not trap; it is
// taken, and blocks if it must.
type Output struct {
	ctx     context.Context // the instance's
	sink    Sink
	pacer   Pacer // the sink, if it is one
	closed  bool  // after an error, or Close
	dropped bool
}

// NewOutput returns a stream that writes to sink. ctx is the context of the instance: if it ends while
// the guest waits, the instance ends.
func NewOutput(ctx context.Context, sink Sink) *Output {
	pacer, _ := sink.(Pacer)
	return &Output{ctx: ctx, sink: sink, pacer: pacer}
}

// room returns how many bytes the guest may write now.
func (out *Output) room() (uint64, error) {
	switch {
	case out.closed:
		return 0, io.ErrClosedPipe
	case out.pacer != nil:
		return uint64(out.pacer.Room()), nil
	}
	return chunk, nil
}

// do is f with the sink unless the stream is closed; an error closes it.
func (out *Output) do(f func() error) error {
	if out.closed {
		return io.ErrClosedPipe
	}
	err := f()
	out.closed = err != nil
	return err
}

func (out *Output) write(p []byte) error {
	return out.do(func() error { return out.sink.Write(out.ctx, p) })
}

func (out *Output) flush() error {
	return out.do(func() error { return out.sink.Flush(out.ctx) })
}

// writeZeroes writes n zero bytes, at most chunk.
func (out *Output) writeZeroes(n uint64) error {
	zeroes := buffers.Get().(*[chunk]byte)
	defer buffers.Put(zeroes)
	clear(zeroes[:n])
	return out.write(zeroes[:n])
}

// splice moves at most limit bytes from in and returns their number. With block it first waits until
// there is room, and then until there are bytes.
func (out *Output) splice(in *Input, limit uint64, block bool) (int, error) {
	if block && limit > 0 {
		if _, err := Wait(out.ctx, out); err != nil {
			return 0, err
		}
	}
	room, err := out.room()
	if err != nil {
		return 0, err
	}
	b, err := in.take(min(limit, room), block)
	defer in.release()
	if err != nil || len(b) == 0 {
		return 0, err
	}
	return len(b), out.write(b)
}

// Ready says whether a write would not block.
func (out *Output) Ready() bool { return out.closed || out.pacer == nil || out.pacer.Ready() }

// Watch calls wake when a write may no longer block.
func (out *Output) Watch(wake func()) (stop func()) {
	if out.pacer == nil {
		return func() {}
	}
	return out.pacer.Watch(wake)
}

// Close ends the stream and closes its sink; writes then find it closed. It may be called twice.
func (out *Output) Close() {
	out.closed = true
	if !out.dropped {
		out.dropped = true
		out.sink.Close()
	}
}

// putStreamResult puts the beginning of a result<_, stream-error>: all of it if err is set, and else the
// caller puts the value. It fails if the instance shall end.
func putStreamResult(c *engine.Call, err error) error {
	switch {
	case err == nil:
		c.PutOk()
		return nil
	case c.Context().Err() != nil:
		return context.Cause(c.Context())
	}
	c.PutErr()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
		c.PutCase(1) // closed
	} else {
		c.PutCase(0) // last-operation-failed
		c.PutOwn(err)
	}
	return nil
}

// inputRead is read, or blocking-read.
func inputRead(block bool) engine.HostFunc {
	return func(c *engine.Call) error {
		in := engine.Rep[*Input](c)
		b, err := in.take(c.U64(), block)
		defer in.release()
		if end := putStreamResult(c, err); err != nil {
			return end
		}
		c.PutBytes(b)
		return nil
	}
}

// inputSkip is skip, or blocking-skip.
func inputSkip(block bool) engine.HostFunc {
	return func(c *engine.Call) error {
		in := engine.Rep[*Input](c)
		b, err := in.take(c.U64(), block)
		defer in.release()
		if end := putStreamResult(c, err); err != nil {
			return end
		}
		c.PutU64(uint64(len(b)))
		return nil
	}
}

// subscribe returns the stream itself as a pollable.
func subscribe(c *engine.Call) error {
	c.PutOwn(engine.Rep[Waitable](c))
	return nil
}

func outputCheckWrite(c *engine.Call) error {
	n, err := engine.Rep[*Output](c).room()
	if end := putStreamResult(c, err); err != nil {
		return end
	}
	c.PutU64(n)
	return nil
}

// outputWrite is write, or blocking-write-and-flush.
func outputWrite(flush bool) engine.HostFunc {
	return func(c *engine.Call) error {
		out := engine.Rep[*Output](c)
		err := out.write(c.Bytes())
		if err == nil && flush {
			err = out.flush()
		}
		return putStreamResult(c, err)
	}
}

func outputFlush(c *engine.Call) error {
	return putStreamResult(c, engine.Rep[*Output](c).flush())
}

// outputWriteZeroes is write-zeroes, or blocking-write-zeroes-and-flush.
func outputWriteZeroes(flush bool) engine.HostFunc {
	return func(c *engine.Call) error {
		out := engine.Rep[*Output](c)
		n := c.U64()
		if n > chunk {
			return &engine.Trap{Msg: "write-zeroes of more than check-write allows"}
		}
		err := out.writeZeroes(n)
		if err == nil && flush {
			err = out.flush()
		}
		return putStreamResult(c, err)
	}
}

// outputSplice is splice, or blocking-splice.
func outputSplice(block bool) engine.HostFunc {
	return func(c *engine.Call) error {
		out := engine.Rep[*Output](c)
		in := engine.Rep[*Input](c)
		n, err := out.splice(in, c.U64(), block)
		if end := putStreamResult(c, err); err != nil {
			return end
		}
		c.PutU64(uint64(n))
		return nil
	}
}

// errorToDebugString is a method of [Error], whose representation is an error.
func errorToDebugString(c *engine.Call) error {
	c.PutString(engine.Rep[error](c).Error())
	return nil
}
