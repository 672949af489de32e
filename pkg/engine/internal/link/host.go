package link

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

// Interface is what a host offers under one interface name.
type Interface struct {
	Name      string
	Types     map[string]*component.Type
	Resources map[string]*component.Resource
	Funcs     map[string]HostFunc
}

// HostFunc is a host's function: Number is what the plan calls it.
type HostFunc struct {
	Type   *component.Func
	Number int
}

// instance returns the interface as an instance, with its types interned in e.
func (i *Interface) instance(e *evaluator) *Instance {
	in := newInstance()
	for name, t := range i.Types {
		in.add(name, &typ{value: e.types.Intern(t)})
	}
	for name, r := range i.Resources {
		in.add(name, &typ{resource: r})
	}
	for name, f := range i.Funcs {
		in.add(name, &function{typ: e.internFunc(f.Type), host: f.Number})
	}
	return in
}
