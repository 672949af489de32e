// Package binary decodes the component model's binary format into package component's data.
//
// The format is that of
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md; each section has a file
// of its own, in which the functions carry the names of the grammar's productions. Decoding checks what
// the grammar says and what a [component.Component] cannot express (a canonical option given twice);
// whether indices exist and types fit is for package link.
//
// Differences from the specification:
//   - value sections, thread built-ins, stream.forward and future.forward, and core types of the GC
//     proposal are refused by name.
//   - external ids of imports and exports are dropped, since nothing depends on them.
package binary

import (
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// FormatError says where bytes are not a component.
type FormatError struct {
	// Offset is the byte offset in the file at which decoding stopped.
	Offset int
	// Section is the kind of section that holds the offset, or "" outside of any.
	Section string
	// Msg says what is wrong.
	Msg string
}

// Error returns offset, section and message.
func (e *FormatError) Error() string {
	if e.Section == "" {
		return fmt.Sprintf("decode at %#x: %s", e.Offset, e.Msg)
	}
	return fmt.Sprintf("decode at %#x (%s section): %s", e.Offset, e.Section, e.Msg)
}

// Limits on what a file may make the decoder, and what follows it, build. They are far above what tools
// produce (a JavaScript application has 860 definitions) and keep the decoded form of a hostile file below
// 100 MB.
const (
	// maxDefinitions bounds the definitions of a file, those of nested components and types included.
	maxDefinitions = 200_000
	// maxElements bounds the elements of all vectors of a file: definitions, fields, arguments, exports, …
	maxElements = 500_000
	// maxNameLen bounds names, in bytes.
	maxNameLen = 100_000
	// maxDepth bounds how deep components and types nest, so that recursion over them is safe.
	maxDepth = 100
)

// Decode returns the component that wasm holds. Its core modules and raw descriptions alias wasm, which
// must not change afterwards. An error is a [*FormatError].
func Decode(wasm []byte) (*component.Component, error) {
	d := &decoder{buf: wasm, end: len(wasm)}
	c := d.component()
	if d.err != nil {
		return nil, d.err
	}
	return c, nil
}

// decoder reads buf from pos up to end, where end is that of the innermost section. All positions are
// those in the file.
//
// The first error sticks: it moves pos to end, and every later read returns zero.
type decoder struct {
	buf         []byte
	pos, end    int
	section     string
	depth       int
	definitions int
	elements    int
	err         *FormatError
}

// The preambles: magic, version and layer.
const (
	magic              = "\x00asm"
	coreModulePreamble = magic + "\x01\x00\x00\x00"
	componentPreamble  = magic + "\x0d\x00\x01\x00"
	preambleLen        = 8
)

// component decodes from the preamble to end.
func (d *decoder) component() *component.Component {
	c := &component.Component{Offset: d.pos}
	d.preamble()
	for d.pos < d.end {
		d.sectionOf(c)
	}
	return c
}

func (d *decoder) preamble() {
	head := d.buf[d.pos:min(d.pos+preambleLen, d.end)]
	switch {
	case len(head) < len(magic) || string(head[:len(magic)]) != magic:
		d.fail(d.pos, "not WebAssembly: the file does not begin with %q", magic)
	case len(head) < preambleLen:
		d.fail(d.end, "unexpected end of the preamble")
	case string(head) == coreModulePreamble:
		d.fail(d.pos+len(magic), "a core module stands where a component is expected")
	case string(head) != componentPreamble:
		d.fail(d.pos+len(magic), "unknown version % x of the component model, know % x", head[len(magic):], componentPreamble[len(magic):])
	default:
		d.pos += preambleLen
	}
}

// sectionNames are the names of the sections by their ids.
var sectionNames = [...]string{
	"custom", "core module", "core instance", "core type", "component", "instance", "alias", "type", "canon", "start", "import", "export", "value",
}

// sectionOf decodes one section and appends its definitions to c.
func (d *decoder) sectionOf(c *component.Component) {
	outer, outerEnd := d.section, d.end
	start := d.pos
	id := d.byte()
	if int(id) >= len(sectionNames) {
		d.fail(start, "unknown section id %#x", id)
		return
	}
	d.section = sectionNames[id]
	size := d.u32()
	if int64(size) > int64(d.end-d.pos) {
		d.fail(d.pos, "unexpected end: the section has %d bytes, %d are left", size, d.end-d.pos)
		return
	}
	d.end = d.pos + int(size)
	d.sectionBody(id, c)
	if d.err != nil {
		return
	}
	if d.pos != d.end {
		d.fail(d.pos, "%d bytes left over at the end of the section", d.end-d.pos)
		return
	}
	d.section, d.end = outer, outerEnd
}

func (d *decoder) sectionBody(id byte, c *component.Component) {
	switch id {
	case 0:
		d.custom()
	case 1:
		d.define(&c.Definitions, d.coreModule)
	case 2:
		d.defineAll(&c.Definitions, d.coreInstance)
	case 3:
		d.defineAll(&c.Definitions, d.coreTypeDef)
	case 4:
		d.define(&c.Definitions, d.nestedComponent)
	case 5:
		d.defineAll(&c.Definitions, d.instance)
	case 6:
		d.defineAll(&c.Definitions, d.alias)
	case 7:
		d.defineAll(&c.Definitions, d.typeDef)
	case 8:
		d.defineAll(&c.Definitions, d.canon)
	case 9:
		d.define(&c.Definitions, d.start)
	case 10:
		d.defineAll(&c.Definitions, d.importDef)
	case 11:
		d.defineAll(&c.Definitions, d.export)
	case 12:
		d.fail(d.pos, "value definitions are not supported")
	}
}

// defineAll decodes a vector of definitions.
func (d *decoder) defineAll(defs *[]component.Definition, one func(component.At) component.Definition) {
	for range d.count() {
		d.define(defs, one)
		if d.err != nil {
			return
		}
	}
}

// define decodes one definition and appends it to defs.
func (d *decoder) define(defs *[]component.Definition, one func(component.At) component.Definition) {
	if d.definitions++; d.definitions > maxDefinitions {
		d.fail(d.pos, "more than %d definitions", maxDefinitions)
		return
	}
	*defs = append(*defs, one(component.At(d.pos)))
}

// nested runs f one level deeper.
func (d *decoder) nested(f func()) {
	if d.depth++; d.depth > maxDepth {
		d.fail(d.pos, "nesting is deeper than %d", maxDepth)
		return
	}
	f()
	d.depth--
}

// custom checks a custom section's name and skips the rest.
func (d *decoder) custom() {
	d.name()
	if d.err == nil {
		d.pos = d.end
	}
}

func (d *decoder) coreModule(at component.At) component.Definition {
	module := d.buf[d.pos:d.end]
	switch {
	case len(module) < preambleLen || string(module[:len(magic)]) != magic:
		d.fail(d.pos, "the core module does not begin with %q and a version", magic)
	case string(module[:preambleLen]) == componentPreamble:
		d.fail(d.pos+len(magic), "a component stands where a core module is expected")
	case string(module[:preambleLen]) != coreModulePreamble:
		d.fail(d.pos+len(magic), "unknown version % x of the core module, know % x", module[len(magic):preambleLen], coreModulePreamble[len(magic):])
	default:
		d.pos = d.end
	}
	return &component.CoreModuleDef{At: at, Bytes: module}
}

func (d *decoder) nestedComponent(at component.At) component.Definition {
	def := &component.ComponentDef{At: at}
	d.nested(func() { def.Component = d.component() })
	return def
}
