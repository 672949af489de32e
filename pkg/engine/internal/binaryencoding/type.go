package binaryencoding

import (
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

func coreType(b []byte, d *component.CoreTypeDef) []byte {
	if d.Func != nil {
		return coreFuncType(b, *d.Func)
	}
	m := d.Module
	b = uleb(append(b, 0x50), len(m.Types)+len(m.Imports)+len(m.Exports))
	for _, t := range m.Types {
		if t.Outer != nil {
			b = uleb(uleb(append(b, 0x02, 0x10, 0x01), t.Outer.Count), t.Outer.Index)
		} else {
			b = coreFuncType(append(b, 0x01), t.CoreFuncType)
		}
	}
	for _, i := range m.Imports {
		b = coreExternDesc(blob(blob(append(b, 0x00), i.Module), i.Name), i.Desc)
	}
	for _, e := range m.Exports {
		b = coreExternDesc(blob(append(b, 0x03), e.Name), e.Desc)
	}
	return b
}

func coreFuncType(b []byte, f component.CoreFuncType) []byte {
	one := func(b []byte, t component.CoreValType) []byte { return append(b, byte(t)) }
	return vec(vec(append(b, 0x60), f.Params, one), f.Results, one)
}

func coreExternDesc(b []byte, d component.CoreExternDesc) []byte {
	b = append(b, coreSort(d.Sort))
	switch d.Sort {
	case component.SortCoreFunc:
		return uleb(b, d.Type)
	case component.SortCoreTag:
		return uleb(append(b, 0x00), d.Type)
	}
	return append(b, d.Raw...)
}

// primitives are the opcodes of the primitive types, from KindBool on.
var primitives = [...]byte{0x7f, 0x7e, 0x7d, 0x7c, 0x7b, 0x7a, 0x79, 0x78, 0x77, 0x76, 0x75, 0x74, 0x73, 0x64}

func primitive(k component.Kind) byte { return primitives[k-component.KindBool] }

func valType(b []byte, t component.ValType) []byte {
	if t.Kind != component.KindIndex {
		return append(b, primitive(t.Kind))
	}
	i := t.Index // a non-negative s33: the sign bit of the last byte must be clear
	for ; i >= 0x40; i >>= 7 {
		b = append(b, byte(i)|0x80)
	}
	return append(b, byte(i))
}

func optional(b []byte, t component.ValType, has bool) []byte {
	if !has {
		return append(b, 0x00)
	}
	return valType(append(b, 0x01), t)
}

func result(b []byte, t component.ValType, has bool) []byte {
	if !has {
		return append(b, 0x01, 0x00)
	}
	return valType(append(b, 0x00), t)
}

func field(b []byte, f component.FieldExpr) []byte { return valType(blob(b, f.Name), f.Type) }

func label(b []byte, l string) []byte { return blob(b, l) }

func defType(b []byte, t component.TypeExpr) []byte {
	switch t := t.(type) {
	case *component.ResourceExpr:
		b = append(b, 0x3f, byte(t.Rep), flag(t.HasDtor))
		if t.HasDtor {
			b = uleb(b, t.Dtor)
		}
		return b
	case *component.FuncExpr:
		opcode := byte(0x40)
		if t.Async {
			opcode = 0x43
		}
		return result(vec(append(b, opcode), t.Params, field), t.Result, t.HasResult)
	case *component.ComponentExpr:
		return vec(append(b, 0x41), t.Decls, declaration)
	case *component.InstanceExpr:
		return vec(append(b, 0x42), t.Decls, declaration)
	case *component.ValTypeExpr:
		return valTypeExpr(b, t)
	}
	panic(fmt.Sprintf("BUG: type %T", t))
}

func declaration(b []byte, d component.Definition) []byte {
	switch d := d.(type) {
	case *component.CoreTypeDef:
		return coreType(append(b, 0x00), d)
	case *component.TypeDef:
		return defType(append(b, 0x01), d.Type)
	case *component.AliasExportDef, *component.AliasOuterDef:
		return definition(append(b, 0x02), d)
	case *component.ImportDef:
		return externDesc(externName(append(b, 0x03), d.Name), d.Desc)
	case *component.ExportDef:
		return externDesc(externName(append(b, 0x04), d.Name), *d.Desc)
	}
	panic(fmt.Sprintf("BUG: declaration %T", d))
}

func valTypeExpr(b []byte, t *component.ValTypeExpr) []byte {
	switch t.Kind {
	case component.KindRecord:
		return vec(append(b, 0x72), t.Fields, field)
	case component.KindVariant:
		return vec(append(b, 0x71), t.Cases, func(b []byte, c component.CaseExpr) []byte {
			return append(optional(blob(b, c.Name), c.Type, c.HasType), 0x00)
		})
	case component.KindList:
		return valType(append(b, 0x70), t.Elem)
	case component.KindFixedList:
		return uleb(valType(append(b, 0x67), t.Elem), t.Length)
	case component.KindTuple:
		return vec(append(b, 0x6f), t.Fields, func(b []byte, f component.FieldExpr) []byte { return valType(b, f.Type) })
	case component.KindFlags:
		return vec(append(b, 0x6e), t.Labels, label)
	case component.KindEnum:
		return vec(append(b, 0x6d), t.Cases, func(b []byte, c component.CaseExpr) []byte { return blob(b, c.Name) })
	case component.KindOption:
		return valType(append(b, 0x6b), t.Elem)
	case component.KindResult:
		ok, err := t.Cases[0], t.Cases[1]
		return optional(optional(append(b, 0x6a), ok.Type, ok.HasType), err.Type, err.HasType)
	case component.KindOwn:
		return uleb(append(b, 0x69), t.Resource)
	case component.KindBorrow:
		return uleb(append(b, 0x68), t.Resource)
	case component.KindStream:
		return optional(append(b, 0x66), t.Elem, t.HasElem)
	case component.KindFuture:
		return optional(append(b, 0x65), t.Elem, t.HasElem)
	case component.KindMap:
		return valType(valType(append(b, 0x63), t.Key), t.Elem)
	}
	return append(b, primitive(t.Kind))
}
