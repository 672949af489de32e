package shim_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// bannedNames are names of packages that collect what has no place.
var bannedNames = []string{"util", "utils", "common", "helpers", "helper", "types", "constants", "misc"}

func TestEachPackageHasOneComment(t *testing.T) {
	t.Parallel()
	comments := map[string][]string{}
	for file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		pkg := packageOf(file)
		if comments[pkg] == nil {
			comments[pkg] = []string{}
		}
		parsed := parseFile(t, file, parser.PackageClauseOnly|parser.ParseComments)
		if parsed.Doc == nil || strings.TrimSpace(parsed.Doc.Text()) == "" {
			continue
		}
		comments[pkg] = append(comments[pkg], file)
		want := "Package " + parsed.Name.Name + " "
		if parsed.Name.Name == "main" {
			want = "Program " + path.Base(pkg) + " "
		}
		if !strings.HasPrefix(parsed.Doc.Text(), want) {
			t.Errorf("%s: the package comment must begin with %q", file, want)
		}
	}
	for pkg, files := range comments {
		if len(files) != 1 {
			t.Errorf("package %s has %d package comments, want one: %v", pkg, len(files), files)
		}
	}
}

func TestSourceRules(t *testing.T) {
	t.Parallel()
	for file := range goFiles(t) {
		parsed := parseFile(t, file, parser.SkipObjectResolution)
		test := strings.HasSuffix(file, "_test.go")
		if name := path.Base(packageOf(file)); slices.Contains(bannedNames, name) {
			t.Errorf("%s: a package named %s says nothing of what is in it", file, name)
		}
		for _, spec := range parsed.Imports {
			switch spec.Path.Value {
			case `"unsafe"`:
				if !isUnsafeFile(file) {
					t.Errorf("%s: unsafe belongs in a file named *_unsafe.go", file)
				}
			case `"C"`:
				t.Errorf("%s: no cgo", file)
			}
		}
		for _, decl := range parsed.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: no init: work at package level delays every process of the shim", file)
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR && !test && callsRegexp(d) {
					t.Errorf("%s: no package-level regexp: it is compiled in every process of the shim", file)
				}
			}
		}
	}
}

// isUnsafeFile reports whether file is named *_unsafe.go, with what Go wants after it: the system, the processor, test.
func isUnsafeFile(file string) bool {
	name := strings.TrimSuffix(file, ".go")
	for _, suffix := range []string{"_test", "_amd64", "_arm64", "_linux"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return strings.HasSuffix(name, "_unsafe")
}

func callsRegexp(d *ast.GenDecl) (found bool) {
	ast.Inspect(d, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "regexp" && strings.HasPrefix(sel.Sel.Name, "MustCompile") {
				found = true
			}
		}
		_, isFunc := n.(*ast.FuncLit)
		return !isFunc
	})
	return found
}

func parseFile(t *testing.T, file string, mode parser.Mode) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), diskPath(file), nil, mode)
	require.NoError(t, err)
	return parsed
}
