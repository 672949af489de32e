package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

// sort reads a sort.
func (d *decoder) sort() component.Sort {
	start := d.pos
	switch b := d.byte(); b {
	case 0x00:
		return d.coreSort()
	case 0x01:
		return component.SortFunc
	case 0x02:
		return component.SortValue
	case 0x03:
		return component.SortType
	case 0x04:
		return component.SortComponent
	case 0x05:
		return component.SortInstance
	default:
		d.fail(start, "unknown sort %#x", b)
		return 0
	}
}

// externSort reads a sort that components import and export.
func (d *decoder) externSort() component.Sort {
	start := d.pos
	s := d.sort()
	if s.IsCore() && s != component.SortCoreModule {
		d.fail(start, "components cannot import or export a %s", s)
	}
	return s
}

func (d *decoder) instance(at component.At) component.Definition {
	switch b := d.byte(); b {
	case 0x00:
		return &component.InstantiateDef{At: at, Component: d.u32(), Args: vec(d, d.instantiateArg)}
	case 0x01:
		return &component.ExportsDef{At: at, Exports: vec(d, d.inlineExport)}
	default:
		d.fail(int(at), "unknown instance expression %#x", b)
		return nil
	}
}

func (d *decoder) instantiateArg() component.InlineExport {
	return component.InlineExport{Name: d.name(), Sort: d.externSort(), Index: d.u32()}
}

func (d *decoder) inlineExport() component.InlineExport {
	name := d.externName()
	return component.InlineExport{Name: name.Name, Implements: name.Implements, Sort: d.externSort(), Index: d.u32()}
}
