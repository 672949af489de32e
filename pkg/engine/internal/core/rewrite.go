package core

import (
	"encoding/binary"
	"slices"
)

// RewriteImports returns a copy of module in which each import has the names that rename says; i counts
// the imports. Custom sections are dropped, except for the names of the module and its functions, which
// traps show, and tables get a maximum; everything else stays as it is.
//
// The copy is safe to compile: RewriteImports checks whatever wazero would allocate memory by, see
// code.go. An error is a [*FormatError].
func RewriteImports(wasm []byte, rename func(i int, imp Import) (module, name string)) ([]byte, error) {
	r, m := newReader(wasm), &module{}
	parts := [][]byte{[]byte(preamble)}
	named := false
	for {
		s, ok := r.nextSection()
		if !ok {
			break
		}
		r.enter(s, func(r *reader) {
			switch s.id {
			case sectionCustom:
				if names := r.custom(); names != nil && !named {
					parts, named = append(parts, names), true
				}
			case sectionImport:
				parts = append(parts, m.renamed(r, rename))
			case sectionTable:
				parts = append(parts, m.boundedTables(r))
			case sectionStart, sectionElement, sectionCode, sectionData, sectionDataCount:
				r.code(s.id)
				parts = append(parts, wasm[s.start:s.end])
			default:
				m.section(r, s.id)
				parts = append(parts, wasm[s.start:s.end])
			}
		})
	}
	if r.err != nil {
		return nil, r.err
	}
	return slices.Concat(parts...), nil
}

// renamed reads the import section and returns it with the imports renamed.
func (m *module) renamed(r *reader, rename func(i int, imp Import) (module, name string)) []byte {
	n := r.count()
	body := binary.AppendUvarint(nil, uint64(n))
	for i := 0; i < n && r.err == nil; i++ {
		imp := Import{Module: r.name(), Name: r.name()}
		start := r.pos
		imp.Type = m.externType(r)
		if r.err != nil {
			break
		}
		module, name := rename(i, imp)
		body = appendBlob(body, module)
		body = appendBlob(body, name)
		body = append(body, r.buf[start:r.pos]...)
	}
	return appendBlob([]byte{sectionImport}, body)
}

// appendBlob appends the length of v and v.
func appendBlob[T string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// custom reads a custom section. It returns what to keep of it: a section with the names of the module and
// of its functions, or nil. Malformed names are dropped, as the specification wants.
func (r *reader) custom() []byte {
	const nameSection = "name"
	if r.name() != nameSection {
		r.pos = r.end
		return nil
	}
	names := reader{buf: r.buf, pos: r.pos, end: r.end}
	r.pos = r.end
	body := appendBlob(nil, nameSection)
	for names.pos < names.end {
		start := names.pos
		id := names.byte()
		n := names.size()
		names.within(n, func() {
			switch id {
			case 0:
				names.name()
			case 1:
				names.each(func() {
					names.u32()
					names.name()
				})
			default:
				names.pos = names.end
			}
		})
		if names.err == nil && id <= 1 {
			body = append(body, r.buf[start:names.pos]...)
		}
	}
	if names.err != nil {
		return nil
	}
	return appendBlob([]byte{sectionCustom}, body)
}
