package shim

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"sync"
	"time"

	linuxtask "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/fifo"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/container"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/prepare"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/store"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/task"
)

const (
	// gcPercent makes the collector work harder than usual: a node has many daemons, and they do little.
	gcPercent = 40
	// answerTimeout bounds how long calls may go on when the daemon ends: the one that ended it is answered, others may wait for ever.
	answerTimeout = time.Second
	// eventTimeout bounds how long the last events take.
	eventTimeout = 10 * time.Second
)

// serveDaemon serves the task service until containerd or a signal ends it.
func serveDaemon(ctx context.Context, c command) error {
	debug.SetGCPercent(gcPercent)
	// containerd reads the bundle's log. A reader that is gone, as while containerd restarts, must not kill the daemon.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	if _, err := fifo.OpenFifoDup2(ctx, "log", unix.O_WRONLY, 0o700, unix.Stderr); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	listener, err := net.FileListener(os.NewFile(listenerFd, "socket"))
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	if err := reaper.SetSubreaper(1); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	go reap(ctx)
	ctx, ended := context.WithCancel(ctx)
	defer ended()

	binary, err := openBinary(ctx)
	if err != nil {
		return err
	}
	defer binary.Close()
	d := &daemon{command: c, binary: binary}
	return d.serve(ctx, listener)
}

// daemon is what runs for a pod, or for a container outside of pods.
type daemon struct {
	command
	binary *os.File
}

func (d *daemon) serve(ctx context.Context, listener net.Listener) error {
	publisher, err := shim.NewPublisher(os.Getenv(ttrpcVar))
	if err != nil {
		return fmt.Errorf("connect to containerd for events: %w", err)
	}
	defer publisher.Close()
	// containerd's service for Linux containers has a shutdown of its own: what it wants to end is not the daemon.
	linuxCtx, linuxShutdown := shutdown.WithShutdown(ctx)
	linuxEvents := &sharedPublisher{Publisher: publisher, closed: make(chan struct{})}
	linux, err := linuxtask.NewTaskService(linuxCtx, linuxEvents, linuxShutdown)
	if err != nil {
		return fmt.Errorf("start service for Linux containers: %w", err)
	}
	host := container.NewHost(ctx, container.Config{
		Address: d.address, Namespace: d.namespace, CacheDir: cacheDir(), Binary: d.binary, OpenStore: d.openStore, Reaper: reaper.Default,
	})
	end, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	service := task.New(ctx, task.Config{
		Linux: linux,
		Create: func(ctx context.Context, r container.Request) (task.Container, error) {
			c, err := host.Create(ctx, r)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		Publish:  func(ctx context.Context, topic string, event any) error { return publisher.Publish(ctx, topic, event) },
		Shutdown: stop,
	})
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return err
	}
	service.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }() // ends with server.Shutdown
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-end.Done():
	}

	// The address is free before the socket is closed, for another daemon. The answer to what ended this one leaves before the events.
	err = os.Remove(listener.Addr().String())
	d.shutdown(ctx, server)
	service.Close()
	linuxShutdown.Shutdown()
	select {
	case <-linuxEvents.closed:
	case <-time.After(eventTimeout):
	}
	return err
}

func (d *daemon) shutdown(ctx context.Context, server *ttrpc.Server) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}

// openStore opens the node's cache.
func (d *daemon) openStore() (*store.Store, error) {
	return store.Open(store.Config{
		Dir: cacheDir(), CacheKey: prepare.CacheKey(), Binary: fmt.Sprintf("/proc/self/fd/%d", d.binary.Fd()), Start: startChild,
	})
}

// sharedPublisher is a publisher whose Close says that one of its users is done.
type sharedPublisher struct {
	events.Publisher
	once   sync.Once
	closed chan struct{}
}

func (p *sharedPublisher) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// reap collects all dead children, for the daemon's life: they are runc, prepare processes, and the containers' processes, which
// become children when runc ends.
func reap(ctx context.Context) {
	died := make(chan os.Signal, 32)
	signal.Notify(died, unix.SIGCHLD)
	for range died {
		if err := reaper.Reap(); err != nil {
			log.G(ctx).WithError(err).Error("daemon: reap children")
		}
	}
}

// startChild starts a child whose end the reaper sees first.
func startChild(cmd *exec.Cmd) (wait func() error, err error) {
	exits, err := reaper.Default.StartLocked(cmd)
	if err != nil {
		return nil, err
	}
	return func() error {
		status, err := reaper.Default.Wait(cmd, exits)
		if err == nil && status != 0 {
			err = exitError(status)
		}
		return err
	}, nil
}

// exitError is the exit status of a child: its exit code, or 128 and a signal's number.
type exitError int

func (e exitError) Error() string {
	if e > 128 {
		return fmt.Sprintf("killed by signal %d (%s)", int(e-128), unix.SignalName(unix.Signal(e-128)))
	}
	return fmt.Sprintf("exit status %d", int(e))
}
