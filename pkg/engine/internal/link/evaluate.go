package link

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/core"
)

// What one component may make of itself. Nested components can be instantiated many times with few bytes, so that
// the work is bounded, not only the size. A Python guest, the largest known, has 163 core instances and 823
// canonical functions.
const (
	maxCoreInstances = 2_000
	maxInstances     = 1_000
	maxBuiltins      = 20_000
	maxSteps         = 2_000_000 // definitions evaluated
	maxNesting       = 100       // components instantiated inside each other
)

// evaluator interprets one component.
type evaluator struct {
	plan    *Plan
	host    []*Interface // nil when compiling
	names   []string     // of host, in its order
	linking bool

	types     component.Types
	layouts   abi.Layouts
	funcs     map[CoreExport]int
	memories  map[CoreExport]int
	modules   map[string]int // of the plan, by where the module stands and how its imports are renamed
	parsed    map[*component.CoreModuleDef]*module
	resources int // defined so far, for their names
	steps     int
}

// Compile plans c without a host. The plan's modules are what has to be compiled; it cannot be run.
func Compile(c *component.Component) (*Plan, error) {
	return evaluate(c, &evaluator{})
}

// Link plans c with what the host offers. It fails if c imports what the host does not offer, or with another
// type. c must have passed [Compile].
func Link(c *component.Component, host []*Interface) (*Plan, error) {
	e := &evaluator{host: host, linking: true}
	for _, h := range host {
		e.names = append(e.names, h.Name)
	}
	return evaluate(c, e)
}

func evaluate(c *component.Component, e *evaluator) (*Plan, error) {
	e.plan = &Plan{}
	e.funcs, e.memories, e.modules = map[CoreExport]int{}, map[CoreExport]int{}, map[string]int{}
	e.parsed = map[*component.CoreModuleDef]*module{}
	var err error
	e.plan.Exports, err = e.instantiate(&closure{component: c}, e.rootImport, 0)
	return e.plan, err
}

// rootImport returns what the host offers under the name of an import of the root component; nil to make it up.
func (e *evaluator) rootImport(d *component.ImportDef) (entity, error) {
	if !e.linking || d.Desc.Sort == component.SortType && !d.Desc.SubResource {
		return nil, nil
	}
	if d.Desc.Sort != component.SortInstance {
		return nil, fmt.Errorf("the host offers no %s of this name", d.Desc.Sort)
	}
	i := Match(e.names, d.Name.Name)
	if i < 0 {
		return nil, errors.New("the host does not offer this interface")
	}
	return e.host[i].instance(e), nil
}

// step counts a definition that is evaluated.
func (e *evaluator) step() error {
	if e.steps++; e.steps > maxSteps {
		return fmt.Errorf("more than %d definitions to evaluate", maxSteps)
	}
	return nil
}

// instantiate evaluates the definitions of c. arg returns the argument for an import.
func (e *evaluator) instantiate(c *closure, arg func(*component.ImportDef) (entity, error), depth int) (*Instance, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("components nest deeper than %d", maxNesting)
	}
	if e.plan.Instances >= maxInstances {
		return nil, fmt.Errorf("more than %d component instances", maxInstances)
	}
	s := &scope{outer: c.scope, instance: e.plan.Instances, imports: map[string]bool{}}
	e.plan.Instances++
	exports := newInstance()
	for _, d := range c.component.Definitions {
		err := e.step()
		if err == nil {
			err = e.define(s, d, exports, arg, depth)
		}
		if err == nil {
			continue
		}
		if _, placed := errors.AsType[*Error](err); placed {
			return nil, err
		}
		return nil, &Error{d.Pos(), err}
	}
	return exports, nil
}

func (e *evaluator) define(s *scope, d component.Definition, exports *Instance, arg func(*component.ImportDef) (entity, error), depth int) error {
	switch d := d.(type) {
	case *component.CoreModuleDef:
		m, err := e.module(d)
		if err != nil {
			return err
		}
		s.push(m)
	case *component.CoreTypeDef:
		s.coreTypes = append(s.coreTypes, d)
	case *component.CoreInstantiateDef:
		return e.coreInstantiate(s, d)
	case *component.CoreExportsDef:
		return e.coreExports(s, d)
	case *component.ComponentDef:
		s.push(&closure{d.Component, s})
	case *component.InstantiateDef:
		return e.instantiateDef(s, d, depth)
	case *component.ExportsDef:
		in := newInstance()
		for _, x := range d.Exports {
			ent, err := s.entity(x.Sort, x.Index)
			if err != nil {
				return err
			}
			if !in.add(x.Name, ent) {
				return fmt.Errorf("export %q twice", x.Name)
			}
		}
		s.push(in)
	case *component.AliasExportDef:
		if d.Core {
			return e.aliasCoreExport(s, d)
		}
		return e.aliasExport(s, d)
	case *component.AliasOuterDef:
		return e.aliasOuter(s, d)
	case *component.TypeDef:
		t, err := e.typeOf(s, d.Type)
		if err != nil {
			return err
		}
		s.push(t)
	case *component.CanonDef:
		return e.canon(s, d)
	case *component.ImportDef:
		return e.importDef(s, d, arg)
	case *component.ExportDef:
		return e.exportDef(s, d, exports)
	case *component.StartDef:
		return errors.New("start functions of components are not supported")
	default:
		return fmt.Errorf("%T is not supported", d)
	}
	return nil
}

