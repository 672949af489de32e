package wasi

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/passthrough"
)

// guest calls the host functions of all interfaces in turn.
type guest struct {
	*passthrough.Guest
	t testing.TB
}

func newGuest(t testing.TB, cfg Config) guest {
	return guest{passthrough.New(t, func(l *engine.Linker) { Add(l, cfg) }, interfaceTypes()...), t}
}

// interfaceTypes returns the types of all interfaces.
func interfaceTypes() (out []*engine.InterfaceType) {
	for _, i := range new(Host).interfaces() {
		out = append(out, i.Type)
	}
	return out
}

// call calls a function that does not end the guest.
func (g guest) call(iface, name string, params, result func(*engine.Call)) {
	g.t.Helper()
	require.NoError(g.t, g.Call(iface, name, params, result), name)
}

func (g guest) io(name string, params, result func(*engine.Call)) {
	g.t.Helper()
	g.call("wasi:io/streams", name, params, result)
}

func (g guest) fs(name string, params, result func(*engine.Call)) {
	g.t.Helper()
	g.call("wasi:filesystem/types", name, params, result)
}

// self puts a method's receiver.
func self(rep any) func(*engine.Call) { return func(c *engine.Call) { c.PutBorrow(rep) } }

// methodU64 puts a method's receiver and a number.
func methodU64(rep any, n uint64) func(*engine.Call) {
	return func(c *engine.Call) { c.PutBorrow(rep); c.PutU64(n) }
}

// own reads an own, the representation of which is then the test's.
func own[T any](out *T) func(*engine.Call) {
	return func(c *engine.Call) { *out = engine.Rep[T](c) }
}

// okOwn reads a result<own<…>, …> that must be ok.
func okOwn[T any](t testing.TB, out *T) func(*engine.Call) {
	return func(c *engine.Call) {
		require.True(t, c.Result())
		*out = engine.Rep[T](c)
	}
}

func TestCLI(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	g := newGuest(t, Config{
		Env:    map[string]string{"B": "2", "A": "1"},
		Args:   []string{"app", "--flag"},
		Stdin:  func(*engine.Instance) Source { return newText("typed") },
		Stdout: &stdout,
		Stderr: &stderr,
	})
	g.call("wasi:cli/environment", "get-environment", nil, func(c *engine.Call) {
		require.Equal(t, 2, c.List())
		require.Equal(t, []string{"A", "1", "B", "2"}, []string{c.Lifter.String(), c.Lifter.String(), c.Lifter.String(), c.Lifter.String()})
	})
	g.call("wasi:cli/environment", "get-arguments", nil, func(c *engine.Call) {
		require.Equal(t, 2, c.List())
		require.Equal(t, []string{"app", "--flag"}, []string{c.Lifter.String(), c.Lifter.String()})
	})
	g.call("wasi:cli/environment", "initial-cwd", nil, func(c *engine.Call) { require.False(t, c.Option()) })
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		g.call("wasi:cli/terminal-"+name, "get-terminal-"+name, nil, func(c *engine.Call) { require.False(t, c.Option()) })
	}

	var in *Input
	g.call("wasi:cli/stdin", "get-stdin", nil, own(&in))
	g.io("[method]input-stream.blocking-read", func(c *engine.Call) { c.PutBorrow(in); c.PutU64(100) }, func(c *engine.Call) {
		require.True(t, c.Result())
		require.Equal(t, "typed", string(c.Bytes()))
	})
	for name, b := range map[string]*bytes.Buffer{"stdout": &stdout, "stderr": &stderr} {
		var out *Output
		g.call("wasi:cli/"+name, "get-"+name, nil, own(&out))
		g.io("[method]output-stream.blocking-write-and-flush", func(c *engine.Call) { c.PutBorrow(out); c.PutBytes([]byte(name + "\n")) },
			func(c *engine.Call) { require.True(t, c.Result()) })
		require.Equal(t, name+"\n", b.String())
	}
}

