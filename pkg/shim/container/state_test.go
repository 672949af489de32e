package container

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/go-runc"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inStage is a container in a stage, without a runc.
func inStage(t *testing.T, s stage) *Container {
	c := &Container{
		id: "c", bundle: t.TempDir(), privatePID: true, stage: s, exited: make(chan struct{}),
		// A runc that is not there: no test may need it.
		runc: &runc.Runc{Command: "/nonexistent/runc"},
	}
	if !s.alive() {
		close(c.exited)
	}
	return c
}

func TestStatus(t *testing.T) {
	t.Parallel()
	for s, want := range map[stage]Status{
		created: Created, starting: Created, running: Running, pausing: Pausing, paused: Paused, resuming: Paused,
		stopped: Stopped, deleting: Stopped, deleted: Stopped,
	} {
		require.Equal(t, want, s.status(), s.String())
	}
}

func TestOperationsByStage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	operations := map[string]func(c *Container) error{
		"start":  func(c *Container) error { return c.Start(ctx) },
		"pause":  func(c *Container) error { return c.Pause(ctx) },
		"resume": func(c *Container) error { return c.Resume(ctx) },
		"update": func(c *Container) error { return c.Update(ctx, []byte(`{}`)) },
		"delete": func(c *Container) error { return c.Delete(ctx) },
	}
	allowed := map[string][]stage{
		"start": {created}, "pause": {running}, "resume": {paused},
		"update": {created, starting, running, pausing, paused, resuming}, "delete": {created, stopped},
	}
	for name, run := range operations {
		for s := created; s <= deleted; s++ {
			refuses := true
			for _, a := range allowed[name] {
				refuses = refuses && a != s
			}
			if refuses {
				err := run(inStage(t, s))
				require.ErrorIs(t, err, errdefs.ErrFailedPrecondition, "%s when %v", name, s)
				require.ErrorContains(t, err, s.String())
			}
		}
	}
}

func TestFailedOperationsGoBack(t *testing.T) {
	t.Parallel()
	c := inStage(t, running)
	require.ErrorContains(t, c.Pause(t.Context()), "runc pause: ")
	require.Equal(t, Running, c.State().Status)
	c = inStage(t, paused)
	require.ErrorContains(t, c.Resume(t.Context()), "runc resume: ")
	require.Equal(t, Paused, c.State().Status)
}

func TestDeathEndsOperations(t *testing.T) {
	t.Parallel()
	at := time.Unix(1, 0)
	for s := created; s <= resuming; s++ {
		c := inStage(t, s)
		c.died(t.Context(), runc.Exit{Pid: 7, Status: 3, Timestamp: at})
		require.Equal(t, Stopped, c.State().Status, s.String())
		require.Equal(t, Exit{Status: 3, At: at}, c.State().Exit)
	}
	t.Run("one that ends later does not bring it back", func(t *testing.T) {
		c := inStage(t, running)
		leave, err := c.enter("pause", pausing, running)
		require.NoError(t, err)
		c.died(t.Context(), runc.Exit{Status: 137, Timestamp: at})
		leave(paused)
		require.Equal(t, Stopped, c.State().Status)
	})
	t.Run("deleting goes on", func(t *testing.T) {
		c := inStage(t, created)
		leave, err := c.enter("delete", deleting, created)
		require.NoError(t, err)
		c.died(t.Context(), runc.Exit{Status: 137, Timestamp: at})
		require.ErrorIs(t, c.Delete(t.Context()), errdefs.ErrFailedPrecondition)
		leave(created) // deleting failed
		require.Equal(t, Stopped, c.State().Status)
	})
}

func TestExitIsNotedInTheBundle(t *testing.T) {
	t.Parallel()
	c := inStage(t, running)
	c.died(t.Context(), runc.Exit{Pid: 7, Status: 3, Timestamp: time.Unix(1, 0)})
	entries, err := os.ReadDir(c.bundle)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
}

// withProcess gives the container a process of its own, which is dead at the end of the test.
func (c *Container) withProcess(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close() })
	c.pid = cmd.Process.Pid
	fd, err := unix.PidfdOpen(c.pid, 0)
	require.NoError(t, err)
	c.pidfd = os.NewFile(uintptr(fd), "worker")
	t.Cleanup(func() { _ = c.pidfd.Close() })
	return cmd
}

func TestKill(t *testing.T) {
	t.Parallel()
	t.Run("running", func(t *testing.T) {
		t.Parallel()
		c := inStage(t, running)
		cmd := c.withProcess(t)
		for _, signal := range []uint32{0, 65, 1 << 31} {
			require.ErrorIs(t, c.Kill(t.Context(), signal, false), errdefs.ErrInvalidArgument)
		}
		require.NoError(t, c.Kill(t.Context(), uint32(unix.SIGTERM), true))
		require.Error(t, cmd.Wait())
		require.Equal(t, unix.SIGTERM, unix.Signal(cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal()))
	})
	t.Run("dead, which nobody has noticed yet", func(t *testing.T) {
		t.Parallel()
		c := inStage(t, running)
		cmd := c.withProcess(t)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		require.ErrorIs(t, c.Kill(t.Context(), uint32(unix.SIGTERM), false), errdefs.ErrNotFound)
	})
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		for _, s := range []stage{stopped, deleting, deleted} {
			require.ErrorIs(t, inStage(t, s).Kill(t.Context(), uint32(unix.SIGKILL), true), errdefs.ErrNotFound)
		}
	})
}

func TestUpdateRefusesOtherBytes(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, inStage(t, running).Update(t.Context(), []byte("{")), errdefs.ErrInvalidArgument)
}

func TestLastError(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "log.json")
	require.Empty(t, lastError(name))
	for _, c := range []struct{ name, log, want string }{
		{"nothing", "", ""},
		{"no error", `{"level":"warning","msg":"w"}`, ""},
		{"the last error", "{\"level\":\"error\",\"msg\":\"one\"}\n{\"level\":\"error\",\"msg\":\"two \"}\n{\"level\":\"info\",\"msg\":\"i\"}\n", "two"},
		{"not JSON", "runc: bad\n{\"level\":\"error\",\"msg\":\"one\"}\n{\"level\":\"err", "one"},
	} {
		require.NoError(t, os.WriteFile(name, []byte(c.log), 0o600))
		require.Equal(t, c.want, lastError(name), c.name)
	}
	long := make([]byte, 2*maxRuncLog)
	require.NoError(t, os.WriteFile(name, append(long, "\n{\"level\":\"error\",\"msg\":\"end\"}\n"...), 0o600))
	require.Equal(t, "end", lastError(name))
}
