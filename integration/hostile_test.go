package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hostileNode is a file that exists only in the namespaces of the tests; see testdata/hostile.
const hostileNode = "/run/hostile-node"

// newHostileLab is a lab whose shim has prepare and worker processes in the hands of an attacker.
func newHostileLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	dir := t.TempDir()
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(cache.Root(), "cmd/containerd-shim-spin-v2/main.go"): filepath.Join(cache.Root(), "integration/testdata/hostile/main.go"),
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	binary := filepath.Join(dir, "shim")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", cache.Root(), "-trimpath", "-ldflags", "-s -w",
		"-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./cmd/containerd-shim-spin-v2")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	b, err := os.ReadFile(binary)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(l.Shim(), b, 0o755))
	return l
}

func TestHostilePrepare(t *testing.T) {
	l := newHostileLab(t)
	ref := l.push(t, "c-hello", artifact.image(t, guestNamed("c-hello").write(t)))
	require.NoError(t, os.WriteFile(hostileNode, []byte(l.Dir), 0o644))
	t.Cleanup(func() { os.Remove(hostileNode) })
	t.Run("image", func(t *testing.T) {
		_, err := l.tryStart(t, ref, "image")
		require.ErrorContains(t, err, "prepare process died: exit status 9: hostile: held")
	})
	// The root of this container is in a folder that anybody can enter.
	t.Run("root folder", func(t *testing.T) {
		root := t.TempDir()
		l.removeAtEnd(t, "root")
		_, err := l.Ctr(t.Context(), l.RunArgs([]string{"--rootfs", "--detach"}, root, "root", "/")...)
		require.ErrorContains(t, err, "prepare process died: exit status 9: hostile: held")
	})
	require.NoError(t, os.Remove(hostileNode))
	l.start(t, ref, "honest").get(t, "/").requireText(t, "Hello from C!\n")
}

func TestHostileWorker(t *testing.T) {
	l := newHostileLab(t)
	g := guestNamed("c-hello")
	forms := map[string]string{}
	for _, f := range []form{artifact, container} {
		forms[f.name] = l.push(t, strings.ReplaceAll(f.name, " ", "-"), f.image(t, g.write(t)))
	}
	for name, ref := range forms {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			i := l.start(t, ref, id, "--env", "HOSTILE_ATTACK=break out", "--env", "HOSTILE_NODE="+l.Dir)
			require.Eventually(t, func() bool { return strings.Contains(i.guestLog(t), "\n") }, time.Minute, 10*time.Millisecond)
			require.Equal(t, "hostile: held\n", i.guestLog(t))
			g.ask(t, i, "")
			l.requireEnd(t, id, "SIGTERM", 0)
		})
	}
	// Nothing that it changed is in the way of the next.
	l.start(t, forms["artifact"], "next").get(t, "/").requireText(t, "Hello from C!\n")
}

// A worker that does not keep to the protocol fails alone.
func TestLyingWorker(t *testing.T) {
	l := newHostileLab(t)
	ref := l.push(t, "c-hello", artifact.image(t, guestNamed("c-hello").write(t)))
	for attack, want := range map[string]string{
		"report":  "the worker's report has more than",
		"silence": "the worker ended before it was ready: killed by signal 9 (SIGKILL)",
	} {
		t.Run(attack, func(t *testing.T) {
			_, err := l.tryStart(t, ref, attack, "--env", "HOSTILE_ATTACK="+attack)
			require.ErrorContains(t, err, want)
		})
	}
}

// What a worker leaves in its state folder is removed with its container, however deep it is.
func TestNestingWorker(t *testing.T) {
	l := newHostileLab(t)
	ref := l.push(t, "c-hello", artifact.image(t, guestNamed("c-hello").write(t)))
	i := l.start(t, ref, "nest", "--env", "HOSTILE_ATTACK=nest")
	require.Eventually(t, func() bool { return strings.Contains(i.guestLog(t), "\n") }, time.Minute, 10*time.Millisecond)
	require.Equal(t, "hostile: nested\n", i.guestLog(t))
	few := unix.Rlimit{Cur: 1024, Max: 1024}
	require.NoError(t, unix.Prlimit(parent(t, l.pid(t, "nest")), unix.RLIMIT_NOFILE, &few, nil))
	l.requireEnd(t, "nest", "SIGTERM", 0)
}
