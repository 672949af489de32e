package wasihttp

import (
	"context"
	"net/http"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
)

// destination is where an outgoing body goes once its message is on its way. Its methods are called by the
// guest's goroutine.
type destination interface {
	wasi.Pacer
	// write sends p or fails. It blocks as long as it must, and ends with ctx.
	write(ctx context.Context, p []byte) error
	// finish says that the body is complete.
	finish(trailers http.Header)
	// abort says that the body will never be complete.
	abort()
}

// outgoingBody is the representation of [OutgoingBody], and the [wasi.Sink] and [wasi.Pacer] of its stream.
// What is written before the message is on its way is kept, at most maxEarlyBody.
type outgoingBody struct {
	s *state
	// tooLong is the error of a body that is not as long as its content-length says.
	tooLong  Case
	declared int64 // content-length; -1 if there is none
	written  int64
	stream   *wasi.Output // once the guest took it

	dest     destination // nil until the message is on its way
	early    []byte
	trailers http.Header
	ended    ended
}

// ended says how a body ended.
type ended uint8

const (
	open ended = iota
	finished
	aborted
)

// attach says where the body goes.
func (b *outgoingBody) attach(ctx context.Context, d destination) error {
	b.dest = d
	early := b.early
	b.forgetEarly()
	if len(early) > 0 {
		if err := d.write(ctx, early); err != nil {
			return err
		}
	}
	switch b.ended {
	case finished:
		d.finish(b.trailers)
	case aborted:
		d.abort()
	}
	return nil
}

func (b *outgoingBody) forgetEarly() {
	b.s.release(cap(b.early))
	b.early = nil
}

// abort ends a body that is not complete.
func (b *outgoingBody) abort() {
	if b.ended != open {
		return
	}
	b.ended = aborted
	if b.dest != nil {
		b.dest.abort()
	}
}

// drop is when the guest drops the body, or the message that was never sent and whose body it is.
func (b *outgoingBody) drop() {
	if b.stream != nil {
		b.stream.Close()
	}
	b.abort()
	if b.dest == nil {
		b.forgetEarly()
	}
}

// size is the error of a body of n bytes.
func (b *outgoingBody) size(n int64) *ErrorCode {
	return &ErrorCode{Case: b.tooLong, Number: new(uint64(n))}
}

// Write implements [wasi.Sink].
func (b *outgoingBody) Write(ctx context.Context, p []byte) error {
	total := b.written + int64(len(p))
	if b.declared >= 0 && total > b.declared {
		b.abort()
		return b.size(total)
	}
	if b.dest != nil {
		b.written = total
		return b.dest.write(ctx, p)
	}
	if len(b.early)+len(p) > maxEarlyBody {
		// Nobody but this guest could make room.
		b.abort()
		return &ErrorCode{Case: InternalError, Text: "body is too large to be written before its message is sent"}
	}
	b.written = total
	had := cap(b.early)
	b.early = append(b.early, p...)
	return b.s.hold(cap(b.early) - had)
}

// Flush implements [wasi.Sink]. What was written leaves soon in any case.
func (b *outgoingBody) Flush(context.Context) error { return nil }

// Close implements [wasi.Sink]: the stream was dropped. The body waits for finish.
func (b *outgoingBody) Close() {}

// Room implements [wasi.Pacer].
func (b *outgoingBody) Room() int {
	if b.dest != nil {
		return b.dest.Room()
	}
	return maxEarlyBody - len(b.early)
}

// Ready implements [wasi.Pacer].
func (b *outgoingBody) Ready() bool { return b.Room() > 0 }

// Watch implements [wasi.Pacer].
func (b *outgoingBody) Watch(wake func()) (stop func()) {
	if b.dest != nil {
		return b.dest.Watch(wake)
	}
	return func() {} // only the guest itself can make room
}

// finish ends the body as complete, unless it is not as long as it should be.
func (b *outgoingBody) finish(trailers http.Header) *ErrorCode {
	if b.stream != nil {
		b.stream.Close()
	}
	switch {
	case b.ended == aborted:
		return b.size(b.written)
	case b.declared >= 0 && b.written != b.declared:
		b.abort()
		return b.size(b.written)
	}
	b.ended, b.trailers = finished, trailers
	if b.dest != nil {
		b.dest.finish(trailers)
	}
	return nil
}

func outgoingBodyWrite(c *engine.Call) error {
	b := engine.Rep[*outgoingBody](c)
	if b.stream != nil {
		c.PutErr()
		return nil
	}
	b.stream = wasi.NewOutput(b.s.ctx, b)
	c.PutOk()
	c.PutOwn(b.stream)
	return nil
}

func outgoingBodyFinish(c *engine.Call) error {
	b := engine.Rep[*outgoingBody](c)
	var trailers http.Header
	if c.Option() {
		f := engine.Rep[*fields](c)
		trailers = f.header()
		f.drop()
		// What says how long the message is cannot come after it.
		for _, name := range [...]string{"Content-Length", "Trailer"} {
			delete(trailers, name)
		}
	}
	if e := b.finish(trailers); e != nil {
		c.PutErr()
		e.put(c)
		return nil
	}
	c.PutOk()
	return nil
}
