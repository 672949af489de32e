package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// wit returns the folder of the WIT and skips the test where there is none.
func wit(t *testing.T) string {
	dir, err := witDir()
	require.NoError(t, err)
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: set SHARED to the folder that holds the WIT: ", err)
	}
	return dir
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	dir := wit(t)
	root, err := moduleRoot()
	require.NoError(t, err)
	for _, target := range targets() {
		t.Run(target.dir, func(t *testing.T) {
			t.Parallel()
			want, err := generate(dir, target.dir)
			require.NoError(t, err)
			have, err := os.ReadFile(filepath.Join(root, "pkg/engine", target.dir, "types_gen.go"))
			require.NoError(t, err)
			require.Equal(t, string(want), string(have), "run go generate")
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	ifaces, err := parse("t.wit", `
		package a:b@0.2.0-rc.2; // comment
		@unstable(feature = f) interface gone { f: func(); }
		world w { import x: interface { f: func(); } }
		@since(version = 0.2.0)
		interface i {
			use c:d/e@0.2.12.{g as h, k};
			@unstable(feature = f) n: func();
			resource r {
				constructor(%type: u8);
				@unstable(feature = f) m: func();
				static: func() -> result<_, k>;
				s: static func(a: h, b: list<u8>,);
			}
			variant v { a, b(tuple<u8, r>), }
		}`, "a:b@0.2.0-rc.2")
	require.NoError(t, err)
	self := field{"self", &typeRef{"borrow", []*typeRef{{name: "r"}}}}
	u8 := &typeRef{name: "u8"}
	require.Equal(t, []*iface{{
		pkg: "a:b@0.2.0-rc.2", name: "i",
		types: []*typeDef{
			{name: "h", kind: "use", from: "c:d/e@0.2.12", origin: "g"},
			{name: "k", kind: "use", from: "c:d/e@0.2.12", origin: "k"},
			{name: "r", kind: "resource"},
			{name: "v", kind: "variant", fields: []field{{"a", nil}, {"b", &typeRef{"tuple", []*typeRef{u8, {name: "r"}}}}}},
		},
		funcs: []*funcDef{
			{"[constructor]r", []field{{"type", u8}}, &typeRef{name: "r"}},
			{"[method]r.static", []field{self}, &typeRef{"result", []*typeRef{nil, {name: "k"}}}},
			{"[static]r.s", []field{{"a", &typeRef{name: "h"}}, {"b", &typeRef{"list", []*typeRef{u8}}}}, nil},
		},
	}}, ifaces)
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, src, err string }{
		{"names file and place", "interface i {\n f: fun();\n}", "t.wit:2:8: f is not a func"},
		{"ends at the end of the text", "interface i { record r {", `t.wit:1:25: "" instead of Ident`},
		{"package must be the expected one", "package a:c;", "t.wit:1:12: package is a:c, not a:b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := parse("t.wit", tc.src, "a:b")
			require.ErrorContains(t, err, tc.err)
		})
	}
}
