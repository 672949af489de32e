package store

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRemoveTree(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]func(t *testing.T, dir string){
		"nothing": func(*testing.T, string) {},
		"files, links and folders": func(t *testing.T, dir string) {
			outside := filepath.Join(filepath.Dir(dir), "outside")
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o700))
			require.NoError(t, write(dir, "a/b/file", "x"))
			require.NoError(t, os.Symlink(outside, filepath.Join(dir, "a/link")))
			require.NoError(t, unix.Mkfifo(filepath.Join(dir, "a/fifo"), 0o600))
		},
		"names that folders get when they move": func(t *testing.T, dir string) {
			for i := range 5 {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, strconv.Itoa(i), strconv.Itoa(i+1), "2", "1"), 0o700))
			}
			require.NoError(t, write(dir, "9", "a file"))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "x/y/z/1/2/3/4/5/6/7/8/9/10"), 0o700))
		},
		"more than is read at once": func(t *testing.T, dir string) {
			for i := range removeBatch + 10 {
				require.NoError(t, write(dir, "a/"+strconv.Itoa(i), ""))
			}
		},
		"a path that is too long to be one": func(t *testing.T, dir string) { nest(t, dir, 2100) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "tree")
			outside := filepath.Join(filepath.Dir(dir), "outside")
			require.NoError(t, os.Mkdir(dir, 0o700))
			require.NoError(t, write(outside, "file", "x"))
			fill(t, dir)
			require.NoError(t, RemoveTree(dir))
			require.NoDirExists(t, dir)
			require.FileExists(t, filepath.Join(outside, "file"), "links are not followed")
			require.NoError(t, RemoveTree(dir), "it is gone already")
		})
	}
}

func TestRemoveTreeThatIsALink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, write(dir, "to/file", "x"))
	require.NoError(t, os.Symlink("to", filepath.Join(dir, "link")))
	require.NoError(t, RemoveTree(filepath.Join(dir, "link")))
	require.FileExists(t, filepath.Join(dir, "to/file"))
	require.NoFileExists(t, filepath.Join(dir, "link"))
}

// nest makes folders in folders.
func nest(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	require.NoError(t, err)
	for range depth {
		require.NoError(t, unix.Mkdirat(at, "d", 0o700))
		next, err := unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(at))
		at = next
	}
	require.NoError(t, unix.Close(at))
}
