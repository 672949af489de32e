package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

// primitives are the kinds of the primvaltype opcodes from 0x73 to 0x7f.
var primitives = [...]component.Kind{
	component.KindString, component.KindChar, component.KindF64, component.KindF32, component.KindU64, component.KindS64,
	component.KindU32, component.KindS32, component.KindU16, component.KindS16, component.KindU8, component.KindS8, component.KindBool,
}

// primValType returns the kind of a primvaltype's opcode.
func primValType(b byte) (component.Kind, bool) {
	const first, errorContext = 0x73, 0x64
	switch {
	case b == errorContext:
		return component.KindErrorContext, true
	case b >= first && b < first+byte(len(primitives)):
		return primitives[b-first], true
	}
	return 0, false
}

// valType reads a valtype: the opcode of a primitive type, which is a negative s33 of one byte, or a type
// index, which is a non-negative s33.
func (d *decoder) valType() component.ValType {
	start := d.pos
	if d.pos < d.end {
		if k, ok := primValType(d.buf[d.pos]); ok {
			d.pos++
			return component.ValType{Kind: k}
		}
	}
	var v uint64
	for shift := 0; ; shift += 7 {
		b := d.byte()
		if shift == 28 && b > 0x0f {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if shift < 28 && b&0x40 != 0 {
				break
			}
			return component.ValType{Kind: component.KindIndex, Index: uint32(v)}
		}
	}
	d.fail(start, "unknown value type %#x", d.buf[start])
	return component.ValType{}
}

func (d *decoder) typeDef(at component.At) component.Definition {
	return &component.TypeDef{At: at, Type: d.defType()}
}

func (d *decoder) defType() component.TypeExpr {
	start := d.pos
	switch b := d.byte(); b {
	case 0x3f:
		r := &component.ResourceExpr{Rep: d.coreValType()}
		r.Dtor, r.HasDtor = optional(d, d.u32)
		return r
	case 0x40, 0x43:
		f := &component.FuncExpr{Async: b == 0x43, Params: vec(d, d.labelValType)}
		f.Result, f.HasResult = d.resultList()
		return f
	case 0x41:
		return &component.ComponentExpr{Decls: d.decls("component type", d.componentDecl)}
	case 0x42:
		return &component.InstanceExpr{Decls: d.decls("instance type", d.instanceDecl)}
	default:
		return d.defValType(start, b)
	}
}

func (d *decoder) defValType(start int, b byte) component.TypeExpr {
	switch b {
	case 0x72:
		return &component.ValTypeExpr{Kind: component.KindRecord, Fields: vec(d, d.labelValType)}
	case 0x71:
		return &component.ValTypeExpr{Kind: component.KindVariant, Cases: vec(d, d.variantCase)}
	case 0x70:
		return &component.ValTypeExpr{Kind: component.KindList, Elem: d.valType(), HasElem: true}
	case 0x67:
		return &component.ValTypeExpr{Kind: component.KindFixedList, Elem: d.valType(), HasElem: true, Length: d.u32()}
	case 0x6f:
		return &component.ValTypeExpr{Kind: component.KindTuple, Fields: vec(d, d.tupleField)}
	case 0x6e:
		return &component.ValTypeExpr{Kind: component.KindFlags, Labels: vec(d, d.name)}
	case 0x6d:
		return &component.ValTypeExpr{Kind: component.KindEnum, Cases: vec(d, d.enumCase)}
	case 0x6b:
		return &component.ValTypeExpr{Kind: component.KindOption, Elem: d.valType(), HasElem: true}
	case 0x6a:
		return &component.ValTypeExpr{Kind: component.KindResult, Cases: []component.CaseExpr{d.resultCase("ok"), d.resultCase("error")}}
	case 0x69:
		return &component.ValTypeExpr{Kind: component.KindOwn, Resource: d.u32()}
	case 0x68:
		return &component.ValTypeExpr{Kind: component.KindBorrow, Resource: d.u32()}
	case 0x66, 0x65:
		t := &component.ValTypeExpr{Kind: component.KindStream}
		if b == 0x65 {
			t.Kind = component.KindFuture
		}
		t.Elem, t.HasElem = optional(d, d.valType)
		return t
	case 0x63:
		return &component.ValTypeExpr{Kind: component.KindMap, Key: d.valType(), Elem: d.valType(), HasElem: true}
	}
	if k, ok := primValType(b); ok {
		return &component.ValTypeExpr{Kind: k}
	}
	d.fail(start, "unknown type %#x", b)
	return nil
}

func (d *decoder) labelValType() component.FieldExpr {
	return component.FieldExpr{Name: d.name(), Type: d.valType()}
}

func (d *decoder) tupleField() component.FieldExpr { return component.FieldExpr{Type: d.valType()} }

func (d *decoder) variantCase() component.CaseExpr {
	c := component.CaseExpr{Name: d.name()}
	c.Type, c.HasType = optional(d, d.valType)
	d.zero("the byte after a case")
	return c
}

func (d *decoder) enumCase() component.CaseExpr { return component.CaseExpr{Name: d.name()} }

func (d *decoder) resultCase(name string) component.CaseExpr {
	c := component.CaseExpr{Name: name}
	c.Type, c.HasType = optional(d, d.valType)
	return c
}

// resultList reads a function's result; ok is false if it has none.
func (d *decoder) resultList() (t component.ValType, ok bool) {
	start := d.pos
	switch b := d.byte(); b {
	case 0x00:
		return d.valType(), true
	case 0x01:
		d.zero("the number of a function's named results")
	default:
		d.fail(start, "unknown form %#x of a function's results", b)
	}
	return component.ValType{}, false
}

// decls reads the declarations of a component or instance type.
func (d *decoder) decls(what string, one func(component.At, byte) component.Definition) (defs []component.Definition) {
	d.nested(func() {
		d.defineAll(&defs, func(at component.At) component.Definition {
			b := d.byte()
			def := one(at, b)
			if def == nil {
				d.fail(int(at), "unknown declaration %#x in a %s", b, what)
			}
			return def
		})
	})
	return defs
}

func (d *decoder) componentDecl(at component.At, b byte) component.Definition {
	if b == 0x03 {
		return d.importDef(at)
	}
	return d.instanceDecl(at, b)
}

func (d *decoder) instanceDecl(at component.At, b byte) component.Definition {
	switch b {
	case 0x00:
		return d.coreTypeDef(at)
	case 0x01:
		return d.typeDef(at)
	case 0x02:
		return d.alias(at)
	case 0x04:
		return d.exportDecl(at)
	}
	return nil
}
