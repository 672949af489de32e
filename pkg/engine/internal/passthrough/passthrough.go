// Package passthrough calls host functions in tests the way that guests call them: through a component that
// imports interfaces and exports each of their functions, with a core function that hands its arguments and
// result on. Values so pass the linker, handle tables and the canonical ABI in both directions.
package passthrough

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binaryencoding"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

const (
	memoryPages = 512      // 32 MiB
	resultArea  = 1 << 10  // where lowered functions put results
	heap        = 64 << 10 // where the guest's realloc begins; it never frees
)

// Guest is an instance of a component that passes calls through.
type Guest struct {
	*engine.Instance
	pre   *engine.InstancePre
	funcs map[string]export
}

// export is an exported function: its name in the component, and its type.
type export struct {
	name string
	typ  engine.FuncType
}

// New returns a guest that imports the interfaces; define defines them in its linker. The guest ends with
// the test, or by Close.
func New(t testing.TB, define func(*engine.Linker), imports ...*engine.InterfaceType) *Guest {
	t.Helper()
	wasm, funcs := build(imports)
	e, err := engine.New(t.Context(), engine.Config{})
	require.NoError(t, err)
	c, err := e.Compile(t.Context(), wasm)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(context.WithoutCancel(t.Context()))) })
	l := e.NewLinker()
	define(l)
	pre, err := l.Link(c)
	require.NoError(t, err)
	i, err := pre.Instantiate(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, i.Close()) })
	return &Guest{i, pre, funcs}
}

// Call calls the function, by its WIT name, of the interface, by its name without version. params puts the
// parameters and result reads the result; either may be nil if there is none.
func (g *Guest) Call(iface, name string, params, result func(*engine.Call)) error {
	x, ok := g.funcs[iface+"#"+name]
	if !ok {
		panic("BUG: the guest has no " + iface + "#" + name)
	}
	f, err := g.pre.Func("", x.name, x.typ)
	if err != nil {
		return err
	}
	return f.Call(g.Instance, params, result)
}

// builder builds the component.
type builder struct {
	component binaryencoding.Component
	core      binaryencoding.Module
	layouts   abi.Layouts
	resources map[*engine.Resource]uint32 // type indices in the component
	drops     map[*engine.Resource]uint32 // core functions that drop a handle, in the core module
	args      []component.InlineExport    // what the core module imports
	options   component.CanonOptions
	exports   []pending
	funcs     map[string]export
}

// pending is a function to be exported when the core module is complete.
type pending struct {
	name string
	typ  *component.Func
}

func build(imports []*engine.InterfaceType) ([]byte, map[string]export) {
	b := &builder{resources: map[*engine.Resource]uint32{}, drops: map[*engine.Resource]uint32{}, funcs: map[string]export{}}
	var memory binaryencoding.Module
	memory.Memory("memory", memoryPages)
	memory.Realloc(heap)
	m := b.component.CoreInstantiate(b.component.CoreModule(memory.Bytes()))
	b.options = component.CanonOptions{
		Memory: b.component.CoreExport(component.SortCoreMemory, m, "memory"), HasMemory: true,
		Realloc: b.component.CoreExport(component.SortCoreFunc, m, "cabi_realloc"), HasRealloc: true,
	}
	instances := make([]uint32, len(imports))
	for i, t := range imports {
		instances[i] = b.importInterface(t)
	}
	// Imports of a core module come before its functions.
	type lowered struct {
		iface string
		named engine.NamedFunc
		core  uint32
	}
	var all []lowered
	for i, t := range imports {
		iface, _, _ := strings.Cut(t.Name, "@")
		for _, f := range t.Funcs {
			all = append(all, lowered{iface, f, b.lower(instances[i], f, len(all))})
		}
	}
	for r, typ := range b.resources {
		name := fmt.Sprintf("drop-%d", typ)
		drop := b.component.Add(&component.CanonDef{Op: component.CanonResourceDrop, Type: typ})
		b.args = append(b.args, component.InlineExport{Name: name, Sort: component.SortCoreFunc, Index: drop})
		b.drops[r] = b.core.ImportFunc("host", name, binaryencoding.Types{binaryencoding.I32}, nil)
	}
	b.core.ImportMemory("memory", "memory")
	for n, f := range all {
		name := fmt.Sprintf("f%d", n)
		b.passThrough(name, f.named, f.core)
		b.funcs[f.iface+"#"+f.named.Name] = export{name, f.named.Type}
	}
	host := b.component.CoreExports(b.args...)
	core := b.component.CoreInstantiate(b.component.CoreModule(b.core.Bytes()),
		component.CoreInstantiateArg{Name: "host", Instance: host}, component.CoreInstantiateArg{Name: "memory", Instance: m})
	for _, x := range b.exports {
		f := b.component.CoreExport(component.SortCoreFunc, core, x.name)
		typ := b.component.Type(funcExpr(x.typ, b.component.Type, b.resources))
		b.component.Export(x.name, component.SortFunc, b.component.Lift(f, typ, b.options))
	}
	return b.component.Bytes(), b.funcs
}

