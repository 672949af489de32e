package engine

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
func (l *Linker) Define(i Interface) { l.interfaces = append(l.interfaces, i) }
