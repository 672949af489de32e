package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// guests returns the folder of ready-built guests.
func guests(t testing.TB) string {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	dir := filepath.Join(shared, "guests", "built")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("guests are missing: ", err)
		}
		t.Skip("SKIPPED: set SHARED to the folder that holds guests/built: ", err)
	}
	return dir
}

func TestCompileTakesEveryComponentOfWASI02(t *testing.T) {
	dir := guests(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.wasm"))
	require.NoError(t, err)
	e, err := engine.New(t.Context(), engine.Config{CacheDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(t.Context())) })
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			wasm, err := os.ReadFile(file)
			require.NoError(t, err)
			c, err := e.Compile(t.Context(), wasm)
			switch {
			case strings.Contains(name, "core") || strings.Contains(name, "wagi"):
				require.ErrorContains(t, err, "core module")
			case strings.Contains(name, "p3"):
				require.ErrorContains(t, err, "not supported")
			default:
				require.NoError(t, err)
				require.NoError(t, c.CacheFault())
				t.Log(c.Imports(), c.Exports())
			}
		})
	}
}
