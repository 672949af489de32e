// Package spectest holds what tests run against: the component model's own test suite, as folders that
// `wasm-tools json-from-wast` wrote ([Scripts]), and real guests ([Guest], [Guests], [CoreModules]). Its own test
// runs the suite.
//
// All of it lies outside of the repository, in the folder that the environment variable SHARED names;
// ../shared beside the module if it is not set. A test skips where the folder is absent, and fails where
// the variable CI is set.
package spectest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binary"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// Shared returns the path of a file or folder in the shared folder.
func Shared(tb testing.TB, elem ...string) string {
	tb.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		dir, err := os.Getwd()
		require.NoError(tb, err)
		for !exists(filepath.Join(dir, "go.mod")) {
			require.NotEqual(tb, dir, filepath.Dir(dir), "no go.mod above the test")
			dir = filepath.Dir(dir)
		}
		shared = filepath.Join(filepath.Dir(dir), "shared")
	}
	return present(tb, filepath.Join(append([]string{shared}, elem...)...))
}

// present returns path, or skips the test if there is nothing.
func present(tb testing.TB, path string) string {
	tb.Helper()
	if !exists(path) {
		if os.Getenv("CI") != "" {
			tb.Fatalf("%s is absent; set SHARED", path)
		}
		tb.Skipf("SKIPPED: %s is absent; set SHARED", path)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// wasmFiles returns the .wasm files of a folder by their names.
func wasmFiles(tb testing.TB, dir string) map[string][]byte {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.wasm"))
	require.NoError(tb, err)
	require.NotEmpty(tb, paths, dir)
	files := make(map[string][]byte, len(paths))
	for _, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(tb, err)
		files[filepath.Base(p)] = b
	}
	return files
}

// Guest returns a built guest by its name, which is that of its file without .wasm.
func Guest(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(Shared(tb, "guests", "built", name+".wasm"))
	require.NoError(tb, err)
	return b
}

// Guests returns the built guests, components and core modules, by their file names.
func Guests(tb testing.TB) map[string][]byte {
	tb.Helper()
	return wasmFiles(tb, Shared(tb, "guests", "built"))
}

// SuiteFiles returns the .wasm files of the suite by their names. Some are malformed, by intention.
func SuiteFiles(tb testing.TB) map[string][]byte {
	tb.Helper()
	return wasmFiles(tb, Dir(tb))
}

// CoreModules returns the core modules in files, by the name of the file and their position. Files that do
// not decode are left out.
func CoreModules(files map[string][]byte) map[string][]byte {
	modules := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(string(files[name]), "\x00asm\x01\x00\x00\x00") {
			modules[name] = files[name]
			continue
		}
		if c, err := binary.Decode(files[name]); err == nil {
			addCoreModules(modules, name, c)
		}
	}
	return modules
}

func addCoreModules(modules map[string][]byte, name string, c *component.Component) {
	for _, d := range c.Definitions {
		switch d := d.(type) {
		case *component.CoreModuleDef:
			modules[fmt.Sprintf("%s@%#x", name, d.Pos())] = d.Bytes
		case *component.ComponentDef:
			addCoreModules(modules, name, d.Component)
		}
	}
}
