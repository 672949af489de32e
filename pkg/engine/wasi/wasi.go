// Package wasi is the host's half of WASI 0.2: wasi:cli, wasi:clocks, wasi:filesystem, wasi:io and
// wasi:random (https://github.com/WebAssembly/WASI/tree/main/wasip2).
//
// Each behaviour is implemented once, in the file of its name, as host functions; table.go says which
// host function stands for which function of the WIT. Streams and pollables ([Input], [Output],
// [Waitable]) are also what package wasihttp builds its bodies on.
//
// All that a guest passes is taken for hostile: what it can make the host allocate is bounded by named
// constants, and a blocking call ends with the context of the instance.
package wasi

import (
	"io"
	"os"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// The resource types of WASI, shared by all of its versions. What represents them is a [Waitable]
// (Pollable), an error (Error), an [*Input] and an [*Output].
var (
	Pollable             = engine.NewResource("pollable", nil)
	Error                = engine.NewResource("error", nil)
	InputStream          = engine.NewResource("input-stream", func(rep any) { rep.(*Input).Close() })
	OutputStream         = engine.NewResource("output-stream", func(rep any) { rep.(*Output).Close() })
	TerminalInput        = engine.NewResource("terminal-input", nil)
	TerminalOutput       = engine.NewResource("terminal-output", nil)
	Descriptor           = engine.NewResource("descriptor", func(rep any) { rep.(*descriptor).close() })
	DirectoryEntryStream = engine.NewResource("directory-entry-stream", func(rep any) { rep.(*directoryEntries).close() })
)

// Config is what a component sees of the world. The zero value is a world without anything in it.
type Config struct {
	// Env holds the environment variables.
	Env map[string]string
	// Args are the arguments, the program's name first.
	Args []string
	// Stdin makes the standard input of an instance; nil is one without bytes.
	Stdin func(*engine.Instance) Source
	// Stdout and Stderr are where standard output and error go; nil discards it. One Write is made for
	// each write of a guest. They are used by all instances at once, and must keep each Write whole as
	// an *os.File does.
	Stdout, Stderr io.Writer
	// Files is the folder that guests see as "/", and can only read. It stays the caller's, who closes
	// it after the last instance. If it is nil, guests have no files.
	Files *os.Root
}

// Host is WASI for the instances of one linker.
type Host struct {
	cfg   Config
	env   [][2]string // sorted, so that guests behave the same each time
	start time.Time   // the zero of the monotonic clock
	files engine.Slot[*openFiles]
}
