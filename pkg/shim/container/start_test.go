package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/store"
)

func TestAwait(t *testing.T) {
	t.Parallel()
	mine := runc.Exit{Pid: 7, Status: 3}
	for _, c := range []struct {
		name  string
		steps func(exits chan<- runc.Exit, pids chan<- int)
		ok    bool
	}{
		{"dies after its id is known", func(exits chan<- runc.Exit, pids chan<- int) {
			pids <- 7
			exits <- runc.Exit{Pid: 8}
			exits <- mine
		}, true},
		{"dies before its id is known", func(exits chan<- runc.Exit, pids chan<- int) {
			exits <- runc.Exit{Pid: 8}
			exits <- mine
			exits <- runc.Exit{Pid: 9}
			pids <- 7
		}, true},
		{"there is none", func(exits chan<- runc.Exit, pids chan<- int) {
			exits <- mine
			close(pids)
		}, false},
		{"the reaper ends", func(exits chan<- runc.Exit, pids chan<- int) {
			pids <- 7
			close(exits)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			exits, pids := make(chan runc.Exit), make(chan int)
			go c.steps(exits, pids) // ends with await
			got, ok := await(exits, pids)
			require.Equal(t, c.ok, ok)
			if ok {
				require.Equal(t, mine, got)
			}
		})
	}
}

// fakeRunc is a program that does what the script says instead of runc.
func fakeRunc(t *testing.T, script string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "runc")
	require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	return name
}

// created is a container that runc has created, whose worker is cat.
func createdContainer(t *testing.T, runcScript string) (c *Container, report *os.File) {
	t.Helper()
	c = inStage(t, created)
	c.app = &store.App{}
	c.runc.Command = fakeRunc(t, runcScript)
	cmd := c.withProcess(t)
	watch, report, workerLog, err := newWorker()
	require.NoError(t, err)
	require.NoError(t, workerLog.Close())
	c.watch = watch
	ended := make(chan struct{})
	go func() { // ends with the process
		defer close(ended)
		_ = cmd.Wait()
		status := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal()
		c.died(context.Background(), runc.Exit{Pid: c.pid, Status: 128 + int(status), Timestamp: time.Now()})
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = report.Close()
		c.watch.close()
	})
	return c, report
}

func TestStart(t *testing.T) {
	t.Parallel()
	send := func(t *testing.T, w *os.File, r handoff.Report) {
		require.NoError(t, r.Write(w))
		require.NoError(t, w.Close())
	}
	t.Run("listening", func(t *testing.T) {
		t.Parallel()
		c, w := createdContainer(t, "exit 0")
		send(t, w, handoff.Report{Load: time.Millisecond, Warnings: []string{"w"}})
		require.NoError(t, c.Start(t.Context()))
		require.Equal(t, Running, c.State().Status)
	})
	t.Run("the worker says why not", func(t *testing.T) {
		t.Parallel()
		c, w := createdContainer(t, "exit 0")
		send(t, w, handoff.Report{Error: `app "shop": component "cart": no`})
		require.EqualError(t, c.Start(t.Context()), `start app "shop": component "cart": no`)
		require.Equal(t, Stopped, c.State().Status)
	})
	t.Run("the worker dies without a word", func(t *testing.T) {
		t.Parallel()
		c, w := createdContainer(t, "exit 0")
		_, _ = c.watch.stderr.Write([]byte("\nruntime: out of threads\ngoroutine 1\n"))
		require.NoError(t, w.Close())
		err := c.Start(t.Context())
		require.ErrorIs(t, err, handoff.ErrNoReport)
		require.ErrorContains(t, err, "killed by signal 9 (SIGKILL): runtime: out of threads")
		require.NotContains(t, err.Error(), "\n")
	})
	t.Run("the worker sends other bytes", func(t *testing.T) {
		t.Parallel()
		c, w := createdContainer(t, "exit 0")
		_, err := w.WriteString("{")
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.ErrorContains(t, c.Start(t.Context()), "decode the worker's report")
		require.Equal(t, Stopped, c.State().Status)
	})
	t.Run("the client gives up", func(t *testing.T) {
		t.Parallel()
		c, w := createdContainer(t, "exit 0")
		const size = 4 << 10 // the least that a pipe holds
		_, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, size)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { // ends when Start waits for the rest of the report, and the worker is dead
			_, _ = w.Write(make([]byte, size+1))
			cancel()
			<-c.exited
			_ = w.Close() // as the kernel does
		}()
		require.ErrorIs(t, c.Start(ctx), context.Canceled)
		require.Equal(t, Stopped, c.State().Status)
	})
	t.Run("runc says why not", func(t *testing.T) {
		t.Parallel()
		c, _ := createdContainer(t, "exit 1")
		c.runc.Log = filepath.Join(c.bundle, "log.json")
		require.NoError(t, os.WriteFile(c.runc.Log, []byte(`{"level":"error","msg":"cannot start"}`), 0o600))
		require.EqualError(t, c.Start(t.Context()), "runc start: cannot start")
		require.Equal(t, Stopped, c.State().Status)
	})
}

func TestDeath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		want   string
	}{{2, "exit code 2"}, {0, "exit code 0"}, {128 + 11, "killed by signal 11 (SIGSEGV)"}} {
		x := inStage(t, stopped)
		x.exit, x.watch = Exit{Status: c.status}, &worker{}
		require.Equal(t, c.want, x.death())
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	var h head
	require.Empty(t, h.line())
	n, err := h.Write([]byte(" \n first\xff line\nsecond"))
	require.NoError(t, err)
	require.Equal(t, 21, n)
	require.Equal(t, "first? line", h.line())
	n, err = h.Write([]byte(strings.Repeat("x", 2*maxHead)))
	require.NoError(t, err)
	require.Equal(t, 2*maxHead, n)
	require.Len(t, h.buf, maxHead)
}

func TestLevelOf(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]log.Level{
		`time=1 level=ERROR msg=x`:        log.ErrorLevel,
		`time=1 level=WARN msg=x`:         log.WarnLevel,
		`time=1 level=DEBUG msg=x`:        log.DebugLevel,
		`time=1 level=INFO msg="level=E"`: log.InfoLevel,
		`anything`:                        log.InfoLevel,
	} {
		require.Equal(t, want, levelOf(line), line)
	}
}
