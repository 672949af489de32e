package abi

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
)

// Lowerer writes the values of one call, in the order of their types. Every Put of a string, a list or a
// spilled value may run the guest's realloc, so that slices of guest memory are dead after it. Methods
// panic where the guest's realloc misbehaves. A Lowerer is used by one goroutine.
type Lowerer struct {
	cursor
	opts *Options
	core []uint64
	mem  []byte
	// borrows is the open count of the callee's task, for borrow handles.
	borrows *uint32
}

// LowerParams starts writing the parameters of a call; they end up in core, which must have room for
// the core parameters. borrows counts the borrow handles that the callee gets.
func (w *Lowerer) LowerParams(s *Signature, o *Options, core []uint64, borrows *uint32) {
	w.borrows = borrows
	if !s.spillParams {
		w.start(s.params, o, core, frame{})
		return
	}
	w.opts = o
	p := w.alloc(s.params.align, s.params.size)
	core[0] = uint64(p)
	w.start(s.params, o, core, frame{inMemory: true, addr: p})
}

// LowerResult starts writing the result of a call: into core, or where the pointer retptr says.
func (w *Lowerer) LowerResult(s *Signature, o *Options, core []uint64, retptr uint32) {
	w.borrows = nil
	switch {
	case s.result == nil:
		w.frames = w.frames[:0]
	case !s.spillResult:
		w.start(s.result, o, core, frame{})
	default:
		w.start(s.result, o, core, frame{inMemory: true, addr: retptr})
		trapIf(retptr&(s.result.align-1) != 0, "unaligned pointer")
		trapIf(uint64(retptr)+uint64(s.result.size) > uint64(len(w.mem)), "pointer out of bounds of memory")
	}
}

func (w *Lowerer) start(t *Layout, o *Options, core []uint64, f frame) {
	w.opts, w.core, w.mem, w.frames = o, core, o.bytes(), w.frames[:0]
	f.layout, f.part, f.count = t, payloadParts, 1
	w.push(f)
}

// Done says whether every value has been written.
func (w *Lowerer) Done() bool {
	p, ok := w.next()
	if ok { // put it back: the caller wants to say which one is missing
		w.push(frame{p.layout, payloadParts, 0, 1, p.inMemory, p.addr, p.flat})
	}
	return !ok
}

// alloc allocates guest memory and refreshes the view of it.
func (w *Lowerer) alloc(align, size uint32) uint32 {
	p := w.opts.realloc(align, size)
	w.mem = w.opts.bytes()
	return p
}

// store writes the next value, which is of kind k.
func (w *Lowerer) store(k component.Kind, v uint64) { w.storeAt(w.expect(k), v) }

func (w *Lowerer) storeAt(p place, v uint64) {
	if !p.inMemory {
		w.core[p.flat] = v
		return
	}
	storeInt(w.mem, p.addr, p.layout.size, v)
}

