package engine

import (
	"context"

	"github.com/tetratelabs/wazero/api"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
)

// This file holds what core modules import: the canonical built-ins. Each is called with the instance as its
// context and a stack of core values; faults are panics, which wazero turns into errors of the call into the
// guest (callError).

// builtin returns the function that b describes.
func builtin(plan *link.Plan, b *link.Builtin, funcs []HostFunc) api.GoFunc {
	switch b.Op {
	case link.LowerHost:
		return lowerHost(plan, b, funcs[b.Host])
	case link.LowerLift:
		return lowerLift(plan, b)
	case link.ResourceNew:
		return func(ctx context.Context, stack []uint64) {
			in := &ctx.(*Instance).parts[b.Instance]
			i, err := in.Handles.Add(handle.Handle{Resource: b.Resource, Rep: uint32(stack[0]), Own: true})
			trapOn(err)
			stack[0] = uint64(i)
		}
	case link.ResourceRep:
		return func(ctx context.Context, stack []uint64) {
			h, err := ctx.(*Instance).parts[b.Instance].Handles.Get(uint32(stack[0]), b.Resource)
			trapOn(err)
			stack[0] = uint64(h.Rep)
		}
	case link.ResourceDrop:
		return func(ctx context.Context, stack []uint64) { ctx.(*Instance).drop(b, uint32(stack[0])) }
	}
	panic("BUG: unknown built-in")
}

func trapOn(err error) {
	if err != nil {
		panic(&abi.Trap{Msg: err.Error()})
	}
}

// leave traps if the component instance must not call out now.
func leave(in *abi.Instance) {
	if in.NoLeave {
		panic(&abi.Trap{Msg: "cannot leave component instance"})
	}
}

// retptr returns where a lowered function's result goes.
func retptr(b *link.Builtin, stack []uint64) uint32 {
	if !b.Signature.SpillsResult() {
		return 0
	}
	return uint32(stack[len(b.Core.Params)-1])
}

// lowerHost is a host function as a core function (canon lower).
func lowerHost(plan *link.Plan, b *link.Builtin, f HostFunc) api.GoFunc {
	realloc, hasResult := plan.Options[b.Options].Realloc, len(b.Core.Results) > 0
	return func(ctx context.Context, stack []uint64) {
		i := ctx.(*Instance)
		o := i.option(b.Options, realloc)
		leave(o.Instance)
		c := i.newCall()
		c.LiftParams(b.Signature, o, stack)
		c.LowerResult(b.Signature, o, c.result[:], retptr(b, stack))
		if err := f(c); err != nil {
			panic(&hostError{err})
		}
		c.Skip(dropHost)
		if !c.Done() {
			panic("BUG: " + b.Name + " has not put all of its result")
		}
		if hasResult {
			stack[0] = c.result[0]
		}
		i.endCall(c)
	}
}

// lowerLift is a function of another component instance as a core function: its arguments and result are copied
// from the one memory to the other.
func lowerLift(plan *link.Plan, b *link.Builtin) api.GoFunc {
	callerRealloc, calleeRealloc := plan.Options[b.Options].Realloc, plan.Options[b.Lift.Options].Realloc
	size := coreSize(b.Lift.Signature)
	hasResult := len(b.Core.Results) > 0
	return func(ctx context.Context, stack []uint64) {
		i := ctx.(*Instance)
		caller, callee := i.option(b.Options, callerRealloc), i.option(b.Lift.Options, calleeRealloc)
		leave(caller.Instance)
		enter(callee.Instance)
		c := i.newCall()
		core := c.coreValues(size)
		var borrows uint32
		c.LiftParams(b.Signature, caller, stack)
		c.LowerParams(b.Lift.Signature, callee, core, &borrows)
		abi.Copy(&c.Lowerer, &c.Lifter)
		i.callCore(b.Lift.Func, core)
		c.LiftResult(b.Lift.Signature, callee, core)
		c.LowerResult(b.Signature, caller, c.result[:], retptr(b, stack))
		abi.Copy(&c.Lowerer, &c.Lifter)
		c.EndLends()
		i.postReturn(b.Lift, callee, core)
		endBorrows(borrows)
		callee.Instance.Entered = false
		if hasResult {
			stack[0] = c.result[0]
		}
		i.endCall(c)
	}
}

func enter(in *abi.Instance) {
	if in.Entered {
		panic(&abi.Trap{Msg: "cannot enter component instance"})
	}
	in.Entered = true
}

func endBorrows(borrows uint32) {
	if borrows != 0 {
		panic(&abi.Trap{Msg: "borrow handles still remain at the end of the call"})
	}
}

// drop is resource.drop.
func (i *Instance) drop(b *link.Builtin, index uint32) {
	in := &i.parts[b.Instance]
	leave(in)
	h, err := in.Handles.Remove(index, b.Resource)
	trapOn(err)
	r := b.Resource
	switch {
	case !h.Own:
		if h.Borrows != nil {
			*h.Borrows--
		}
	case r.Instance < 0:
		dropHost(h)
	case r.Dtor >= 0:
		i.destroy(r, in, h.Rep)
	}
}

// destroy runs the destructor of a guest's resource. A component instance may destroy its own resources while it
// runs, and those of another only while that one does not.
func (i *Instance) destroy(r *component.Resource, from *abi.Instance, rep uint32) {
	owner := &i.parts[r.Instance]
	if owner != from {
		enter(owner)
		defer func() { owner.Entered = false }()
	}
	i.callCore(r.Dtor, []uint64{uint64(rep)})
}
