package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

func (d *decoder) start(at component.At) component.Definition {
	return &component.StartDef{At: at, Func: d.u32(), Args: vec(d, d.u32), Results: d.u32()}
}
