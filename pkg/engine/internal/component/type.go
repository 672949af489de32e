package component

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Kind is the shape of a value type.
type Kind uint8

// The kinds of value types. KindIndex stands only in a [ValType] and means "the type with this index".
const (
	KindIndex Kind = iota
	KindBool
	KindS8
	KindU8
	KindS16
	KindU16
	KindS32
	KindU32
	KindS64
	KindU64
	KindF32
	KindF64
	KindChar
	KindString
	KindErrorContext
	KindList
	KindFixedList
	KindMap
	KindRecord
	KindTuple
	KindVariant
	KindEnum
	KindOption
	KindResult
	KindFlags
	KindOwn
	KindBorrow
	KindStream
	KindFuture
	kindCount
)

// String returns the kind as WIT writes it.
func (k Kind) String() string {
	if k >= kindCount {
		return "unknown kind"
	}
	return [kindCount]string{
		"index", "bool", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "f32", "f64", "char", "string", "error-context",
		"list", "list", "map", "record", "tuple", "variant", "enum", "option", "result", "flags", "own", "borrow", "stream", "future",
	}[k]
}

// IsPrimitive says whether a type of kind k has no parts.
func (k Kind) IsPrimitive() bool { return k >= KindBool && k <= KindErrorContext }

// Type is a value type with every index resolved. Types are immutable. Two interned types of the same
// [Types] are equal iff their pointers are.
type Type struct {
	Kind Kind
	// Fields of a record (named) or tuple (unnamed).
	Fields []Field
	// Cases of a variant or enum; of an option "none" and "some"; of a result "ok" and "error".
	Cases []Case
	// Labels of flags.
	Labels []string
	// Elem of a list, fixed-length list, stream or future; nil for a stream or future without one.
	Elem *Type
	// Length of a fixed-length list.
	Length uint32
	// Resource of an own or borrow.
	Resource *Resource

	id   uint32 // within the Types that interned it; 0 is not interned
	size int    // see Size; 0 is not interned
}

// MaxTypeSize bounds [Type.Size]: types share their parts, so that a few bytes of a binary can spell a tree
// that no memory holds.
const MaxTypeSize = 100_000

// Size returns the number of types that t consists of when it is spelled out, at most MaxTypeSize+1. t is
// interned.
func (t *Type) Size() int {
	if t.Kind.IsPrimitive() {
		return 1
	}
	return t.size
}

// Field is a field of a record or tuple, or a parameter of a function.
type Field struct {
	Name string
	Type *Type
}

// Case is a case of a variant; Type is nil if it has no payload.
type Case struct {
	Name string
	Type *Type
}

// Func is a function type with every index resolved. Result is nil if there is none.
type Func struct {
	Async  bool
	Params []Field
	Result *Type
}

// Resource is the identity of a resource type: two resource types are equal iff their pointers are.
type Resource struct {
	// Name is for messages: the WIT name where one is known.
	Name string
	// Host is the host's own data for a resource type that the host defines, else nil.
	Host any
	// Dtor is for the linker: the plan's number of the destructor, or -1.
	Dtor int
	// Instance is for the linker: the number of the component instance that defines it, or -1.
	Instance int
}

// The primitive types. They are interned in every [Types].
var (
	Bool         = &Type{Kind: KindBool}
	S8           = &Type{Kind: KindS8}
	U8           = &Type{Kind: KindU8}
	S16          = &Type{Kind: KindS16}
	U16          = &Type{Kind: KindU16}
	S32          = &Type{Kind: KindS32}
	U32          = &Type{Kind: KindU32}
	S64          = &Type{Kind: KindS64}
	U64          = &Type{Kind: KindU64}
	F32          = &Type{Kind: KindF32}
	F64          = &Type{Kind: KindF64}
	Char         = &Type{Kind: KindChar}
	String       = &Type{Kind: KindString}
	ErrorContext = &Type{Kind: KindErrorContext}
)

// Primitive returns the type of a primitive kind, and nil for any other.
func Primitive(k Kind) *Type {
	if !k.IsPrimitive() {
		return nil
	}
	return [kindCount]*Type{
		KindBool: Bool, KindS8: S8, KindU8: U8, KindS16: S16, KindU16: U16, KindS32: S32, KindU32: U32, KindS64: S64, KindU64: U64,
		KindF32: F32, KindF64: F64, KindChar: Char, KindString: String, KindErrorContext: ErrorContext,
	}[k]
}

// Types interns types, so that equality of types is equality of pointers. The zero value is ready.
// It is not safe for concurrent use.
type Types struct {
	byKey  map[string]*Type
	known  map[*Type]*Type // every type that was interned, and what came of it
	lastID uint32
	resIDs map[*Resource]uint32
}

