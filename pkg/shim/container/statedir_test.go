package container

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStateDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := StateDir(dir, "/run/containerd/containerd.sock", "k8s.io", "a")
	require.Equal(t, name, StateDir(dir, "/run/containerd/containerd.sock", "k8s.io", "a"))
	for _, other := range []string{
		StateDir(dir, "/run/containerd/containerd.sock", "k8s.io", "b"),
		StateDir(dir, "/run/containerd/containerd.sock", "default", "a"),
		StateDir(dir, "/run/other.sock", "k8s.io", "a"),
	} {
		require.NotEqual(t, name, other)
	}

	require.NoError(t, os.MkdirAll(filepath.Join(name, "of an earlier container"), 0o700))
	f, err := openStateDir(name, os.Getuid(), os.Getgid())
	require.NoError(t, err)
	left, err := os.ReadDir(name)
	require.NoError(t, err)
	require.Empty(t, left)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o700, info.Mode())

	require.NoError(t, os.WriteFile(filepath.Join(name, "db"), nil, 0o600))
	require.NoError(t, removeStateDir(f))
	require.NoDirExists(t, name)
}

func TestSweepStateDirs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, SweepStateDirs(dir), "there is no state yet")
	make := func(id string) (string, *os.File) {
		name := StateDir(dir, "", "", id)
		f, err := openStateDir(name, os.Getuid(), os.Getgid())
		require.NoError(t, err)
		return name, f
	}
	inUse, f := make("in use")
	defer f.Close()
	gone, f := make("gone")
	require.NoError(t, f.Close())
	young, f := make("young")
	require.NoError(t, f.Close())
	old := time.Now().Add(-2 * minStateAge)
	for _, name := range []string{inUse, gone} {
		require.NoError(t, os.Chtimes(name, old, old))
	}
	require.NoError(t, SweepStateDirs(dir))
	require.DirExists(t, inUse)
	require.DirExists(t, young)
	require.NoDirExists(t, gone)
}
