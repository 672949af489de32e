package link

import (
	"errors"
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// This file implements subtyping as far as linking needs it: whether a definition is what an import, an ascribed
// export or an export of an instance type asks for. Types of values and functions must be equal, which is the
// same as having one pointer, or pointers to equal parts; what an instance has beyond its type is ignored.

// describe checks that what, the definition actual, is as d says, whose indices refer to s. With actual nil it
// makes a definition that is so, out of nothing ([Compile]).
func (e *evaluator) describe(s *scope, d component.ExternDesc, actual entity, name string, depth int) (entity, error) {
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("types nest deeper than %d", maxTypeDepth)
	}
	if actual != nil && actual.sort() != d.Sort {
		return nil, fmt.Errorf("is a %s, want a %s", actual.sort(), d.Sort)
	}
	switch d.Sort {
	case component.SortFunc:
		t, err := get[*typ](s, component.SortType, d.Index)
		if err != nil {
			return nil, err
		}
		if t.fn == nil {
			return nil, fmt.Errorf("type %d is not a function type", d.Index)
		}
		if actual == nil {
			return &function{typ: t.fn, host: -1}, nil
		}
		f := actual.(*function)
		if !equalFuncs(f.typ, t.fn) {
			return nil, fmt.Errorf("is a %.300s, want a %.300s", f.typ, t.fn)
		}
		return f, nil
	case component.SortType:
		return e.describeType(s, d, actual, name)
	case component.SortInstance:
		t, err := get[*typ](s, component.SortType, d.Index)
		if err != nil {
			return nil, err
		}
		if t.instance == nil {
			return nil, fmt.Errorf("type %d is not an instance type", d.Index)
		}
		in, _ := actual.(*Instance)
		return e.describeInstance(t.instance, in, depth+1)
	case component.SortComponent, component.SortCoreModule:
		if actual == nil {
			return nil, fmt.Errorf("imports of a %s are not supported", d.Sort)
		}
		return actual, nil
	}
	return nil, fmt.Errorf("imports and exports of a %s are not supported", d.Sort)
}

func (e *evaluator) describeType(s *scope, d component.ExternDesc, actual entity, name string) (entity, error) {
	if d.SubResource {
		if actual == nil {
			return &typ{resource: &component.Resource{Name: name, Dtor: -1, Instance: -1}}, nil
		}
		if actual.(*typ).resource == nil {
			return nil, errors.New("is not a resource type")
		}
		return actual, nil
	}
	want, err := get[*typ](s, component.SortType, d.Index)
	if err != nil {
		return nil, err
	}
	if actual == nil {
		return want, nil
	}
	t := actual.(*typ)
	switch {
	case t.value != want.value:
		return nil, fmt.Errorf("is a %.300s, want a %.300s", t.value, want.value)
	case t.resource != want.resource:
		return nil, errors.New("is another resource type than the one wanted")
	case (t.fn == nil) != (want.fn == nil) || t.fn != nil && !equalFuncs(t.fn, want.fn):
		return nil, fmt.Errorf("is a %.300s, want a %.300s", t.fn, want.fn)
	case (t.instance == nil) != (want.instance == nil), (t.comp == nil) != (want.comp == nil):
		return nil, errors.New("is another sort of type than the one wanted")
	}
	return actual, nil
}

// describeInstance checks that actual has what the instance type t declares, or makes such an instance.
func (e *evaluator) describeInstance(t *typeClosure, actual *Instance, depth int) (*Instance, error) {
	s := &scope{outer: t.scope, instance: -1}
	made := newInstance()
	for _, decl := range t.decls {
		if err := e.step(); err != nil {
			return nil, err
		}
		switch d := decl.(type) {
		case *component.CoreTypeDef:
			s.coreTypes = append(s.coreTypes, d)
		case *component.TypeDef:
			t, err := e.typeOf(s, d.Type)
			if err != nil {
				return nil, err
			}
			s.push(t)
		case *component.AliasOuterDef:
			if err := e.aliasOuter(s, d); err != nil {
				return nil, err
			}
		case *component.AliasExportDef:
			if err := e.aliasExport(s, d); err != nil {
				return nil, err
			}
		case *component.ExportDef:
			if d.Desc == nil {
				return nil, fmt.Errorf("export %q of an instance type has no type", d.Name.Name)
			}
			var have entity
			if actual != nil {
				if have = actual.exports[d.Name.Name]; have == nil {
					return nil, fmt.Errorf("has no %s %q", d.Desc.Sort, d.Name.Name)
				}
			}
			got, err := e.describe(s, *d.Desc, have, d.Name.Name, depth)
			if err != nil {
				return nil, fmt.Errorf("%s %q: %w", d.Desc.Sort, d.Name.Name, err)
			}
			s.push(got)
			if !made.add(d.Name.Name, got) {
				return nil, fmt.Errorf("export %q twice in an instance type", d.Name.Name)
			}
		default:
			return nil, fmt.Errorf("an instance type cannot hold %T", d)
		}
	}
	if actual != nil {
		return actual, nil
	}
	return made, nil
}

func equalFuncs(a, b *component.Func) bool {
	if a.Async != b.Async || a.Result != b.Result || len(a.Params) != len(b.Params) {
		return false
	}
	for i := range a.Params {
		if a.Params[i] != b.Params[i] {
			return false
		}
	}
	return true
}

func wantCore(got, want component.CoreFuncType) error {
	if !equalCore(got.Params, want.Params) || !equalCore(got.Results, want.Results) {
		return fmt.Errorf("core type is %v -> %v, want %v -> %v", got.Params, got.Results, want.Params, want.Results)
	}
	return nil
}

func equalCore(a, b []component.CoreValType) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