// Intern returns the one type of ts that equals t, interning t's parts. Cost is linear in t's parts that
// are not interned yet.
func (ts *Types) Intern(t *Type) *Type {
	if t == nil || t.Kind.IsPrimitive() {
		return t
	}
	if have, ok := ts.known[t]; ok {
		return have
	}
	if ts.byKey == nil {
		ts.byKey, ts.known, ts.resIDs = map[string]*Type{}, map[*Type]*Type{}, map[*Resource]uint32{}
	}
	c := *t
	c.size = 1
	key := []byte{byte(t.Kind)}
	child := func(p *Type) *Type {
		p = ts.Intern(p)
		if p != nil {
			c.size = min(c.size+p.Size(), MaxTypeSize+1)
		}
		switch {
		case p == nil:
			key = append(key, 0)
		case p.Kind.IsPrimitive():
			key = append(key, 1, byte(p.Kind))
		default:
			key = binary.AppendUvarint(append(key, 2), uint64(p.id))
		}
		return p
	}
	name := func(s string) { key = append(binary.AppendUvarint(key, uint64(len(s))), s...) }
	key = binary.AppendUvarint(key, uint64(len(t.Fields)+len(t.Cases)+len(t.Labels))) // one of them is set
	if t.Fields != nil {
		c.Fields = make([]Field, len(t.Fields))
		for i, f := range t.Fields {
			name(f.Name)
			c.Fields[i] = Field{f.Name, child(f.Type)}
		}
	}
	if t.Cases != nil {
		c.Cases = make([]Case, len(t.Cases))
		for i, k := range t.Cases {
			name(k.Name)
			c.Cases[i] = Case{k.Name, child(k.Type)}
		}
	}
	for _, l := range t.Labels {
		name(l)
	}
	c.Elem = child(t.Elem)
	key = binary.AppendUvarint(key, uint64(t.Length))
	if t.Resource != nil {
		id := ts.resIDs[t.Resource]
		if id == 0 {
			id = uint32(len(ts.resIDs) + 1)
			ts.resIDs[t.Resource] = id
		}
		key = binary.AppendUvarint(key, uint64(id))
	}
	have, ok := ts.byKey[string(key)]
	if !ok {
		ts.lastID++
		c.id = ts.lastID
		have = &c
		ts.byKey[string(key)], ts.known[have] = have, have
	}
	ts.known[t] = have
	return have
}

// maxPrint bounds what String returns, in bytes, but for one name: types share parts, and print as trees.
const maxPrint = 1 << 12

// String returns the type as WIT writes it, with records and variants spelled out. It is cut where it gets long.
func (t *Type) String() string {
	var b strings.Builder
	t.print(&b)
	return b.String()
}

func (t *Type) print(b *strings.Builder) {
	switch {
	case t == nil:
		b.WriteString("_")
		return
	case b.Len() > maxPrint:
		b.WriteString("…")
		return
	}
	b.WriteString(t.Kind.String())
	switch t.Kind {
	case KindList, KindStream, KindFuture:
		if t.Elem != nil {
			printParts(b, "<", ">", 1, func(int) { t.Elem.print(b) })
		}
	case KindOption:
		printParts(b, "<", ">", 1, func(int) { t.Cases[1].Type.print(b) })
	case KindFixedList:
		printParts(b, "<", ">", 1, func(int) {
			t.Elem.print(b)
			fmt.Fprintf(b, ", %d", t.Length)
		})
	case KindResult:
		printParts(b, "<", ">", 2, func(i int) { t.Cases[i].Type.print(b) })
	case KindOwn, KindBorrow:
		b.WriteString("<" + t.Resource.Name + ">")
	case KindRecord, KindTuple:
		printParts(b, "{", "}", len(t.Fields), func(i int) { t.Fields[i].print(b) })
	case KindVariant, KindEnum:
		printParts(b, "{", "}", len(t.Cases), func(i int) {
			b.WriteString(t.Cases[i].Name)
			if t.Cases[i].Type != nil {
				printParts(b, "(", ")", 1, func(int) { t.Cases[i].Type.print(b) })
			}
		})
	case KindFlags:
		printParts(b, "{", "}", len(t.Labels), func(i int) { b.WriteString(t.Labels[i]) })
	}
}

func (f *Field) print(b *strings.Builder) {
	if f.Name != "" {
		b.WriteString(f.Name + ": ")
	}
	f.Type.print(b)
}

// printParts prints n parts between brackets, as many as there is room for.
func printParts(b *strings.Builder, open, end string, n int, part func(i int)) {
	b.WriteString(open)
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() > maxPrint {
			b.WriteString("…")
			break
		}
		part(i)
	}
	b.WriteString(end)
}

// String returns the function type as WIT writes it, cut like that of a [Type].
func (f *Func) String() string {
	var b strings.Builder
	if f.Async {
		b.WriteString("async ")
	}
	b.WriteString("func")
	printParts(&b, "(", ")", len(f.Params), func(i int) { f.Params[i].print(&b) })
	if f.Result != nil {
		b.WriteString(" -> ")
		f.Result.print(&b)
	}
	return b.String()
}
