package core

import "encoding/binary"

// Limits on what few bytes of a module can declare many of.
const (
	// maxElements bounds the initial elements of a module's tables, and what each table grows to; wazero needs
	// eight bytes for each. It is the limit that browsers have for a table.
	maxElements = 10_000_000
	// maxTables bounds the tables of a module, each of which may grow; toolchains make one or two.
	maxTables = 100
	// maxFuncLocals bounds the local variables of a function, for which wazero needs eight bytes each while it
	// compiles; it is the limit that browsers have.
	maxFuncLocals = 50_000
	// maxLocals bounds those of all functions of a module; StarlingMonkey has 51,000.
	maxLocals = 20_000_000
)

// table reads a table of the table section, where an initial value may stand with it.
func (m *module) table(r *reader) {
	const hasInit = 0x40
	start := r.pos
	if r.pos < r.end && r.buf[r.pos] == hasInit {
		r.fail(start, "tables with an initial value are not supported")
	}
	t := m.add(r.tableType())
	if len(m.items[KindTable]) > maxTables {
		r.fail(start, "more than %d tables", maxTables)
	}
	if m.elements += uint64(t.Limits.Min); m.elements > maxElements {
		r.fail(start, "the tables of the module have more than %d elements", maxElements)
	}
}

// boundedTables reads the table section and returns it with no table that can outgrow maxElements: what a table
// takes is the host's memory, which no limit of the guest's own memory bounds.
func (m *module) boundedTables(r *reader) []byte {
	first := len(m.items[KindTable])
	m.section(r, sectionTable)
	tables := m.items[KindTable][first:]
	body := binary.AppendUvarint(nil, uint64(len(tables)))
	for _, t := range tables {
		most := uint32(maxElements)
		if t.Limits.HasMax {
			most = min(most, t.Limits.Max)
		}
		const hasMax = 1
		body = append(body, t.Value, hasMax)
		body = binary.AppendUvarint(binary.AppendUvarint(body, uint64(t.Limits.Min)), uint64(most))
	}
	return appendBlob([]byte{sectionTable}, body)
}

// code reads the sections whose lengths decide what wazero allocates, and which say nothing about imports
// and exports: wazero makes room for as many elements, bytes and locals as a module claims to have, before
// it looks whether they are there.
func (r *reader) code(id byte) {
	switch id {
	case sectionStart, sectionDataCount:
		r.u32()
	case sectionElement:
		r.each(r.elementSegment)
	case sectionCode:
		locals := 0
		r.each(func() { r.body(&locals) })
	case sectionData:
		r.each(r.dataSegment)
	}
}

// body skips a function's body, and adds the number of its local variables to locals.
func (r *reader) body(locals *int) {
	r.within(r.size(), func() {
		start, n := r.pos, 0
		r.each(func() {
			n += int(min(r.u32(), maxFuncLocals+1))
			r.valueType()
			if n > maxFuncLocals {
				r.fail(start, "a function has more than %d local variables", maxFuncLocals)
			}
		})
		if *locals += n; *locals > maxLocals {
			r.fail(start, "the functions of the module have more than %d local variables", maxLocals)
		}
		r.pos = r.end
	})
}

func (r *reader) dataSegment() {
	start := r.pos
	switch kind := r.u32(); kind {
	case 0:
		r.constExpr()
	case 1: // passive
	case 2:
		r.u32() // memory
		r.constExpr()
	default:
		r.fail(start, "unknown kind %#x of a data segment", kind)
	}
	r.blob()
}

func (r *reader) elementSegment() {
	const passive, explicit, exprs = 1, 2, 4 // explicit: an index of a table, or declarative if passive
	start := r.pos
	kind := r.u32()
	if kind > passive|explicit|exprs {
		r.fail(start, "unknown kind %#x of an element segment", kind)
		return
	}
	if kind&passive == 0 {
		if kind&explicit != 0 {
			r.u32() // table
		}
		r.constExpr()
	}
	if kind&(passive|explicit) != 0 {
		if kind&exprs != 0 {
			r.valueType()
		} else {
			r.byte() // element kind
		}
	}
	if kind&exprs != 0 {
		r.each(r.constExpr)
	} else {
		r.each(func() { r.u32() })
	}
}