func TestEmptyWorld(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	g.call("wasi:cli/environment", "get-environment", nil, func(c *engine.Call) { require.Zero(t, c.List()) })
	g.call("wasi:filesystem/preopens", "get-directories", nil, func(c *engine.Call) { require.Zero(t, c.List()) })
	var in *Input
	g.call("wasi:cli/stdin", "get-stdin", nil, own(&in))
	g.io("[method]input-stream.read", func(c *engine.Call) { c.PutBorrow(in); c.PutU64(1) }, closedStream(t))
	var out *Output
	g.call("wasi:cli/stdout", "get-stdout", nil, own(&out))
	g.io("[method]output-stream.write", func(c *engine.Call) { c.PutBorrow(out); c.PutBytes([]byte("gone")) },
		func(c *engine.Call) { require.True(t, c.Result()) })
}

// closedStream expects the stream-error closed.
func closedStream(t testing.TB) func(*engine.Call) {
	return func(c *engine.Call) {
		require.False(t, c.Result())
		require.Equal(t, 1, c.Case())
	}
}

func TestExit(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		params func(*engine.Call)
		code   uint32
	}{
		{"exit", func(c *engine.Call) { c.PutOk() }, 0},
		{"exit", func(c *engine.Call) { c.PutErr() }, 1},
		{"exit-with-code", func(c *engine.Call) { c.PutU8(200) }, 200},
	} {
		var exit *engine.ExitError
		require.ErrorAs(t, newGuest(t, Config{}).Call("wasi:cli/exit", tc.name, tc.params, nil), &exit)
		require.Equal(t, tc.code, exit.Code)
	}
}

func TestClocks(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	before := time.Now()
	g.call("wasi:clocks/wall-clock", "now", nil, func(c *engine.Call) {
		now := time.Unix(int64(c.U64()), int64(c.U32()))
		require.False(t, now.Before(before))
		require.False(t, now.After(time.Now()))
	})
	g.call("wasi:clocks/wall-clock", "resolution", nil, func(c *engine.Call) {
		require.Zero(t, c.U64())
		require.EqualValues(t, 1, c.U32())
	})
	var now uint64
	g.call("wasi:clocks/monotonic-clock", "now", nil, func(c *engine.Call) { now = c.U64() })
	g.call("wasi:clocks/monotonic-clock", "resolution", nil, func(c *engine.Call) { require.EqualValues(t, 1, c.U64()) })

	var past, soon, never Waitable
	g.call("wasi:clocks/monotonic-clock", "subscribe-instant", func(c *engine.Call) { c.PutU64(now) }, own(&past))
	g.call("wasi:clocks/monotonic-clock", "subscribe-duration", func(c *engine.Call) { c.PutU64(1e6) }, own(&soon))
	g.call("wasi:clocks/monotonic-clock", "subscribe-duration", func(c *engine.Call) { c.PutU64(1<<64 - 1) }, own(&never))
	g.call("wasi:io/poll", "[method]pollable.block", self(soon), nil)
	for rep, want := range map[Waitable]bool{past: true, soon: true, never: false} {
		g.call("wasi:io/poll", "[method]pollable.ready", self(rep), func(c *engine.Call) { require.Equal(t, want, c.Bool()) })
	}
	g.call("wasi:io/poll", "poll", putPollables(never, past, soon, never), func(c *engine.Call) {
		require.Equal(t, 2, c.List())
		require.Equal(t, []uint32{1, 2}, []uint32{c.U32(), c.U32()})
	})
}

func putPollables(ws ...Waitable) func(*engine.Call) {
	return func(c *engine.Call) {
		c.PutList(len(ws))
		for _, w := range ws {
			c.PutBorrow(w)
		}
	}
}

