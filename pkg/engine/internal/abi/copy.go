package abi

import (
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
)

// Copy writes to w every value that l has left: a call from one component instance to another, without
// an intermediate Go value but for strings. Both sides must have been started with signatures of equal
// types. Borrowed handles stay lent until [Lifter.EndLends].
func Copy(w *Lowerer, l *Lifter) {
	for {
		p, ok := l.next()
		if !ok {
			return
		}
		copyValue(w, l, p)
	}
}

func copyValue(w *Lowerer, l *Lifter, p place) {
	switch k := p.layout.kind; k {
	case component.KindString:
		l.unread(p)
		w.PutString(l.String())
	case component.KindList:
		l.unread(p)
		if p.layout.fields[0].kind == component.KindU8 {
			w.PutBytes(l.Bytes()) // of another memory: w.alloc cannot move it
			return
		}
		w.PutList(l.List())
	case component.KindVariant, component.KindEnum, component.KindOption, component.KindResult:
		i := l.discriminant(p)
		q, _ := w.next()
		w.discriminant(q, i)
	case component.KindOwn:
		w.PutHandle(l.handleAt(p))
	case component.KindBorrow:
		h := l.handleAt(p)
		l.lend(uint32(l.loadAt(p)), p.layout.resource)
		w.PutHandle(h)
	case component.KindBool:
		l.unread(p)
		w.PutBool(l.Bool())
	case component.KindChar:
		l.unread(p)
		w.PutChar(l.Char())
	case component.KindF32:
		l.unread(p)
		w.PutF32(l.F32())
	case component.KindF64:
		l.unread(p)
		w.PutF64(l.F64())
	case component.KindFlags:
		l.unread(p)
		w.PutFlags(l.Flags())
	default: // integers: the target's kind is the same, so its size is
		q, _ := w.next()
		w.storeAt(q, extend(k, l.loadAt(p)))
	}
}

// extend returns the integer v of kind k, which may carry bits beyond its size, as a core value.
func extend(k component.Kind, v uint64) uint64 {
	switch k {
	case component.KindS8:
		return uint64(uint32(int32(int8(v))))
	case component.KindU8:
		return uint64(uint8(v))
	case component.KindS16:
		return uint64(uint32(int32(int16(v))))
	case component.KindU16:
		return uint64(uint16(v))
	case component.KindS32, component.KindU32:
		return uint64(uint32(v))
	}
	return v
}

// unread makes p the next value again.
func (l *Lifter) unread(p place) {
	l.push(frame{p.layout, payloadParts, 0, 1, p.inMemory, p.addr, p.flat})
}

// lend marks the handle at i as lent until EndLends.
func (l *Lifter) lend(i uint32, r *component.Resource) {
	h, err := l.opts.Instance.Handles.Get(i, r)
	if err != nil { // it was there a moment ago
		panic("BUG: " + err.Error())
	}
	h.Lends++
	l.lent = append(l.lent, lent{&l.opts.Instance.Handles, i, r})
}

type lent struct {
	table    *handle.Table
	index    uint32
	resource *component.Resource
}

// EndLends gives back what Copy lent: the call is over.
func (l *Lifter) EndLends() {
	for _, x := range l.lent {
		if h, err := x.table.Get(x.index, x.resource); err == nil {
			h.Lends--
		}
	}
	l.lent = l.lent[:0]
}
