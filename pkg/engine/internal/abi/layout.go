package abi

import (
	"fmt"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// The flattening limits of the specification (MAX_FLAT_PARAMS, MAX_FLAT_RESULTS).
const (
	maxFlatParams  = 16
	maxFlatResults = 1
)

// Layout is how a value of one type stands in linear memory and among core values. Layouts are
// immutable and shared; [Layouts] makes them.
type Layout struct {
	kind component.Kind
	// size and align in bytes, as elem_size and alignment of the specification.
	size, align uint32
	// flat is the type's core types (flatten_type), of which only the first maxFlatParams+1 are kept: a
	// type that has more never stands among core values.
	flat []component.CoreValType
	// fields of a record or tuple; the one element type of a list or fixed-length list.
	fields []fieldLayout
	// count of a fixed-length list's elements.
	count uint32
	// cases of a variant, enum, option or result; nil for a case without payload. payload is the
	// payload's offset in memory, and size of the discriminant in bytes is disc.
	cases   []*Layout
	payload uint32
	disc    uint32
	// labels is the number of flags.
	labels int
	// owns says whether a value may hold an own handle.
	owns bool
	// resource of an own or borrow.
	resource *component.Resource
	// typ is the type itself, for messages.
	typ *component.Type
}

// fieldLayout places a field: at offset in memory, from core value number flat on.
type fieldLayout struct {
	*Layout
	offset uint32
	flatAt int
}

// Flat returns the type's core types. The caller must not change the slice.
func (l *Layout) Flat() []component.CoreValType { return l.flat }

// Layouts makes layouts, each type's once. The zero value is ready. It is not safe for concurrent use.
type Layouts struct {
	types  component.Types
	byType map[*component.Type]*Layout
}

// Of returns the layout of t. t need not be interned.
func (ls *Layouts) Of(t *component.Type) *Layout {
	t = ls.types.Intern(t)
	if l, ok := ls.byType[t]; ok {
		return l
	}
	if ls.byType == nil {
		ls.byType = map[*component.Type]*Layout{}
	}
	l := &Layout{kind: t.Kind, typ: t, resource: t.Resource}
	ls.byType[t] = l
	switch t.Kind {
	case component.KindBool, component.KindS8, component.KindU8:
		l.scalar(1, component.CoreI32)
	case component.KindS16, component.KindU16:
		l.scalar(2, component.CoreI32)
	case component.KindS32, component.KindU32, component.KindChar, component.KindOwn, component.KindBorrow,
		component.KindErrorContext, component.KindStream, component.KindFuture:
		l.scalar(4, component.CoreI32)
	case component.KindS64, component.KindU64:
		l.scalar(8, component.CoreI64)
	case component.KindF32:
		l.scalar(4, component.CoreF32)
	case component.KindF64:
		l.scalar(8, component.CoreF64)
	case component.KindString:
		l.size, l.align, l.flat = 8, 4, []component.CoreValType{component.CoreI32, component.CoreI32}
	case component.KindList:
		l.size, l.align, l.flat = 8, 4, []component.CoreValType{component.CoreI32, component.CoreI32}
		l.fields = []fieldLayout{{Layout: ls.Of(t.Elem)}}
	case component.KindFixedList:
		e := ls.Of(t.Elem)
		l.size, l.align, l.count = mulSize(e.size, t.Length), e.align, t.Length
		l.fields = []fieldLayout{{Layout: e}}
		for i := uint32(0); i < t.Length && len(l.flat) <= maxFlatParams; i++ {
			l.appendFlat(e.flat)
		}
	case component.KindRecord, component.KindTuple:
		l.record(ls, t.Fields)
	case component.KindVariant, component.KindEnum, component.KindOption, component.KindResult:
		l.variant(ls, t.Cases)
	case component.KindFlags:
		l.labels = len(t.Labels)
		switch {
		case l.labels <= 8:
			l.scalar(1, component.CoreI32)
		case l.labels <= 16:
			l.scalar(2, component.CoreI32)
		default:
			l.scalar(4, component.CoreI32)
		}
	default:
		panic("BUG: no layout of " + t.Kind.String())
	}
	l.owns = l.kind == component.KindOwn
	for _, f := range l.fields {
		l.owns = l.owns || f.owns
	}
	for _, c := range l.cases {
		l.owns = l.owns || c != nil && c.owns
	}
	return l
}

// maxSize bounds the size of a value in memory, as that of a list is bounded; sizes above it are this one.
const maxSize = maxListBytes + 1

func mulSize(a, b uint32) uint32 { return uint32(min(uint64(a)*uint64(b), maxSize)) }

func (l *Layout) appendFlat(flat []component.CoreValType) {
	l.flat = append(l.flat, flat[:min(len(flat), maxFlatParams+1-len(l.flat))]...)
}

func (l *Layout) scalar(size uint32, t component.CoreValType) {
	l.size, l.align, l.flat = size, size, []component.CoreValType{t}
}

func (l *Layout) record(ls *Layouts, fields []component.Field) {
	l.align = 1
	for _, f := range fields {
		p := ls.Of(f.Type)
		l.size = alignTo(l.size, p.align)
		l.fields = append(l.fields, fieldLayout{p, l.size, len(l.flat)})
		l.size = min(l.size+p.size, maxSize) // at most 2^28 each: no overflow
		l.align = max(l.align, p.align)
		l.appendFlat(p.flat)
	}
	l.size = alignTo(l.size, l.align)
}

func (l *Layout) variant(ls *Layouts, cases []component.Case) {
	l.disc = discriminantSize(len(cases))
	l.align = l.disc
	l.flat = []component.CoreValType{component.CoreI32}
	var size uint32
	for _, c := range cases {
		if c.Type == nil {
			l.cases = append(l.cases, nil)
			continue
		}
		p := ls.Of(c.Type)
		l.cases = append(l.cases, p)
		l.align = max(l.align, p.align)
		l.payload = max(l.payload, p.align)
		size = max(size, p.size)
		for i, t := range p.flat {
			if 1+i < len(l.flat) {
				l.flat[1+i] = join(l.flat[1+i], t)
			} else if len(l.flat) <= maxFlatParams {
				l.flat = append(l.flat, t)
			}
		}
	}
	l.payload = alignTo(l.disc, max(l.payload, 1))
	l.size = alignTo(l.payload+size, l.align)
}

func discriminantSize(cases int) uint32 {
	switch {
	case cases <= 1<<8:
		return 1
	case cases <= 1<<16:
		return 2
	}
	return 4
}

// join is the core type that can hold both a and b.
func join(a, b component.CoreValType) component.CoreValType {
	switch {
	case a == b:
		return a
	case a == component.CoreI32 && b == component.CoreF32, a == component.CoreF32 && b == component.CoreI32:
		return component.CoreI32
	}
	return component.CoreI64
}

func alignTo(n, align uint32) uint32 { return (n + align - 1) &^ (align - 1) }

// Signature is the plan of one lifted or lowered function: its parameters and result as layouts, and
// where they stand among the core values.
type Signature struct {
	params, result *Layout // result is nil if there is none
	// spillParams says that the parameters stand in memory and one core i32 points to them;
	// spillResult the same of the result.
	spillParams, spillResult bool
}

// Signature returns the plan of a synchronous function of type f (flatten_functype). It fails if a value is
// larger than any list may be.
func (ls *Layouts) Signature(f *component.Func) (*Signature, error) {
	s := &Signature{params: ls.Of(&component.Type{Kind: component.KindTuple, Fields: unnamed(f.Params)})}
	s.spillParams = len(s.params.flat) > maxFlatParams
	if f.Result != nil {
		s.result = ls.Of(f.Result)
		s.spillResult = len(s.result.flat) > maxFlatResults
	}
	if s.params.size >= maxSize || s.result != nil && s.result.size >= maxSize {
		return nil, fmt.Errorf("a value of more than %d bytes", maxListBytes)
	}
	return s, nil
}

// SpillsParams says whether the parameters are passed in memory, SpillsResult the same of the result.
func (s *Signature) SpillsParams() bool { return s.spillParams }

// SpillsResult says whether the result is passed in memory.
func (s *Signature) SpillsResult() bool { return s.spillResult }

// InMemory says whether values of the parameters, or of the result, stand in memory: strings and lists, or
// what is spilled.
func (s *Signature) InMemory() (params, result bool) {
	return s.spillParams || s.params.pointers(), s.result != nil && (s.spillResult || s.result.pointers())
}

// ResultPoints says whether the result, wherever it stands, holds strings or lists, which the receiver allocates.
func (s *Signature) ResultPoints() bool { return s.result != nil && s.result.pointers() }

// pointers says whether a value points to memory.
func (l *Layout) pointers() bool {
	if l.kind == component.KindString || l.kind == component.KindList {
		return true
	}
	for _, f := range l.fields {
		if f.pointers() {
			return true
		}
	}
	for _, c := range l.cases {
		if c != nil && c.pointers() {
			return true
		}
	}
	return false
}

func unnamed(params []component.Field) []component.Field {
	out := make([]component.Field, len(params))
	for i, p := range params {
		out[i].Type = p.Type
	}
	return out
}

// CoreLowered returns the core type of the function as an import: a spilled result is written where the
// last parameter points.
func (s *Signature) CoreLowered() component.CoreFuncType {
	t := component.CoreFuncType{Params: s.coreParams()}
	if s.spillResult {
		t.Params = append(t.Params, component.CoreI32)
	} else if s.result != nil {
		t.Results = s.result.flat
	}
	return t
}

// CoreLifted returns the core type of the function as an export: a spilled result is returned as a
// pointer.
func (s *Signature) CoreLifted() component.CoreFuncType {
	t := component.CoreFuncType{Params: s.coreParams()}
	if s.spillResult {
		t.Results = []component.CoreValType{component.CoreI32}
	} else if s.result != nil {
		t.Results = s.result.flat
	}
	return t
}

func (s *Signature) coreParams() []component.CoreValType {
	if s.spillParams {
		return []component.CoreValType{component.CoreI32}
	}
	return append([]component.CoreValType(nil), s.params.flat...)
}