func TestHostilePoll(t *testing.T) {
	t.Parallel()
	var trap *engine.Trap
	require.ErrorAs(t, newGuest(t, Config{}).Call("wasi:io/poll", "poll", putPollables(), nil), &trap)
	require.Equal(t, "poll of an empty list", trap.Msg)
	many := make([]Waitable, maxPollables+1)
	for i := range many {
		many[i] = Always{}
	}
	require.ErrorAs(t, newGuest(t, Config{}).Call("wasi:io/poll", "poll", putPollables(many...), nil), &trap)
	require.Contains(t, trap.Msg, "maxPollables")
}

func TestPollEndsWithTheInstance(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	ctx, cancel := context.WithCancelCause(g.Context)
	g.Context = ctx
	var off Signal
	done := make(chan error)
	go func() { done <- g.Call("wasi:io/poll", "[method]pollable.block", self(&off), nil) }()
	cancel(errTest)
	require.ErrorIs(t, <-done, errTest)
}

func TestRandom(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	for iface, name := range map[string]string{"wasi:random/random": "get-random", "wasi:random/insecure": "get-insecure-random"} {
		g.call(iface, name+"-u64", nil, func(c *engine.Call) { require.NotZero(t, c.U64()) })
		g.call(iface, name+"-bytes", func(c *engine.Call) { c.PutU64(0) }, func(c *engine.Call) { require.Empty(t, c.Bytes()) })
		g.call(iface, name+"-bytes", func(c *engine.Call) { c.PutU64(100) }, func(c *engine.Call) {
			b := c.Bytes()
			require.Len(t, b, 100)
			require.NotEqual(t, make([]byte, 100), b)
		})
	}
	g.call("wasi:random/insecure-seed", "insecure-seed", nil, func(c *engine.Call) { require.NotEqual(t, c.U64(), c.U64()) })
	for _, n := range []uint64{maxRandomBytes + 1, 1<<64 - 1} {
		var trap *engine.Trap
		err := newGuest(t, Config{}).Call("wasi:random/random", "get-random-bytes", func(c *engine.Call) { c.PutU64(n) }, nil)
		require.ErrorAs(t, err, &trap)
	}
}

func TestStreamFunctions(t *testing.T) {
	t.Parallel()
	g := newGuest(t, Config{})
	sink := newSlow(10)
	out, in := NewOutput(g.Context, sink), NewInput(g.Context, newText("abcdefghij"))
	bytesOf := func(want string) func(*engine.Call) {
		return func(c *engine.Call) {
			require.True(t, c.Result())
			require.Equal(t, want, string(c.Bytes()))
		}
	}
	count := func(want uint64) func(*engine.Call) {
		return func(c *engine.Call) {
			require.True(t, c.Result())
			require.Equal(t, want, c.U64())
		}
	}
	ok := func(c *engine.Call) { require.True(t, c.Result()) }
	contents := func(s string) func(*engine.Call) {
		return func(c *engine.Call) { c.PutBorrow(out); c.PutBytes([]byte(s)) }
	}
	splice := func(n uint64) func(*engine.Call) {
		return func(c *engine.Call) { c.PutBorrow(out); c.PutBorrow(in); c.PutU64(n) }
	}
	g.io("[method]input-stream.read", methodU64(in, 1), bytesOf("a"))
	g.io("[method]input-stream.blocking-read", methodU64(in, 2), bytesOf("bc"))
	g.io("[method]input-stream.skip", methodU64(in, 1), count(1))
	g.io("[method]input-stream.blocking-skip", methodU64(in, 1), count(1))
	g.io("[method]output-stream.check-write", self(out), count(10))
	g.io("[method]output-stream.write", contents("W"), ok)
	g.io("[method]output-stream.blocking-write-and-flush", contents("B"), ok)
	g.io("[method]output-stream.write-zeroes", methodU64(out, 1), ok)
	g.io("[method]output-stream.blocking-write-zeroes-and-flush", methodU64(out, 2), ok)
	g.io("[method]output-stream.flush", self(out), ok)
	g.io("[method]output-stream.blocking-flush", self(out), ok)
	g.io("[method]output-stream.splice", splice(2), count(2))
	g.io("[method]output-stream.blocking-splice", splice(100), count(3))
	g.io("[method]output-stream.check-write", self(out), count(0))
	require.Equal(t, "WB\x00\x00\x00fghij", sink.got.String())
	var w Waitable
	g.io("[method]output-stream.subscribe", self(out), own(&w))
	require.False(t, w.Ready())
	g.io("[method]input-stream.subscribe", self(in), own(&w))
	require.True(t, w.Ready())
	g.io("[method]input-stream.read", methodU64(in, 1), closedStream(t))
	g.io("[method]input-stream.skip", methodU64(in, 1), closedStream(t))

	sink.err = errTest
	var e error
	g.io("[method]output-stream.write", contents("x"), func(c *engine.Call) {
		require.False(t, c.Result())
		require.Equal(t, 0, c.Case())
		e = engine.Rep[error](c)
	})
	g.call("wasi:io/error", "[method]error.to-debug-string", self(e), func(c *engine.Call) { require.Equal(t, "test", c.Lifter.String()) })
	g.fs("filesystem-error-code", self(e), func(c *engine.Call) { require.False(t, c.Option()) })
	g.io("[method]output-stream.check-write", self(out), closedStream(t))
	g.io("[method]output-stream.splice", splice(0), closedStream(t))
	var trap *engine.Trap
	require.ErrorAs(t, g.Call("wasi:io/streams", "[method]output-stream.write-zeroes", methodU64(out, chunk+1), nil), &trap)
}

