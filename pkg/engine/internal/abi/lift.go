package abi

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
)

// maxStringBytes and maxListBytes bound one string's and one list's bytes, as the specification does
// (MAX_STRING_BYTE_LENGTH, MAX_LIST_BYTE_LENGTH).
const (
	maxStringBytes = 1<<28 - 1
	maxListBytes   = 1<<28 - 1
)

// frame is a position within a record, a list, or a variant's payload.
type frame struct {
	layout *Layout
	part   parts
	// next is the number of the next part, of count.
	next, count uint32
	// inMemory says where the parts stand: from addr on in memory, else from core value flat on.
	inMemory bool
	addr     uint32
	flat     int
}

// parts says what a frame's parts are.
type parts uint8

const (
	fieldParts   parts = iota // the fields of a record or tuple
	elemParts                 // the elements of a list
	payloadParts              // the payload of a variant
)

// place is where one value stands.
type place struct {
	layout   *Layout
	inMemory bool
	addr     uint32
	flat     int
}

// cursor walks over values in the order of their types. Records, tuples and fixed-length lists are
// stepped into without a call; lists and variants when they are opened.
type cursor struct {
	frames []frame
}

// next returns the place of the next value that is not a record, and moves behind it. ok is false at the
// end.
func (c *cursor) next() (p place, ok bool) {
	for len(c.frames) > 0 {
		f := &c.frames[len(c.frames)-1]
		if f.next == f.count {
			c.frames = c.frames[:len(c.frames)-1]
			continue
		}
		i := f.next
		f.next++
		p = place{inMemory: f.inMemory}
		switch f.part {
		case fieldParts:
			fl := &f.layout.fields[i]
			p.layout, p.addr, p.flat = fl.Layout, f.addr+fl.offset, f.flat+fl.flatAt
		case elemParts:
			e := f.layout.fields[0].Layout
			p.layout, p.addr, p.flat = e, f.addr+i*e.size, f.flat+int(i)*len(e.flat)
		case payloadParts:
			p.layout, p.addr, p.flat = f.layout, f.addr, f.flat
		}
		if !c.open(p) {
			return p, true
		}
	}
	return place{}, false
}

// open steps into p if its parts need no discriminant or length.
func (c *cursor) open(p place) bool {
	switch p.layout.kind {
	case component.KindRecord, component.KindTuple:
		c.push(frame{p.layout, fieldParts, 0, uint32(len(p.layout.fields)), p.inMemory, p.addr, p.flat})
	case component.KindFixedList:
		c.push(frame{p.layout, elemParts, 0, p.layout.count, p.inMemory, p.addr, p.flat})
	default:
		return false
	}
	return true
}

func (c *cursor) push(f frame) { c.frames = append(c.frames, f) }

// pushPayload steps into the payload of case i of the variant at p.
func (c *cursor) pushPayload(p place, i int) {
	if payload := p.layout.cases[i]; payload != nil {
		c.push(frame{payload, payloadParts, 0, 1, p.inMemory, p.addr + p.layout.payload, p.flat + 1})
	}
}

// expect returns the next place, whose kind must be k: anything else is a host function that does not
// follow its own WIT type.
func (c *cursor) expect(k component.Kind) place {
	p, ok := c.next()
	if !ok {
		panic("BUG: no value left, want " + k.String())
	}
	if p.layout.kind != k {
		panic("BUG: value is a " + p.layout.typ.String() + ", not a " + k.String())
	}
	return p
}

// Lifter reads the values of one call, in the order of their types. Methods panic with a [*Trap] where
// the guest's value is invalid. A Lifter is used by one goroutine.
type Lifter struct {
	cursor
	opts *Options
	core []uint64
	mem  []byte
	// lent are the handles that Copy lent.
	lent []lent
}

// LiftParams starts reading the parameters of a call that came with the core values core.
func (l *Lifter) LiftParams(s *Signature, o *Options, core []uint64) {
	l.start(s.params, o, core, s.spillParams)
}

// LiftResult starts reading the result of a call that returned the core values core.
func (l *Lifter) LiftResult(s *Signature, o *Options, core []uint64) {
	if s.result == nil {
		l.frames = l.frames[:0]
		return
	}
	l.start(s.result, o, core, s.spillResult)
}

