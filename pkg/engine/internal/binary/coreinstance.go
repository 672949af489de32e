package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

// coreSort reads a core:sort.
func (d *decoder) coreSort() component.Sort {
	start := d.pos
	switch b := d.byte(); b {
	case 0x00:
		return component.SortCoreFunc
	case 0x01:
		return component.SortCoreTable
	case 0x02:
		return component.SortCoreMemory
	case 0x03:
		return component.SortCoreGlobal
	case 0x04:
		return component.SortCoreTag
	case 0x10:
		return component.SortCoreType
	case 0x11:
		return component.SortCoreModule
	case 0x12:
		return component.SortCoreInstance
	default:
		d.fail(start, "unknown core sort %#x", b)
		return 0
	}
}

// isCoreExport says whether core instances export definitions of sort s.
func isCoreExport(s component.Sort) bool { return s <= component.SortCoreTag }

func (d *decoder) coreInstance(at component.At) component.Definition {
	switch b := d.byte(); b {
	case 0x00:
		return &component.CoreInstantiateDef{At: at, Module: d.u32(), Args: vec(d, d.coreInstantiateArg)}
	case 0x01:
		return &component.CoreExportsDef{At: at, Exports: vec(d, d.coreInlineExport)}
	default:
		d.fail(int(at), "unknown core instance expression %#x", b)
		return nil
	}
}

func (d *decoder) coreInstantiateArg() component.CoreInstantiateArg {
	arg := component.CoreInstantiateArg{Name: d.name()}
	start := d.pos
	if s := d.coreSort(); s != component.SortCoreInstance {
		d.fail(start, "a %s cannot be an argument of a core instantiation", s)
	}
	arg.Instance = d.u32()
	return arg
}

func (d *decoder) coreInlineExport() component.InlineExport {
	e := component.InlineExport{Name: d.name()}
	start := d.pos
	if e.Sort = d.coreSort(); !isCoreExport(e.Sort) {
		d.fail(start, "a core instance cannot export a %s", e.Sort)
	}
	e.Index = d.u32()
	return e
}
