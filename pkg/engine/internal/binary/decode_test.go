package binary_test

import (
	"bytes"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binary"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binaryencoding"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
)

const preamble = "\x00asm\x0d\x00\x01\x00"

func TestDecode(t *testing.T) {
	t.Parallel()
	module := (&binaryencoding.Module{}).Bytes()
	c := &binaryencoding.Component{}
	inst := c.CoreInstantiate(c.CoreModule(module))
	c.CoreExport(component.SortCoreMemory, inst, "memory")
	record := c.Type(&component.ValTypeExpr{Kind: component.KindRecord, Fields: []component.FieldExpr{
		{Name: "a", Type: component.ValType{Kind: component.KindU8}}, {Name: "b", Type: component.ValType{Index: 70}},
	}})
	c.Import("wasi:io/poll@0.2.0", component.ExternDesc{Sort: component.SortFunc, Index: record})
	c.Lower(0, component.CanonOptions{Encoding: component.UTF16, Memory: 3, HasMemory: true})

	got, err := binary.Decode(c.Bytes())
	require.NoError(t, err)
	require.Equal(t, &component.Component{Definitions: []component.Definition{
		&component.CoreModuleDef{At: 10, Bytes: module},
		&component.CoreInstantiateDef{At: 21},
		&component.AliasExportDef{At: 27, Sort: component.SortCoreMemory, Name: "memory", Core: true},
		&component.TypeDef{At: 41, Type: &component.ValTypeExpr{Kind: component.KindRecord, Fields: []component.FieldExpr{
			{Name: "a", Type: component.ValType{Kind: component.KindU8}}, {Name: "b", Type: component.ValType{Index: 70}},
		}}},
		&component.ImportDef{
			At: 53, Name: component.ExternName{Name: "wasi:io/poll@0.2.0"}, Desc: component.ExternDesc{Sort: component.SortFunc},
		},
		&component.CanonDef{At: 78, Op: component.CanonLower, Options: component.CanonOptions{
			Encoding: component.UTF16, Memory: 3, HasMemory: true,
		}},
	}}, got)
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, wasm, err string }{
		{"empty file", "", `decode at 0x0: not WebAssembly: the file does not begin with "\x00asm"`},
		{"truncated preamble", "\x00asm\x0d", "decode at 0x5: unexpected end of the preamble"},
		{"core module", "\x00asm\x01\x00\x00\x00", "decode at 0x4: a core module stands where a component is expected"},
		{"future version", "\x00asm\x0e\x00\x01\x00", "decode at 0x4: unknown version 0e 00 01 00 of the component model, know 0d 00 01 00"},
		{"unknown section", preamble + "\x0d\x00", "decode at 0x8: unknown section id 0xd"},
		{"section beyond the file", preamble + "\x07\x03\x00", "decode at 0xa (type section): unexpected end: the section has 3 bytes, 1 are left"},
		{"section with bytes left over", preamble + "\x07\x02\x00\x00", "decode at 0xb (type section): 1 bytes left over at the end of the section"},
		{"definition beyond its section", preamble + "\x07\x01\x01\x73", "decode at 0xa (type section): unexpected end: a vector has 1 elements, 0 bytes are left"},
		{"number beyond 32 bits", preamble + "\x07\x81\x80\x80\x80\x70", "decode at 0x9 (type section): number is not a u32"},
		{"count beyond the bytes left", preamble + "\x07\x04\xbf\x84\x3d\x73", "decode at 0xa (type section): unexpected end: a vector has 999999 elements, 1 bytes are left"},
		{"custom section without UTF-8 name", preamble + "\x00\x03\x02\xff\xfe", "decode at 0xa (custom section): name is not UTF-8"},
		{"component as core module", preamble + "\x01\x08" + preamble, "decode at 0xe (core module section): a component stands where a core module is expected"},
		{"nested core module", preamble + "\x04\x08\x00asm\x01\x00\x00\x00", "decode at 0xe (component section): a core module stands where a component is expected"},
		{"GC type", preamble + "\x03\x02\x01\x5f", "decode at 0xb (core type section): core types of the GC proposal are not supported"},
		{"unknown type", preamble + "\x07\x02\x01\x44", "decode at 0xb (type section): unknown type 0x44"},
		{"negative type index", preamble + "\x07\x03\x01\x70\x40", "decode at 0xc (type section): unknown value type 0x40"},
		{"unknown opcode", preamble + "\x08\x02\x01\x60", "decode at 0xb (canon section): unknown opcode 0x60"},
		{"thread built-in", preamble + "\x08\x03\x01\x29\x00", "decode at 0xb (canon section): canonical built-in thread.suspend is not supported"},
		{"option twice", preamble + "\x08\x09\x01\x01\x00\x00\x02\x03\x00\x03\x00", "decode at 0x11 (canon section): a canonical option is given twice"},
		{"value section", preamble + "\x0c\x01\x00", "decode at 0xa (value section): value definitions are not supported"},
		{"attribute twice", preamble + "\x0a\x0b\x01\x02\x01i\x02\x02\x00\x02\x00\x05\x00", "decode at 0x11 (import section): a name has two attributes external-id"},
		{"error after a nested component", preamble + "\x04\x08" + preamble + "\x08\x02\x01\x60", "decode at 0x15 (canon section): unknown opcode 0x60"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := binary.Decode([]byte(tc.wasm))
			require.EqualError(t, err, tc.err)
			require.IsType(t, &binary.FormatError{}, err)
		})
	}
}

