package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
)

// ErrNoExport says that a component has no export of the wanted name.
var ErrNoExport = errors.New("no such export")

// InstancePre is a component linked with a host: everything is resolved, and [InstancePre.Instantiate]
// only has to follow the plan. It is safe for concurrent use.
type InstancePre struct {
	component *Component
	plan      *link.Plan
	config    wazero.ModuleConfig // of each core module
	host      api.Module
	slots     []func(*Instance) any
	// memoryUsers are the options that use a memory slot, by slot.
	memoryUsers [][]int
}

// Instance is one isolated world of a component: its memories, tables and handles, and the host's state
// of it. An Instance serves one request and is used by one goroutine at a time.
type Instance struct {
	// Context is the request's: its cancellation ends blocking host calls.
	context.Context

	pre     *InstancePre
	memory  memoryAllocator
	core    []api.Module   // by core instance
	funcs   []api.Function // by function slot; nil until it is called
	parts   []abi.Instance // by component instance
	options []abi.Options  // by the plan's numbers
	slots   []any
	calls   []*Call // not in use
}

// Instantiate makes a new instance, whose start functions have run. It serves ctx: that ends blocking host calls.
// The caller closes the instance. Errors are like those of [ExportFunc.Call], or [ErrNoMemory].
func (p *InstancePre) Instantiate(ctx context.Context) (*Instance, error) {
	plan := p.plan
	i := &Instance{
		pre:     p,
		memory:  memoryAllocator{live: p.component.memories},
		core:    make([]api.Module, plan.CoreInstances),
		funcs:   make([]api.Function, len(plan.Funcs)),
		parts:   make([]abi.Instance, plan.Instances),
		options: make([]abi.Options, len(plan.Options)),
		slots:   make([]any, len(p.slots)),
	}
	i.Context = experimental.WithMemoryAllocator(experimental.WithImportResolver(ctx, i.resolve), &i.memory)
	for n := range i.parts {
		i.parts[n].Number = n
	}
	for n, o := range plan.Options {
		i.options[n] = abi.Options{Encoding: o.Encoding, Instance: &i.parts[o.Instance], Context: i}
	}
	for n, fresh := range p.slots {
		i.slots[n] = fresh(i)
	}
	for _, s := range plan.Steps {
		if err := i.step(s); err != nil {
			_ = i.Close()
			return nil, err
		}
	}
	return i, nil
}

func (i *Instance) step(s link.Step) error {
	p := i.pre
	switch s.Op {
	case link.StepInstantiate:
		m, err := i.instantiate(p.component.modules[s.Module])
		if err != nil {
			return err
		}
		i.core[s.Index] = m
	case link.StepMemory:
		ref := p.plan.Memories[s.Index]
		m := i.core[ref.Instance].ExportedMemory(ref.Name)
		if m == nil {
			return fmt.Errorf("core instance %d has no memory %q", ref.Instance, ref.Name)
		}
		if s.Index < len(p.memoryUsers) {
			for _, o := range p.memoryUsers[s.Index] {
				i.options[o].Memory = m
			}
		}
	}
	return nil
}

// instantiate makes a core instance.
func (i *Instance) instantiate(module wazero.CompiledModule) (_ api.Module, err error) {
	defer func() {
		if i.memory.full {
			_ = recover() // wazero's, which has found the memory missing
			err = ErrNoMemory
		}
	}()
	m, err := i.pre.component.runtime.InstantiateModule(i, module, i.pre.config)
	if err != nil {
		return nil, callError(err)
	}
	return m, nil
}

// resolve returns what a core module imports from under a name of [link.InstanceName] or [link.HostModule].
func (i *Instance) resolve(name string) api.Module {
	if name == link.HostModule {
		return i.pre.host
	}
	n, err := strconv.Atoi(name[1:])
	if err != nil { // the plan made the names
		panic("BUG: import from module " + name)
	}
	return i.core[n]
}

// option returns the plan's options n, whose realloc has the function slot realloc.
func (i *Instance) option(n, realloc int) *abi.Options {
	o := &i.options[n]
	if realloc >= 0 && o.Realloc == nil {
		o.Realloc = i.function(realloc)
	}
	return o
}