func (l *Lifter) start(t *Layout, o *Options, core []uint64, spilled bool) {
	l.opts, l.core, l.mem, l.frames = o, core, o.bytes(), l.frames[:0]
	f := frame{layout: t, part: payloadParts, count: 1}
	if spilled {
		f.inMemory, f.addr = true, uint32(core[0])
		l.check(f.addr, t.size, t.align)
	}
	l.push(f)
}

// check traps unless size bytes from p on are in memory and p is aligned.
func (l *Lifter) check(p, size, align uint32) {
	trapIf(p&(align-1) != 0, "unaligned pointer")
	trapIf(uint64(p)+uint64(size) > uint64(len(l.mem)), "pointer out of bounds of memory")
}

// load returns the next value of kind k as an integer of its size, or as it stands among core values.
func (l *Lifter) load(k component.Kind) uint64 { return l.loadAt(l.expect(k)) }

func (l *Lifter) loadAt(p place) uint64 {
	if !p.inMemory {
		return l.core[p.flat]
	}
	return loadInt(l.mem, p.addr, p.layout.size)
}

// loadInt reads size bytes; the bounds were checked for the whole value, and memory never shrinks.
func loadInt(mem []byte, p, size uint32) uint64 {
	switch size {
	case 1:
		return uint64(mem[p])
	case 2:
		return uint64(binary.LittleEndian.Uint16(mem[p:]))
	case 4:
		return uint64(binary.LittleEndian.Uint32(mem[p:]))
	}
	return binary.LittleEndian.Uint64(mem[p:])
}

// Bool reads a bool.
func (l *Lifter) Bool() bool {
	p := l.expect(component.KindBool)
	if p.inMemory {
		return l.mem[p.addr] != 0
	}
	return uint32(l.core[p.flat]) != 0
}

// U8 reads a u8.
func (l *Lifter) U8() uint8 { return uint8(l.load(component.KindU8)) }

// U16 reads a u16.
func (l *Lifter) U16() uint16 { return uint16(l.load(component.KindU16)) }

// U32 reads a u32.
func (l *Lifter) U32() uint32 { return uint32(l.load(component.KindU32)) }

// U64 reads a u64.
func (l *Lifter) U64() uint64 { return l.load(component.KindU64) }

// S8 reads an s8.
func (l *Lifter) S8() int8 { return int8(l.load(component.KindS8)) }

// S16 reads an s16.
func (l *Lifter) S16() int16 { return int16(l.load(component.KindS16)) }

// S32 reads an s32.
func (l *Lifter) S32() int32 { return int32(l.load(component.KindS32)) }

// S64 reads an s64.
func (l *Lifter) S64() int64 { return int64(l.load(component.KindS64)) }

// F32 reads an f32.
func (l *Lifter) F32() float32 { return math.Float32frombits(uint32(l.load(component.KindF32))) }

// F64 reads an f64.
func (l *Lifter) F64() float64 { return math.Float64frombits(l.load(component.KindF64)) }

// Char reads a char.
func (l *Lifter) Char() rune {
	v := uint32(l.load(component.KindChar))
	trapIf(v >= 0x110000, "char value not valid: out of range")
	trapIf(v >= 0xd800 && v <= 0xdfff, "char value not valid: surrogate")
	return rune(v)
}

// pair reads the pointer and length of a string or list.
func (l *Lifter) pair(p place) (ptr, length uint32) {
	if p.inMemory {
		return uint32(loadInt(l.mem, p.addr, 4)), uint32(loadInt(l.mem, p.addr+4, 4))
	}
	return uint32(l.core[p.flat]), uint32(l.core[p.flat+1])
}

// String reads a string. The result is a copy.
func (l *Lifter) String() string {
	ptr, units := l.pair(l.expect(component.KindString))
	b, enc := l.stringRange(ptr, units)
	switch enc {
	case component.UTF8:
		trapIf(!utf8.Valid(b), "invalid utf-8")
		return string(b)
	case component.UTF16:
		return decodeUTF16(b)
	default:
		return decodeLatin1(b)
	}
}

