package wasi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

var errTest = errors.New("test")

// pipe is a Source and a Sink: what is written to it can be read. It blocks, and is no Waitable.
type pipe struct {
	c      chan []byte
	end    error // what reading ends with when c is closed
	closed int
}

func newPipe() *pipe { return &pipe{c: make(chan []byte), end: io.EOF} }

func (p *pipe) Read(ctx context.Context, b []byte) (int, error) {
	select {
	case data, ok := <-p.c:
		if !ok {
			return 0, p.end
		}
		return copy(b, data), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (p *pipe) Write(ctx context.Context, b []byte) error {
	select {
	case p.c <- bytes.Clone(b):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipe) Flush(context.Context) error { return nil }
func (p *pipe) Close()                      { p.closed++ }

// read takes and copies.
func read(in *Input, limit uint64, block bool) (string, error) {
	b, err := in.take(limit, block)
	defer in.release()
	return string(b), err
}

// text is a Source that never blocks.
type text struct {
	Always
	*bytes.Reader
	closed int
}

func newText(s string) *text { return &text{Reader: bytes.NewReader([]byte(s))} }

func (s *text) Read(_ context.Context, p []byte) (int, error) { return s.Reader.Read(p) }
func (s *text) Close()                                        { s.closed++ }

func TestInputOfReadySource(t *testing.T) {
	t.Parallel()
	src := newText("hello")
	in := NewInput(t.Context(), src)
	require.True(t, in.Ready())
	for _, want := range []string{"he", "ll", "o"} {
		got, err := read(in, 2, false)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Nil(t, in.buf, "no buffer is held between reads")
	}
	got, err := read(in, 0, true)
	require.NoError(t, err)
	require.Empty(t, got)
	for range 2 {
		_, err = read(in, 2, true)
		require.Equal(t, io.EOF, err)
	}
	in.Close()
	in.Close()
	require.Equal(t, 1, src.closed)
}

func TestInputEndsWithErrorThenClosed(t *testing.T) {
	t.Parallel()
	p := newPipe()
	p.end = errTest
	close(p.c)
	in := NewInput(t.Context(), p)
	_, err := read(in, 1, true)
	require.Equal(t, errTest, err)
	_, err = read(in, 1, true)
	require.Equal(t, io.EOF, err)
	require.True(t, in.Ready())
}

func TestInputReadsAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		in := NewInput(t.Context(), p)
		got, err := read(in, 10, false)
		require.NoError(t, err)
		require.Empty(t, got)

		// with the goroutine at work a blocking read waits for it
		go func() { p.c <- []byte("one") }()
		got, err = read(in, 2, true)
		require.NoError(t, err)
		require.Equal(t, "on", got)
		require.True(t, in.Ready())
		got, err = read(in, 2, false)
		require.NoError(t, err)
		require.Equal(t, "e", got)
		require.Nil(t, in.buf)

		// a poll beside another pollable
		var other Signal
		go func() { p.c <- []byte("two") }()
		ready, err := Wait(t.Context(), &other, in)
		require.NoError(t, err)
		require.Equal(t, []uint32{1}, ready)
		got, err = read(in, 10, false)
		require.NoError(t, err)
		require.Equal(t, "two", got)

		// dropped in the middle of reading ahead
		require.False(t, in.Ready())
		synctest.Wait()
		in.Close()
		require.Equal(t, 1, p.closed)
		require.Nil(t, in.buf)
		require.True(t, in.Ready())
		_, err = read(in, 1, true)
		require.Equal(t, io.EOF, err)
	})
}

func TestInputBlocksOnTheGuestsGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPipe()
		in := NewInput(t.Context(), p)
		go func() { p.c <- []byte("one") }()
		ready, err := Wait(t.Context(), in)
		require.NoError(t, err)
		require.Equal(t, []uint32{0}, ready)
		require.Nil(t, in.ahead)
		got, err := read(in, 10, false)
		require.NoError(t, err)
		require.Equal(t, "one", got)
	})
}

func TestInputEndsWithItsInstance(t *testing.T) {
	t.Parallel()
	for _, ahead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			in := NewInput(ctx, newPipe())
			if ahead {
				require.False(t, in.Ready())
			}
			done := make(chan error)
			go func() { _, err := read(in, 1, true); done <- err }()
			synctest.Wait()
			cancel(errTest)
			require.Error(t, <-done)
			in.Close()
		})
	}
}

