package core

// The sections of a core module by their ids.
const (
	sectionCustom byte = iota
	sectionType
	sectionImport
	sectionFunction
	sectionTable
	sectionMemory
	sectionGlobal
	sectionExport
	sectionStart
	sectionElement
	sectionCode
	sectionData
	sectionDataCount
	sectionTag
)

// sectionNames are the names of the sections by their ids.
var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag",
}

// sectionOrder is where a section stands in a module; custom sections stand anywhere. The later ids do not
// follow the order: tags come before globals, the data count before code.
func sectionOrder(id byte) int {
	switch id {
	case sectionTag:
		return 2*int(sectionMemory) + 1
	case sectionDataCount:
		return 2*int(sectionElement) + 1
	}
	return 2 * int(id)
}

// preamble is how each core module begins: the magic, version 1 and layer 0.
const preamble = "\x00asm\x01\x00\x00\x00"

// section is where a section lies in the module: id and size at start, content from body to end.
type section struct {
	id               byte
	start, body, end int
}

// sections reads a module section by section.
type sections struct {
	reader
	order int // that of the last section that is not custom
}

// newReader returns a reader after the preamble.
func newReader(module []byte) *sections {
	r := &sections{reader: reader{buf: module, end: len(module)}}
	if len(module) < len(preamble) || string(module[:len(preamble)]) != preamble {
		r.fail(0, "not a core module: it does not begin with % x", preamble)
		return r
	}
	r.pos = len(preamble)
	return r
}

// nextSection reads the next section's head. It is false at the end of the module and on errors.
func (r *sections) nextSection() (section, bool) {
	if r.pos >= r.end {
		return section{}, false
	}
	s := section{start: r.pos}
	s.id = r.byte()
	if int(s.id) >= len(sectionNames) {
		r.fail(s.start, "unknown section id %#x", s.id)
		return s, false
	}
	if s.id != sectionCustom {
		if o := sectionOrder(s.id); o <= r.order {
			r.fail(s.start, "the %s section is out of order", sectionNames[s.id])
			return s, false
		} else {
			r.order = o
		}
	}
	r.section = sectionNames[s.id]
	n := r.size()
	s.body, s.end = r.pos, r.pos+n
	r.section = ""
	return s, r.err == nil
}

// enter runs f on the section's content, all of which it must read.
func (r *sections) enter(s section, f func(*reader)) {
	r.section = sectionNames[s.id]
	r.within(s.end-s.body, func() { f(&r.reader) })
	r.section = ""
}
