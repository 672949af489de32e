// Package container runs one Spin app as a container of runc: it tells apps from Linux containers, prepares the app, and lets runc
// start the shim's own binary as the container's process, a worker, with the prepared app as an open file. The app's OCI spec decides
// on everything else, as for any container.
//
// Files: host.go makes containers (Create), container.go is what can be done with one, state.go the order in which, spec.go reads and
// rewrites the OCI spec, executable.go looks into the container's root, detached.go opens files of the node for other processes,
// start.go starts the worker and says why it did not, stdio.go copies its standard input and output, cgroup.go reads metrics and
// watches for lack of memory, statedir.go is the folder of the app's own state.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/console"
	runcopts "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/errdefs"
	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/store"
)

const (
	// drainTimeout is how long Delete waits for the last words of a dead worker: they are in pipes, and only a reader that has
	// stopped reading holds them up.
	drainTimeout = 10 * time.Second
	// killTimeout is how long a killed worker may take to die: the kernel frees its memory first.
	killTimeout = 30 * time.Second
)

// Container is one Spin app in a container. Its methods may be called concurrently. None holds a lock while runc or the worker runs,
// so that State always answers at once.
type Container struct {
	id, bundle string
	runc       *runc.Runc
	stdio      stdio.Stdio
	privatePID bool // the container's processes die with the worker

	// These are set by Create, and kept until Delete.
	pid     int
	pidfd   *os.File
	app     *store.App
	state   *os.File // the app's state folder
	rootfs  string   // what Create mounted, or ""
	io      *streams
	console console.Console // nil without a terminal
	shut    func(console.Console)
	watch   *worker
	cgroup  cgroup
	forget  func()        // ends the watch for lack of memory; nil without one
	spawn   time.Duration // what runc create took

	mu    sync.Mutex
	stage stage // guarded by mu

	exited chan struct{} // closed once the worker is dead
	exit   Exit          // set before exited is closed
}

// Exit is how a worker ended.
type Exit struct {
	// Status is the exit code, or 128 and the signal's number.
	Status int
	At     time.Time
}

// State is what is known of a container at one moment.
type State struct {
	Bundle string
	Pid    int
	Status Status
	Stdio  stdio.Stdio
	// Exit is zero before the container is stopped.
	Exit Exit
}

// Pid is the worker's process id in the daemon's namespace.
func (c *Container) Pid() int { return c.pid }

// Exited is closed when the worker is dead.
func (c *Container) Exited() <-chan struct{} { return c.exited }

// Exit is how the worker ended; it is valid once Exited is closed.
func (c *Container) Exit() Exit {
	if !c.dead() {
		return Exit{}
	}
	return c.exit
}

func (c *Container) dead() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// State is the container's state.
func (c *Container) State() State {
	c.mu.Lock()
	status := c.stage.status()
	c.mu.Unlock()
	return State{Bundle: c.bundle, Pid: c.pid, Status: status, Stdio: c.stdio, Exit: c.Exit()}
}

// Kill sends a signal to the worker, or to all of the container's processes. The error is errdefs.ErrNotFound if it is dead.
func (c *Container) Kill(ctx context.Context, signal uint32, all bool) error {
	c.mu.Lock()
	now := c.stage
	c.mu.Unlock()
	if now == stopped || now == deleting || now == deleted {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	if signal == 0 || signal > 64 {
		return fmt.Errorf("signal %d: %w", signal, errdefs.ErrInvalidArgument)
	}
	if all && !c.privatePID {
		if err := c.runc.Kill(ctx, c.id, int(signal), &runc.KillOpts{All: true}); err != nil {
			return c.runcError("kill", err)
		}
	} else if err := c.signal(unix.Signal(signal)); err != nil {
		return err
	}
	if now == paused && unix.Signal(signal) == unix.SIGKILL {
		// A frozen process of cgroup v1 dies only when it is thawed.
		if err := c.runc.Resume(ctx, c.id); err != nil {
			return c.runcError("resume", err)
		}
	}
	return nil
}

// signal sends a signal to the worker alone. The error is errdefs.ErrNotFound if it is dead.
func (c *Container) signal(s unix.Signal) error {
	raw, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	// Control keeps the number from becoming another file's when the container is deleted meanwhile.
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), s, nil, 0) })
	if errors.Is(err, os.ErrClosed) || errors.Is(sent, unix.ESRCH) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	return os.NewSyscallError("pidfd_send_signal", sent)
}

// Pids are the container's processes.
func (c *Container) Pids(ctx context.Context) ([]int, error) {
	pids, err := c.runc.Ps(ctx, c.id)
	if err != nil {
		return nil, c.runcError("ps", err)
	}
	return pids, nil
}

