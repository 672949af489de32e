// Package core reads and rewrites WebAssembly core modules, as far as linking components needs it: what a
// module imports and exports ([Imports], [Exports]), and renaming its imports ([RewriteImports]).
//
// The format is that of https://webassembly.github.io/spec/core/binary/index.html; the package knows the
// features that the engine compiles (WebAssembly 2.0, extended constant expressions, tail calls, exception
// handling). Whether code is valid is for wazero to say, which compiles it.
package core

// Kind is the kind of an import or export; values are those of the binary format.
type Kind byte

// The kinds of imports and exports.
const (
	KindFunc Kind = iota
	KindTable
	KindMemory
	KindGlobal
	KindTag
	kindCount
)

// String returns the kind as the text format writes it.
func (k Kind) String() string {
	if k >= kindCount {
		return "unknown kind"
	}
	return [kindCount]string{"func", "table", "memory", "global", "tag"}[k]
}

// Value types are bytes of the binary format: those of wazero's package api, and these.
const (
	v128      = 0x7b
	funcref   = 0x70
	externref = 0x6f
	exnref    = 0x69
)

// Type is the type of an import or export. Which fields are used follows from Kind.
type Type struct {
	Kind Kind
	// Func is the type of a function or tag.
	Func FuncType
	// Limits of a table in elements, or of a memory in pages of 64 KiB.
	Limits Limits
	// Value is the value type of a table's elements or of a global.
	Value byte
	// Mutable says that a global is.
	Mutable bool
}

// FuncType is a function type; value types are bytes of the binary format.
type FuncType struct {
	Params, Results []byte
}

// Limits bound the size of a table or memory. Max is unset if HasMax is false.
type Limits struct {
	Min, Max       uint32
	HasMax, Shared bool
}

// Import is an import of a core module.
type Import struct {
	Module, Name string
	Type
}

// Export is an export of a core module.
type Export struct {
	Name string
	Type
}

// Imports returns what module imports, in order. An error is a [*FormatError].
func Imports(module []byte) ([]Import, error) {
	m, err := parse(module, sectionImport)
	if err != nil {
		return nil, err
	}
	return m.imports, nil
}

// Exports returns what module exports, in order. An error is a [*FormatError].
func Exports(module []byte) ([]Export, error) {
	m, err := parse(module, sectionExport)
	if err != nil {
		return nil, err
	}
	return m.exports, nil
}

// module is what the sections of a core module say about its imports and exports.
type module struct {
	types   []FuncType
	imports []Import
	// funcs is the index space of functions, by their type indices; imports come first.
	funcs []uint32
	// items are the other index spaces.
	items   [kindCount][]Type
	exports []Export
	// elements is the initial size of all tables that the module defines.
	elements uint64
}

