// Package binaryencoding encodes components and core modules, so that tests can build them in Go.
//
// A [Component] and a [Module] hand out the index of each definition as it is added:
//
//	m := &binaryencoding.Module{}
//	m.Func("run", nil, binaryencoding.Types{binaryencoding.I32}, nil, binaryencoding.I32Const(42))
//	c := &binaryencoding.Component{}
//	inst := c.CoreInstantiate(c.CoreModule(m.Bytes()))
//	run := c.CoreExport(component.SortCoreFunc, inst, "run")
//	t := c.Type(&component.FuncExpr{Result: component.ValType{Kind: component.KindU32}, HasResult: true})
//	c.Export("run", component.SortFunc, c.Lift(run, t, component.CanonOptions{}))
//	wasm := c.Bytes()
package binaryencoding

import (
	"encoding/binary"
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// Component is a component under construction. The zero value is an empty component.
type Component struct {
	defs   []component.Definition
	counts [component.SortCount]uint32
}

// Bytes returns the component in the binary format.
func (c *Component) Bytes() []byte { return Encode(&component.Component{Definitions: c.defs}) }

// Add appends a definition and returns its index in the space that it appends to.
func (c *Component) Add(d component.Definition) uint32 {
	c.defs = append(c.defs, d)
	s := sortOf(d)
	c.counts[s]++
	return c.counts[s] - 1
}

// sortOf returns the index space that d appends to.
func sortOf(d component.Definition) component.Sort {
	switch d := d.(type) {
	case *component.CoreModuleDef:
		return component.SortCoreModule
	case *component.CoreInstantiateDef, *component.CoreExportsDef:
		return component.SortCoreInstance
	case *component.CoreTypeDef:
		return component.SortCoreType
	case *component.ComponentDef:
		return component.SortComponent
	case *component.InstantiateDef, *component.ExportsDef:
		return component.SortInstance
	case *component.AliasExportDef:
		return d.Sort
	case *component.AliasOuterDef:
		return d.Sort
	case *component.TypeDef:
		return component.SortType
	case *component.StartDef:
		return component.SortValue
	case *component.ImportDef:
		return d.Desc.Sort
	case *component.ExportDef:
		return d.Sort
	case *component.CanonDef:
		if d.Op == component.CanonLift {
			return component.SortFunc
		}
		return component.SortCoreFunc
	}
	panic(fmt.Sprintf("BUG: definition %T", d))
}

// CoreModule adds an embedded core module.
func (c *Component) CoreModule(wasm []byte) uint32 {
	return c.Add(&component.CoreModuleDef{Bytes: wasm})
}

// CoreInstantiate adds an instance of a core module.
func (c *Component) CoreInstantiate(module uint32, args ...component.CoreInstantiateArg) uint32 {
	return c.Add(&component.CoreInstantiateDef{Module: module, Args: args})
}

// CoreExports adds a core instance that has the given exports.
func (c *Component) CoreExports(exports ...component.InlineExport) uint32 {
	return c.Add(&component.CoreExportsDef{Exports: exports})
}

// CoreExport adds an alias of a core instance's export.
func (c *Component) CoreExport(s component.Sort, instance uint32, name string) uint32 {
	return c.Add(&component.AliasExportDef{Sort: s, Instance: instance, Name: name, Core: true})
}

// Component adds a nested component.
func (c *Component) Component(nested *Component) uint32 {
	return c.Add(&component.ComponentDef{Component: &component.Component{Definitions: nested.defs}})
}

// Instantiate adds an instance of a component.
func (c *Component) Instantiate(of uint32, args ...component.InlineExport) uint32 {
	return c.Add(&component.InstantiateDef{Component: of, Args: args})
}

// Exports adds an instance that has the given exports.
func (c *Component) Exports(exports ...component.InlineExport) uint32 {
	return c.Add(&component.ExportsDef{Exports: exports})
}

// InstanceExport adds an alias of an instance's export.
func (c *Component) InstanceExport(s component.Sort, instance uint32, name string) uint32 {
	return c.Add(&component.AliasExportDef{Sort: s, Instance: instance, Name: name})
}

// Outer adds an alias of a definition of the component that is count levels out.
func (c *Component) Outer(s component.Sort, count, index uint32) uint32 {
	return c.Add(&component.AliasOuterDef{Sort: s, Count: count, Index: index})
}

// Type adds a type.
func (c *Component) Type(t component.TypeExpr) uint32 { return c.Add(&component.TypeDef{Type: t}) }

// Import adds an import.
func (c *Component) Import(name string, desc component.ExternDesc) uint32 {
	return c.Add(&component.ImportDef{Name: component.ExternName{Name: name}, Desc: desc})
}

// Export adds an export, and returns the index that it has as a definition.
func (c *Component) Export(name string, s component.Sort, index uint32) uint32 {
	return c.Add(&component.ExportDef{Name: component.ExternName{Name: name}, Sort: s, Index: index})
}

// Lift adds a lifted function.
func (c *Component) Lift(coreFunc, funcType uint32, o component.CanonOptions) uint32 {
	return c.Add(&component.CanonDef{Op: component.CanonLift, Func: coreFunc, Type: funcType, Options: o})
}

// Lower adds a lowered function.
func (c *Component) Lower(f uint32, o component.CanonOptions) uint32 {
	return c.Add(&component.CanonDef{Op: component.CanonLower, Func: f, Options: o})
}

// Encode returns c in the binary format. It panics where c is not of the form that package binary decodes.
func Encode(c *component.Component) []byte {
	out := []byte("\x00asm\x0d\x00\x01\x00")
	for i := 0; i < len(c.Definitions); {
		id, single := section(c.Definitions[i])
		n := 1
		for !single && i+n < len(c.Definitions) {
			if next, _ := section(c.Definitions[i+n]); next != id {
				break
			}
			n++
		}
		var body []byte
		if !single {
			body = uleb(nil, n)
		}
		for _, d := range c.Definitions[i : i+n] {
			body = definition(body, d)
		}
		out = blob(append(out, id), body)
		i += n
	}
	return out
}

// section returns the id of the section that holds d, and whether d is alone in it.
func section(d component.Definition) (id byte, single bool) {
	switch d.(type) {
	case *component.CoreModuleDef:
		return 1, true
	case *component.CoreInstantiateDef, *component.CoreExportsDef:
		return 2, false
	case *component.CoreTypeDef:
		return 3, false
	case *component.ComponentDef:
		return 4, true
	case *component.InstantiateDef, *component.ExportsDef:
		return 5, false
	case *component.AliasExportDef, *component.AliasOuterDef:
		return 6, false
	case *component.TypeDef:
		return 7, false
	case *component.CanonDef:
		return 8, false
	case *component.StartDef:
		return 9, true
	case *component.ImportDef:
		return 10, false
	case *component.ExportDef:
		return 11, false
	}
	panic(fmt.Sprintf("BUG: definition %T", d))
}

func definition(b []byte, d component.Definition) []byte {
	switch d := d.(type) {
	case *component.CoreModuleDef:
		return append(b, d.Bytes...)
	case *component.CoreInstantiateDef:
		return vec(uleb(append(b, 0x00), d.Module), d.Args, func(b []byte, a component.CoreInstantiateArg) []byte {
			return uleb(append(blob(b, a.Name), 0x12), a.Instance)
		})
	case *component.CoreExportsDef:
		return vec(append(b, 0x01), d.Exports, func(b []byte, e component.InlineExport) []byte {
			return uleb(append(blob(b, e.Name), coreSort(e.Sort)), e.Index)
		})
	case *component.CoreTypeDef:
		return coreType(b, d)
	case *component.ComponentDef:
		return append(b, Encode(d.Component)...)
	case *component.InstantiateDef:
		return vec(uleb(append(b, 0x00), d.Component), d.Args, func(b []byte, a component.InlineExport) []byte {
			return uleb(sort(blob(b, a.Name), a.Sort), a.Index)
		})
	case *component.ExportsDef:
		return vec(append(b, 0x01), d.Exports, func(b []byte, e component.InlineExport) []byte {
			b = externName(b, component.ExternName{Name: e.Name, Implements: e.Implements})
			return uleb(sort(b, e.Sort), e.Index)
		})
	case *component.AliasExportDef:
		return blob(uleb(append(sort(b, d.Sort), flag(d.Core)), d.Instance), d.Name)
	case *component.AliasOuterDef:
		return uleb(uleb(append(sort(b, d.Sort), 0x02), d.Count), d.Index)
	case *component.TypeDef:
		return defType(b, d.Type)
	case *component.CanonDef:
		return canon(b, d)
	case *component.StartDef:
		return uleb(vec(uleb(b, d.Func), d.Args, uleb[uint32]), d.Results)
	case *component.ImportDef:
		return externDesc(externName(b, d.Name), d.Desc)
	case *component.ExportDef:
		b = uleb(sort(externName(b, d.Name), d.Sort), d.Index)
		if d.Desc == nil {
			return append(b, 0x00)
		}
		return externDesc(append(b, 0x01), *d.Desc)
	}
	panic(fmt.Sprintf("BUG: definition %T", d))
}

func externName(b []byte, n component.ExternName) []byte {
	if n.Implements == "" && n.VersionSuffix == "" {
		return blob(append(b, 0x00), n.Name)
	}
	b = blob(append(b, 0x02), n.Name)
	var attributes [][]byte
	if n.Implements != "" {
		attributes = append(attributes, blob([]byte{0x00}, n.Implements))
	}
	if n.VersionSuffix != "" {
		attributes = append(attributes, blob([]byte{0x01}, n.VersionSuffix))
	}
	return vec(b, attributes, func(b, a []byte) []byte { return append(b, a...) })
}

func externDesc(b []byte, d component.ExternDesc) []byte {
	b = sort(b, d.Sort)
	switch {
	case d.Sort == component.SortType && d.SubResource:
		return append(b, 0x01)
	case d.Sort == component.SortType, d.Sort == component.SortValue && d.ValueEq:
		return uleb(append(b, 0x00), d.Index)
	case d.Sort == component.SortValue:
		return valType(append(b, 0x01), d.Value)
	}
	return uleb(b, d.Index)
}

// coreSorts are the bytes of the core sorts.
var coreSorts = [...]byte{0x00, 0x01, 0x02, 0x03, 0x04, 0x10, 0x11, 0x12}

func coreSort(s component.Sort) byte { return coreSorts[s] }

func sort(b []byte, s component.Sort) []byte {
	if s.IsCore() {
		return append(b, 0x00, coreSort(s))
	}
	return append(b, byte(s-component.SortFunc)+1)
}

func canon(b []byte, d *component.CanonDef) []byte {
	b = append(b, byte(d.Op))
	switch d.Op {
	case component.CanonLift:
		return uleb(options(uleb(append(b, 0x00), d.Func), d.Options), d.Type)
	case component.CanonLower:
		return options(uleb(append(b, 0x00), d.Func), d.Options)
	case component.CanonResourceNew, component.CanonResourceDrop, component.CanonResourceRep,
		component.CanonStreamNew, component.CanonStreamDropReadable, component.CanonStreamDropWritable,
		component.CanonFutureNew, component.CanonFutureDropReadable, component.CanonFutureDropWritable:
		return uleb(b, d.Type)
	case component.CanonStreamRead, component.CanonStreamWrite, component.CanonFutureRead, component.CanonFutureWrite:
		return options(uleb(b, d.Type), d.Options)
	case component.CanonStreamCancelRead, component.CanonStreamCancelWrite,
		component.CanonFutureCancelRead, component.CanonFutureCancelWrite:
		return append(uleb(b, d.Type), flag(d.Async))
	case component.CanonSubtaskCancel:
		return append(b, flag(d.Async))
	case component.CanonTaskReturn:
		return options(result(b, d.Result, d.HasResult), d.Options)
	case component.CanonContextGet, component.CanonContextSet:
		return uleb(append(b, byte(component.CoreI32)), d.Index)
	case component.CanonErrorContextNew, component.CanonErrorContextMessage:
		return options(b, d.Options)
	case component.CanonThreadYield:
		return append(b, 0x00)
	case component.CanonWaitableSetWait, component.CanonWaitableSetPoll:
		return uleb(append(b, 0x00), d.Memory)
	}
	return b
}

func options(b []byte, o component.CanonOptions) []byte {
	var list [][]byte
	if o.Encoding != component.UTF8 {
		list = append(list, []byte{byte(o.Encoding)})
	}
	index := func(code byte, i uint32, has bool) {
		if has {
			list = append(list, uleb([]byte{code}, i))
		}
	}
	index(0x03, o.Memory, o.HasMemory)
	index(0x04, o.Realloc, o.HasRealloc)
	index(0x05, o.PostReturn, o.HasPostReturn)
	if o.Async {
		list = append(list, []byte{0x06})
	}
	index(0x07, o.Callback, o.HasCallback)
	return vec(b, list, func(b, o []byte) []byte { return append(b, o...) })
}

func uleb[T int | uint32](b []byte, n T) []byte { return binary.AppendUvarint(b, uint64(n)) }

func flag(v bool) byte {
	if v {
		return 0x01
	}
	return 0x00
}

// blob appends the length of v and v.
func blob[T string | []byte](b []byte, v T) []byte { return append(uleb(b, len(v)), v...) }

// vec appends the length of list and its elements.
func vec[T any](b []byte, list []T, elem func([]byte, T) []byte) []byte {
	b = uleb(b, len(list))
	for _, e := range list {
		b = elem(b, e)
	}
	return b
}
