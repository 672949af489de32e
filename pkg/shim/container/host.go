package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/console"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	runcopts "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/store"
)

// ErrNotApp says that a container is not a Spin app, but a Linux container.
var ErrNotApp = store.ErrNotApp

// Reaper tells how child processes ended; it is containerd's reaper, which gets the signals.
type Reaper interface {
	Subscribe() chan runc.Exit
	Unsubscribe(chan runc.Exit)
}

// Config configures a [Host].
type Config struct {
	// Address is containerd's socket, and Namespace the one of all containers.
	Address, Namespace string
	// CacheDir is the node's cache.
	CacheDir string
	// Binary is the shim's binary as workers get it, open for reading; it stays the caller's.
	Binary *os.File
	// OpenStore opens the store of prepared apps; it is called when the first one is needed.
	OpenStore func() (*store.Store, error)
	Reaper    Reaper
}

// Host makes the containers of one daemon. It is safe for concurrent use.
type Host struct {
	ctx      context.Context // the daemon's
	cfg      Config
	store    func() (*store.Store, error)
	platform func() (stdio.Platform, error) // copies terminals
	oom      oomWatch
}

// NewHost returns a host whose containers live at most as long as ctx, which has the daemon's logger.
func NewHost(ctx context.Context, cfg Config) *Host {
	ctx = namespaces.WithNamespace(ctx, cfg.Namespace)
	h := &Host{ctx: ctx, cfg: cfg, platform: sync.OnceValues(runcopts.NewPlatform), oom: oomWatch{ctx: ctx}}
	h.store = sync.OnceValues(func() (*store.Store, error) {
		if err := SweepStateDirs(cfg.CacheDir); err != nil {
			log.G(ctx).WithError(err).Warn("container: remove state of containers that are gone")
		}
		return cfg.OpenStore()
	})
	return h
}

// Request asks for a container.
type Request struct {
	ID, Bundle string
	Rootfs     []mount.Mount
	Stdio      stdio.Stdio
	Options    *options.Options // never nil
	// OutOfMemory is called when the kernel has killed for lack of memory in the container's cgroup.
	OutOfMemory func()
}