func TestFilesystemFunctions(t *testing.T) {
	t.Parallel()
	preopen := assets(t)
	g := newGuest(t, Config{Files: preopen.dir})
	var root *descriptor
	g.call("wasi:filesystem/preopens", "get-directories", nil, func(c *engine.Call) {
		require.Equal(t, 1, c.List())
		root = engine.Rep[*descriptor](c)
		require.Equal(t, "/", c.Lifter.String())
	})
	at := func(d *descriptor, follow uint32, path string) func(*engine.Call) {
		return func(c *engine.Call) { c.PutBorrow(d); c.PutFlags(follow); c.PutString(path) }
	}
	open := func(path string, how, access uint32) func(*engine.Call) {
		return func(c *engine.Call) { at(root, pathFollow, path)(c); c.PutFlags(how); c.PutFlags(access) }
	}
	fails := func(code errorCode) func(*engine.Call) {
		return func(c *engine.Call) {
			require.False(t, c.Result())
			require.Equal(t, code, errorCode(c.Case()))
		}
	}
	ok := func(c *engine.Call) { require.True(t, c.Result()) }
	const mutateDirectory = 1 << 5
	var file, sub *descriptor
	g.fs("[method]descriptor.open-at", open("link", 0, descriptorRead), okOwn(t, &file))
	g.fs("[method]descriptor.open-at", open("sub", openDirectory, descriptorRead|mutateDirectory), okOwn(t, &sub))
	g.fs("[method]descriptor.open-at", open("../secret", 0, descriptorRead), fails(codeNotPermitted))
	for _, flags := range [][2]uint32{{openCreate, descriptorRead}, {openTruncate, descriptorRead}, {0, descriptorWrite}} {
		g.fs("[method]descriptor.open-at", open("a.txt", flags[0], flags[1]), fails(codeReadOnly))
	}
	for d, want := range map[*descriptor]int{file: typeRegularFile, sub: typeDirectory, root: typeDirectory} {
		g.fs("[method]descriptor.get-type", self(d), func(c *engine.Call) { ok(c); require.Equal(t, want, c.Case()) })
		g.fs("[method]descriptor.get-flags", self(d), func(c *engine.Call) { ok(c); require.EqualValues(t, descriptorRead, c.Flags()) })
		g.fs("[method]descriptor.sync", self(d), ok)
		g.fs("[method]descriptor.sync-data", self(d), ok)
	}

	stat := func(typ int, size uint64) func(*engine.Call) {
		return func(c *engine.Call) {
			ok(c)
			require.Equal(t, typ, c.Case())
			require.EqualValues(t, 1, c.U64())
			require.Equal(t, size, c.U64())
			for range 3 {
				require.True(t, c.Option())
				require.WithinDuration(t, time.Now(), time.Unix(int64(c.U64()), int64(c.U32())), time.Hour)
			}
		}
	}
	g.fs("[method]descriptor.stat", self(file), stat(typeRegularFile, 10))
	g.fs("[method]descriptor.stat-at", at(root, pathFollow, "link"), stat(typeRegularFile, 10))
	g.fs("[method]descriptor.stat-at", at(root, 0, "link"), stat(typeSymbolicLink, 5))
	g.fs("[method]descriptor.stat-at", at(root, 0, "nope"), fails(codeNoEntry))
	var hash [2]uint64
	g.fs("[method]descriptor.metadata-hash", self(file), func(c *engine.Call) { ok(c); hash = [2]uint64{c.U64(), c.U64()} })
	g.fs("[method]descriptor.metadata-hash-at", at(root, pathFollow, "link"), func(c *engine.Call) {
		ok(c)
		require.Equal(t, hash, [2]uint64{c.U64(), c.U64()})
	})
	for other, want := range map[*descriptor]bool{file: true, sub: false} {
		g.fs("[method]descriptor.is-same-object", func(c *engine.Call) { c.PutBorrow(file); c.PutBorrow(other) },
			func(c *engine.Call) { require.Equal(t, want, c.Bool()) })
	}
	readlink := func(path string) func(*engine.Call) {
		return func(c *engine.Call) { c.PutBorrow(root); c.PutString(path) }
	}
	g.fs("[method]descriptor.readlink-at", readlink("link"), func(c *engine.Call) { ok(c); require.Equal(t, "a.txt", c.Lifter.String()) })
	g.fs("[method]descriptor.readlink-at", readlink("abs"), fails(codeNotPermitted))

	read := func(d *descriptor, length, offset uint64) func(*engine.Call) {
		return func(c *engine.Call) { c.PutBorrow(d); c.PutU64(length); c.PutU64(offset) }
	}
	for _, tc := range []struct {
		length, offset uint64
		want           string
		end            bool
	}{{4, 2, "2345", false}, {100, 8, "89", true}, {1 << 63, 0, "0123456789", true}, {1, 10, "", true}, {1, 1 << 40, "", true}, {0, 0, "", false}} {
		g.fs("[method]descriptor.read", read(file, tc.length, tc.offset), func(c *engine.Call) {
			ok(c)
			require.Equal(t, tc.want, string(c.Bytes()))
			require.Equal(t, tc.end, c.Bool())
		})
	}
	g.fs("[method]descriptor.read", read(file, 1, 1<<63), fails(codeInvalid))
	g.fs("[method]descriptor.read", read(sub, 1, 0), fails(codeIsDirectory))
	var in *Input
	g.fs("[method]descriptor.read-via-stream", methodU64(file, 7), okOwn(t, &in))
	g.fs("[method]descriptor.read-via-stream", methodU64(file, 1<<63), fails(codeInvalid))
	g.fs("[method]descriptor.read-via-stream", methodU64(sub, 0), fails(codeIsDirectory))
	g.io("[method]input-stream.blocking-read", methodU64(in, 100), func(c *engine.Call) { ok(c); require.Equal(t, "789", string(c.Bytes())) })
	advise := func(c *engine.Call) { c.PutBorrow(file); c.PutU64(0); c.PutU64(0); c.PutCase(0) }
	g.fs("[method]descriptor.advise", advise, ok)

	var entries *directoryEntries
	g.fs("[method]descriptor.read-directory", self(sub), okOwn(t, &entries))
	g.fs("[method]descriptor.read-directory", self(file), fails(codeNotDirectory))
	names := map[string]int{}
	for done := false; !done; {
		g.fs("[method]directory-entry-stream.read-directory-entry", self(entries), func(c *engine.Call) {
			ok(c)
			if done = !c.Option(); !done {
				typ := c.Case()
				names[c.Lifter.String()] = typ
			}
		})
	}
	require.Equal(t, map[string]int{"b.txt": typeRegularFile, "deep": typeDirectory, "up": typeSymbolicLink}, names)

	e := fileError{codeNoDevice, io.ErrUnexpectedEOF}
	g.fs("filesystem-error-code", self(e), func(c *engine.Call) {
		require.True(t, c.Option())
		require.EqualValues(t, codeNoDevice, c.Case())
	})
	entries.close()
	in.Close()
	file.close()
	sub.close()
	_, err := root.dir.Stat(".")
	require.NoError(t, err, "the preopened folder stays open")
}