// function returns the core function of a slot. wazero allocates a stack for each, so that they are kept.
func (i *Instance) function(slot int) api.Function {
	if i.funcs[slot] == nil {
		ref := i.pre.plan.Funcs[slot]
		if i.funcs[slot] = i.core[ref.Instance].ExportedFunction(ref.Name); i.funcs[slot] == nil {
			panic(fmt.Sprintf("BUG: core instance %d has no function %q", ref.Instance, ref.Name))
		}
	}
	return i.funcs[slot]
}

// callCore calls the core function of a slot with the values in stack, which receives the results. It panics
// with the error of the call.
func (i *Instance) callCore(slot int, stack []uint64) {
	if err := i.function(slot).CallWithStack(i, stack); err != nil {
		panic(err)
	}
}

// postReturn gives the guest back what it allocated for the results in core.
func (i *Instance) postReturn(l *link.Lift, o *abi.Options, core []uint64) {
	if l.PostReturn < 0 {
		return
	}
	o.Instance.NoLeave = true
	i.callCore(l.PostReturn, core)
	o.Instance.NoLeave = false
}

// Close ends the instance: all resources that it owns are dropped, without running guest code, and its memory is
// freed. It must not run.
func (i *Instance) Close() error {
	for n := range i.parts {
		i.parts[n].Handles.Drain(func(h handle.Handle) {
			if h.Resource.Instance < 0 {
				dropHost(h)
			}
		})
	}
	var err error
	for n := len(i.core) - 1; n >= 0; n-- {
		if i.core[n] != nil {
			err = errors.Join(err, i.core[n].Close(i))
		}
	}
	return err
}

// ExportFunc is a function that a linked component exports, found once and called on many instances. It
// is safe for concurrent use.
type ExportFunc struct {
	name string
	lift *link.Lift
	size int // core values of a call
}

// Func finds an exported function: name of the interface that is exported under a name that matches iface as
// imports match (see [Linker.Define]), or at the root level if iface is "". The function's type must be t.
// The error is [ErrNoExport] if there is no such function.
func (p *InstancePre) Func(iface, name string, t FuncType) (*ExportFunc, error) {
	full := name
	if iface != "" {
		full = iface + "#" + name
	}
	l := p.plan.Func(iface, name)
	if l == nil {
		return nil, fmt.Errorf("%s: %w", full, ErrNoExport)
	}
	var types component.Types
	if got, want := l.Type, t.component(); !sameFunc(&types, got, want) {
		return nil, fmt.Errorf("export %s is a %.300s, want a %.300s", full, got, want)
	}
	return &ExportFunc{full, l, coreSize(l.Signature)}, nil
}

func sameFunc(types *component.Types, a, b *component.Func) bool {
	if a.Async != b.Async || types.Intern(a.Result) != types.Intern(b.Result) || len(a.Params) != len(b.Params) {
		return false
	}
	for i := range a.Params {
		if a.Params[i].Name != b.Params[i].Name || types.Intern(a.Params[i].Type) != types.Intern(b.Params[i].Type) {
			return false
		}
	}
	return true
}

// Call calls the function on instance i, which must be of the [InstancePre] that f is of. params puts the
// parameters in order; result, which may be nil, reads the result. Both run on the caller's goroutine.
// The error is a [*Trap], an [*ExitError], or what a host function returned; the instance is then dead, and can
// only be closed.
func (f *ExportFunc) Call(i *Instance, params, result func(*Call)) (err error) {
	defer func() {
		// Lifting and lowering panic like host functions do, but with no frames of wazero below.
		switch fault := recover().(type) {
		case nil:
		case error:
			err = callError(fault)
		default: // a bug of params or result
			panic(fault)
		}
	}()
	l := f.lift
	o := i.option(l.Options, i.pre.plan.Options[l.Options].Realloc)
	enter(o.Instance)
	c := i.newCall()
	core := c.coreValues(f.size)
	var borrows uint32
	c.LowerParams(l.Signature, o, core, &borrows)
	if params != nil {
		params(c)
	}
	if !c.Done() {
		panic("BUG: not all parameters of " + f.name + " were put")
	}
	i.callCore(l.Func, core)
	c.LiftResult(l.Signature, o, core)
	if result != nil {
		result(c)
	}
	c.Skip(dropHost)
	i.postReturn(l, o, core)
	endBorrows(borrows)
	o.Instance.Entered = false
	i.endCall(c)
	return nil
}

// coreSize returns how many core values a lifted function's parameters and results take.
func coreSize(s *abi.Signature) int {
	t := s.CoreLifted()
	return max(len(t.Params), len(t.Results))
}
