package link

import (
	"errors"
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// canon evaluates a canonical definition.
func (e *evaluator) canon(s *scope, d *component.CanonDef) error {
	switch d.Op {
	case component.CanonLift:
		return e.lift(s, d)
	case component.CanonLower:
		return e.lower(s, d)
	case component.CanonResourceNew, component.CanonResourceDrop, component.CanonResourceRep:
		return e.resourceBuiltin(s, d)
	}
	return fmt.Errorf("canonical function 0x%02x is not supported: it belongs to WASI 0.3, this host runs components of 0.2", byte(d.Op))
}

func (e *evaluator) lift(s *scope, d *component.CanonDef) error {
	core, err := at(s.coreItems[component.SortCoreFunc], d.Func, component.SortCoreFunc)
	if err != nil {
		return err
	}
	t, err := get[*typ](s, component.SortType, d.Type)
	if err != nil {
		return err
	}
	if t.fn == nil {
		return fmt.Errorf("type %d is not a function type", d.Type)
	}
	if t.fn.Async || d.Options.Async || d.Options.HasCallback {
		return errors.New("async functions are not supported: they belong to WASI 0.3, this host runs components of 0.2")
	}
	l := &Lift{Type: t.fn, PostReturn: -1}
	if l.Signature, err = e.layouts.Signature(t.fn); err != nil {
		return err
	}
	if err := wantCore(core.fn, l.Signature.CoreLifted()); err != nil {
		return err
	}
	params, result := l.Signature.InMemory()
	if l.Options, err = e.options(s, d.Options, params || result, params); err != nil {
		return err
	}
	if l.Func, err = e.funcSlot(core, "lifted function"); err != nil {
		return err
	}
	if d.Options.HasPostReturn {
		item, err := at(s.coreItems[component.SortCoreFunc], d.Options.PostReturn, component.SortCoreFunc)
		if err != nil {
			return err
		}
		if err := wantCore(item.fn, component.CoreFuncType{Params: l.Signature.CoreLifted().Results}); err != nil {
			return fmt.Errorf("post-return: %w", err)
		}
		if l.PostReturn, err = e.funcSlot(item, "post-return"); err != nil {
			return err
		}
	}
	s.push(&function{typ: t.fn, lift: l})
	return nil
}

func (e *evaluator) lower(s *scope, d *component.CanonDef) error {
	f, err := get[*function](s, component.SortFunc, d.Func)
	if err != nil {
		return err
	}
	if f.typ.Async || d.Options.Async {
		return errors.New("async functions are not supported: they belong to WASI 0.3, this host runs components of 0.2")
	}
	if d.Options.HasPostReturn || d.Options.HasCallback {
		return errors.New("a lower takes neither post-return nor callback")
	}
	b := Builtin{Op: LowerHost, Name: "lower", Host: f.host, Lift: f.lift, Instance: s.instance}
	if f.lift != nil {
		b.Op = LowerLift
	}
	if f.name != "" {
		b.Name = f.name
	}
	if b.Signature, err = e.layouts.Signature(f.typ); err != nil {
		return err
	}
	params, result := b.Signature.InMemory()
	resultRealloc := result && b.Signature.ResultPoints()
	if b.Options, err = e.options(s, d.Options, params || result, resultRealloc); err != nil {
		return err
	}
	b.Core = b.Signature.CoreLowered()
	return e.builtin(s, b)
}

func (e *evaluator) resourceBuiltin(s *scope, d *component.CanonDef) error {
	t, err := get[*typ](s, component.SortType, d.Type)
	if err != nil {
		return err
	}
	r := t.resource
	switch {
	case r == nil:
		return fmt.Errorf("type %d is not a resource type", d.Type)
	}
	i32 := []component.CoreValType{component.CoreI32}
	b := Builtin{Resource: r, Instance: s.instance, Options: -1}
	switch d.Op {
	case component.CanonResourceDrop:
		b.Op, b.Name, b.Core = ResourceDrop, "[resource-drop]"+r.Name, component.CoreFuncType{Params: i32}
		return e.builtin(s, b)
	case component.CanonResourceNew:
		b.Op, b.Name = ResourceNew, "[resource-new]"+r.Name
	default:
		b.Op, b.Name = ResourceRep, "[resource-rep]"+r.Name
	}
	if r.Instance != s.instance {
		return errors.New("resource.new and resource.rep are for the component that defines the resource type")
	}
	b.Core = component.CoreFuncType{Params: i32, Results: i32}
	return e.builtin(s, b)
}

// builtin adds b to the plan and to the core functions of s.
func (e *evaluator) builtin(s *scope, b Builtin) error {
	if len(e.plan.Builtins) >= maxBuiltins {
		return fmt.Errorf("more than %d canonical functions", maxBuiltins)
	}
	s.coreItems[component.SortCoreFunc] = append(s.coreItems[component.SortCoreFunc], coreItem{
		sort: component.SortCoreFunc, builtin: len(e.plan.Builtins), instance: -1, fn: b.Core,
	})
	e.plan.Builtins = append(e.plan.Builtins, b)
	return nil
}

// options resolves canonical options and returns their number in the plan. It fails if memory or realloc are
// needed and not there.
func (e *evaluator) options(s *scope, o component.CanonOptions, memory, realloc bool) (int, error) {
	out := Options{Encoding: o.Encoding, Memory: -1, Realloc: -1, Instance: s.instance}
	switch {
	case memory && !o.HasMemory:
		return 0, errors.New("canonical option memory is required")
	case realloc && !o.HasRealloc:
		return 0, errors.New("canonical option realloc is required")
	case o.HasRealloc && !o.HasMemory:
		return 0, errors.New("canonical option realloc needs memory")
	}
	if o.HasMemory {
		item, err := at(s.coreItems[component.SortCoreMemory], o.Memory, component.SortCoreMemory)
		if err != nil {
			return 0, err
		}
		out.Memory = e.memorySlot(item)
	}
	if o.HasRealloc {
		item, err := at(s.coreItems[component.SortCoreFunc], o.Realloc, component.SortCoreFunc)
		if err != nil {
			return 0, err
		}
		i32 := component.CoreI32
		want := component.CoreFuncType{Params: []component.CoreValType{i32, i32, i32, i32}, Results: []component.CoreValType{i32}}
		if err := wantCore(item.fn, want); err != nil {
			return 0, fmt.Errorf("realloc: %w", err)
		}
		if out.Realloc, err = e.funcSlot(item, "realloc"); err != nil {
			return 0, err
		}
	}
	e.plan.Options = append(e.plan.Options, out)
	return len(e.plan.Options) - 1, nil
}

// funcSlot returns the slot of a core function that the engine calls.
func (e *evaluator) funcSlot(item coreItem, what string) (int, error) {
	if item.builtin >= 0 {
		return 0, fmt.Errorf("%s is itself a canonical function, which is not supported", what)
	}
	ref := CoreExport{item.instance, item.name}
	slot, ok := e.funcs[ref]
	if !ok {
		slot = len(e.plan.Funcs)
		e.funcs[ref] = slot
		e.plan.Funcs = append(e.plan.Funcs, ref)
	}
	return slot, nil
}

// memorySlot returns the slot of a memory. Its core instance is there already, since definitions refer to earlier
// ones only.
func (e *evaluator) memorySlot(item coreItem) int {
	ref := CoreExport{item.instance, item.name}
	slot, ok := e.memories[ref]
	if !ok {
		slot = len(e.plan.Memories)
		e.memories[ref] = slot
		e.plan.Memories = append(e.plan.Memories, ref)
		e.plan.Steps = append(e.plan.Steps, Step{Op: StepMemory, Index: slot})
	}
	return slot
}
