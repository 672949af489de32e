package wasi

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// assets returns a preopened folder with one of each kind of file in it, below a folder with a secret.
func assets(t *testing.T) *descriptor {
	top := t.TempDir()
	dir := filepath.Join(top, "assets")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub/deep"), 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	link := func(target, name string) { require.NoError(t, os.Symlink(target, filepath.Join(dir, name))) }
	write("../secret", "secret")
	write("a.txt", "0123456789")
	write("sub/b.txt", "b")
	write("bad-\xff", "")
	link("a.txt", "link")
	link("sub", "linkdir")
	link("../secret", "out")
	link("/etc/passwd", "abs")
	link("loop", "loop")
	link("nowhere", "dangling")
	link("../a.txt", "sub/up")
	link("\xff", "badlink")
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	return &descriptor{dir: root}
}

func TestOpenAt(t *testing.T) {
	t.Parallel()
	root := assets(t)
	for _, tc := range []struct {
		name, path string
		noFollow   bool
		wantDir    bool
		code       errorCode // -1 is success
	}{
		{"file", "a.txt", false, false, -1},
		{"file below a folder", "sub/b.txt", true, false, -1},
		{"folder", "sub", false, true, -1},
		{"folder with slash", "sub/", false, true, -1},
		{"folder that need not be one", "sub", true, false, -1},
		{"itself", ".", false, true, -1},
		{"dots that stay inside", "sub/../sub/./b.txt", false, false, -1},
		{"link to file", "link", false, false, -1},
		{"link not followed", "link", true, false, codeLoop},
		{"link to folder on the way", "linkdir/b.txt", true, false, -1},
		{"link with dots that stay inside", "sub/up", false, false, -1},
		{"no such file", "nope", false, false, codeNoEntry},
		{"no such folder", "nope/x", false, false, codeNoEntry},
		{"file as folder", "a.txt", false, true, codeNotDirectory},
		{"file as folder on the way", "a.txt/x", false, false, codeNotDirectory},
		{"file with slash", "a.txt/", false, false, codeNotDirectory},
		{"dots that lead out", "../secret", false, false, codeNotPermitted},
		{"dots that lead out below", "sub/../../secret", false, false, codeNotPermitted},
		{"only dots", "..", false, true, codeNotPermitted},
		{"absolute path", "/a.txt", false, false, codeNotPermitted},
		{"link that leads out", "out", false, false, codeNotPermitted},
		{"absolute link", "abs", false, false, codeNotPermitted},
		{"loop of links", "loop", false, false, codeLoop},
		{"dangling link", "dangling", false, false, codeNoEntry},
		{"pipe would block", "fifo", false, false, codeNotPermitted},
		{"empty path", "", false, false, codeNoEntry},
		{"path with zero byte", "a.txt\x00", false, false, codeInvalid},
		{"path too long", strings.Repeat("a/", maxPath), false, false, codeNameTooLong},
		{"name too long", strings.Repeat("a", 256), false, false, codeNameTooLong},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			open := new(openFiles)
			d, err := root.openAt(open, tc.path, !tc.noFollow, tc.wantDir)
			if tc.code >= 0 {
				require.Error(t, err)
				require.Equal(t, tc.code, errorCodeOf(err), err)
				require.Zero(t, open.n)
				return
			}
			require.NoError(t, err)
			require.Equal(t, 1, open.n)
			d.close()
			require.Zero(t, open.n)
		})
	}
}

func TestSubfolderIsARootOfItsOwn(t *testing.T) {
	t.Parallel()
	root, open := assets(t), new(openFiles)
	sub, err := root.openAt(open, "sub", false, true)
	require.NoError(t, err)
	defer sub.close()
	f, err := sub.openAt(open, "b.txt", false, false)
	require.NoError(t, err)
	f.close()
	for _, path := range []string{"../a.txt", "up"} {
		_, err = sub.openAt(open, path, true, false)
		require.Equal(t, codeNotPermitted, errorCodeOf(err), path)
	}
}

