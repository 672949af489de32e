package binaryencoding

import "slices"

// Types are core value types, as bytes of the binary format.
type Types []byte

// The core value types.
const (
	I32     byte = 0x7f
	I64     byte = 0x7e
	F32     byte = 0x7d
	F64     byte = 0x7c
	FuncRef byte = 0x70
)

// Module is a core module under construction. The zero value is an empty module. Imports come before all
// else.
type Module struct {
	types, imports, funcs, tables, memories, globals, exports, elements, code, data, custom list
	numFuncs                                                                                uint32
}

// list is a vector under construction.
type list struct {
	n int
	b []byte
}

// add appends an element and returns its index.
func (l *list) add(elem []byte) uint32 {
	l.b = append(l.b, elem...)
	l.n++
	return uint32(l.n - 1)
}

// Bytes returns the module in the binary format.
func (m *Module) Bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, l list) {
		if l.n > 0 {
			out = blob(append(out, id), append(uleb(nil, l.n), l.b...))
		}
	}
	section(1, m.types)
	section(2, m.imports)
	section(3, m.funcs)
	section(4, m.tables)
	section(5, m.memories)
	section(6, m.globals)
	section(7, m.exports)
	section(9, m.elements)
	section(10, m.code)
	section(11, m.data)
	return append(out, m.custom.b...)
}

// Type adds a function type.
func (m *Module) Type(params, results Types) uint32 {
	return m.types.add(blob(blob([]byte{0x60}, []byte(params)), []byte(results)))
}

func (m *Module) importOf(module, name string, desc ...byte) {
	m.imports.add(append(blob(blob(nil, module), name), desc...))
}

// ImportFunc adds an imported function.
func (m *Module) ImportFunc(module, name string, params, results Types) uint32 {
	m.importOf(module, name, uleb([]byte{0x00}, m.Type(params, results))...)
	m.numFuncs++
	return m.numFuncs - 1
}

// ImportMemory imports memory 0.
func (m *Module) ImportMemory(module, name string) { m.importOf(module, name, 0x02, 0x00, 0x00) }

// ImportTable imports table 0, of at least n functions.
func (m *Module) ImportTable(module, name string, n int) {
	m.importOf(module, name, uleb([]byte{0x01, FuncRef, 0x00}, n)...)
}

// export exports item index of kind, unless name is "".
func (m *Module) export(name string, kind byte, index uint32) {
	if name != "" {
		m.exports.add(uleb(append(blob(nil, name), kind), index))
	}
}

// Func adds a function and exports it, unless name is "". Its end is added to the code.
func (m *Module) Func(name string, params, results, locals Types, code ...[]byte) uint32 {
	m.funcs.add(uleb(nil, m.Type(params, results)))
	body := vec(nil, locals, func(b []byte, t byte) []byte { return append(b, 0x01, t) })
	body = append(append(body, slices.Concat(code...)...), 0x0b)
	m.code.add(blob(nil, body))
	m.export(name, 0x00, m.numFuncs)
	m.numFuncs++
	return m.numFuncs - 1
}

// Memory adds memory 0 with so many pages and exports it.
func (m *Module) Memory(name string, pages int) {
	m.export(name, 0x02, m.memories.add(uleb([]byte{0x00}, pages)))
}

// Table adds table 0 with the given functions and exports it.
func (m *Module) Table(name string, funcs ...uint32) {
	m.export(name, 0x01, m.tables.add(uleb([]byte{FuncRef, 0x00}, len(funcs))))
	m.Elements(funcs...)
}

// Elements fills table 0 from its beginning when the module is instantiated.
func (m *Module) Elements(funcs ...uint32) {
	m.elements.add(vec([]byte{0x00, 0x41, 0x00, 0x0b}, funcs, uleb[uint32]))
}

// Global adds a mutable global of type i32 and exports it, unless name is "".
func (m *Module) Global(name string, value int32) uint32 {
	i := m.globals.add(append(append([]byte{I32, 0x01}, I32Const(value)...), 0x0b))
	m.export(name, 0x03, i)
	return i
}

// Data puts bytes into memory 0 when the module is instantiated.
func (m *Module) Data(offset int32, bytes string) {
	m.data.add(blob(append(append([]byte{0x00}, I32Const(offset)...), 0x0b), bytes))
}

// Custom adds a custom section.
func (m *Module) Custom(name string, content []byte) {
	m.custom.add(blob([]byte{0x00}, append(blob(nil, name), content...)))
}

// sleb encodes a signed LEB128 number.
func sleb(b []byte, n int64) []byte {
	for n < -0x40 || n >= 0x40 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n)&0x7f)
}

// I32Const is the instruction i32.const.
func I32Const(n int32) []byte { return sleb([]byte{0x41}, int64(n)) }

// I64Const is the instruction i64.const.
func I64Const(n int64) []byte { return sleb([]byte{0x42}, n) }

// LocalGet is the instruction local.get.
func LocalGet(i uint32) []byte { return uleb([]byte{0x20}, i) }

// LocalSet is the instruction local.set.
func LocalSet(i uint32) []byte { return uleb([]byte{0x21}, i) }

// GlobalGet is the instruction global.get.
func GlobalGet(i uint32) []byte { return uleb([]byte{0x23}, i) }

// GlobalSet is the instruction global.set.
func GlobalSet(i uint32) []byte { return uleb([]byte{0x24}, i) }

// Call is the instruction call.
func Call(i uint32) []byte { return uleb([]byte{0x10}, i) }

// CallIndirect is the instruction call_indirect on table 0.
func CallIndirect(typeIndex uint32) []byte { return append(uleb([]byte{0x11}, typeIndex), 0x00) }

// I32Load is the instruction i32.load.
func I32Load(offset uint32) []byte { return uleb([]byte{0x28, 0x02}, offset) }

// I32Store is the instruction i32.store.
func I32Store(offset uint32) []byte { return uleb([]byte{0x36, 0x02}, offset) }

// I32Add is the instruction i32.add.
func I32Add() []byte { return []byte{0x6a} }

// Drop is the instruction drop.
func Drop() []byte { return []byte{0x1a} }

// Unreachable is the instruction unreachable.
func Unreachable() []byte { return []byte{0x00} }

// Realloc adds an allocator that hands out memory from address base on and never frees, and exports it as
// cabi_realloc. It returns the function's index.
func (m *Module) Realloc(base int32) uint32 {
	next := m.Global("", base)
	return m.Func("cabi_realloc", Types{I32, I32, I32, I32}, Types{I32}, Types{I32},
		// aligned = (next + align - 1) & -align
		GlobalGet(next), LocalGet(2), I32Add(), I32Const(1), []byte{0x6b},
		I32Const(0), LocalGet(2), []byte{0x6b}, []byte{0x71}, LocalSet(4),
		// next = aligned + size
		LocalGet(4), LocalGet(3), I32Add(), GlobalSet(next),
		LocalGet(4))
}
