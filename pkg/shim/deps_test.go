package shim_test

import (
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/spinkube/containerd-shim-spin-go"

// layers says which packages of this module a package may import, by paths below pkg/ (cmd/ keeps its prefix). A name that ends
// in "/" covers all that is below it. A package without a row is an error: where a thing belongs is decided here, before it grows.
var layers = map[string][]string{
	"oci/lockedapp": {},
	"oci":           {"oci/lockedapp"},

	"engine/internal/component": {},
	"engine/internal/handle":    {"engine/internal/component"},
	"engine/internal/core":      {},
	"engine/internal/binary":    {"engine/internal/component"},
	"engine/internal/abi":       {"engine/internal/component", "engine/internal/handle"},
	"engine/internal/link":      {"engine/internal/component", "engine/internal/abi", "engine/internal/core"},
	"engine/internal/witgen":    {"engine/internal/component"},
	"engine":                    {"engine/internal/"},
	"engine/wasi":               {"engine", "engine/internal/"},
	"engine/wasihttp":           {"engine", "engine/wasi", "engine/internal/"},

	// Spin begins here: nothing above knows of it.
	"engine/factor":           {"engine", "oci/lockedapp"},
	"engine/factor/keyvalue":  {"engine", "engine/wasi", "engine/wasihttp", "engine/factor", "oci/lockedapp"},
	"engine/factor/outbound":  {"engine", "engine/wasi", "engine/wasihttp", "engine/factor", "oci/lockedapp"},
	"engine/factor/variables": {"engine", "engine/wasi", "engine/wasihttp", "engine/factor", "oci/lockedapp"},

	"trigger":      {"engine", "oci/lockedapp"},
	"trigger/http": {"engine", "engine/wasi", "engine/wasihttp", "engine/factor", "oci/lockedapp", "trigger"},

	// The daemon's side: it runs as root for the pod's life and never parses what an image brings, so neither engine nor oci.
	"shim/internal/handoff": {},
	"shim/store":            {"shim/internal/handoff"},
	"shim/container":        {"shim/internal/handoff", "shim/store"},
	"shim/task":             {"shim/container"},

	// The processes that do parse it.
	"shim/sandbox": {"shim/internal/handoff"},
	"shim/prepare": {"engine", "oci", "oci/lockedapp", "shim/internal/handoff", "shim/sandbox"},
	"shim/worker": {
		"engine", "engine/wasi", "engine/wasihttp", "engine/factor", "engine/factor/", "oci/lockedapp", "trigger", "trigger/",
		"shim/internal/handoff", "shim/sandbox",
	},
	"shim/serve": {"oci/lockedapp", "shim/internal/handoff", "shim/prepare", "shim/worker"},
	"shim":       {"shim/container", "shim/store", "shim/task", "shim/prepare", "shim/worker", "shim/serve"},

	"cmd/containerd-shim-spin-v2": {"shim"},
}

// testLayers are packages that only tests import, from anywhere.
var testLayers = map[string][]string{
	"engine/internal/binaryencoding": {"engine/internal/component"},
	"engine/internal/spectest":       {"engine", "engine/internal/"},
	"engine/internal/passthrough":    {"engine", "engine/internal/"},
	"engine/factor/guesttest": {
		"engine", "engine/wasi", "engine/wasihttp", "engine/factor", "engine/factor/", "oci/lockedapp",
	},
	"trigger/http/guesttest": {
		"engine", "engine/wasi", "engine/wasihttp", "engine/factor/", "oci/lockedapp", "trigger/http",
	},
}

// owners says which packages may import a module from outside, where that is worth a rule. The longest matching prefix decides.
// A dependency that no package here should ever see in another place gets a line.
var owners = map[string][]string{
	"github.com/tetratelabs/wazero":                {"engine", "engine/internal/"},
	"modernc.org/":                                 {"engine/factor/keyvalue"},
	"github.com/pelletier/go-toml/v2":              {"oci", "shim", "shim/task", "shim/container"},
	"github.com/containerd/":                       {"shim", "shim/store", "shim/container", "shim/task"},
	"github.com/containerd/errdefs/pkg/errgrpc":    {"shim/task", "shim/store"}, // the store is a client of containerd
	"github.com/containerd/ttrpc":                  {"shim", "shim/task"},
	"golang.org/x/crypto/x509roots/fallback":       {"engine/factor/outbound", "shim/worker"},
	"github.com/opencontainers/runtime-spec/":      {"shim", "shim/store", "shim/container", "shim/task"},
	"github.com/containerd/containerd/v2/pkg/shim": {"shim"},
}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	for file := range goFiles(t) {
		pkg := packageOf(file)
		test := strings.HasSuffix(file, "_test.go")
		allowed, ok := layers[pkg]
		if !ok {
			if allowed, ok = testLayers[pkg]; !ok {
				t.Errorf("%s: package %s has no line in layers", file, pkg)
				continue
			}
			test = true
		}
		for _, imported := range importsOf(t, file) {
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				own = strings.TrimPrefix(own, "pkg/")
				_, forTests := testLayers[own]
				if own != pkg && !covers(allowed, own) && !(test && forTests) {
					t.Errorf("%s: %s must not import %s", file, pkg, own)
				}
				continue
			}
			if may, ok := ownersOf(imported); ok && !test && !covers(may, pkg) {
				t.Errorf("%s: %s must not import %s", file, pkg, imported)
			}
		}
	}
}

// covers reports whether pkg is in list, or below one of its entries that end in "/".
func covers(list []string, pkg string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		return entry == pkg || strings.HasSuffix(entry, "/") && strings.HasPrefix(pkg, entry)
	})
}

func ownersOf(imported string) (may []string, ok bool) {
	longest := -1
	for prefix, pkgs := range owners {
		if strings.HasPrefix(imported, prefix) && len(prefix) > longest {
			longest, may, ok = len(prefix), pkgs, true
		}
	}
	return may, ok
}

// goFiles yields this module's Go files, by slash-separated paths from its root. The tests that use it read the files in this
// process: the go command caches a test's verdict by the files that it opens itself, not by what a child process reads.
func goFiles(t *testing.T) func(yield func(string) bool) {
	t.Helper()
	return func(yield func(string) bool) {
		root := os.DirFS(filepath.Join("..", ".."))
		err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && name != "." && !ours(root, name):
				return fs.SkipDir
			case !d.IsDir() && strings.HasSuffix(name, ".go") && !yield(name):
				return fs.SkipAll
			}
			return nil
		})
		require.NoError(t, err)
	}
}

// ours reports whether the folder holds packages of this module: not test data, not a module of its own.
func ours(root fs.FS, name string) bool {
	top, _, _ := strings.Cut(name, "/")
	_, err := fs.Stat(root, path.Join(name, "go.mod"))
	return (top == "cmd" || top == "pkg") && path.Base(name) != "testdata" && errors.Is(err, fs.ErrNotExist)
}

func packageOf(file string) string {
	return strings.TrimPrefix(path.Dir(file), "pkg/")
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), diskPath(file), nil, parser.ImportsOnly)
	require.NoError(t, err)
	var paths []string
	for _, spec := range parsed.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		paths = append(paths, p)
	}
	return paths
}

func diskPath(file string) string {
	return filepath.Join("..", "..", filepath.FromSlash(file))
}