func (e *evaluator) importDef(s *scope, d *component.ImportDef, arg func(*component.ImportDef) (entity, error)) error {
	if s.imports[d.Name.Name] {
		return fmt.Errorf("import %q twice", d.Name.Name)
	}
	s.imports[d.Name.Name] = true
	have, err := arg(d)
	if err == nil {
		have, err = e.describe(s, d.Desc, have, d.Name.Name, 0)
	}
	if err != nil {
		return fmt.Errorf("import %q: %w", d.Name.Name, err)
	}
	nameFuncs(d.Name.Name, have)
	s.push(have)
	return nil
}

// nameFuncs gives functions without a name that of their import.
func nameFuncs(name string, have entity) {
	in, ok := have.(*Instance)
	if !ok {
		return
	}
	for field, x := range in.exports {
		if f, ok := x.(*function); ok && f.name == "" {
			f.name = name + "#" + field
		}
		if t, ok := x.(*typ); ok && t.resource != nil && t.resource.Name == "" {
			t.resource.Name = field
		}
	}
}

func (e *evaluator) exportDef(s *scope, d *component.ExportDef, exports *Instance) error {
	ent, err := s.entity(d.Sort, d.Index)
	if err == nil && d.Desc != nil {
		ent, err = e.describe(s, *d.Desc, ent, d.Name.Name, 0)
	}
	if err != nil {
		return fmt.Errorf("export %q: %w", d.Name.Name, err)
	}
	if t, ok := ent.(*typ); ok && t.resource != nil && t.resource.Instance == s.instance {
		t.resource.Name = d.Name.Name
	}
	if !exports.add(d.Name.Name, ent) {
		return fmt.Errorf("export %q twice", d.Name.Name)
	}
	s.push(ent)
	return nil
}

func (e *evaluator) instantiateDef(s *scope, d *component.InstantiateDef, depth int) error {
	c, err := get[*closure](s, component.SortComponent, d.Component)
	if err != nil {
		return err
	}
	args := make(map[string]entity, len(d.Args))
	for _, a := range d.Args {
		if args[a.Name] != nil {
			return fmt.Errorf("argument %q twice", a.Name)
		}
		if args[a.Name], err = s.entity(a.Sort, a.Index); err != nil {
			return fmt.Errorf("argument %q: %w", a.Name, err)
		}
	}
	in, err := e.instantiate(c, func(d *component.ImportDef) (entity, error) {
		if have := args[d.Name.Name]; have != nil {
			return have, nil
		}
		return nil, errors.New("no argument of this name")
	}, depth+1)
	if err != nil {
		return err
	}
	s.push(in)
	return nil
}

func (e *evaluator) aliasExport(s *scope, d *component.AliasExportDef) error {
	in, err := get[*Instance](s, component.SortInstance, d.Instance)
	if err != nil {
		return err
	}
	ent := in.exports[d.Name]
	if ent == nil || ent.sort() != d.Sort {
		return fmt.Errorf("instance %d has no %s %q", d.Instance, d.Sort, d.Name)
	}
	s.push(ent)
	return nil
}

func (e *evaluator) aliasOuter(s *scope, d *component.AliasOuterDef) error {
	from, err := s.up(d.Count)
	if err != nil {
		return err
	}
	switch d.Sort {
	case component.SortCoreType:
		t, err := at(from.coreTypes, d.Index, d.Sort)
		if err != nil {
			return err
		}
		s.coreTypes = append(s.coreTypes, t)
	case component.SortCoreModule, component.SortType, component.SortComponent:
		ent, err := from.entity(d.Sort, d.Index)
		if err != nil {
			return err
		}
		s.push(ent)
	default:
		return fmt.Errorf("outer alias of a %s", d.Sort)
	}
	return nil
}

func (e *evaluator) aliasCoreExport(s *scope, d *component.AliasExportDef) error {
	in, err := at(s.coreInstances, d.Instance, component.SortCoreInstance)
	if err != nil {
		return err
	}
	item, ok := in.exports[d.Name]
	if !ok || item.sort != d.Sort {
		return fmt.Errorf("core instance %d has no %s %q", d.Instance, d.Sort, d.Name)
	}
	s.coreItems[d.Sort] = append(s.coreItems[d.Sort], item)
	return nil
}

