package core_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	be "github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binaryencoding"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/core"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
)

// newRuntime returns wazero with all features that package core knows.
func newRuntime(tb testing.TB) wazero.Runtime {
	r := wazero.NewRuntimeWithConfig(tb.Context(), wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2|
		experimental.CoreFeaturesExtendedConst|experimental.CoreFeaturesTailCall|experimental.CoreFeaturesExceptionHandling))
	tb.Cleanup(func() { _ = r.Close(tb.Context()) })
	return r
}

func identity(_ int, imp core.Import) (module, name string) { return imp.Module, imp.Name }

// slots renames imports as the engine does: never to an empty module name.
func slots(_ int, imp core.Import) (module, name string) { return "i" + imp.Module, imp.Name }

func TestImportsAndExports(t *testing.T) {
	t.Parallel()
	m := &be.Module{}
	log := m.ImportFunc("", "log", be.Types{be.I32, be.I64}, nil)
	m.ImportTable("env", "table", 3)
	run := m.Func("run", nil, be.Types{be.F32}, be.Types{be.I32}, be.Unreachable())
	m.Func("", be.Types{be.I32}, nil, nil)
	m.Memory("memory", 2)
	m.Global("counter", -5)
	m.Elements(log, run)
	m.Data(8, "bytes")
	wasm := m.Bytes()

	imports, err := core.Imports(wasm)
	require.NoError(t, err)
	logType := core.Type{Kind: core.KindFunc, Func: core.FuncType{Params: []byte{be.I32, be.I64}}}
	require.Equal(t, []core.Import{
		{Module: "", Name: "log", Type: logType},
		{Module: "env", Name: "table", Type: core.Type{Kind: core.KindTable, Value: be.FuncRef, Limits: core.Limits{Min: 3}}},
	}, imports)

	exports, err := core.Exports(wasm)
	require.NoError(t, err)
	require.Equal(t, []core.Export{
		{Name: "run", Type: core.Type{Kind: core.KindFunc, Func: core.FuncType{Results: []byte{be.F32}}}},
		{Name: "memory", Type: core.Type{Kind: core.KindMemory, Limits: core.Limits{Min: 2}}},
		{Name: "counter", Type: core.Type{Kind: core.KindGlobal, Value: be.I32, Mutable: true}},
	}, exports)

	renamed, err := core.RewriteImports(wasm, func(i int, _ core.Import) (module, name string) { return "slot", fmt.Sprint(i) })
	require.NoError(t, err)
	imports, err = core.Imports(renamed)
	require.NoError(t, err)
	require.Equal(t, "slot", imports[0].Module)
	require.Equal(t, "1", imports[1].Name)
	require.Equal(t, logType, imports[0].Type)
	_, err = newRuntime(t).CompileModule(t.Context(), renamed)
	require.NoError(t, err)
}

func TestExportedImport(t *testing.T) {
	t.Parallel()
	wasm := []byte("\x00asm\x01\x00\x00\x00" + "\x01\x05\x01\x60\x00\x01\x7f" + "\x02\x07\x01\x01a\x01b\x00\x00" + "\x07\x05\x01\x01x\x00\x00")
	exports, err := core.Exports(wasm)
	require.NoError(t, err)
	require.Equal(t, []core.Export{{Name: "x", Type: core.Type{Kind: core.KindFunc, Func: core.FuncType{Results: []byte{be.I32}}}}}, exports)
}