func TestOpenFilesAreLimited(t *testing.T) {
	t.Parallel()
	root, open := assets(t), new(openFiles)
	var held []*descriptor
	for range maxOpenFiles {
		d, err := root.openAt(open, "sub", false, true)
		require.NoError(t, err)
		held = append(held, d)
	}
	_, err := root.openAt(open, "a.txt", false, false)
	require.Equal(t, codeInsufficientMemory, errorCodeOf(err))
	_, err = root.readDirectory(open)
	require.Equal(t, codeInsufficientMemory, errorCodeOf(err))
	for _, d := range held {
		d.close()
	}
	entries, err := root.readDirectory(open)
	require.NoError(t, err)
	entries.close()
	require.Zero(t, open.n)
}

func TestStatAt(t *testing.T) {
	t.Parallel()
	root := assets(t)
	for _, tc := range []struct {
		path   string
		follow bool
		want   int
	}{
		{"a.txt", false, typeRegularFile},
		{"link", false, typeSymbolicLink},
		{"link", true, typeRegularFile},
		{"out", false, typeSymbolicLink},
		{"sub", true, typeDirectory},
		{".", true, typeDirectory},
		{"fifo", true, typeFIFO},
	} {
		info, err := root.statAt(tc.path, tc.follow)
		require.NoError(t, err, tc.path)
		require.Equal(t, tc.want, descriptorType(info.Mode()), tc.path)
	}
	_, err := root.statAt("out", true)
	require.Equal(t, codeNotPermitted, errorCodeOf(err))
	f, err := root.openAt(new(openFiles), "a.txt", false, false)
	require.NoError(t, err)
	defer f.close()
	_, err = f.statAt("x", false)
	require.Equal(t, codeNotDirectory, errorCodeOf(err))
}

func TestDescriptorType(t *testing.T) {
	t.Parallel()
	for mode, want := range map[fs.FileMode]int{
		0o644:                             typeRegularFile,
		fs.ModeDir | 0o755:                typeDirectory,
		fs.ModeSymlink | 0o777:            typeSymbolicLink,
		fs.ModeNamedPipe:                  typeFIFO,
		fs.ModeSocket:                     typeSocket,
		fs.ModeDevice | fs.ModeCharDevice: typeCharacterDevice,
		fs.ModeDevice:                     typeBlockDevice,
		fs.ModeIrregular:                  typeUnknown,
	} {
		require.Equal(t, want, descriptorType(mode), mode)
	}
}

func TestReadlinkAt(t *testing.T) {
	t.Parallel()
	root := assets(t)
	target, err := root.readlinkAt("out")
	require.NoError(t, err)
	require.Equal(t, "../secret", target, "a name, which leads nowhere")
	for path, want := range map[string]errorCode{
		"abs":       codeNotPermitted,
		"a.txt":     codeInvalid,
		"nope":      codeNoEntry,
		"badlink":   codeIllegalByteSequence,
		"../assets": codeNotPermitted,
	} {
		_, err := root.readlinkAt(path)
		require.Equal(t, want, errorCodeOf(err), path)
	}
}

func TestReadDirectory(t *testing.T) {
	t.Parallel()
	root, open := assets(t), new(openFiles)
	entries, err := root.readDirectory(open)
	require.NoError(t, err)
	var names []string
	var bad int
	for {
		e, err := entries.next()
		if err != nil {
			require.Equal(t, codeIllegalByteSequence, errorCodeOf(err))
			bad++
			continue
		}
		if e == nil {
			break
		}
		names = append(names, e.Name())
	}
	slices.Sort(names)
	require.Equal(t, []string{"a.txt", "abs", "badlink", "dangling", "fifo", "link", "linkdir", "loop", "out", "sub"}, names)
	require.Equal(t, 1, bad)
	e, err := entries.next()
	require.NoError(t, err)
	require.Nil(t, e)
	entries.close()
	require.Zero(t, open.n)

	f, err := root.openAt(open, "a.txt", false, false)
	require.NoError(t, err)
	_, err = f.readDirectory(open)
	require.Equal(t, codeNotDirectory, errorCodeOf(err))
	f.close()
	_, err = root.regular()
	require.Equal(t, codeIsDirectory, errorCodeOf(err))
}