// Update changes the container's limits; resources is a LinuxResources of the runtime specification in JSON.
func (c *Container) Update(ctx context.Context, resources []byte) error {
	var r specs.LinuxResources
	if err := json.Unmarshal(resources, &r); err != nil {
		return fmt.Errorf("decode resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	c.mu.Lock()
	now := c.stage
	c.mu.Unlock()
	if !now.alive() {
		return refused("update", now)
	}
	if err := c.runc.Update(ctx, c.id, &r); err != nil {
		return c.runcError("update", err)
	}
	return nil
}

// Pause freezes the container.
func (c *Container) Pause(ctx context.Context) error {
	leave, err := c.enter("pause", pausing, running)
	if err != nil {
		return err
	}
	if err := c.runc.Pause(ctx, c.id); err != nil {
		leave(running)
		return c.runcError("pause", err)
	}
	leave(paused)
	return nil
}

// Resume thaws the container.
func (c *Container) Resume(ctx context.Context) error {
	leave, err := c.enter("resume", resuming, paused)
	if err != nil {
		return err
	}
	if err := c.runc.Resume(ctx, c.id); err != nil {
		leave(paused)
		return c.runcError("resume", err)
	}
	leave(running)
	return nil
}

// Resize sets the size of the container's terminal, if it has one.
func (c *Container) Resize(width, height uint32) error {
	if c.console == nil {
		return nil
	}
	return c.console.Resize(console.WinSize{Width: uint16(width), Height: uint16(height)})
}

// CloseStdin ends the worker's standard input, once the client has closed its end too.
func (c *Container) CloseStdin() error { return c.io.closeStdin() }

// Delete removes the container, which must not be running, and all that belongs to it.
func (c *Container) Delete(ctx context.Context) error {
	leave, err := c.enter("delete", deleting, created, stopped)
	if err != nil {
		return err
	}
	if err := c.kill(ctx); err != nil {
		leave(created)
		return err
	}
	ctx = context.WithoutCancel(ctx) // half a removal would leave the other half behind
	if err := c.runc.Delete(ctx, c.id, &runc.DeleteOpts{Force: true}); err != nil {
		leave(stopped)
		return c.runcError("delete", err)
	}
	c.io.drain(ctx, drainTimeout)
	if err := c.release(); err != nil {
		// It is deleted all the same: another try would not get further, and containerd's delete and later sweeps do.
		log.G(ctx).WithError(err).WithField("container", c.id).Error("container: remove what belonged to it")
	}
	leave(deleted)
	return nil
}

// kill makes sure that the worker is dead.
func (c *Container) kill(ctx context.Context) error {
	_ = c.signal(unix.SIGKILL) // it fails if the worker is dead
	timeout := time.NewTimer(killTimeout)
	defer timeout.Stop()
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("worker %d is not dead %v after SIGKILL", c.pid, killTimeout)
	}
}

// release gives back all that Create took besides runc's container; it may be called when Create is half done.
func (c *Container) release() error {
	if c.forget != nil {
		c.forget()
	}
	if c.io != nil {
		c.io.close()
	}
	if c.watch != nil {
		c.watch.close()
	}
	if c.pidfd != nil {
		_ = c.pidfd.Close()
	}
	var errs []error
	if c.rootfs != "" {
		if err := mount.UnmountRecursive(c.rootfs, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount root: %w", err))
		}
	}
	if c.state != nil {
		errs = append(errs, removeStateDir(c.state))
	}
	if c.app != nil {
		errs = append(errs, c.app.Close())
	}
	return errors.Join(errs...)
}

// died records the worker's end.
func (c *Container) died(ctx context.Context, e runc.Exit) {
	if !c.privatePID {
		// Nothing of the container outlives its worker, as in a process namespace of its own.
		if err := c.runc.Kill(ctx, c.id, int(unix.SIGKILL), &runc.KillOpts{All: true}); err != nil {
			log.G(ctx).WithError(err).WithField("container", c.id).Debug("container: kill what the worker left")
		}
	}
	c.exit = Exit{Status: e.Status, At: e.Timestamp}
	if err := runcopts.WriteExitStatus(c.bundle, e); err != nil {
		log.G(ctx).WithError(err).WithField("container", c.id).Warn("container: note exit status")
	}
	if c.console != nil {
		c.shut(c.console)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stage != deleting {
		c.stage = stopped
	}
	close(c.exited)
}

// runcError is the error of a command of runc: what runc wrote in its log, which says more than its exit code.
func (c *Container) runcError(command string, err error) error {
	if said := lastError(c.runc.Log); said != "" {
		return fmt.Errorf("runc %s: %s", command, strings.TrimPrefix(said, "runc "+command+" failed: "))
	}
	return fmt.Errorf("runc %s: %w", command, err)
}

// maxRuncLog bounds what is read of runc's log, in bytes from its end.
const maxRuncLog = 64 << 10

// lastError returns the last error in a log of runc, or "".
func lastError(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, maxRuncLog)
	var offset int64
	if info, err := f.Stat(); err == nil {
		offset = max(0, info.Size()-maxRuncLog)
	}
	n, _ := f.ReadAt(b, offset)
	var said string
	for line := range strings.Lines(string(b[:n])) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "error" {
			said = strings.TrimSpace(entry.Msg)
		}
	}
	return said
}