// nestedTypes is a component with instance types depth deep.
func nestedTypes(depth int) []byte {
	var t component.TypeExpr = &component.InstanceExpr{}
	for range depth - 1 {
		t = &component.InstanceExpr{Decls: []component.Definition{&component.TypeDef{Type: t}}}
	}
	c := &binaryencoding.Component{}
	c.Type(t)
	return c.Bytes()
}

func nestedComponents(depth int) []byte {
	c := &binaryencoding.Component{}
	for range depth {
		outer := &binaryencoding.Component{}
		outer.Component(c)
		c = outer
	}
	return c.Bytes()
}

func TestLimits(t *testing.T) {
	t.Parallel()
	section := func(id byte, body string) []byte {
		out := append([]byte(preamble), id)
		for n := len(body); ; n >>= 7 {
			if n < 0x80 {
				return append(append(out, byte(n)), body...)
			}
			out = append(out, byte(n)|0x80)
		}
	}
	for _, tc := range []struct {
		name string
		wasm []byte
		err  string // "" for none
	}{
		{"deep types", nestedTypes(100), ""},
		{"too deep types", nestedTypes(101), "nesting is deeper than 100"},
		{"deep components", nestedComponents(100), ""},
		{"too deep components", nestedComponents(101), "nesting is deeper than 100"},
		{"many definitions", section(7, "\xc0\x9a\x0c"+strings.Repeat("\x73", 200_000)), ""},
		{"too many definitions", section(7, "\xc1\x9a\x0c"+strings.Repeat("\x73", 200_001)), "more than 200000 definitions"},
		{
			"too many definitions in two sections", append(section(7, "\xc0\x9a\x0c"+strings.Repeat("\x73", 200_000)), "\x07\x02\x01\x73"...),
			"more than 200000 definitions",
		},
		{"many elements", section(7, "\x01\x6f\x9f\xc2\x1e"+strings.Repeat("\x73", 499_999)), ""},
		{"too many elements", section(7, "\x01\x6f\xa0\xc2\x1e"+strings.Repeat("\x73", 500_000)), "more than 500000 elements"},
		{"long name", section(0, "\xa0\x8d\x06"+strings.Repeat("a", 100_000)), ""},
		{"too long name", section(0, "\xa1\x8d\x06"+strings.Repeat("a", 100_001)), "the limit is 100000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := binary.Decode(tc.wasm)
			if tc.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.err)
			}
		})
	}
}

// TestRoundTrip decodes real files, and finds again what it decoded after encoding that.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	files := spectest.Guests(t)
	components := 0
	for name, wasm := range files {
		_, err := binary.Decode(wasm)
		if strings.HasPrefix(string(wasm), "\x00asm\x01") {
			require.ErrorContains(t, err, "a core module stands where a component is expected", name)
			continue
		}
		require.NoError(t, err, name)
		components++
	}
	require.NotZero(t, components)
	maps.Copy(files, spectest.SuiteFiles(t))
	for name, wasm := range files {
		requireRoundTrip(t, name, wasm)
	}
}

// requireRoundTrip checks that if wasm decodes, then so does the encoding of that, to the same.
func requireRoundTrip(t *testing.T, name string, wasm []byte) {
	c, err := binary.Decode(wasm)
	if err != nil {
		return
	}
	encoded := binaryencoding.Encode(c)
	again, err := binary.Decode(encoded)
	require.NoError(t, err, name)
	require.True(t, bytes.Equal(encoded, binaryencoding.Encode(again)), name)
}

func FuzzDecode(f *testing.F) {
	const maxSeed = 30_000 // mutating more at once finds nothing
	for _, files := range []map[string][]byte{spectest.Guests(f), spectest.SuiteFiles(f)} {
		for _, wasm := range files {
			if len(wasm) <= maxSeed {
				f.Add(wasm)
			}
		}
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = binary.Decode(wasm)
		runtime.ReadMemStats(&after)
		// A canonical definition of one byte takes some 200 bytes, growing slices included.
		require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(64_000+300*len(wasm)))
		requireRoundTrip(t, "", wasm)
	})
}

func BenchmarkDecode(b *testing.B) {
	wasm := spectest.Guests(b)["js-app.wasm"]
	b.SetBytes(int64(len(wasm)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := binary.Decode(wasm); err != nil {
			b.Fatal(err)
		}
	}
}