// importInterface imports all of t and returns the instance.
func (b *builder) importInterface(t *engine.InterfaceType) uint32 {
	var decls []component.Definition
	var types uint32
	declare := func(d component.Definition) uint32 { decls = append(decls, d); types++; return types - 1 }
	resources := map[*engine.Resource]uint32{}
	fresh := map[*engine.Resource]string{}
	for _, named := range t.Types {
		r := named.Resource
		if r == nil {
			continue
		}
		desc := &component.ExternDesc{Sort: component.SortType, SubResource: true}
		if here, ok := resources[r]; ok { // another name of it
			desc = &component.ExternDesc{Sort: component.SortType, Index: here}
		} else if outer, ok := b.resources[r]; ok {
			alias := declare(&component.AliasOuterDef{Sort: component.SortType, Count: 1, Index: outer})
			desc = &component.ExternDesc{Sort: component.SortType, Index: alias}
		} else {
			fresh[r] = named.Name
		}
		resources[r] = declare(&component.ExportDef{Name: component.ExternName{Name: named.Name}, Sort: component.SortType, Desc: desc})
	}
	declareType := func(e component.TypeExpr) uint32 { return declare(&component.TypeDef{Type: e}) }
	for _, f := range t.Funcs {
		typ := declareType(funcExpr(componentFunc(f.Type), declareType, resources))
		decls = append(decls, &component.ExportDef{
			Name: component.ExternName{Name: f.Name}, Sort: component.SortFunc, Desc: &component.ExternDesc{Sort: component.SortFunc, Index: typ},
		})
	}
	typ := b.component.Type(&component.InstanceExpr{Decls: decls})
	instance := b.component.Import(t.Name, component.ExternDesc{Sort: component.SortInstance, Index: typ})
	for r, name := range fresh {
		b.resources[r] = b.component.InstanceExport(component.SortType, instance, name)
	}
	return instance
}

// lower lowers function n and imports it into the core module, whose index for it is returned.
func (b *builder) lower(instance uint32, f engine.NamedFunc, n int) uint32 {
	name := fmt.Sprintf("f%d", n)
	low := b.component.Lower(b.component.InstanceExport(component.SortFunc, instance, f.Name), b.options)
	b.args = append(b.args, component.InlineExport{Name: name, Sort: component.SortCoreFunc, Index: low})
	t := b.signature(f).CoreLowered()
	return b.core.ImportFunc("host", name, coreTypes(t.Params), coreTypes(t.Results))
}

func (b *builder) signature(f engine.NamedFunc) *abi.Signature {
	s, err := b.layouts.Signature(componentFunc(f.Type))
	if err != nil {
		panic("BUG: " + f.Name + ": " + err.Error())
	}
	return s
}