// parse reads the sections up to last.
func parse(wasm []byte, last byte) (*module, error) {
	r, m := newReader(wasm), &module{}
	for {
		s, ok := r.nextSection()
		if !ok || sectionOrder(s.id) > sectionOrder(last) {
			break
		}
		r.enter(s, func(r *reader) { m.section(r, s.id) })
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

// section reads the section id, which r has entered. It skips those that say nothing about imports and
// exports.
func (m *module) section(r *reader, id byte) {
	switch id {
	case sectionType:
		m.types = vec(r, r.funcType)
	case sectionImport:
		m.imports = vec(r, func() Import {
			return Import{Module: r.name(), Name: r.name(), Type: m.externType(r)}
		})
	case sectionFunction:
		r.each(func() { m.function(r) })
	case sectionTable:
		r.each(func() { m.table(r) })
	case sectionMemory:
		r.each(func() { m.add(Type{Kind: KindMemory, Limits: r.limits()}) })
	case sectionTag:
		r.each(func() { m.add(m.tagType(r)) })
	case sectionGlobal:
		r.each(func() {
			m.add(r.globalType())
			r.constExpr()
		})
	case sectionExport:
		m.exports = vec(r, func() Export { return m.export(r) })
	default:
		r.pos = r.end
	}
}

// add appends t to the index space of its kind.
func (m *module) add(t Type) Type {
	m.items[t.Kind] = append(m.items[t.Kind], t)
	return t
}

// function reads a function's type index and appends the function to its index space.
func (m *module) function(r *reader) Type {
	start := r.pos
	i := r.u32()
	m.funcs = append(m.funcs, i)
	return Type{Kind: KindFunc, Func: m.typeAt(r, start, i)}
}

func (m *module) export(r *reader) Export {
	e := Export{Name: r.name()}
	start := r.pos
	kind := Kind(r.byte())
	if kind >= kindCount {
		r.fail(start, "unknown kind %#x of an export", byte(kind))
		return e
	}
	i, n := int64(r.u32()), len(m.items[kind])
	if kind == KindFunc {
		n = len(m.funcs)
	}
	switch {
	case i >= int64(n):
		r.fail(start, "export %q is of %s %d, the module has %d", e.Name, kind, i, n)
	case kind == KindFunc:
		e.Type = Type{Kind: kind, Func: m.types[m.funcs[i]]}
	default:
		e.Type = m.items[kind][i]
	}
	return e
}

// externType reads the type of an import and appends it to its index space.
func (m *module) externType(r *reader) Type {
	start := r.pos
	switch kind := Kind(r.byte()); kind {
	case KindFunc:
		return m.function(r)
	case KindTable:
		return m.add(r.tableType())
	case KindMemory:
		return m.add(Type{Kind: kind, Limits: r.limits()})
	case KindGlobal:
		return m.add(r.globalType())
	case KindTag:
		return m.add(m.tagType(r))
	default:
		r.fail(start, "unknown kind %#x of an import", byte(kind))
		return Type{}
	}
}

// typeAt returns the type of index i, which stands at offset.
func (m *module) typeAt(r *reader, offset int, i uint32) FuncType {
	if int64(i) >= int64(len(m.types)) {
		r.fail(offset, "type index %d is out of bounds, the module has %d types", i, len(m.types))
		return FuncType{}
	}
	return m.types[i]
}

func (m *module) tagType(r *reader) Type {
	start := r.pos
	if b := r.byte(); b != 0 {
		r.fail(start, "unknown attribute %#x of a tag", b)
	}
	start = r.pos
	return Type{Kind: KindTag, Func: m.typeAt(r, start, r.u32())}
}

func (r *reader) funcType() FuncType {
	start := r.pos
	switch b := r.byte(); b {
	case 0x60:
		return FuncType{Params: vec(r, r.valueType), Results: vec(r, r.valueType)}
	case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
		r.fail(start, "types of the GC proposal are not supported")
	default:
		r.fail(start, "unknown type %#x", b)
	}
	return FuncType{}
}

func (r *reader) valueType() byte {
	start := r.pos
	switch b := r.byte(); b {
	case 0x7f, 0x7e, 0x7d, 0x7c, v128, funcref, externref, exnref:
		return b
	case 0x63, 0x64:
		r.fail(start, "typed references are not supported")
	default:
		r.fail(start, "unknown value type %#x", b)
	}
	return 0
}

func (r *reader) tableType() Type {
	return Type{Kind: KindTable, Value: r.valueType(), Limits: r.limits()}
}

func (r *reader) globalType() Type {
	t := Type{Kind: KindGlobal, Value: r.valueType()}
	start := r.pos
	b := r.byte()
	if b > 1 {
		r.fail(start, "%#x does not say whether a global is mutable", b)
	}
	t.Mutable = b == 1
	return t
}

func (r *reader) limits() Limits {
	const hasMax, shared = 1, 2
	start := r.pos
	flags := r.byte()
	if flags > hasMax|shared {
		r.fail(start, "flags %#x of limits are not supported", flags)
		return Limits{}
	}
	l := Limits{Min: r.u32(), HasMax: flags&hasMax != 0, Shared: flags&shared != 0}
	if l.HasMax {
		l.Max = r.u32()
	}
	return l
}

// constExpr skips a constant expression.
func (r *reader) constExpr() {
	for r.err == nil {
		start := r.pos
		switch op := r.byte(); op {
		case 0x0b: // end
			return
		case 0x41: // i32.const
			r.skipSigned(5)
		case 0x42: // i64.const
			r.skipSigned(10)
		case 0x43: // f32.const
			r.bytes(4)
		case 0x44: // f64.const
			r.bytes(8)
		case 0x23, 0xd2: // global.get, ref.func
			r.u32()
		case 0xd0: // ref.null
			r.valueType()
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // add, sub and mul of i32 and i64
		case 0xfd: // v128.const
			if sub := r.u32(); sub != 0x0c {
				r.fail(start, "vector opcode %#x is not a constant", sub)
			}
			r.bytes(16)
		default:
			r.fail(start, "opcode %#x is not a constant", op)
		}
	}
}
