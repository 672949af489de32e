package shim

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestOpenBinary(t *testing.T) {
	t.Parallel()
	needRoot(t)
	f, err := openBinary(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	require.GreaterOrEqual(t, int(f.Fd()), minBinaryFd)
	self, err := os.Stat("/proc/self/exe")
	require.NoError(t, err)
	opened, err := f.Stat()
	require.NoError(t, err)
	require.True(t, os.SameFile(self, opened))
	var mount unix.Statfs_t
	require.NoError(t, unix.Fstatfs(int(f.Fd()), &mount))
	require.NotZero(t, mount.Flags&unix.ST_RDONLY)
}

// needRoot skips a test that makes a mount.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root: mounts are made")
	}
	t.Skip("SKIPPED: needs root: mounts are made")
}
