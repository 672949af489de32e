package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

func (d *decoder) alias(at component.At) component.Definition {
	s := d.sort()
	start := d.pos
	switch b := d.byte(); b {
	case 0x00:
		if s.IsCore() && s != component.SortCoreModule {
			d.fail(int(at), "an instance cannot export a %s", s)
		}
		return &component.AliasExportDef{At: at, Sort: s, Instance: d.u32(), Name: d.name()}
	case 0x01:
		if !isCoreExport(s) {
			d.fail(int(at), "a core instance cannot export a %s", s)
		}
		return &component.AliasExportDef{At: at, Sort: s, Instance: d.u32(), Name: d.name(), Core: true}
	case 0x02:
		switch s {
		case component.SortCoreModule, component.SortCoreType, component.SortType, component.SortComponent:
		default:
			d.fail(int(at), "a %s cannot be aliased from an outer component", s)
		}
		return &component.AliasOuterDef{At: at, Sort: s, Count: d.u32(), Index: d.u32()}
	default:
		d.fail(start, "unknown alias target %#x", b)
		return nil
	}
}
