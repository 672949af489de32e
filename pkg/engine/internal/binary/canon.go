package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

// refusedCanon names the canonical definitions that are known and not supported.
func refusedCanon(op byte) string {
	switch op {
	case 0x08:
		return "backpressure.set"
	case 0x26:
		return "thread.index"
	case 0x27:
		return "thread.new-indirect"
	case 0x28:
		return "thread.resume-later"
	case 0x29:
		return "thread.suspend"
	case 0x2a:
		return "thread.suspend-then-resume"
	case 0x2b:
		return "thread.yield-then-resume"
	case 0x2c:
		return "thread.suspend-then-promote"
	case 0x2d:
		return "thread.yield-then-promote"
	case 0x2e:
		return "stream.forward"
	case 0x2f:
		return "future.forward"
	case 0x40:
		return "thread.spawn-ref"
	case 0x41:
		return "thread.spawn-indirect"
	case 0x42:
		return "thread.available-parallelism"
	}
	return ""
}

func (d *decoder) canon(at component.At) component.Definition {
	b := d.byte()
	c := &component.CanonDef{At: at, Op: component.CanonOp(b)}
	switch c.Op {
	case component.CanonLift:
		d.zero("the sort of a lifted function")
		c.Func = d.u32()
		c.Options = d.canonOptions()
		c.Type = d.u32()
	case component.CanonLower:
		d.zero("the sort of a lowered function")
		c.Func = d.u32()
		c.Options = d.canonOptions()
	case component.CanonResourceNew, component.CanonResourceDrop, component.CanonResourceRep,
		component.CanonStreamNew, component.CanonStreamDropReadable, component.CanonStreamDropWritable,
		component.CanonFutureNew, component.CanonFutureDropReadable, component.CanonFutureDropWritable:
		c.Type = d.u32()
	case component.CanonStreamRead, component.CanonStreamWrite, component.CanonFutureRead, component.CanonFutureWrite:
		c.Type = d.u32()
		c.Options = d.canonOptions()
	case component.CanonStreamCancelRead, component.CanonStreamCancelWrite,
		component.CanonFutureCancelRead, component.CanonFutureCancelWrite:
		c.Type = d.u32()
		c.Async = d.flag("async")
	case component.CanonSubtaskCancel:
		c.Async = d.flag("async")
	case component.CanonTaskReturn:
		c.Result, c.HasResult = d.resultList()
		c.Options = d.canonOptions()
	case component.CanonContextGet, component.CanonContextSet:
		start := d.pos
		if t := d.coreValType(); t != component.CoreI32 {
			d.fail(start, "a context slot of type %s is not supported", t)
		}
		c.Index = d.u32()
	case component.CanonErrorContextNew, component.CanonErrorContextMessage:
		c.Options = d.canonOptions()
	case component.CanonThreadYield:
		d.zero("the reserved byte of thread.yield")
	case component.CanonWaitableSetWait, component.CanonWaitableSetPoll:
		d.zero("the reserved byte of waitable-set.wait and .poll")
		c.Memory = d.u32()
	case component.CanonTaskCancel, component.CanonSubtaskDrop, component.CanonErrorContextDrop,
		component.CanonWaitableSetNew, component.CanonWaitableSetDrop, component.CanonWaitableJoin,
		component.CanonBackpressureInc, component.CanonBackpressureDec:
	default:
		if name := refusedCanon(b); name != "" {
			d.fail(int(at), "canonical built-in %s is not supported", name)
		} else {
			d.fail(int(at), "unknown opcode %#x", b)
		}
	}
	return c
}

// canonOptions reads the options of a canonical definition. Each kind may be given once.
func (d *decoder) canonOptions() (o component.CanonOptions) {
	encoded := false
	for range d.count() {
		start := d.pos
		var again bool
		switch b := d.byte(); b {
		case 0x00, 0x01, 0x02:
			again, encoded = encoded, true
			o.Encoding = component.StringEncoding(b)
		case 0x03:
			again, o.HasMemory = o.HasMemory, true
			o.Memory = d.u32()
		case 0x04:
			again, o.HasRealloc = o.HasRealloc, true
			o.Realloc = d.u32()
		case 0x05:
			again, o.HasPostReturn = o.HasPostReturn, true
			o.PostReturn = d.u32()
		case 0x06:
			again, o.Async = o.Async, true
		case 0x07:
			again, o.HasCallback = o.HasCallback, true
			o.Callback = d.u32()
		default:
			d.fail(start, "unknown canonical option %#x", b)
		}
		if again {
			d.fail(start, "a canonical option is given twice")
		}
		if d.err != nil {
			break
		}
	}
	return o
}