// Create prepares the app of a bundle and creates its container. The error is ErrNotApp if there is no app: then nothing has
// happened, and the bundle is as it was.
func (h *Host) Create(ctx context.Context, r Request) (_ *Container, err error) {
	spec, config, err := readSpec(r.Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Annotations[typeAnnotation] == typeSandbox {
		return nil, ErrNotApp
	}
	c := &Container{
		id: r.ID, bundle: r.Bundle, stdio: r.Stdio, privatePID: hasPrivatePID(spec), exited: make(chan struct{}),
		runc: process.NewRunc(r.Options.Root, r.Bundle, h.cfg.Namespace, r.Options.BinaryName, r.Options.SystemdCgroup),
	}
	defer func() {
		if err == nil {
			return
		}
		if left := c.release(); left != nil {
			err = fmt.Errorf("%v (and %w)", err, left) //nolint:errorlint // nobody may find ErrNotApp: it is no bundle to go on with
		}
	}()
	if len(r.Rootfs) > 0 {
		root := filepath.Join(r.Bundle, "rootfs")
		if err := mountRoot(r.Rootfs, root); err != nil {
			return nil, err
		}
		c.rootfs = root
	}
	if c.app, err = h.prepare(ctx, r, spec); err != nil {
		return nil, err
	}
	user := spec.Process.User
	state := StateDir(h.cfg.CacheDir, h.cfg.Address, h.cfg.Namespace, r.ID)
	c.state, err = openStateDir(state, hostID(user.UID, spec.Linux.UIDMappings), hostID(user.GID, spec.Linux.GIDMappings))
	if err != nil {
		return nil, err
	}
	if config, err = workerSpec(config); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(r.Bundle, configName), config, 0o600); err != nil {
		return nil, fmt.Errorf("write OCI spec: %w", err)
	}
	// With these two, containerd's clean-up finds the container when this daemon is dead.
	if err := errors.Join(runcopts.WriteOptions(r.Bundle, r.Options), runcopts.WriteRuntime(r.Bundle, r.Options.BinaryName)); err != nil {
		return nil, fmt.Errorf("write runtime options: %w", err)
	}
	if err := h.create(ctx, r, c); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare finds the app of the container whose root is mounted.
func (h *Host) prepare(ctx context.Context, r Request, spec *specs.Spec) (*store.App, error) {
	root, err := Detached(ctx, rootPath(r.Bundle, spec), true)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	if runsProgram(root, spec.Process) {
		return nil, ErrNotApp
	}
	apps, err := h.store()
	if err != nil {
		return nil, err
	}
	image, err := store.OpenImage(ctx, h.cfg.Address, r.ID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := image.Close(context.WithoutCancel(ctx)); err != nil {
			log.G(ctx).WithError(err).WithField("container", r.ID).Warn("container: give image back")
		}
	}()
	return apps.Prepare(ctx, store.Source{Image: image.Image, Rootfs: root})
}

// create creates runc's container.
func (h *Host) create(ctx context.Context, r Request, c *Container) (err error) {
	begin := time.Now()
	watch, report, workerLog, err := newWorker()
	if err != nil {
		return err
	}
	c.watch = watch
	defer report.Close()
	defer workerLog.Close()
	app, err := handOut(ctx, c.app.Dir, true)
	if err != nil {
		return err
	}
	defer app.Close()
	state, err := handOut(ctx, c.state, false)
	if err != nil {
		return err
	}
	defer state.Close()
	if c.io, err = openStreams(ctx, c.id, c.stdio, int(r.Options.IoUid), int(r.Options.IoGid)); err != nil {
		return err
	}
	opts := &runc.CreateOpts{
		IO:      c.io.runc,
		PidFile: filepath.Join(c.bundle, process.InitPidFile),
		NoPivot: r.Options.NoPivotRoot, NoNewKeyring: r.Options.NoNewKeyring,
		ExtraFiles: []*os.File{h.cfg.Binary, app, report, state, workerLog}, // as handoff numbers them
	}
	var terminal *runc.Socket
	if c.stdio.Terminal {
		if terminal, err = runc.NewTempConsoleSocket(); err != nil {
			return fmt.Errorf("open terminal: %w", err)
		}
		defer terminal.Close()
		opts.ConsoleSocket = terminal
	}
	exits, pids := h.cfg.Reaper.Subscribe(), make(chan int)
	go func() { // ends with the worker, or when there is none
		exit, ok := await(exits, pids)
		h.cfg.Reaper.Unsubscribe(exits)
		if ok {
			c.died(h.ctx, exit)
		}
	}()
	defer func() {
		if err != nil {
			close(pids)
		}
	}()
	if err := c.runc.Create(ctx, c.id, c.bundle, opts); err != nil {
		if ctx.Err() != nil {
			// A runc that was killed half way leaves what it has made, or nothing, which is no error worth telling.
			_ = c.runc.Delete(context.WithoutCancel(ctx), c.id, &runc.DeleteOpts{Force: true})
		}
		return c.runcError("create", err)
	}
	defer func() {
		if err == nil {
			return
		}
		if gone := c.runc.Delete(context.WithoutCancel(ctx), c.id, &runc.DeleteOpts{Force: true}); gone != nil {
			err = errors.Join(err, c.runcError("delete", gone))
		}
	}()
	go c.watch.copyLog(h.ctx, c.id)
	if err := c.connect(h, terminal); err != nil {
		return err
	}
	if c.pid, err = runc.ReadPidFile(opts.PidFile); err != nil {
		return fmt.Errorf("read the worker's process id: %w", err)
	}
	fd, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return fmt.Errorf("open the worker: %w", os.NewSyscallError("pidfd_open", err))
	}
	c.pidfd = os.NewFile(uintptr(fd), "worker")
	h.watchMemory(c, r.OutOfMemory)
	c.spawn = time.Since(begin)
	pids <- c.pid
	return nil
}

// connect connects the worker's terminal, or standard input, output and error, with the client's.
func (c *Container) connect(h *Host, terminal *runc.Socket) error {
	if terminal == nil {
		return c.io.start(h.ctx, c.stdio, &c.watch.stderr)
	}
	platform, err := h.platform()
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	master, err := terminal.ReceiveMaster()
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	if c.console, err = platform.CopyConsole(h.ctx, master, c.id, c.stdio.Stdin, c.stdio.Stdout, c.stdio.Stderr, &c.io.copies); err != nil {
		return fmt.Errorf("copy terminal: %w", err)
	}
	c.shut = func(t console.Console) { _ = platform.ShutdownConsole(h.ctx, t) }
	if c.stdio.Stdin == "" {
		return nil
	}
	return c.io.keepStdin(c.stdio.Stdin)
}

// watchMemory finds the worker's cgroup, for metrics and lack of memory. A container without them is better than none.
func (h *Host) watchMemory(c *Container, outOfMemory func()) {
	var err error
	if c.cgroup, err = cgroupOf(c.pid); err == nil {
		c.forget = func() { h.oom.remove(c.id) }
		err = h.oom.add(c.id, c.cgroup, outOfMemory)
	}
	if err != nil {
		log.G(h.ctx).WithError(err).WithField("container", c.id).Error("container: find cgroup")
	}
}
