package engine

import (
	"context"
	"sync/atomic"

	"github.com/tetratelabs/wazero"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binary"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
)

// Component is a component whose core modules are compiled. It is safe for concurrent use.
type Component struct {
	decoded *component.Component
	runtime wazero.Runtime
	modules []wazero.CompiledModule // by the plan's numbers
	// memories counts the linear memories of the engine.
	memories *atomic.Int64
	fault    error
}

// Compile decodes the component wasm and compiles its core modules, or finds their code in the cache. Errors say
// where in wasm they are. wasm must not change afterwards.
func (e *Engine) Compile(ctx context.Context, wasm []byte) (*Component, error) {
	decoded, err := binary.Decode(wasm)
	if err != nil {
		return nil, err
	}
	plan, err := link.Compile(decoded)
	if err != nil {
		return nil, err
	}
	modules := make([]coreModule, len(plan.Modules))
	for i, m := range plan.Modules {
		modules[i] = coreModule{m.Bytes, m.Offset}
	}
	c := &Component{decoded: decoded, memories: &e.memories}
	c.runtime, c.modules, c.fault, err = e.compile(ctx, modules)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// CacheFault says why the component had to be compiled although the engine has a cache folder: an entry was
// damaged, or could not be stored. It is nil if the cache served, or holds the code now.
func (c *Component) CacheFault() error { return c.fault }