// Bytes reads a list<u8>. The slice is the guest's memory: it is dead once the guest runs again, which
// includes every Put of a value that is passed in memory.
func (l *Lifter) Bytes() []byte {
	p := l.expect(component.KindList)
	if p.layout.fields[0].kind != component.KindU8 {
		panic("BUG: value is a " + p.layout.typ.String() + ", not a list<u8>")
	}
	ptr, n := l.pair(p)
	trapIf(n > maxListBytes, "list is too long")
	l.check(ptr, n, 1)
	return l.mem[ptr : ptr+n : ptr+n]
}

// List opens a list and returns its length; its elements are read next.
func (l *Lifter) List() int {
	p := l.expect(component.KindList)
	e := p.layout.fields[0].Layout
	ptr, n := l.pair(p)
	trapIf(uint64(n)*uint64(e.size) > maxListBytes, "list is too long")
	l.check(ptr, n*e.size, e.align)
	l.push(frame{layout: p.layout, part: elemParts, count: n, inMemory: true, addr: ptr})
	return int(n)
}

// Case opens a variant or enum and returns the number of its case; the case's payload is read next.
func (l *Lifter) Case() int {
	p, ok := l.next()
	if !ok || p.layout.kind != component.KindVariant && p.layout.kind != component.KindEnum {
		panic("BUG: value is not a variant or enum")
	}
	return l.discriminant(p)
}

// Option opens an option and says whether it is some; the value is read next.
func (l *Lifter) Option() bool { return l.discriminant(l.expect(component.KindOption)) == 1 }

// Result opens a result and says whether it is ok; the payload is read next.
func (l *Lifter) Result() (ok bool) { return l.discriminant(l.expect(component.KindResult)) == 0 }

func (l *Lifter) discriminant(p place) int {
	var d uint32
	if p.inMemory {
		d = uint32(loadInt(l.mem, p.addr, p.layout.disc))
	} else {
		d = uint32(l.core[p.flat])
	}
	trapIf(d >= uint32(len(p.layout.cases)), "unexpected discriminant")
	l.pushPayload(p, int(d))
	return int(d)
}

// Flags reads flags; flag i is bit i.
func (l *Lifter) Flags() uint32 {
	p := l.expect(component.KindFlags)
	return uint32(l.loadAt(p)) & (1<<p.layout.labels - 1)
}

// Handle reads an own or borrow of a resource. An own leaves the guest's table: the resource is the
// reader's now. A borrow is valid until the end of the call.
func (l *Lifter) Handle() handle.Handle {
	p, ok := l.next()
	if !ok || p.layout.kind != component.KindOwn && p.layout.kind != component.KindBorrow {
		panic("BUG: value is not a handle")
	}
	return l.handleAt(p)
}

func (l *Lifter) handleAt(p place) handle.Handle {
	i, r := uint32(l.loadAt(p)), p.layout.resource
	if p.layout.kind == component.KindOwn {
		h, err := l.opts.Instance.Handles.RemoveOwn(i, r)
		if err != nil {
			trapf("%s: %v %d", p.layout.typ, err, i)
		}
		return h
	}
	h, err := l.opts.Instance.Handles.Get(i, r)
	if err != nil {
		trapf("%s: %v %d", p.layout.typ, err, i)
	}
	return *h
}

// Skip reads the values that are left and calls drop with the resources whose ownership they carry.
func (l *Lifter) Skip(drop func(handle.Handle)) {
	for {
		p, ok := l.next()
		if !ok {
			return
		}
		switch p.layout.kind {
		case component.KindOwn:
			drop(l.handleAt(p))
		case component.KindList:
			e := p.layout.fields[0].Layout
			ptr, n := l.pair(p)
			trapIf(uint64(n)*uint64(e.size) > maxListBytes, "list is too long")
			l.check(ptr, n*e.size, e.align)
			if e.owns {
				l.push(frame{layout: p.layout, part: elemParts, count: n, inMemory: true, addr: ptr})
			}
		case component.KindVariant, component.KindEnum, component.KindOption, component.KindResult:
			l.discriminant(p)
		}
	}
}
