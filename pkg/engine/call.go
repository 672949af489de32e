package engine

import (
	"context"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
)

// Call is one call between a guest and the host: of a host function by a guest ([HostFunc]), or of a
// guest's export by the host ([ExportFunc.Call]). Its methods read (U32, String, List, …) and put (PutU32,
// PutString, PutList, …) values; see [HostFunc] for their order. Guest errors found on the way end the
// call by a panic that the engine turns into a [*Trap].
//
// A Call and what it hands out are valid until the call returns, and are used by one goroutine.
type Call struct {
	abi.Lifter
	abi.Lowerer
	instance *Instance
	result   [1]uint64
	core     []uint64 // of a call into a guest
}

// newCall returns a Call for a call that begins; endCall takes it back when the call has ended without a fault.
func (i *Instance) newCall() *Call {
	if n := len(i.calls); n > 0 {
		c := i.calls[n-1]
		i.calls = i.calls[:n-1]
		return c
	}
	return &Call{instance: i}
}

func (i *Instance) endCall(c *Call) { i.calls = append(i.calls, c) }

// coreValues returns room for n core values.
func (c *Call) coreValues(n int) []uint64 {
	if cap(c.core) < n {
		c.core = make([]uint64, n)
	}
	return c.core[:n]
}

// Instance returns the instance that the guest belongs to.
func (c *Call) Instance() *Instance { return c.instance }

// Context returns the context of the request that the instance serves.
func (c *Call) Context() context.Context { return c.instance.Context }

// PutOwn writes an own<r> of one of the host's resources; rep is then the guest's, until it drops it or
// hands it back.
func (c *Call) PutOwn(rep any) { c.PutHandle(handle.Handle{Host: rep}) }

// PutBorrow writes a borrow of one of the host's resources.
func (c *Call) PutBorrow(rep any) { c.PutOwn(rep) }
