package infra

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The committed wasm of the demo apps in C is what their sources give.
func TestCAppsRebuildIdentically(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("clang-19"); err != nil && os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("needs clang-19, or root to install it")
	}
	cache, err := OpenCache(t.Context())
	require.NoError(t, err)
	images, out := filepath.Join(cache.Root(), "images"), t.TempDir()
	apps := []string{"c-hello", "c-spin"}
	output, err := exec.CommandContext(t.Context(), "make", append([]string{"-B", "-C", images, "OUT=" + out}, apps...)...).CombinedOutput()
	require.NoError(t, err, "%s", output)
	for _, app := range apps {
		name := filepath.Join(app, app+".wasm")
		committed, err := os.ReadFile(filepath.Join(images, name))
		require.NoError(t, err)
		rebuilt, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		require.True(t, string(committed) == string(rebuilt), "%s: commit what make -C images %s gives", name, app)
	}
}

func TestToolIsBuiltOnce(t *testing.T) {
	t.Parallel()
	c := &Cache{dir: t.TempDir()}
	built := 0
	fill := func(dir string) error {
		built++
		return os.WriteFile(filepath.Join(dir, "program"), nil, 0o755)
	}
	for range 2 {
		dir, err := c.tool("program-v1", "key", fill)
		require.NoError(t, err)
		require.FileExists(t, filepath.Join(dir, "program"))
	}
	require.Equal(t, 1, built)

	_, err := c.tool("program-v1", "another key", func(string) error { return os.ErrPermission })
	require.ErrorIs(t, err, os.ErrPermission)
	_, err = c.tool("program-v1", "another key", fill)
	require.NoError(t, err, "a build that failed is tried again")
	require.Equal(t, 2, built)
}