// slow is a sink that takes room bytes without blocking, and then is not ready until room grows.
type slow struct {
	Signal
	room  int
	got   bytes.Buffer
	err   error
	ended int
}

func (s *slow) Room() int { return s.room }

func (s *slow) Write(_ context.Context, p []byte) error {
	s.got.Write(p)
	s.room -= min(s.room, len(p))
	s.Set(s.room > 0)
	return s.err
}

func (s *slow) Flush(context.Context) error { return s.err }
func (s *slow) Close()                      { s.ended++ }

func newSlow(room int) *slow {
	s := &slow{}
	s.grow(room)
	return s
}

func (s *slow) grow(n int) {
	s.room += n
	s.Set(s.room > 0)
}

func TestOutputPacesByRoom(t *testing.T) {
	t.Parallel()
	sink := newSlow(3)
	out := NewOutput(t.Context(), sink)
	n, err := out.room()
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	require.True(t, out.Ready())
	require.NoError(t, out.write([]byte("abc")))
	n, err = out.room()
	require.NoError(t, err)
	require.Zero(t, n)
	require.False(t, out.Ready())
	require.NoError(t, out.write([]byte("de")), "more than check-write allowed is taken")
	require.Equal(t, "abcde", sink.got.String())
}

func TestOutputClosesAfterError(t *testing.T) {
	t.Parallel()
	sink := newSlow(1)
	out := NewOutput(t.Context(), sink)
	sink.err = errTest
	require.Equal(t, errTest, out.flush())
	require.Equal(t, io.ErrClosedPipe, out.write(nil))
	require.Equal(t, io.ErrClosedPipe, out.flush())
	_, err := out.room()
	require.Equal(t, io.ErrClosedPipe, err)
	require.True(t, out.Ready())
	out.Close()
	out.Close()
	require.Equal(t, 1, sink.ended)
}

func TestOutputWriteZeroes(t *testing.T) {
	t.Parallel()
	b := buffers.Get().(*[chunk]byte)
	b[0] = 1
	buffers.Put(b)
	sink := newSlow(chunk)
	require.NoError(t, NewOutput(t.Context(), sink).writeZeroes(chunk))
	require.Equal(t, make([]byte, chunk), sink.got.Bytes())
}

func TestOutputSplice(t *testing.T) {
	t.Parallel()
	sink := newSlow(4)
	out, in := NewOutput(t.Context(), sink), NewInput(t.Context(), newText("abcdef"))
	n, err := out.splice(in, 3, false)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	n, err = out.splice(in, 3, true)
	require.NoError(t, err)
	require.Equal(t, 1, n, "no more than there is room for")
	n, err = out.splice(in, 3, false)
	require.NoError(t, err)
	require.Zero(t, n)
	sink.grow(10)
	n, err = out.splice(in, 10, true)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	_, err = out.splice(in, 10, true)
	require.Equal(t, io.EOF, err)
	require.Equal(t, "abcdef", sink.got.String())

	sink.err = errTest
	_, err = out.splice(NewInput(t.Context(), newText("x")), 1, false)
	require.Equal(t, errTest, err)
	_, err = out.splice(NewInput(t.Context(), newText("x")), 1, false)
	require.Equal(t, io.ErrClosedPipe, err)
}

func TestBlockingSpliceWaitsForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newSlow(0)
		out, in := NewOutput(t.Context(), sink), NewInput(t.Context(), newText("abc"))
		done := make(chan int)
		go func() { n, _ := out.splice(in, 3, true); done <- n }()
		synctest.Wait()
		sink.grow(2)
		require.Equal(t, 2, <-done)
	})
}

func TestStdio(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	out := NewOutput(ctx, stdio{&b})
	n, err := out.room()
	require.NoError(t, err)
	require.EqualValues(t, chunk, n)
	require.NoError(t, out.write([]byte("line\n")))
	require.NoError(t, out.flush())
	require.Equal(t, "line\n", b.String())
	cancel()
	require.ErrorIs(t, out.write([]byte("late")), context.Canceled)
	require.Equal(t, "line\n", b.String())
	out.Close()

	_, err = read(NewInput(t.Context(), noInput{}), 1, true)
	require.Equal(t, io.EOF, err)
}
