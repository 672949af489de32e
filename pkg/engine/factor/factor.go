// Package factor says what a capability of Spin is: something that the host offers to a component beyond
// WASI, within what the app's manifest grants. Each capability is a package of its own below this one;
// what several of them need is here: templates (template.go) and allowed_outbound_hosts (allowedhosts.go).
package factor

import (
	"context"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// Factor is a capability of one app.
type Factor interface {
	// Link defines the capability's interfaces for component c in l, the linker of that component. An
	// error says what c asks for and cannot have.
	Link(l *engine.Linker, c *lockedapp.Component) error
	// Close releases what the capability holds. It is called after the last instance is closed.
	Close() error
}

// Resolver turns templates into text. It is safe for concurrent use.
type Resolver interface {
	// Resolve returns template with the values of the app's variables in it. They may be secret: neither
	// the result nor a part of it may appear in a log or an error.
	Resolve(ctx context.Context, template string) (string, error)
}
