package link

import (
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/core"
)

// Error is a component that cannot be linked: where, and why.
type Error struct {
	Offset int // of the definition in the file
	Err    error
}

// Error returns the place and the reason.
func (e *Error) Error() string { return fmt.Sprintf("at 0x%x: %v", e.Offset, e.Err) }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// entity is what an index of a component's index spaces stands for: *function, *typ, *Instance, *closure or
// *module.
type entity interface{ sort() component.Sort }

func (*function) sort() component.Sort { return component.SortFunc }
func (*typ) sort() component.Sort      { return component.SortType }
func (*Instance) sort() component.Sort { return component.SortInstance }
func (*closure) sort() component.Sort  { return component.SortComponent }
func (*module) sort() component.Sort   { return component.SortCoreModule }

// function is a component function: a lifted one, or one of the host.
type function struct {
	name string // for stack traces; "" is none
	typ  *component.Func
	lift *Lift
	host int // if lift is nil
}

// typ is a type: exactly one field is set.
type typ struct {
	value    *component.Type
	fn       *component.Func
	resource *component.Resource
	instance *typeClosure
	comp     *typeClosure
}

// typeClosure is an instance or component type with the scope that its outer aliases refer to.
type typeClosure struct {
	decls []component.Definition
	scope *scope
}

// closure is a component with the scope that its outer aliases refer to.
type closure struct {
	component *component.Component
	scope     *scope
}

// module is a core module.
type module struct {
	def     *component.CoreModuleDef
	imports []core.Import
	exports []core.Export
}

// coreItem is a core definition: the export name of core instance number instance, or built-in number builtin.
type coreItem struct {
	sort     component.Sort
	builtin  int // -1 if it is an export
	instance int
	name     string
	fn       component.CoreFuncType // of a function
}

// coreInstance is a core instance as others see it.
type coreInstance struct{ exports map[string]coreItem }

// scope is the index spaces of one component instance, or of one instance or component type.
type scope struct {
	outer    *scope
	instance int // number of the component instance; -1 in a type

	imports map[string]bool // the names of imports so far

	coreItems     [component.SortCoreType][]coreItem // funcs, tables, memories, globals, tags
	coreTypes     []*component.CoreTypeDef
	coreInstances []*coreInstance
	entities      [component.SortCount][]entity
}

func newInstance() *Instance { return &Instance{exports: map[string]entity{}} }

func (in *Instance) add(name string, e entity) bool {
	if _, ok := in.exports[name]; ok {
		return false
	}
	in.names = append(in.names, name)
	in.exports[name] = e
	return true
}

func (s *scope) push(e entity) { s.entities[e.sort()] = append(s.entities[e.sort()], e) }

// entity returns what index i of the space of sort stands for. sort is not a core sort, but may be that of core
// modules.
func (s *scope) entity(sort component.Sort, i uint32) (entity, error) {
	space := s.entities[sort]
	if uint64(i) >= uint64(len(space)) {
		return nil, fmt.Errorf("unknown %s %d", sort, i)
	}
	return space[i], nil
}

// at returns element i of a space whose elements are called what.
func at[T any](space []T, i uint32, what component.Sort) (T, error) {
	if uint64(i) >= uint64(len(space)) {
		var none T
		return none, fmt.Errorf("unknown %s %d", what, i)
	}
	return space[i], nil
}

// get returns index i of the space of sort as a T.
func get[T entity](s *scope, sort component.Sort, i uint32) (T, error) {
	e, err := s.entity(sort, i)
	if err != nil {
		var none T
		return none, err
	}
	return e.(T), nil // the space of a sort holds that sort's entities only
}

// up returns the scope n components outwards.
func (s *scope) up(n uint32) (*scope, error) {
	at := s
	for range n {
		if at = at.outer; at == nil {
			return nil, fmt.Errorf("outer alias beyond the component (%d)", n)
		}
	}
	return at, nil
}
