package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
)

// Linker holds the host's interfaces and links components with them. Define everything first; then a
// Linker may link concurrently.
type Linker struct {
	engine     *Engine
	interfaces []Interface
	slots      []func(*Instance) any
}

// NewLinker returns a Linker without interfaces.
func (e *Engine) NewLinker() *Linker { return &Linker{engine: e} }

// Define adds a host interface. An import is served by the interface of its exact name; else, if its
// version is a release, by the one with the same name and the same major version (for 0.x: minor), the
// highest if there are several. A pre-release matches exactly only.
// A later definition of the same name replaces an earlier one.
func (l *Linker) Define(i Interface) {
	l.interfaces = slices.DeleteFunc(l.interfaces, func(old Interface) bool { return old.Type.Name == i.Type.Name })
	l.interfaces = append(l.interfaces, i)
}

// Link links c, which this linker's engine compiled, with the host's interfaces. Its error names the import that
// the host does not offer, or offers with another type.
func (l *Linker) Link(c *Component) (*InstancePre, error) {
	var funcs []HostFunc
	offered := make([]*link.Interface, len(l.interfaces))
	for n, i := range l.interfaces {
		offered[n] = linkInterface(i, &funcs)
	}
	plan, err := link.Link(c.decoded, offered)
	if err != nil {
		return nil, err
	}
	p := &InstancePre{component: c, plan: plan, config: moduleConfig(), slots: slices.Clone(l.slots)}
	for i, o := range plan.Options {
		if o.Memory >= 0 {
			for len(p.memoryUsers) <= o.Memory {
				p.memoryUsers = append(p.memoryUsers, nil)
			}
			p.memoryUsers[o.Memory] = append(p.memoryUsers[o.Memory], i)
		}
	}
	if p.host, err = l.hostModule(context.Background(), c.runtime, plan, funcs); err != nil {
		return nil, fmt.Errorf("define host functions: %w", err)
	}
	return p, nil
}

// linkInterface returns what i offers, and appends its functions to funcs.
func linkInterface(i Interface, funcs *[]HostFunc) *link.Interface {
	out := &link.Interface{
		Name:      i.Type.Name,
		Types:     map[string]*component.Type{},
		Resources: map[string]*component.Resource{},
		Funcs:     map[string]link.HostFunc{},
	}
	for _, t := range i.Type.Types {
		if t.Resource != nil {
			out.Resources[t.Name] = t.Resource
		} else {
			out.Types[t.Name] = t.Type
		}
	}
	for _, f := range i.Type.Funcs {
		if impl := i.Funcs[f.Name]; impl != nil {
			out.Funcs[f.Name] = link.HostFunc{Type: f.Type.component(), Number: len(*funcs)}
			*funcs = append(*funcs, impl)
		}
	}
	return out
}

// hostModule makes the module that the plan's core modules import built-ins from. One serves all instances:
// each call carries its instance as the context.
func (l *Linker) hostModule(ctx context.Context, r wazero.Runtime, plan *link.Plan, funcs []HostFunc) (api.Module, error) {
	b := r.NewHostModuleBuilder(link.HostModule)
	for i := range plan.Builtins {
		f := &plan.Builtins[i]
		b.NewFunctionBuilder().WithGoFunction(builtin(plan, f, funcs), valueTypes(f.Core.Params), valueTypes(f.Core.Results)).
			WithName(f.Name).Export(link.BuiltinName(i))
	}
	compiled, err := b.Compile(ctx)
	if err != nil {
		return nil, err
	}
	return r.InstantiateModule(ctx, compiled, moduleConfig())
}

func valueTypes(in []component.CoreValType) []api.ValueType {
	out := make([]api.ValueType, len(in))
	for i, t := range in {
		out[i] = api.ValueType(t)
	}
	return out
}

// moduleConfig makes anonymous modules, which no name map of wazero holds, and whose exports run only when the
// engine calls them. No module reads wazero's random source, but the one that it makes by default is seeded for each.
func moduleConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader)
}
