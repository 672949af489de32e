package sandbox

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// rule allows a system call, for some arguments only if cond is set.
type rule struct {
	call uintptr
	cond *condition
}

// condition is on the low half of an argument. The high halves of those used here mean nothing to the kernel.
type condition struct {
	arg int
	// With mask, the bits of mask must be set; else the value must be one of values.
	mask   uint32
	values []uint32
}

// The kernel's struct seccomp_data: nr, arch, instruction pointer, six arguments.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// What the filter returns: allowed, not permitted, and "no such call" for clone3, whose arguments a filter cannot read; who gets
// that falls back to clone.
const (
	allow  = unix.SECCOMP_RET_ALLOW
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	kill   = unix.SECCOMP_RET_KILL_PROCESS
)

// assemble makes the program that allows calls and nothing else.
func assemble(calls []rule) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(program(calls))
	if err != nil {
		return nil, err
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}

func program(calls []rule) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: kill}, // another architecture's numbers mean other calls
		bpf.LoadAbsolute{Off: offsetNr, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(unix.SYS_CLONE3), SkipTrue: 1},
		bpf.RetConstant{Val: enosys},
	}
	for _, r := range calls {
		body := r.body()
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(r.call), SkipTrue: uint8(len(body))})
		p = append(p, body...)
	}
	return append(p, bpf.RetConstant{Val: eperm})
}

// body is what follows once the number of the call is right.
func (r rule) body() []bpf.Instruction {
	if r.cond == nil {
		return []bpf.Instruction{bpf.RetConstant{Val: allow}}
	}
	p := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetArgs + 8*uint32(r.cond.arg), Size: 4}}
	if r.cond.mask != 0 {
		p = append(p, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: r.cond.mask},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: r.cond.mask, SkipTrue: 1}, bpf.RetConstant{Val: allow})
	}
	for _, v := range r.cond.values {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1}, bpf.RetConstant{Val: allow})
	}
	return append(p, bpf.RetConstant{Val: eperm})
}
