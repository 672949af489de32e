package link

import (
	"errors"
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// maxTypeDepth bounds how deep instance and component types nest.
const maxTypeDepth = 100

func (e *evaluator) internFunc(f *component.Func) *component.Func {
	out := &component.Func{Async: f.Async, Params: make([]component.Field, len(f.Params)), Result: e.types.Intern(f.Result)}
	for i, p := range f.Params {
		out.Params[i] = component.Field{Name: p.Name, Type: e.types.Intern(p.Type)}
	}
	return out
}

// typeOf resolves the body of a type definition in s.
func (e *evaluator) typeOf(s *scope, x component.TypeExpr) (*typ, error) {
	switch x := x.(type) {
	case *component.ValTypeExpr:
		t, err := e.valueType(s, x)
		return &typ{value: t}, err
	case *component.FuncExpr:
		f, err := e.funcType(s, x)
		return &typ{fn: f}, err
	case *component.ResourceExpr:
		return e.resourceType(s, x)
	case *component.InstanceExpr:
		return &typ{instance: &typeClosure{x.Decls, s}}, nil
	case *component.ComponentExpr:
		return &typ{comp: &typeClosure{x.Decls, s}}, nil
	}
	return nil, fmt.Errorf("unknown type %T", x)
}

func (e *evaluator) resourceType(s *scope, x *component.ResourceExpr) (*typ, error) {
	switch {
	case s.instance < 0:
		return nil, errors.New("a resource type cannot be defined in a type")
	case x.Rep != component.CoreI32:
		return nil, fmt.Errorf("the representation of a resource must be i32, not %s", x.Rep)
	}
	r := &component.Resource{Name: fmt.Sprintf("resource %d", e.resources), Dtor: -1, Instance: s.instance}
	e.resources++
	if x.HasDtor {
		item, err := at(s.coreItems[component.SortCoreFunc], x.Dtor, component.SortCoreFunc)
		if err != nil {
			return nil, err
		}
		if err := wantCore(item.fn, component.CoreFuncType{Params: []component.CoreValType{component.CoreI32}}); err != nil {
			return nil, fmt.Errorf("destructor: %w", err)
		}
		if r.Dtor, err = e.funcSlot(item, "destructor"); err != nil {
			return nil, err
		}
	}
	return &typ{resource: r}, nil
}

// valueTypeRef resolves a reference to a value type.
func (e *evaluator) valueTypeRef(s *scope, v component.ValType) (*component.Type, error) {
	if v.Kind != component.KindIndex {
		if t := component.Primitive(v.Kind); t != nil {
			return t, nil
		}
		return nil, fmt.Errorf("%s is not a primitive type", v.Kind)
	}
	t, err := get[*typ](s, component.SortType, v.Index)
	if err != nil {
		return nil, err
	}
	if t.value == nil {
		return nil, fmt.Errorf("type %d is not a value type", v.Index)
	}
	return t.value, nil
}

func (e *evaluator) valueType(s *scope, x *component.ValTypeExpr) (*component.Type, error) {
	t := &component.Type{Kind: x.Kind, Length: x.Length, Labels: x.Labels}
	var err error
	switch x.Kind {
	case component.KindRecord, component.KindTuple:
		if len(x.Fields) == 0 {
			return nil, fmt.Errorf("%s without fields", x.Kind)
		}
		t.Fields, err = e.fields(s, x.Fields)
	case component.KindVariant, component.KindEnum, component.KindOption, component.KindResult:
		t.Cases, err = e.cases(s, x)
	case component.KindFlags:
		if len(x.Labels) == 0 || len(x.Labels) > maxFlags {
			return nil, fmt.Errorf("flags with %d labels, 1 to %d are possible", len(x.Labels), maxFlags)
		}
	case component.KindList, component.KindFixedList:
		if x.Kind == component.KindFixedList && x.Length == 0 {
			return nil, errors.New("fixed-length list of no elements")
		}
		t.Elem, err = e.valueTypeRef(s, x.Elem)
	case component.KindOwn, component.KindBorrow:
		var r *typ
		if r, err = get[*typ](s, component.SortType, x.Resource); err == nil {
			if t.Resource = r.resource; t.Resource == nil {
				err = fmt.Errorf("type %d is not a resource type", x.Resource)
			}
		}
	case component.KindStream, component.KindFuture:
		err = fmt.Errorf("%s is not supported: it belongs to WASI 0.3, this host runs components of 0.2", x.Kind)
	case component.KindMap, component.KindErrorContext:
		err = fmt.Errorf("%s is not supported", x.Kind)
	default:
		if p := component.Primitive(x.Kind); p != nil {
			return p, nil
		}
		err = fmt.Errorf("unknown type %s", x.Kind)
	}
	if err != nil {
		return nil, err
	}
	if t = e.types.Intern(t); t.Size() > component.MaxTypeSize {
		return nil, fmt.Errorf("type of more than %d parts", component.MaxTypeSize)
	}
	return t, nil
}

// maxFlags is the specification's bound of the labels of flags.
const maxFlags = 32

func (e *evaluator) fields(s *scope, in []component.FieldExpr) ([]component.Field, error) {
	out := make([]component.Field, len(in))
	for i, f := range in {
		t, err := e.valueTypeRef(s, f.Type)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		out[i] = component.Field{Name: f.Name, Type: t}
	}
	return out, nil
}

func (e *evaluator) cases(s *scope, x *component.ValTypeExpr) ([]component.Case, error) {
	in := x.Cases
	if x.Kind == component.KindOption {
		in = []component.CaseExpr{{Name: "none"}, {Name: "some", Type: x.Elem, HasType: true}}
	}
	if len(in) == 0 {
		return nil, fmt.Errorf("%s without cases", x.Kind)
	}
	out := make([]component.Case, len(in))
	for i, c := range in {
		out[i].Name = c.Name
		if !c.HasType {
			continue
		}
		t, err := e.valueTypeRef(s, c.Type)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", c.Name, err)
		}
		out[i].Type = t
	}
	return out, nil
}

func (e *evaluator) funcType(s *scope, x *component.FuncExpr) (*component.Func, error) {
	params, err := e.fields(s, x.Params)
	if err != nil {
		return nil, fmt.Errorf("parameter %w", err)
	}
	f := &component.Func{Async: x.Async, Params: params}
	if x.HasResult {
		if f.Result, err = e.valueTypeRef(s, x.Result); err != nil {
			return nil, fmt.Errorf("result: %w", err)
		}
		if hasBorrow(f.Result, map[*component.Type]bool{}) {
			return nil, errors.New("result: a borrow cannot be returned")
		}
	}
	return f, nil
}

func hasBorrow(t *component.Type, seen map[*component.Type]bool) bool {
	if t == nil || seen[t] {
		return false
	}
	seen[t] = true
	for _, f := range t.Fields {
		if hasBorrow(f.Type, seen) {
			return true
		}
	}
	for _, c := range t.Cases {
		if hasBorrow(c.Type, seen) {
			return true
		}
	}
	return t.Kind == component.KindBorrow || hasBorrow(t.Elem, seen)
}
