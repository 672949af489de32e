package engine

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
)

// Trap is a guest's fault: the instance is dead.
type Trap struct {
	// Msg says what the guest did: "unreachable", "out of bounds memory access", …
	Msg string
	// Frames are the guest's functions, the innermost first; at most [MaxFrames].
	Frames []string
}

// MaxFrames bounds the frames of a [Trap], so that a runaway recursion logs readably.
const MaxFrames = 30

// Error returns the message and the stack.
func (t *Trap) Error() string {
	if len(t.Frames) == 0 {
		return "trap: " + t.Msg
	}
	return "trap: " + t.Msg + "\nwasm stack:\n\t" + strings.Join(t.Frames, "\n\t")
}

// ExitError says that the guest ended itself by calling exit. It ends the instance like a trap.
type ExitError struct{ Code uint32 }

// Error returns the exit code in words.
func (e *ExitError) Error() string { return fmt.Sprintf("guest exited with code %d", e.Code) }

// wasmStack is how wazero begins the stack in its errors' text.
const wasmStack = "\nwasm stack trace:\n\t"

// callError turns what a call into a guest failed with into a *Trap, an *ExitError or a host's fault.
func callError(err error) error {
	if fault, ok := errors.AsType[runtime.Error](err); ok {
		return fmt.Errorf("BUG: host function panicked: %w", fault) // not the guest's fault, whatever it did
	}
	text, stack, _ := strings.Cut(err.Error(), wasmStack)
	trap := &Trap{Msg: strings.TrimSuffix(strings.TrimPrefix(text, "wasm error: "), " (recovered by wazero)")}
	if stack != "" {
		trap.Frames = strings.Split(stack, "\n\t")
		trap.Frames = trap.Frames[:min(len(trap.Frames), MaxFrames)]
	}
	if fault, ok := errors.AsType[*abi.Trap](err); ok {
		trap.Msg = fault.Msg
	}
	if host, ok := errors.AsType[*hostError](err); ok {
		own, ok := errors.AsType[*Trap](host.err)
		if !ok {
			return host.err
		}
		trap.Msg = own.Msg
	}
	return trap
}

// hostError carries what a host function returned through wazero.
type hostError struct{ err error }

func (e *hostError) Error() string { return e.err.Error() }
