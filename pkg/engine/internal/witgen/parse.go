package main

import (
	"fmt"
	"strings"
	"text/scanner"
	"unicode"
)

// iface is a WIT interface.
type iface struct {
	pkg   string // wasi:io@0.2.12
	name  string
	types []*typeDef
	funcs []*funcDef
}

// fullName returns the name as components spell it: wasi:io/streams@0.2.12.
func (i *iface) fullName() string { return qualify(i.pkg, i.name) }

// qualify returns the full name of interface name in package pkg.
func qualify(pkg, name string) string {
	id, version, ok := strings.Cut(pkg, "@")
	if !ok {
		return id + "/" + name
	}
	return id + "/" + name + "@" + version
}

// typeDef is a named type of an interface.
type typeDef struct {
	name string
	kind string // the keyword: type, record, variant, enum, flags, resource; or use
	// fields of a record, cases of a variant or enum, or labels of flags.
	fields []field
	of     *typeRef // what a type is an alias of
	from   string   // use: the interface's full name
	origin string   // use: the type's name there
}

// field is a field, a case, a label or a parameter. typ is nil if there is no payload.
type field struct {
	name string
	typ  *typeRef
}

// typeRef is a type where it is used: a primitive, a type constructor with args, or the name of a
// typeDef. An argument is nil where the WIT says _.
type typeRef struct {
	name string
	args []*typeRef
}

// funcDef is a function; name is what components spell ([method]input-stream.read).
type funcDef struct {
	name   string
	params []field
	result *typeRef
}

// parser is a recursive descent over the subset of WIT that hosts' interfaces use
// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/WIT.md). Worlds are skipped: what
// a host implements does not depend on them. The first error ends the parsing.
type parser struct {
	scan scanner.Scanner
	tok  rune   // the current token: scanner.Ident, scanner.EOF or a punctuation character
	text string // its text
	pkg  string
	err  error
}

// parse returns the interfaces of one file, which belongs to package pkg.
func parse(file, src, pkg string) ([]*iface, error) {
	p := &parser{pkg: pkg}
	p.scan.Init(strings.NewReader(src))
	p.scan.Filename = file
	p.scan.Mode = scanner.ScanIdents | scanner.ScanComments | scanner.SkipComments
	p.scan.IsIdentRune = func(r rune, i int) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || i == 0 && r == '%' || i > 0 && r == '-'
	}
	p.scan.Error = func(_ *scanner.Scanner, msg string) { p.fail(msg) }
	p.advance()
	var out []*iface
	for p.tok != scanner.EOF {
		linked := p.gates()
		switch p.ident() {
		case "package":
			if got := p.packageName(); got != pkg {
				p.fail("package is " + got + ", not " + pkg)
			}
			p.expect(';')
		case "world":
			p.ident()
			p.skipBlock()
		case "interface":
			if i := p.iface(); linked {
				out = append(out, i)
			}
		default:
			p.fail("not a package, world or interface")
		}
	}
	return out, p.err
}

func (p *parser) fail(msg string) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: %s", p.scan.Position, msg)
	}
	p.tok = scanner.EOF
}

func (p *parser) advance() {
	if p.err != nil {
		return
	}
	p.tok = p.scan.Scan()
	p.text = strings.TrimPrefix(p.scan.TokenText(), "%")
}

// take moves over tok if it is next.
func (p *parser) take(tok rune) bool {
	if p.tok != tok {
		return false
	}
	p.advance()
	return true
}

func (p *parser) expect(tok rune) {
	if !p.take(tok) {
		p.fail(fmt.Sprintf("%q instead of %s", p.text, scanner.TokenString(tok)))
	}
}

func (p *parser) ident() string {
	text := p.text
	p.expect(scanner.Ident)
	return text
}

// gates moves over feature gates and says whether hosts link what follows: no unstable feature is on by
// default in any of them.
func (p *parser) gates() (linked bool) {
	linked = true
	for p.take('@') {
		linked = p.ident() != "unstable" && linked
		for p.expect('('); p.err == nil && !p.take(')'); p.advance() {
		}
	}
	return linked
}

func (p *parser) skipBlock() {
	p.expect('{')
	for depth := 1; depth > 0 && p.tok != scanner.EOF; p.advance() {
		switch p.tok {
		case '{':
			depth++
		case '}':
			depth--
		}
	}
}

// packageName parses wasi:io@0.2.12.
func (p *parser) packageName() string {
	name := p.ident()
	p.expect(':')
	return name + ":" + p.ident() + p.version()
}

