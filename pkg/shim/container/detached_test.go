package container

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestDetached(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: mounts are made")
		}
		t.Skip("SKIPPED: needs root: mounts are made")
	}
	dir := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o755))
	path := func(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
	open := func(name string, readOnly bool) *os.File {
		f, err := Detached(t.Context(), name, readOnly)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, f.Close()) })
		return f
	}

	t.Run("nothing can be written", func(t *testing.T) {
		_, err := os.OpenFile(path(open(filepath.Join(dir, "file"), true)), os.O_WRONLY, 0)
		require.ErrorIs(t, err, unix.EROFS)
		_, err = os.OpenFile(path(open(dir, true))+"/new", os.O_CREATE|os.O_WRONLY, 0o600)
		require.ErrorIs(t, err, unix.EROFS)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("y"), 0o755), "the file itself is as it was")
	})
	t.Run("state can be written", func(t *testing.T) {
		require.NoError(t, os.WriteFile(path(open(dir, false))+"/state", nil, 0o600))
		require.FileExists(t, filepath.Join(dir, "state"))
	})
	t.Run("nothing is above it", func(t *testing.T) {
		inside, err := os.Stat(path(open(dir, true)) + "/../../..")
		require.NoError(t, err)
		itself, err := os.Stat(dir)
		require.NoError(t, err)
		require.True(t, os.SameFile(itself, inside))
	})
	t.Run("absent", func(t *testing.T) {
		_, err := Detached(t.Context(), filepath.Join(dir, "nothing"), true)
		require.ErrorIs(t, err, unix.ENOENT)
	})
}

func TestHandedOutFolderIsInUse(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: mounts are made")
		}
		t.Skip("SKIPPED: needs root: mounts are made")
	}
	name := t.TempDir()
	folder, err := os.Open(name)
	require.NoError(t, err)
	handed, err := handOut(t.Context(), folder, true)
	require.NoError(t, err)
	require.NoError(t, folder.Close())

	other, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	require.ErrorIs(t, unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	require.NoError(t, handed.Close())
	require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}
