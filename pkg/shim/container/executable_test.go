package container

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestRunsProgram(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		name = filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(content), mode))
	}
	write("bin/busybox", "\x7fELF...", 0o755)
	write("bin/script", "#!/bin/sh\n", 0o755)
	write("bin/plain", "\x7fELF...", 0o644)
	write("app.wasm", "\x00asm....", 0o755)
	write("empty", "", 0o755)
	write("app/run", "#!/bin/sh\n", 0o755)
	link := func(to, name string) { require.NoError(t, os.Symlink(to, filepath.Join(root, name))) }
	link("/bin/busybox", "bin/sh")          // within the root
	link("../../../../bin/busybox", "away") // as far as the root
	link("/proc/self/exe", "magic")
	link("loop", "loop")
	require.NoError(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o755))

	f, err := os.Open(root)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	path := []string{"A=b", "PATH=/usr/bin:relative:/bin"}
	for _, c := range []struct {
		name string
		args []string
		env  []string
		cwd  string
		want bool
	}{
		{name: "no arguments"},
		{name: "empty name", args: []string{""}, env: path},
		{name: "the root", args: []string{"/"}},
		{name: "binary", args: []string{"/bin/busybox"}, want: true},
		{name: "script", args: []string{"/bin/script"}, want: true},
		{name: "absolute link", args: []string{"/bin/sh"}, want: true},
		{name: "link that climbs", args: []string{"/away"}, want: true},
		{name: "name that climbs", args: []string{"/../../bin/busybox"}, want: true},
		{name: "link of the kernel's", args: []string{"/magic"}},
		{name: "loop", args: []string{"/loop"}},
		{name: "not executable", args: []string{"/bin/plain"}},
		{name: "wasm from a file system without modes", args: []string{"/app.wasm"}},
		{name: "empty file", args: []string{"/empty"}},
		{name: "FIFO is not opened", args: []string{"/fifo"}},
		{name: "folder", args: []string{"/bin"}},
		{name: "absent", args: []string{"/bin/nothing"}},
		{name: "found in PATH", args: []string{"sh"}, env: path, want: true},
		{name: "not found in PATH", args: []string{"run"}, env: path, cwd: "/app"},
		{name: "no PATH", args: []string{"sh"}},
		{name: "relative to the working directory", args: []string{"./run"}, cwd: "/app", want: true},
		{name: "relative to another working directory", args: []string{"./run"}, cwd: "/bin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, runsProgram(f, &specs.Process{Args: c.args, Env: c.env, Cwd: c.cwd}))
		})
	}
}
