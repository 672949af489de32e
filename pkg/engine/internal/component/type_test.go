package component

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTypesPrintAsWIT(t *testing.T) {
	t.Parallel()
	file := &Resource{Name: "file"}
	for want, typ := range map[string]*Type{
		"u32":                      U32,
		"list<string>":             {Kind: KindList, Elem: String},
		"list<u8, 4>":              {Kind: KindFixedList, Elem: U8, Length: 4},
		"option<bool>":             {Kind: KindOption, Cases: []Case{{Name: "none"}, {Name: "some", Type: Bool}}},
		"result<_, u8>":            {Kind: KindResult, Cases: []Case{{Name: "ok"}, {Name: "error", Type: U8}}},
		"own<file>":                {Kind: KindOwn, Resource: file},
		"record{a: u8, b: char}":   {Kind: KindRecord, Fields: []Field{{"a", U8}, {"b", Char}}},
		"tuple{u8, f64}":           {Kind: KindTuple, Fields: []Field{{"", U8}, {"", F64}}},
		"variant{none, some(s64)}": {Kind: KindVariant, Cases: []Case{{Name: "none"}, {Name: "some", Type: S64}}},
		"flags{read, write}":       {Kind: KindFlags, Labels: []string{"read", "write"}},
		"stream":                   {Kind: KindStream},
	} {
		require.Equal(t, want, typ.String())
	}
	f := Func{Async: true, Params: []Field{{"path", String}}, Result: Bool}
	require.Equal(t, "async func(path: string) -> bool", f.String())
}

func TestSharedTypesNeitherPrintNorCountWithoutBound(t *testing.T) {
	t.Parallel()
	var types Types
	doubled := U8
	for range 64 {
		doubled = types.Intern(&Type{Kind: KindTuple, Fields: []Field{{strings.Repeat("x", 100), doubled}, {"", doubled}}})
	}
	require.Equal(t, MaxTypeSize+1, doubled.Size())
	require.Less(t, len(doubled.String()), 3*maxPrint)
	require.Less(t, len((&Func{Params: []Field{{"a", doubled}, {"b", doubled}}, Result: doubled}).String()), 4*maxPrint)
}

func TestInternedTypesAreEqualIffTheirPointersAre(t *testing.T) {
	t.Parallel()
	var types Types
	list := func(elem *Type) *Type { return types.Intern(&Type{Kind: KindList, Elem: elem}) }
	require.Same(t, list(U8), list(U8))
	require.NotSame(t, list(U8), list(S8))
	require.Same(t, list(list(U8)), list(&Type{Kind: KindList, Elem: U8}))
	a, b := &Resource{Name: "r"}, &Resource{Name: "r"}
	own := func(r *Resource) *Type { return types.Intern(&Type{Kind: KindOwn, Resource: r}) }
	require.Same(t, own(a), own(a))
	require.NotSame(t, own(a), own(b), "resource types are identities, not names")
	require.NotSame(t, types.Intern(&Type{Kind: KindFlags, Labels: []string{"ab", "c"}}), types.Intern(&Type{Kind: KindFlags, Labels: []string{"a", "bc"}}))
}
