package component

// CanonDef is a canonical definition. [CanonLift] appends to the functions, every other to the core
// functions.
type CanonDef struct {
	At
	Op CanonOp
	// Func is the core function of a lift, or the function of a lower.
	Func uint32
	// Type is the function type of a lift, or the type of a resource, stream, future or task built-in.
	Type uint32
	// Options of a lift, a lower and of the built-ins that take options.
	Options CanonOptions
	// Async says that a built-in without options is async (subtask.cancel, stream.cancel-read, …).
	Async bool
	// Index is the operand of context.get/set, or the table of thread built-ins.
	Index uint32
	// Memory is the memory of waitable-set.wait and .poll.
	Memory uint32
	// Result is the result type of task.return, if HasResult.
	Result    ValType
	HasResult bool
}

// CanonOp is the opcode of a canonical definition, with lift and lower as 0x00 and 0x01.
type CanonOp byte

// The canonical definitions; values are those of Binary.md.
const (
	CanonLift                CanonOp = 0x00
	CanonLower               CanonOp = 0x01
	CanonResourceNew         CanonOp = 0x02
	CanonResourceDrop        CanonOp = 0x03
	CanonResourceRep         CanonOp = 0x04
	CanonTaskCancel          CanonOp = 0x05
	CanonSubtaskCancel       CanonOp = 0x06
	CanonTaskReturn          CanonOp = 0x09
	CanonContextGet          CanonOp = 0x0a
	CanonContextSet          CanonOp = 0x0b
	CanonThreadYield         CanonOp = 0x0c
	CanonSubtaskDrop         CanonOp = 0x0d
	CanonStreamNew           CanonOp = 0x0e
	CanonStreamRead          CanonOp = 0x0f
	CanonStreamWrite         CanonOp = 0x10
	CanonStreamCancelRead    CanonOp = 0x11
	CanonStreamCancelWrite   CanonOp = 0x12
	CanonStreamDropReadable  CanonOp = 0x13
	CanonStreamDropWritable  CanonOp = 0x14
	CanonFutureNew           CanonOp = 0x15
	CanonFutureRead          CanonOp = 0x16
	CanonFutureWrite         CanonOp = 0x17
	CanonFutureCancelRead    CanonOp = 0x18
	CanonFutureCancelWrite   CanonOp = 0x19
	CanonFutureDropReadable  CanonOp = 0x1a
	CanonFutureDropWritable  CanonOp = 0x1b
	CanonErrorContextNew     CanonOp = 0x1c
	CanonErrorContextMessage CanonOp = 0x1d
	CanonErrorContextDrop    CanonOp = 0x1e
	CanonWaitableSetNew      CanonOp = 0x1f
	CanonWaitableSetWait     CanonOp = 0x20
	CanonWaitableSetPoll     CanonOp = 0x21
	CanonWaitableSetDrop     CanonOp = 0x22
	CanonWaitableJoin        CanonOp = 0x23
	CanonBackpressureInc     CanonOp = 0x24
	CanonBackpressureDec     CanonOp = 0x25
)

// StringEncoding is how a canonical function's strings stand in memory.
type StringEncoding byte

// The string encodings; values are those of the canonical options in Binary.md.
const (
	UTF8          StringEncoding = 0
	UTF16         StringEncoding = 1
	Latin1OrUTF16 StringEncoding = 2
)

// CanonOptions are the canonical options of a definition.
type CanonOptions struct {
	Encoding StringEncoding
	// Memory, Realloc, PostReturn and Callback are indices, set if the Has field beside them is.
	Memory, Realloc, PostReturn, Callback             uint32
	HasMemory, HasRealloc, HasPostReturn, HasCallback bool
	Async                                             bool
}