func TestReadDirectoryOfManyEntries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const n = 3*entryBatch + 1
	for i := range n {
		require.NoError(t, os.Mkdir(filepath.Join(dir, strings.Repeat("x", i+1)), 0o755))
	}
	r, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer r.Close()
	entries, err := (&descriptor{dir: r}).readDirectory(new(openFiles))
	require.NoError(t, err)
	defer entries.close()
	got := 0
	for {
		e, err := entries.next()
		require.NoError(t, err)
		if e == nil {
			break
		}
		got++
	}
	require.Equal(t, n, got)
}

func TestStreamOutlivesItsFile(t *testing.T) {
	t.Parallel()
	root, open := assets(t), new(openFiles)
	d, err := root.openAt(open, "a.txt", false, false)
	require.NoError(t, err)
	f, err := d.regular()
	require.NoError(t, err)
	in := NewInput(t.Context(), f.stream(4))
	d.close()
	require.Equal(t, 1, open.n)
	require.True(t, in.Ready())
	got, err := read(in, 3, false)
	require.NoError(t, err)
	require.Equal(t, "456", got)
	got, err = read(in, 100, true)
	require.NoError(t, err)
	require.Equal(t, "789", got)
	_, err = read(in, 1, true)
	require.Equal(t, io.EOF, err)
	in.Close()
	require.Zero(t, open.n)
}

func TestStreamErrorHasCodeAndHidesThePath(t *testing.T) {
	t.Parallel()
	root, open := assets(t), new(openFiles)
	d, err := root.openAt(open, "a.txt", false, false)
	require.NoError(t, err)
	src := d.file.stream(0)
	require.NoError(t, d.file.Close())
	_, err = src.Read(t.Context(), make([]byte, 1))
	e, ok := errors.AsType[fileError](err)
	require.True(t, ok)
	require.Equal(t, codeBadDescriptor, e.code)
	require.NotContains(t, e.Error(), "a.txt")
}

func TestMetadataHash(t *testing.T) {
	t.Parallel()
	root := assets(t)
	hash := func(path string, follow bool) [2]uint64 {
		info, err := root.statAt(path, follow)
		require.NoError(t, err)
		lower, upper := metadataHash(info)
		return [2]uint64{lower, upper}
	}
	require.Equal(t, hash("a.txt", false), hash("link", true))
	require.NotEqual(t, hash("a.txt", false), hash("link", false))
	require.NotEqual(t, hash("a.txt", false), hash("sub/b.txt", false))
	before := hash("a.txt", false)
	require.NoError(t, root.dir.WriteFile("a.txt", []byte("longer than it was"), 0))
	require.NotEqual(t, before, hash("a.txt", false))
}

// FuzzOpenAt checks that no path leads to a file that is not in the folder.
func FuzzOpenAt(f *testing.F) {
	for _, path := range []string{"a.txt", "../secret", "sub/../../secret", "/secret", "out", "sub/./up/..", "out/", "linkdir/../out", "\x00"} {
		f.Add(path)
	}
	dir := f.TempDir()
	require.NoError(f, os.MkdirAll(filepath.Join(dir, "assets/sub"), 0o755))
	require.NoError(f, os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644))
	require.NoError(f, os.WriteFile(filepath.Join(dir, "assets/a.txt"), nil, 0o644))
	require.NoError(f, os.Symlink("../secret", filepath.Join(dir, "assets/out")))
	require.NoError(f, os.Symlink("../../secret", filepath.Join(dir, "assets/sub/up")))
	require.NoError(f, os.Symlink("sub", filepath.Join(dir, "assets/linkdir")))
	root, err := os.OpenRoot(filepath.Join(dir, "assets"))
	require.NoError(f, err)
	f.Cleanup(func() { root.Close() })
	inside := map[uint64]bool{}
	require.NoError(f, filepath.Walk(filepath.Join(dir, "assets"), func(_ string, info fs.FileInfo, err error) error {
		inside[info.Sys().(*syscall.Stat_t).Ino] = true
		return err
	}))
	f.Fuzz(func(t *testing.T, path string) {
		open := new(openFiles)
		d, err := (&descriptor{dir: root}).openAt(open, path, true, false)
		if err != nil {
			require.Zero(t, open.n)
			return
		}
		info, err := d.stat()
		require.NoError(t, err)
		require.True(t, inside[info.Sys().(*syscall.Stat_t).Ino], path)
		d.close()
		require.Zero(t, open.n)
	})
}