// TestCustomSections keeps only what traps show: the names of the module and its functions.
func TestCustomSections(t *testing.T) {
	t.Parallel()
	const (
		moduleName = "\x00\x02\x01m"
		funcNames  = "\x01\x06\x01\x00\x03run"
		localNames = "\x02\x06\x01\x00\x01\x00\x01x"
	)
	base := func() *be.Module {
		m := &be.Module{}
		m.Func("run", nil, nil, be.Types{be.I32})
		return m
	}
	with := func(sections ...[2]string) []byte {
		m := base()
		for _, s := range sections {
			m.Custom(s[0], []byte(s[1]))
		}
		return m.Bytes()
	}
	for _, tc := range []struct {
		name       string
		have, want []byte
	}{
		{"other sections go", with([2]string{"producers", "x"}, [2]string{".debug_info", "y"}), with()},
		{"names stay", with([2]string{"name", moduleName + funcNames}), with([2]string{"name", moduleName + funcNames})},
		{"local names go", with([2]string{"name", funcNames + localNames}), with([2]string{"name", funcNames})},
		{"malformed local names do not matter", with([2]string{"name", funcNames + "\x02\x01\xff"}), with([2]string{"name", funcNames})},
		{"second names go", with([2]string{"name", funcNames}, [2]string{"name", moduleName}), with([2]string{"name", funcNames})},
		{"claim of many names goes", with([2]string{"name", "\x01\x05\xff\xff\xff\xff\x0f"}), with()},
		{"name beyond its subsection goes", with([2]string{"name", "\x01\x03\x01\x00\x20run"}), with()},
		{"truncated subsection goes", with([2]string{"name", "\x01\x20\x01"}), with()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := core.RewriteImports(tc.have, identity)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	const preamble = "\x00asm\x01\x00\x00\x00"
	for _, tc := range []struct{ name, wasm, err string }{
		{"empty", "", "at 0x0: not a core module: it does not begin with 00 61 73 6d 01 00 00 00"},
		{"component", "\x00asm\x0d\x00\x01\x00", "at 0x0: not a core module: it does not begin with 00 61 73 6d 01 00 00 00"},
		{"unknown section", preamble + "\x0e\x00", "at 0x8: unknown section id 0xe"},
		{"sections out of order", preamble + "\x03\x01\x00\x01\x01\x00", "at 0xb: the type section is out of order"},
		{"section twice", preamble + "\x01\x01\x00\x01\x01\x00", "at 0xb: the type section is out of order"},
		{"tags after globals", preamble + "\x06\x01\x00\x0d\x01\x00", "at 0xb: the tag section is out of order"},
		{"data count after code", preamble + "\x0a\x01\x00\x0c\x01\x00", "at 0xb: the data count section is out of order"},
		{"section beyond the module", preamble + "\x01\x05\x00", "at 0x9 (type section): unexpected end: length 5, 1 bytes are left"},
		{"bytes left over", preamble + "\x01\x02\x00\x00", "at 0xb (type section): 1 bytes left over"},
		{"claim of many imports", preamble + "\x02\x05\xff\xff\xff\xff\x0f", "at 0xa (import section): unexpected end: length 4294967295, 0 bytes are left"},
		{"claim of a long name", preamble + "\x02\x03\x01\x7fa", "at 0xb (import section): unexpected end: length 127, 1 bytes are left"},
		{"name is not UTF-8", preamble + "\x02\x03\x01\x01\xff", "at 0xb (import section): name is not UTF-8"},
		{"unknown kind of import", preamble + "\x02\x05\x01\x00\x00\x05\x00", "at 0xd (import section): unknown kind 0x5 of an import"},
		{"import of an unknown type", preamble + "\x02\x05\x01\x00\x00\x00\x00", "at 0xe (import section): type index 0 is out of bounds, the module has 0 types"},
		{"export of an unknown function", preamble + "\x07\x05\x01\x01f\x00\x00", `at 0xd (export section): export "f" is of func 0, the module has 0`},
		{"GC type", preamble + "\x01\x02\x01\x5f", "at 0xb (type section): types of the GC proposal are not supported"},
		{"64-bit memory", preamble + "\x05\x03\x01\x04\x00", "at 0xb (memory section): flags 0x4 of limits are not supported"},
		{"large table", preamble + "\x04\x07\x01\x70\x00\x81\xad\xe2\x04", "at 0xb (table section): the tables of the module have more than 10000000 elements"},
		{"many locals", preamble + "\x0a\x08\x01\x06\x01\xd1\x86\x03\x7f\x0b", "at 0xc (code section): a function has more than 50000 local variables"},
		{"all locals", preamble + "\x0a\x0a\x01\x08\x01\xff\xff\xff\xff\x0f\x7f\x0b", "at 0xc (code section): a function has more than 50000 local variables"},
		{"claim of much data", preamble + "\x0b\x09\x01\x01\xff\xff\xff\xff\x0f\x00\x00", "at 0xc (data section): unexpected end: length 4294967295, 2 bytes are left"},
		{"claim of many elements", preamble + "\x09\x0a\x01\x00\x41\x00\x0b\xff\xff\xff\xff\x0f", "at 0xf (element section): unexpected end: length 4294967295, 0 bytes are left"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := core.RewriteImports([]byte(tc.wasm), identity)
			require.EqualError(t, err, tc.err)
			require.IsType(t, &core.FormatError{}, err)
		})
	}
}

// TestLocalsOfAllFunctions declares as many local variables as a function may have in too many functions.
func TestLocalsOfAllFunctions(t *testing.T) {
	t.Parallel()
	m := &be.Module{}
	body := "\x06\x01\xd0\x86\x03\x7f\x0b" // 50,000 times i32
	code := func(n int) []byte {
		out := m.Bytes()
		content := append([]byte{byte(n) | 0x80, byte(n>>7) | 0x80, byte(n >> 14)}, strings.Repeat(body, n)...)
		return append(append(out, 0x0a, byte(len(content))|0x80, byte(len(content)>>7)|0x80, byte(len(content)>>14)), content...)
	}
	_, err := core.RewriteImports(code(400), identity)
	require.NoError(t, err)
	_, err = core.RewriteImports(code(401), identity)
	require.ErrorContains(t, err, "the functions of the module have more than 20000000 local variables")
}

// TestModules rewrites the modules of real guests and of the suite, and lets wazero compare.
func TestModules(t *testing.T) {
	t.Parallel()
	files := spectest.Guests(t)
	maps.Copy(files, spectest.SuiteFiles(t))
	r := newRuntime(t)
	compiled := 0
	for name, module := range spectest.CoreModules(files) {
		rewritten, err := core.RewriteImports(module, slots)
		if err != nil { // then wazero must not take it either
			_, err := r.CompileModule(t.Context(), module)
			require.Error(t, err, name)
			continue
		}
		before, err := core.Imports(module)
		require.NoError(t, err, name)
		after, err := core.Imports(rewritten)
		require.NoError(t, err, name)
		require.Len(t, after, len(before), name)
		for i := range after {
			require.Equal(t, "i"+before[i].Module, after[i].Module, name)
			require.Equal(t, before[i].Name, after[i].Name, name)
			require.Equal(t, before[i].Type, after[i].Type, name)
		}
		if len(module) > 1<<20 { // takes seconds to compile
			continue
		}
		c, err := r.CompileModule(t.Context(), rewritten)
		if err != nil { // a memory too many, say
			continue
		}
		compiled++
		requireExports(t, name, module, c)
		require.NoError(t, c.Close(t.Context()))
	}
	require.NotZero(t, compiled)
}

// requireExports compares the exports that package core reads with those that wazero does.
func requireExports(t *testing.T, name string, module []byte, c wazero.CompiledModule) {
	exports, err := core.Exports(module)
	require.NoError(t, err, name)
	funcs := c.ExportedFunctions()
	for _, e := range exports {
		switch e.Kind {
		case core.KindFunc:
			def := funcs[e.Name]
			require.NotNil(t, def, "%s: %s", name, e.Name)
			require.Equal(t, string(def.ParamTypes()), string(e.Func.Params), "%s: %s", name, e.Name)
			require.Equal(t, string(def.ResultTypes()), string(e.Func.Results), "%s: %s", name, e.Name)
			delete(funcs, e.Name)
		case core.KindMemory:
			def := c.ExportedMemories()[e.Name]
			require.NotNil(t, def, "%s: %s", name, e.Name)
			require.Equal(t, def.Min(), e.Limits.Min, "%s: %s", name, e.Name)
		}
	}
	require.Empty(t, funcs, name)
}

// FuzzRewriteImports checks that rewriting without a change changes nothing: what has no custom sections
// stays the same but for the numbers in its import section, so that wazero takes both or neither.
func FuzzRewriteImports(f *testing.F) {
	const maxSeed = 30_000 // mutating more at once finds nothing
	files := spectest.Guests(f)
	maps.Copy(files, spectest.SuiteFiles(f))
	for _, module := range spectest.CoreModules(files) {
		if len(module) <= maxSeed {
			f.Add(module)
		}
	}
	r := newRuntime(f)
	f.Fuzz(func(t *testing.T, module []byte) {
		once, err := core.RewriteImports(module, identity)
		if err != nil {
			return
		}
		twice, err := core.RewriteImports(once, identity)
		require.NoError(t, err)
		require.Equal(t, once, twice)
		if _, err := core.Exports(module); err != nil {
			t.Fatal(err) // it reads less than RewriteImports does
		}
		again, err := r.CompileModule(t.Context(), once)
		if err == nil {
			require.NoError(t, again.Close(t.Context()))
		}
		if len(once) == len(module) { // no custom sections, no padded numbers
			c, original := r.CompileModule(t.Context(), module)
			require.Equal(t, original == nil, err == nil, "original %v, rewritten %v", original, err)
			if original == nil {
				require.NoError(t, c.Close(t.Context()))
			}
		}
	})
}

func BenchmarkRewriteImports(b *testing.B) {
	var module []byte
	for _, m := range spectest.CoreModules(map[string][]byte{"js": spectest.Guests(b)["js-app.wasm"]}) {
		if len(m) > len(module) {
			module = m
		}
	}
	b.SetBytes(int64(len(module)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := core.RewriteImports(module, identity); err != nil {
			b.Fatal(err)
		}
	}
}