func storeInt(mem []byte, p, size uint32, v uint64) {
	switch size {
	case 1:
		mem[p] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(mem[p:], uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(mem[p:], uint32(v))
	default:
		binary.LittleEndian.PutUint64(mem[p:], v)
	}
}

// PutBool writes a bool.
func (w *Lowerer) PutBool(v bool) {
	var n uint64
	if v {
		n = 1
	}
	w.store(component.KindBool, n)
}

// PutU8 writes a u8.
func (w *Lowerer) PutU8(v uint8) { w.store(component.KindU8, uint64(v)) }

// PutU16 writes a u16.
func (w *Lowerer) PutU16(v uint16) { w.store(component.KindU16, uint64(v)) }

// PutU32 writes a u32.
func (w *Lowerer) PutU32(v uint32) { w.store(component.KindU32, uint64(v)) }

// PutU64 writes a u64.
func (w *Lowerer) PutU64(v uint64) { w.store(component.KindU64, v) }

// PutS8 writes an s8.
func (w *Lowerer) PutS8(v int8) { w.store(component.KindS8, uint64(uint32(v))) }

// PutS16 writes an s16.
func (w *Lowerer) PutS16(v int16) { w.store(component.KindS16, uint64(uint32(v))) }

// PutS32 writes an s32.
func (w *Lowerer) PutS32(v int32) { w.store(component.KindS32, uint64(uint32(v))) }

// PutS64 writes an s64.
func (w *Lowerer) PutS64(v int64) { w.store(component.KindS64, uint64(v)) }

// PutF32 writes an f32; every NaN becomes the canonical one.
func (w *Lowerer) PutF32(v float32) {
	bits := math.Float32bits(v)
	if v != v {
		bits = 0x7fc00000
	}
	w.store(component.KindF32, uint64(bits))
}

// PutF64 writes an f64; every NaN becomes the canonical one.
func (w *Lowerer) PutF64(v float64) {
	bits := math.Float64bits(v)
	if v != v {
		bits = 0x7ff8000000000000
	}
	w.store(component.KindF64, bits)
}

// PutChar writes a char, which must be a Unicode scalar value.
func (w *Lowerer) PutChar(v rune) { w.store(component.KindChar, uint64(uint32(v))) }

func (w *Lowerer) putPair(p place, ptr, n uint32) {
	if p.inMemory {
		storeInt(w.mem, p.addr, 4, uint64(ptr))
		storeInt(w.mem, p.addr+4, 4, uint64(n))
		return
	}
	w.core[p.flat], w.core[p.flat+1] = uint64(ptr), uint64(n)
}

// PutString writes a string. Bytes that are not UTF-8 become U+FFFD.
func (w *Lowerer) PutString(s string) {
	p := w.expect(component.KindString)
	ptr, units := w.storeString(strings.ToValidUTF8(s, "\uFFFD"))
	w.putPair(p, ptr, units)
}

// PutBytes writes a list<u8>. b must not be guest memory.
func (w *Lowerer) PutBytes(b []byte) {
	p := w.expect(component.KindList)
	if p.layout.fields[0].kind != component.KindU8 {
		panic("BUG: value is a " + p.layout.typ.String() + ", not a list<u8>")
	}
	trapIf(len(b) > maxListBytes, "list is too long")
	ptr := w.alloc(1, uint32(len(b)))
	copy(w.mem[ptr:], b)
	w.putPair(p, ptr, uint32(len(b)))
}

// PutList opens a list of n elements; they are written next.
func (w *Lowerer) PutList(n int) {
	p := w.expect(component.KindList)
	e := p.layout.fields[0].Layout
	trapIf(uint64(n)*uint64(e.size) > maxListBytes, "list is too long")
	ptr := w.alloc(e.align, uint32(n)*e.size)
	w.putPair(p, ptr, uint32(n))
	w.push(frame{layout: p.layout, part: elemParts, count: uint32(n), inMemory: true, addr: ptr})
}

// PutCase opens case i of a variant or enum; its payload, if it has one, is written next.
func (w *Lowerer) PutCase(i int) {
	p, ok := w.next()
	if !ok || p.layout.kind != component.KindVariant && p.layout.kind != component.KindEnum {
		panic("BUG: value is not a variant or enum")
	}
	if i < 0 || i >= len(p.layout.cases) {
		panic(fmt.Sprintf("BUG: no case %d in %s", i, p.layout.typ))
	}
	w.discriminant(p, i)
}

// PutNone writes an option without a value.
func (w *Lowerer) PutNone() { w.discriminant(w.expect(component.KindOption), 0) }

// PutSome opens an option with a value, which is written next.
func (w *Lowerer) PutSome() { w.discriminant(w.expect(component.KindOption), 1) }

// PutOk opens a result that is ok; its payload, if it has one, is written next.
func (w *Lowerer) PutOk() { w.discriminant(w.expect(component.KindResult), 0) }

// PutErr opens a result that is an error; its payload, if it has one, is written next.
func (w *Lowerer) PutErr() { w.discriminant(w.expect(component.KindResult), 1) }

func (w *Lowerer) discriminant(p place, i int) {
	if p.inMemory {
		storeInt(w.mem, p.addr, p.layout.disc, uint64(i))
	} else {
		// core values that the case does not use are zero
		clear(w.core[p.flat+1 : p.flat+len(p.layout.flat)])
		w.core[p.flat] = uint64(i)
	}
	w.pushPayload(p, i)
}

// PutFlags writes flags; flag i is bit i.
func (w *Lowerer) PutFlags(v uint32) { w.store(component.KindFlags, uint64(v)) }

// PutHandle writes an own or borrow. What is owned belongs to the guest from then on.
func (w *Lowerer) PutHandle(h handle.Handle) {
	p, ok := w.next()
	if !ok || p.layout.kind != component.KindOwn && p.layout.kind != component.KindBorrow {
		panic("BUG: value is not a handle")
	}
	r := p.layout.resource
	h.Resource, h.Own, h.Lends, h.Borrows = r, p.layout.kind == component.KindOwn, 0, nil
	if !h.Own {
		if r.Instance == w.opts.Instance.Number { // the guest's own resource: it wants the representation
			w.storeAt(p, uint64(h.Rep))
			return
		}
		h.Borrows = w.borrows
		*w.borrows++
	}
	i, err := w.opts.Instance.Handles.Add(h)
	if err != nil {
		panic(&Trap{err.Error()})
	}
	w.storeAt(p, uint64(i))
}