// passThrough adds the core function that calls the imported one, drops the handles that it borrowed, and
// returns the result.
func (b *builder) passThrough(name string, f engine.NamedFunc, imported uint32) {
	s := b.signature(f)
	t := s.CoreLifted()
	var code [][]byte
	for i := range t.Params {
		code = append(code, binaryencoding.LocalGet(uint32(i)))
	}
	if s.SpillsResult() {
		code = append(code, binaryencoding.I32Const(resultArea))
	}
	code = append(code, binaryencoding.Call(imported))
	if s.SpillsResult() {
		code = append(code, binaryencoding.I32Const(resultArea))
	}
	var flat uint32
	for _, p := range f.Type.Params {
		switch {
		case p.Type.Kind == component.KindBorrow:
			code = append(code, binaryencoding.LocalGet(flat), binaryencoding.Call(b.drops[p.Type.Resource]))
		case p.Type.Kind == component.KindList && p.Type.Elem.Kind == component.KindBorrow:
			code = append(code, dropAll(flat, b.drops[p.Type.Elem.Resource])...)
		}
		flat += uint32(len(b.layouts.Of(p.Type).Flat()))
	}
	b.core.Func(name, coreTypes(t.Params), coreTypes(t.Results), nil, code...)
	b.exports = append(b.exports, pending{name, componentFunc(f.Type)})
}

// dropAll calls drop with each handle of the list whose address is in local list, and its length in the next.
func dropAll(list, drop uint32) [][]byte {
	return [][]byte{
		{0x02, 0x40, 0x03, 0x40},                              // block, loop
		binaryencoding.LocalGet(list + 1), {0x45, 0x0d, 0x01}, // i32.eqz, br_if 1
		binaryencoding.LocalGet(list), binaryencoding.I32Load(0), binaryencoding.Call(drop),
		binaryencoding.LocalGet(list), binaryencoding.I32Const(4), binaryencoding.I32Add(), binaryencoding.LocalSet(list),
		binaryencoding.LocalGet(list + 1), binaryencoding.I32Const(-1), binaryencoding.I32Add(), binaryencoding.LocalSet(list + 1),
		{0x0c, 0x00, 0x0b, 0x0b}, // br 0, end, end
	}
}

func coreTypes(in []component.CoreValType) binaryencoding.Types {
	out := make(binaryencoding.Types, len(in))
	for i, t := range in {
		out[i] = byte(t)
	}
	return out
}

func componentFunc(t engine.FuncType) *component.Func {
	f := &component.Func{Async: t.Async, Result: t.Result}
	for _, p := range t.Params {
		f.Params = append(f.Params, component.Field(p))
	}
	return f
}

// funcExpr returns f as a type of the component or interface whose types declare appends to.
func funcExpr(f *component.Func, declare func(component.TypeExpr) uint32, resources map[*engine.Resource]uint32) *component.FuncExpr {
	out := &component.FuncExpr{Async: f.Async}
	for _, p := range f.Params {
		out.Params = append(out.Params, component.FieldExpr{Name: p.Name, Type: valType(p.Type, declare, resources)})
	}
	if f.Result != nil {
		out.Result, out.HasResult = valType(f.Result, declare, resources), true
	}
	return out
}

func valType(t *engine.Type, declare func(component.TypeExpr) uint32, resources map[*engine.Resource]uint32) component.ValType {
	if t.Kind.IsPrimitive() {
		return component.ValType{Kind: t.Kind}
	}
	e := &component.ValTypeExpr{Kind: t.Kind, Labels: t.Labels, Length: t.Length}
	for _, f := range t.Fields {
		e.Fields = append(e.Fields, component.FieldExpr{Name: f.Name, Type: valType(f.Type, declare, resources)})
	}
	for _, c := range t.Cases {
		x := component.CaseExpr{Name: c.Name, HasType: c.Type != nil}
		if c.Type != nil {
			x.Type = valType(c.Type, declare, resources)
		}
		e.Cases = append(e.Cases, x)
	}
	switch t.Kind {
	case component.KindOption:
		e.Elem, e.HasElem, e.Cases = e.Cases[1].Type, true, nil
	case component.KindOwn, component.KindBorrow:
		r, ok := resources[t.Resource]
		if !ok {
			panic("BUG: the interface has no resource " + t.Resource.Name)
		}
		e.Resource = r
	default:
		if t.Elem != nil {
			e.Elem, e.HasElem = valType(t.Elem, declare, resources), true
		}
	}
	return component.ValType{Index: declare(e)}
}