func TestFilesAreReadOnly(t *testing.T) {
	t.Parallel()
	root := assets(t)
	g := newGuest(t, Config{Files: root.dir})
	file, err := root.openAt(new(openFiles), "a.txt", false, false)
	require.NoError(t, err)
	defer file.close()
	path := func(c *engine.Call) { c.PutBorrow(root); c.PutString("new") }
	times := func(c *engine.Call) { c.PutCase(0); c.PutCase(2); c.PutU64(1); c.PutU32(1) }
	for name, params := range map[string]func(*engine.Call){
		"write-via-stream":    func(c *engine.Call) { c.PutBorrow(file); c.PutU64(0) },
		"append-via-stream":   self(file),
		"set-size":            func(c *engine.Call) { c.PutBorrow(file); c.PutU64(0) },
		"set-times":           func(c *engine.Call) { c.PutBorrow(file); times(c) },
		"write":               func(c *engine.Call) { c.PutBorrow(file); c.PutBytes([]byte("x")); c.PutU64(0) },
		"create-directory-at": path,
		"set-times-at":        func(c *engine.Call) { c.PutBorrow(root); c.PutFlags(0); c.PutString("a.txt"); times(c) },
		"link-at": func(c *engine.Call) {
			c.PutBorrow(root)
			c.PutFlags(0)
			c.PutString("a.txt")
			c.PutBorrow(root)
			c.PutString("new")
		},
		"remove-directory-at": path,
		"rename-at":           func(c *engine.Call) { path(c); c.PutBorrow(root); c.PutString("x") },
		"symlink-at":          func(c *engine.Call) { path(c); c.PutString("x") },
		"unlink-file-at":      path,
	} {
		g.fs("[method]descriptor."+name, params, func(c *engine.Call) {
			require.False(t, c.Result(), name)
			require.EqualValues(t, codeReadOnly, c.Case(), name)
		})
	}
	text, err := os.ReadFile(filepath.Join(root.dir.Name(), "a.txt"))
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(text))
}

func TestDroppedHandlesCloseTheirFiles(t *testing.T) {
	t.Parallel()
	root := assets(t)
	var open engine.Slot[*openFiles]
	g := guest{passthrough.New(t, func(l *engine.Linker) { open = Add(l, Config{Files: root.dir}).files }, interfaceTypes()...), t}
	counted := open.Of(g.Instance)
	file, err := root.openAt(counted, "a.txt", false, false)
	require.NoError(t, err)
	// Results that nobody reads are dropped.
	at := func(c *engine.Call) {
		c.PutBorrow(root)
		c.PutFlags(0)
		c.PutString("sub")
		c.PutFlags(0)
		c.PutFlags(descriptorRead)
	}
	g.fs("[method]descriptor.open-at", at, nil)
	g.fs("[method]descriptor.read-directory", self(root), nil)
	g.fs("[method]descriptor.read-via-stream", methodU64(file, 0), nil)
	g.call("wasi:filesystem/preopens", "get-directories", nil, nil)
	require.Equal(t, 1, counted.n)
	file.close()
	require.Zero(t, counted.n)
}
