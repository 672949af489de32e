// Package abi is the synchronous half of the Canonical ABI: it lifts component values from core values
// and guest memory, and lowers them back.
//
// A value is never built as a whole. A [Lifter] is a cursor over the values of one call's parameters or
// result, and a [Lowerer] the cursor that writes them; a host function reads and writes its values in
// the order of its WIT type, and a call between two components copies from the one cursor to the other
// ([Copy]). Which bytes a value occupies is computed once, at link time ([Layouts]). The routines
// are named after those of
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/canonical-abi/definitions.py,
// in its order: layout.go, lift.go (load, lift_flat), lower.go (store, lower_flat), string.go.
//
// A guest's fault is a panic with a [*Trap]: between a host function and its guest stand only frames of
// wazero, which turns it into the error of the call.
package abi

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero/api"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
)

// Trap is a fault of a guest that the canonical ABI found.
type Trap struct{ Msg string }

// Error returns the fault.
func (t *Trap) Error() string { return t.Msg }

func trapf(format string, args ...any) { panic(&Trap{fmt.Sprintf(format, args...)}) }

func trapIf(cond bool, msg string) {
	if cond {
		panic(&Trap{msg})
	}
}

// Instance is the state of one component instance (ComponentInstance).
type Instance struct {
	// Number is the instance's number in its plan; resource types that it defines carry it.
	Number  int
	Handles handle.Table
	// Entered says that one of the instance's exports is running; NoLeave that the instance must not
	// call an import now, since it runs realloc or post-return.
	Entered, NoLeave bool
}

// Options are the canonical options of one lifted or lowered function, with their indices resolved to
// what they mean in one instance (LiftLowerContext).
type Options struct {
	Encoding component.StringEncoding
	// Memory is nil, and Realloc too, if the function has none.
	Memory  api.Memory
	Realloc api.Function
	// Instance is the component instance whose core code is on the other side.
	Instance *Instance
	// Context is handed to Realloc.
	Context context.Context

	stack [4]uint64 // of Realloc's calls
}

// bytes returns the whole memory. The slice is dead after any call that may run the guest.
func (o *Options) bytes() []byte {
	if o.Memory == nil {
		return nil
	}
	b, _ := o.Memory.Read(0, o.Memory.Size())
	return b
}

// realloc calls the guest's realloc for a new allocation and returns its address, checked.
func (o *Options) realloc(align, size uint32) uint32 {
	if o.Realloc == nil {
		panic(&Trap{"no realloc to pass a value in memory"})
	}
	noLeave := o.Instance.NoLeave
	o.Instance.NoLeave = true
	o.stack = [4]uint64{0, 0, uint64(align), uint64(size)}
	err := o.Realloc.CallWithStack(o.Context, o.stack[:])
	o.Instance.NoLeave = noLeave
	if err != nil {
		panic(fmt.Errorf("realloc: %w", err))
	}
	p := uint32(o.stack[0])
	trapIf(p&(align-1) != 0, "realloc return: result not aligned")
	trapIf(uint64(p)+uint64(size) > uint64(o.Memory.Size()), "realloc return: beyond end of memory")
	return p
}
