package binary

import "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"

func (d *decoder) importDef(at component.At) component.Definition {
	return &component.ImportDef{At: at, Name: d.externName(), Desc: d.externType()}
}

func (d *decoder) export(at component.At) component.Definition {
	e := &component.ExportDef{At: at, Name: d.externName(), Sort: d.externSort(), Index: d.u32()}
	if desc, ok := optional(d, d.externType); ok {
		e.Desc = &desc
	}
	return e
}

// exportDecl is an export in an instance or component type.
func (d *decoder) exportDecl(at component.At) component.Definition {
	name, desc := d.externName(), d.externType()
	return &component.ExportDef{At: at, Name: name, Sort: desc.Sort, Desc: &desc}
}

// externName reads the nameattributes of an import or export.
func (d *decoder) externName() component.ExternName {
	start := d.pos
	switch b := d.byte(); b {
	case 0x00, 0x01:
		return component.ExternName{Name: d.name()}
	case 0x02:
		n := component.ExternName{Name: d.name()}
		d.attributes(&n)
		return n
	default:
		d.fail(start, "unknown form %#x of a name", b)
		return component.ExternName{}
	}
}

func (d *decoder) attributes(n *component.ExternName) {
	var seen [3]bool
	for range d.count() {
		start := d.pos
		kind := d.byte()
		if int(kind) >= len(seen) {
			d.fail(start, "unknown attribute %#x of a name", kind)
			return
		}
		label := [...]string{"implements", "versionsuffix", "external-id"}[kind]
		if seen[kind] {
			d.fail(start, "a name has two attributes %s", label)
			return
		}
		seen[kind] = true
		value := d.name()
		switch kind {
		case 0:
			n.Implements = value
		case 1:
			n.VersionSuffix = value
		case 2: // any string
			continue
		}
		if value == "" {
			d.fail(start, "a name's attribute %s is empty", label)
			return
		}
	}
}

func (d *decoder) externType() component.ExternDesc {
	desc := component.ExternDesc{Sort: d.externSort()}
	start := d.pos
	switch desc.Sort {
	case component.SortType:
		switch b := d.byte(); b {
		case 0x00:
			desc.Index = d.u32()
		case 0x01:
			desc.SubResource = true
		default:
			d.fail(start, "unknown bound %#x of a type", b)
		}
	case component.SortValue:
		switch b := d.byte(); b {
		case 0x00:
			desc.ValueEq, desc.Index = true, d.u32()
		case 0x01:
			desc.Value = d.valType()
		default:
			d.fail(start, "unknown bound %#x of a value", b)
		}
	default:
		desc.Index = d.u32()
	}
	return desc
}
