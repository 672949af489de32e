package link

import (
	"fmt"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// HostModule is the name by which rewritten core modules import the plan's built-in functions.
const HostModule = "h"

// Plan is how to make an instance of a component.
type Plan struct {
	// Modules are the core modules to compile.
	Modules []Module
	// Steps make the core instances and find what is needed of them, in order.
	Steps []Step
	// CoreInstances, Memories and Funcs are the numbers of core instances, memory slots and function slots.
	CoreInstances int
	Memories      []CoreExport
	Funcs         []CoreExport
	// Builtins are the functions that core modules import from [HostModule], by the name of [BuiltinName].
	Builtins []Builtin
	// Options are the canonical options that lifts, lowers and built-ins refer to.
	Options []Options
	// Instances is the number of component instances.
	Instances int
	// Exports is what the component exports.
	Exports *Instance
}

// Module is a core module with its imports renamed to slots: "h" and the name of a built-in, or the number of a
// core instance (see [InstanceName]) and the name of its export.
type Module struct {
	// Bytes is the rewritten module. It is nil in a plan that [Link] made: what was compiled serves.
	Bytes []byte
	// Offset is where the original stands in the file.
	Offset int
}

// Step is one step of instantiation.
type Step struct {
	Op StepOp
	// Index is the core instance's number, or the memory slot.
	Index int
	// Module is the number of the module to instantiate.
	Module int
}

// StepOp says what a step does.
type StepOp uint8

const (
	// StepInstantiate instantiates Module as core instance Index.
	StepInstantiate StepOp = iota
	// StepMemory finds the memory of slot Index.
	StepMemory
)

// CoreExport is an export of a core instance.
type CoreExport struct {
	Instance int
	Name     string
}

// Options are canonical options, resolved; a slot is -1 if there is none.
type Options struct {
	Encoding component.StringEncoding
	Memory   int // memory slot
	Realloc  int // function slot
	Instance int // component instance
}

// BuiltinOp says what a built-in does.
type BuiltinOp uint8

const (
	// LowerHost calls the host's function Host.
	LowerHost BuiltinOp = iota
	// LowerLift calls the function Lift of another component instance.
	LowerLift
	// ResourceNew, ResourceDrop and ResourceRep are the resource built-ins on Resource.
	ResourceNew
	ResourceDrop
	ResourceRep
)

// Builtin is a function that a core module imports and the engine provides.
type Builtin struct {
	Op   BuiltinOp
	Name string // for stack traces and the printer
	Core component.CoreFuncType
	// Signature and Options are those of a lower.
	Signature *abi.Signature
	Options   int
	Host      int
	Lift      *Lift
	Resource  *component.Resource
	// Instance is the component instance whose core code calls the built-in.
	Instance int
}

// Lift is a function that a component instance exports.
type Lift struct {
	Type      *component.Func
	Signature *abi.Signature
	Func      int // function slot
	Options   int
	// PostReturn is a function slot, or -1.
	PostReturn int
}

// Instance is a component instance as others see it: its exports by name.
type Instance struct {
	names   []string // in order
	exports map[string]entity
}

// InstanceName is the module name by which a rewritten module imports from core instance n.
func InstanceName(n int) string { return fmt.Sprintf("i%d", n) }

// BuiltinName is the name by which a rewritten module imports built-in n.
func BuiltinName(n int) string { return fmt.Sprintf("f%d", n) }

// Func returns the function that the component exports as name, of the instance that it exports under a name that
// matches iface if that is not "". Names match as those of imports do. It returns nil if there is none.
func (p *Plan) Func(iface, name string) *Lift {
	in := p.Exports
	if iface != "" {
		best := Match(in.names, iface)
		if best < 0 {
			return nil
		}
		in, _ = in.exports[in.names[best]].(*Instance)
		if in == nil {
			return nil
		}
	}
	f, _ := in.exports[name].(*function)
	if f == nil {
		return nil
	}
	return f.lift
}

// String prints the plan, a line for each thing, as its tests want it.
func (p *Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		switch s.Op {
		case StepInstantiate:
			fmt.Fprintf(&b, "i%d = instantiate module %d\n", s.Index, s.Module)
		case StepMemory:
			m := p.Memories[s.Index]
			fmt.Fprintf(&b, "memory %d = i%d %q\n", s.Index, m.Instance, m.Name)
		}
	}
	for i, f := range p.Funcs {
		fmt.Fprintf(&b, "func %d = i%d %q\n", i, f.Instance, f.Name)
	}
	for i, f := range p.Builtins {
		fmt.Fprintf(&b, "f%d = %s %v -> %v", i, f.Name, f.Core.Params, f.Core.Results)
		if f.Op == LowerHost || f.Op == LowerLift {
			fmt.Fprintf(&b, " %s", p.Options[f.Options])
		}
		b.WriteByte('\n')
	}
	p.Exports.print(&b, "export ", p)
	return b.String()
}

// String prints the options that are set.
func (o Options) String() string {
	s := fmt.Sprintf("{instance %d", o.Instance)
	if o.Memory >= 0 {
		s += fmt.Sprintf(", memory %d", o.Memory)
	}
	if o.Realloc >= 0 {
		s += fmt.Sprintf(", realloc func %d", o.Realloc)
	}
	if o.Encoding != component.UTF8 {
		s += fmt.Sprintf(", encoding %d", o.Encoding)
	}
	return s + "}"
}

func (in *Instance) print(b *strings.Builder, prefix string, p *Plan) {
	for _, name := range in.names {
		switch e := in.exports[name].(type) {
		case *Instance:
			e.print(b, prefix+name+" ", p)
		case *function:
			if e.lift == nil {
				fmt.Fprintf(b, "%s%s = host func %d\n", prefix, name, e.host)
				continue
			}
			fmt.Fprintf(b, "%s%s = lift func %d %s", prefix, name, e.lift.Func, p.Options[e.lift.Options])
			if e.lift.PostReturn >= 0 {
				fmt.Fprintf(b, " post-return func %d", e.lift.PostReturn)
			}
			b.WriteByte('\n')
		}
	}
}