// version parses @0.2.12, which may be followed by ".{".
func (p *parser) version() string {
	if !p.take('@') {
		return ""
	}
	v := "@" + p.ident()
	for p.tok == '.' && p.scan.Peek() != '{' {
		p.advance()
		v += "." + p.ident()
	}
	return v
}

func (p *parser) iface() *iface {
	i := &iface{pkg: p.pkg, name: p.ident()}
	for p.expect('{'); p.err == nil && !p.take('}'); {
		linked := p.gates()
		name := p.ident()
		if !linked {
			i := new(iface) // parsed for its end only
			p.item(i, name)
			continue
		}
		p.item(i, name)
	}
	return i
}

// item parses an item of an interface, of which first, a keyword or name, has been read.
func (p *parser) item(i *iface, first string) {
	if p.take(':') {
		i.funcs = append(i.funcs, p.function(first))
		return
	}
	switch first {
	case "use":
		p.use(i)
	case "resource":
		p.resource(i)
	case "type":
		t := &typeDef{kind: first, name: p.ident()}
		p.expect('=')
		t.of = p.typeRef()
		p.expect(';')
		i.types = append(i.types, t)
	case "record", "variant", "enum", "flags":
		t := &typeDef{kind: first, name: p.ident()}
		for p.expect('{'); p.err == nil && !p.take('}'); {
			f := field{name: p.ident()}
			switch {
			case first == "record":
				p.expect(':')
				f.typ = p.typeRef()
			case first == "variant" && p.take('('):
				f.typ = p.typeRef()
				p.expect(')')
			}
			t.fields = append(t.fields, f)
			p.separator('}')
		}
		i.types = append(i.types, t)
	default:
		p.fail("unknown keyword " + first)
	}
}

// separator moves over a comma, which the last element before end need not have.
func (p *parser) separator(end rune) {
	if p.tok != end {
		p.expect(',')
	}
}

func (p *parser) use(i *iface) {
	from, pkg := p.ident(), p.pkg
	if p.take(':') {
		pkg = from + ":" + p.ident()
		p.expect('/')
		from = p.ident()
		pkg += p.version()
	}
	p.expect('.')
	for p.expect('{'); p.err == nil && !p.take('}'); p.separator('}') {
		t := &typeDef{kind: "use", from: qualify(pkg, from), origin: p.ident()}
		t.name = t.origin
		if p.tok == scanner.Ident && p.text == "as" {
			p.advance()
			t.name = p.ident()
		}
		i.types = append(i.types, t)
	}
	p.expect(';')
}

func (p *parser) resource(i *iface) {
	name := p.ident()
	i.types = append(i.types, &typeDef{kind: "resource", name: name})
	if p.take(';') {
		return
	}
	for p.expect('{'); p.err == nil && !p.take('}'); {
		linked := p.gates()
		member := p.ident()
		var f *funcDef
		if member == "constructor" && p.tok == '(' {
			f = &funcDef{name: "[constructor]" + name, params: p.params(), result: &typeRef{name: name}}
			p.expect(';')
		} else {
			p.expect(':')
			if p.tok == scanner.Ident && p.text == "static" {
				p.advance()
				f = p.function("[static]" + name + "." + member)
			} else {
				f = p.function("[method]" + name + "." + member)
				self := &typeRef{name: "borrow", args: []*typeRef{{name: name}}}
				f.params = append([]field{{"self", self}}, f.params...)
			}
		}
		if linked {
			i.funcs = append(i.funcs, f)
		}
	}
}

func (p *parser) function(name string) *funcDef {
	if p.ident() != "func" {
		p.fail(name + " is not a func")
	}
	f := &funcDef{name: name, params: p.params()}
	if p.take('-') {
		p.expect('>')
		f.result = p.typeRef()
	}
	p.expect(';')
	return f
}

func (p *parser) params() (out []field) {
	for p.expect('('); p.err == nil && !p.take(')'); p.separator(')') {
		name := p.ident()
		p.expect(':')
		out = append(out, field{name, p.typeRef()})
	}
	return out
}

func (p *parser) typeRef() *typeRef {
	t := &typeRef{name: p.ident()}
	if t.name == "_" {
		return nil
	}
	if p.take('<') {
		for p.err == nil && !p.take('>') {
			t.args = append(t.args, p.typeRef())
			p.separator('>')
		}
	}
	return t
}