func (e *evaluator) coreExports(s *scope, d *component.CoreExportsDef) error {
	in := &coreInstance{exports: make(map[string]coreItem, len(d.Exports))}
	for _, x := range d.Exports {
		if x.Sort >= component.SortCoreType {
			return fmt.Errorf("export %q of a core instance is a %s", x.Name, x.Sort)
		}
		item, err := at(s.coreItems[x.Sort], x.Index, x.Sort)
		if err != nil {
			return err
		}
		if _, twice := in.exports[x.Name]; twice {
			return fmt.Errorf("export %q twice", x.Name)
		}
		in.exports[x.Name] = item
	}
	s.coreInstances = append(s.coreInstances, in)
	return nil
}

// module reads what d imports and exports, once.
func (e *evaluator) module(d *component.CoreModuleDef) (*module, error) {
	if m := e.parsed[d]; m != nil {
		return m, nil
	}
	m := &module{def: d}
	var err error
	if m.imports, err = core.Imports(d.Bytes); err == nil {
		m.exports, err = core.Exports(d.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("core module: %w", err)
	}
	e.parsed[d] = m
	return m, nil
}

func (e *evaluator) coreInstantiate(s *scope, d *component.CoreInstantiateDef) error {
	m, err := get[*module](s, component.SortCoreModule, d.Module)
	if err != nil {
		return err
	}
	if e.plan.CoreInstances >= maxCoreInstances {
		return fmt.Errorf("more than %d core instances", maxCoreInstances)
	}
	args := make(map[string]*coreInstance, len(d.Args))
	for _, a := range d.Args {
		in, err := at(s.coreInstances, a.Instance, component.SortCoreInstance)
		if err != nil {
			return err
		}
		if args[a.Name] != nil {
			return fmt.Errorf("argument %q twice", a.Name)
		}
		args[a.Name] = in
	}
	renamed := make([]CoreExport, len(m.imports)) // Instance -1 is the host
	for i, imp := range m.imports {
		if renamed[i], err = coreImport(args, imp); err != nil {
			return fmt.Errorf("core import %q %q: %w", imp.Module, imp.Name, err)
		}
	}
	n := e.plan.CoreInstances
	e.plan.CoreInstances++
	index, err := e.planModule(m, renamed)
	if err != nil {
		return err
	}
	e.plan.Steps = append(e.plan.Steps, Step{Op: StepInstantiate, Index: n, Module: index})
	in := &coreInstance{exports: make(map[string]coreItem, len(m.exports))}
	for _, x := range m.exports {
		in.exports[x.Name] = coreItem{sort: coreSort(x.Kind), builtin: -1, instance: n, name: x.Name, fn: funcType(x.Func)}
	}
	s.coreInstances = append(s.coreInstances, in)
	return nil
}

// coreImport returns where a core module's import comes from.
func coreImport(args map[string]*coreInstance, imp core.Import) (CoreExport, error) {
	in := args[imp.Module]
	if in == nil {
		return CoreExport{}, errors.New("no argument of this module name")
	}
	item, ok := in.exports[imp.Name]
	if !ok || item.sort != coreSort(imp.Kind) {
		return CoreExport{}, fmt.Errorf("the argument has no %s of this name", coreSort(imp.Kind))
	}
	if item.sort == component.SortCoreFunc {
		if err := wantCore(item.fn, funcType(imp.Func)); err != nil {
			return CoreExport{}, err
		}
	}
	if item.builtin >= 0 {
		return CoreExport{-1, BuiltinName(item.builtin)}, nil
	}
	return CoreExport{item.instance, item.name}, nil
}

// planModule returns the plan's number of m with its imports renamed.
func (e *evaluator) planModule(m *module, renamed []CoreExport) (int, error) {
	var key strings.Builder
	fmt.Fprintf(&key, "%d", m.def.Pos())
	for _, r := range renamed {
		fmt.Fprintf(&key, " %d %q", r.Instance, r.Name)
	}
	if n, ok := e.modules[key.String()]; ok {
		return n, nil
	}
	out := Module{Offset: m.def.Pos()}
	if !e.linking {
		var err error
		out.Bytes, err = core.RewriteImports(m.def.Bytes, func(i int, _ core.Import) (module, name string) {
			if renamed[i].Instance < 0 {
				return HostModule, renamed[i].Name
			}
			return InstanceName(renamed[i].Instance), renamed[i].Name
		})
		if err != nil {
			return 0, fmt.Errorf("core module: %w", err)
		}
	}
	n := len(e.plan.Modules)
	e.modules[key.String()] = n
	e.plan.Modules = append(e.plan.Modules, out)
	return n, nil
}

// coreSort is the sort of a core import or export.
func coreSort(k core.Kind) component.Sort { return component.Sort(k) }

func funcType(f core.FuncType) component.CoreFuncType {
	return component.CoreFuncType{Params: valTypes(f.Params), Results: valTypes(f.Results)}
}

func valTypes(b []byte) []component.CoreValType {
	out := make([]component.CoreValType, len(b))
	for i, t := range b {
		out[i] = component.CoreValType(t)
	}
	return out
}
