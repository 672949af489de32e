package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

func (d *decoder) coreTypeDef(at component.At) component.Definition {
	start := d.pos
	switch b := d.byte(); b {
	case 0x60:
		f := d.coreFuncType()
		return &component.CoreTypeDef{At: at, Func: &f}
	case 0x50:
		return &component.CoreTypeDef{At: at, Module: d.coreModuleType()}
	default:
		d.unknownCoreType(start, b)
		return nil
	}
}

func (d *decoder) unknownCoreType(start int, b byte) {
	switch b {
	case 0x00, 0x4e, 0x4f, 0x5e, 0x5f:
		d.fail(start, "core types of the GC proposal are not supported")
	default:
		d.fail(start, "unknown core type %#x", b)
	}
}

// coreFuncType reads a core function type after its opcode.
func (d *decoder) coreFuncType() component.CoreFuncType {
	return component.CoreFuncType{Params: vec(d, d.coreValType), Results: vec(d, d.coreValType)}
}

func (d *decoder) coreValType() component.CoreValType {
	start := d.pos
	switch b := d.byte(); b {
	case 0x7f, 0x7e, 0x7d, 0x7c, // i32 i64 f32 f64
		0x7b, 0x70, 0x6f, 0x69: // v128 funcref externref exnref
		return component.CoreValType(b)
	case 0x63, 0x64:
		d.fail(start, "typed references are not supported in core types")
	default:
		d.fail(start, "unknown core value type %#x", b)
	}
	return 0
}

func (d *decoder) coreModuleType() *component.CoreModuleType {
	m := &component.CoreModuleType{}
	for range d.count() {
		start := d.pos
		switch b := d.byte(); b {
		case 0x00:
			m.Imports = append(m.Imports, component.CoreImport{Module: d.name(), Name: d.name(), Desc: d.coreExternType(m)})
		case 0x01:
			m.Types = append(m.Types, d.coreTypeDecl())
		case 0x02:
			m.Types = append(m.Types, d.coreAlias(m))
		case 0x03:
			m.Exports = append(m.Exports, component.CoreExport{Name: d.name(), Desc: d.coreExternType(m)})
		default:
			d.fail(start, "unknown declaration %#x in a core module type", b)
		}
		if d.err != nil {
			break
		}
	}
	return m
}

// coreTypeDecl reads a type of a core module type, which cannot be a core module type again.
func (d *decoder) coreTypeDecl() component.CoreTypeDecl {
	start := d.pos
	switch b := d.byte(); b {
	case 0x60:
		return component.CoreTypeDecl{CoreFuncType: d.coreFuncType()}
	case 0x50:
		d.fail(start, "a core module type cannot stand in a core module type")
	default:
		d.unknownCoreType(start, b)
	}
	return component.CoreTypeDecl{}
}

func (d *decoder) coreAlias(m *component.CoreModuleType) component.CoreTypeDecl {
	start := d.pos
	if s := d.coreSort(); s != component.SortCoreType {
		d.fail(start, "a %s cannot be aliased in a core module type", s)
	}
	target := d.pos
	if b := d.byte(); b != 0x01 {
		d.fail(target, "unknown target %#x of an alias in a core module type", b)
	}
	outer := &component.AliasOuterDef{At: component.At(start), Sort: component.SortCoreType, Count: d.u32()}
	if outer.Count == 0 {
		if i := d.declaredType(m); d.err == nil {
			return m.Types[i]
		}
		return component.CoreTypeDecl{}
	}
	outer.Index = d.u32()
	return component.CoreTypeDecl{Outer: outer}
}

// coreExternType reads the type of an import or export of core module type m.
func (d *decoder) coreExternType(m *component.CoreModuleType) component.CoreExternDesc {
	start := d.pos
	s := d.coreSort()
	rest := d.pos
	desc := component.CoreExternDesc{Sort: s}
	switch s {
	case component.SortCoreFunc:
		desc.Type = d.declaredType(m)
		return desc
	case component.SortCoreTag:
		d.zero("a tag's attribute")
		desc.Type = d.declaredType(m)
		return desc
	case component.SortCoreTable:
		d.coreValType()
		d.limits()
	case component.SortCoreMemory:
		d.limits()
	case component.SortCoreGlobal:
		d.coreValType()
		d.flag("whether a global is mutable")
	default:
		d.fail(start, "a core module cannot import or export a %s", s)
	}
	if d.err == nil {
		desc.Raw = d.buf[rest:d.pos:d.pos]
	}
	return desc
}

// declaredType reads the index of a type that m has declared so far.
func (d *decoder) declaredType(m *component.CoreModuleType) uint32 {
	start := d.pos
	i := d.u32()
	if int64(i) >= int64(len(m.Types)) {
		d.fail(start, "core type index %d is out of bounds, the module type has %d types here", i, len(m.Types))
	}
	return i
}

// limits skips the limits of a table or memory.
func (d *decoder) limits() {
	const hasMax, shared, is64 = 1, 2, 4
	start := d.pos
	flags := d.byte()
	if flags > hasMax|shared|is64 {
		d.fail(start, "unknown flags %#x of limits", flags)
		return
	}
	number := func() { d.u32() }
	if flags&is64 != 0 {
		number = d.skipU64
	}
	number()
	if flags&hasMax != 0 {
		number()
	}
}

// skipU64 skips an unsigned LEB128 number of 64 bits.
func (d *decoder) skipU64() {
	start := d.pos
	for shift := 0; ; shift += 7 {
		b := d.byte()
		if shift == 63 && b > 1 {
			d.fail(start, "number is not a u64")
		}
		if b < 0x80 {
			return
		}
	}
}
