package engine

import (
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
)

// Type is a WIT value type. Types are immutable.
type Type = component.Type

// Resource is the identity of a resource type. A host package declares each of its resource types once
// per process, with [NewResource]; interfaces of several versions share it.
type Resource = component.Resource

// NewResource returns a new resource type of the host. name is its WIT name; drop, which may be nil, is
// called with the representation when an owned handle is dropped, or left over when its instance closes.
// drop must not run guest code.
func NewResource(name string, drop func(rep any)) *Resource {
	return &Resource{Name: name, Host: drop, Dtor: -1, Instance: -1}
}

// The primitive types.
var (
	Bool, S8, U8, S16, U16     = component.Bool, component.S8, component.U8, component.S16, component.U16
	S32, U32, S64, U64         = component.S32, component.U32, component.S64, component.U64
	F32, F64, Char, StringType = component.F32, component.F64, component.Char, component.String
)

// Param is a parameter of a function, a field of a record or, with a nil Type for no payload, a case of a
// variant.
type Param struct {
	Name string
	Type *Type
}

// List returns list<elem>.
func List(elem *Type) *Type { return &Type{Kind: component.KindList, Elem: elem} }

// Option returns option<t>.
func Option(t *Type) *Type {
	return &Type{Kind: component.KindOption, Cases: []component.Case{{Name: "none"}, {Name: "some", Type: t}}}
}

// Result returns result<ok, err>; either may be nil.
func Result(ok, err *Type) *Type {
	return &Type{Kind: component.KindResult, Cases: []component.Case{{Name: "ok", Type: ok}, {Name: "error", Type: err}}}
}

// Tuple returns tuple<t…>.
func Tuple(t ...*Type) *Type {
	fields := make([]component.Field, len(t))
	for i := range t {
		fields[i].Type = t[i]
	}
	return &Type{Kind: component.KindTuple, Fields: fields}
}

// Record returns a record.
func Record(fields ...Param) *Type {
	out := make([]component.Field, len(fields))
	for i, f := range fields {
		out[i] = component.Field(f)
	}
	return &Type{Kind: component.KindRecord, Fields: out}
}

// Variant returns a variant.
func Variant(cases ...Param) *Type {
	out := make([]component.Case, len(cases))
	for i, c := range cases {
		out[i] = component.Case(c)
	}
	return &Type{Kind: component.KindVariant, Cases: out}
}

// Enum returns an enum.
func Enum(labels ...string) *Type {
	out := make([]component.Case, len(labels))
	for i, l := range labels {
		out[i].Name = l
	}
	return &Type{Kind: component.KindEnum, Cases: out}
}

// Flags returns flags; there are at most 32 labels.
func Flags(labels ...string) *Type { return &Type{Kind: component.KindFlags, Labels: labels} }

// Own returns own<r>.
func Own(r *Resource) *Type { return &Type{Kind: component.KindOwn, Resource: r} }

// Borrow returns borrow<r>.
func Borrow(r *Resource) *Type { return &Type{Kind: component.KindBorrow, Resource: r} }

// FuncType is a WIT function type. Result is nil if there is none.
type FuncType struct {
	Params []Param
	Result *Type
	Async  bool
}

func (f FuncType) component() *component.Func {
	params := make([]component.Field, len(f.Params))
	for i, p := range f.Params {
		params[i] = component.Field(p)
	}
	return &component.Func{Async: f.Async, Params: params, Result: f.Result}
}

// NamedType is a type that an interface exports. For a resource type Resource is set, else Type.
type NamedType struct {
	Name     string
	Type     *Type
	Resource *Resource
}

// NamedFunc is a function that an interface exports: Name is its WIT name
// (`[method]input-stream.read`).
type NamedFunc struct {
	Name string
	Type FuncType
}

// InterfaceType is the type of a WIT interface. Those of this module are generated from the WIT
// (package internal/witgen).
type InterfaceType struct {
	// Name with version: `wasi:io/streams@0.2.12`. See [Linker.Define] for how it matches imports.
	Name  string
	Types []NamedType
	Funcs []NamedFunc
}

// Interface is a host's implementation of a WIT interface.
type Interface struct {
	Type *InterfaceType
	// Funcs holds the implementations by WIT name. A function of Type that has none is not offered: a
	// component that imports it is refused when it is linked.
	Funcs map[string]HostFunc
}

// HostFunc is the host's implementation of a WIT function. It reads its arguments from c and then puts
// its result, both in the order of its WIT type; what it does not read is dropped. It may block: the
// guest waits, c.Context says when to give up. An error ends the instance: it is the host's fault, or an
// [*ExitError].
//
// Values are read and put part by part. A record or tuple is its fields in order. A list is [Call.List]
// (or PutList) with its length and then the elements, except that list<u8> is read whole by Bytes and put
// by PutBytes. A variant or enum is Case and then the payload of that case; an option is Option (PutSome,
// PutNone) and then the value; a result is Result (PutOk, PutErr) and then the payload. Handles of the
// host's own resources are read by [Rep] and put by PutOwn.
type HostFunc func(c *Call) error

// Rep reads an own or borrow of a host's resource and returns its representation, which must be a T. With
// an own the host becomes its owner.
func Rep[T any](c *Call) T { return c.Handle().Host.(T) }

// dropHost runs the destructor of a host's resource.
func dropHost(h handle.Handle) {
	if drop, _ := h.Resource.Host.(func(rep any)); drop != nil && h.Own {
		drop(h.Host)
	}
}
