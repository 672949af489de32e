// Package task is the shim's task service, versions 2 and 3, the one edge where containerd's calls come in. It sends each call to where
// the container of its id is at home: Linux containers at containerd's own service, Spin apps in package container. Events of apps are
// its own, in the order that containerd promises; those of Linux containers come from containerd's service, over a publisher of theirs.
//
// Files: task.go creates and routes, app.go has the calls for apps, options.go decodes runtime options, events.go publishes,
// register.go is the wire.
package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/container"
)

// Config is what a [Service] works with.
type Config struct {
	// Linux is containerd's service for Linux containers. It must not end the daemon: this service does.
	Linux api.TTRPCTaskService
	// Create creates a container of a Spin app, or returns container.ErrNotApp.
	Create func(context.Context, container.Request) (Container, error)
	// Publish publishes an event; it may block.
	Publish func(ctx context.Context, topic string, event any) error
	// Shutdown is called once, when containerd wants the daemon to end and no task is left.
	Shutdown func()
}

// Service is a task service for the containers of one daemon. It is safe for concurrent use. Close ends it.
type Service struct {
	cfg    Config
	events *queue

	mu      sync.Mutex
	tasks   map[string]*task // by container, from the call that creates it to the one that deletes it; guarded by mu
	closing bool             // no more tasks; guarded by mu
}

// task is a container, from the call that creates it to the one that deletes it.
type task struct {
	giveUp  context.CancelFunc // ends the creation
	settled chan struct{}      // closed when the creation has ended, well or not

	app      *app // nil for Linux containers, and until an app's container is there; guarded by Service.mu
	created  bool // guarded by Service.mu
	unwanted bool // deleted before it was created; guarded by Service.mu
}

// New returns a service that publishes events in ctx, which has the namespace.
func New(ctx context.Context, cfg Config) *Service {
	return &Service{cfg: cfg, events: newQueue(ctx, cfg.Publish), tasks: map[string]*task{}}
}

// Close publishes what is still to be published.
func (s *Service) Close() { s.events.close() }

// Create creates a container. If it is deleted meanwhile, which is how containerd gives up, the call fails and nothing is left.
func (s *Service) Create(ctx context.Context, r *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	opts, err := DecodeOptions(r.Options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &task{giveUp: cancel, settled: make(chan struct{})}
	if err := s.reserve(r.ID, t); err != nil {
		return nil, err
	}
	defer close(t.settled)
	answer, err := s.create(ctx, t, r, opts)
	if err == nil && !s.keep(t) {
		err = fmt.Errorf("task %s was deleted while it was created: %w", r.ID, errdefs.ErrAborted)
		if _, left := s.remove(context.WithoutCancel(ctx), t, &api.DeleteRequest{ID: r.ID}); left != nil {
			err = errors.Join(err, left)
		}
	}
	if err != nil {
		s.forget(r.ID)
		return nil, err
	}
	return answer, nil
}

// keep makes a task one that is created, unless nobody wants it any more.
func (s *Service) keep(t *task) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.created = !t.unwanted
	return t.created
}

func (s *Service) create(ctx context.Context, t *task, r *api.CreateTaskRequest, opts *options.Options) (*api.CreateTaskResponse, error) {
	if r.Checkpoint == "" { // only Linux containers have checkpoints
		answer, err := s.createApp(ctx, t, r, opts)
		if !errors.Is(err, container.ErrNotApp) {
			return answer, err
		}
	}
	var err error
	if r.Options, err = typeurl.MarshalAnyToProto(opts); err != nil {
		return nil, err
	}
	return s.cfg.Linux.Create(ctx, r)
}

func (s *Service) createApp(ctx context.Context, t *task, r *api.CreateTaskRequest, opts *options.Options) (*api.CreateTaskResponse, error) {
	c, err := s.cfg.Create(ctx, container.Request{
		ID: r.ID, Bundle: r.Bundle, Rootfs: mount.FromProto(r.Rootfs), Options: opts,
		Stdio:       stdio.Stdio{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
		OutOfMemory: func() { s.events.send(&events.TaskOOM{ContainerID: r.ID}) },
	})
	if err != nil {
		return nil, err
	}
	pid := uint32(c.Pid())
	s.events.send(&events.TaskCreate{
		ContainerID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, Pid: pid,
		IO: &events.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
	a := newApp(r.ID, c, s.events)
	s.mu.Lock()
	t.app = a
	s.mu.Unlock()
	return &api.CreateTaskResponse{Pid: pid}, nil
}

// reserve takes an id for a new task.
func (s *Service) reserve(id string, t *task) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return fmt.Errorf("the shim is ending: %w", errdefs.ErrUnavailable)
	}
	if s.tasks[id] != nil {
		return fmt.Errorf("task %s: %w", id, errdefs.ErrAlreadyExists)
	}
	s.tasks[id] = t
	return nil
}

func (s *Service) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, id)
}

// app returns the app of that id, or nil if it is containerd's service that knows more: of a Linux container, or that there is none.
func (s *Service) app(id string) *app {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[id]; t != nil {
		return t.app
	}
	return nil
}

// Delete deletes a container that does not run, or a process that was added to it.
func (s *Service) Delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	s.mu.Lock()
	t := s.tasks[r.ID]
	early := t != nil && !t.created && r.ExecID == ""
	if early {
		t.unwanted = true
	}
	s.mu.Unlock()
	if early {
		// containerd does not cancel calls. When its client is gone, it deletes the task at once, and asks for Shutdown then.
		t.giveUp()
		select {
		case <-t.settled:
			return nil, fmt.Errorf("task %s was not created yet: %w", r.ID, errdefs.ErrNotFound)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	answer, err := s.remove(ctx, t, r)
	if err == nil && r.ExecID == "" {
		s.forget(r.ID)
	}
	return answer, err
}

// remove deletes the container of t, which is nil if there is none, or one of its processes.
func (s *Service) remove(ctx context.Context, t *task, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	if t != nil {
		s.mu.Lock()
		a := t.app
		s.mu.Unlock()
		if a != nil {
			return a.delete(ctx, r)
		}
	}
	return s.cfg.Linux.Delete(ctx, r)
}

// Shutdown ends the daemon, unless there are tasks: containerd asks for it after each task of a pod.
func (s *Service) Shutdown(context.Context, *api.ShutdownRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tasks) == 0 && !s.closing {
		s.closing = true
		s.cfg.Shutdown()
	}
	return &emptypb.Empty{}, nil
}

// Connect tells the process ids of the daemon and of a container.
func (s *Service) Connect(ctx context.Context, r *api.ConnectRequest) (*api.ConnectResponse, error) {
	if a := s.app(r.ID); a != nil {
		return &api.ConnectResponse{ShimPid: uint32(os.Getpid()), TaskPid: uint32(a.container.Pid())}, nil
	}
	return s.cfg.Linux.Connect(ctx, r)
}

// route calls what does the work for an app, or for a Linux container.
func route[Req interface{ GetID() string }, Answer any](
	s *Service, ctx context.Context, r Req,
	forApp func(*app, context.Context, Req) (Answer, error), forLinux func(context.Context, Req) (Answer, error),
) (Answer, error) {
	if a := s.app(r.GetID()); a != nil {
		return forApp(a, ctx, r)
	}
	return forLinux(ctx, r)
}

// Start starts a container; an app listens when it returns.
func (s *Service) Start(ctx context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	return route(s, ctx, r, (*app).start, s.cfg.Linux.Start)
}

// State returns the state of a container.
func (s *Service) State(ctx context.Context, r *api.StateRequest) (*api.StateResponse, error) {
	return route(s, ctx, r, (*app).state, s.cfg.Linux.State)
}

// Wait returns when a container has ended.
func (s *Service) Wait(ctx context.Context, r *api.WaitRequest) (*api.WaitResponse, error) {
	return route(s, ctx, r, (*app).wait, s.cfg.Linux.Wait)
}

// Kill sends a signal.
func (s *Service) Kill(ctx context.Context, r *api.KillRequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).kill, s.cfg.Linux.Kill)
}

// Pids lists a container's processes.
func (s *Service) Pids(ctx context.Context, r *api.PidsRequest) (*api.PidsResponse, error) {
	return route(s, ctx, r, (*app).pids, s.cfg.Linux.Pids)
}

// Stats returns a container's metrics.
func (s *Service) Stats(ctx context.Context, r *api.StatsRequest) (*api.StatsResponse, error) {
	return route(s, ctx, r, (*app).stats, s.cfg.Linux.Stats)
}

// Update changes a container's limits.
func (s *Service) Update(ctx context.Context, r *api.UpdateTaskRequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).update, s.cfg.Linux.Update)
}

// Pause freezes a container.
func (s *Service) Pause(ctx context.Context, r *api.PauseRequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).pause, s.cfg.Linux.Pause)
}

// Resume thaws a container.
func (s *Service) Resume(ctx context.Context, r *api.ResumeRequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).resume, s.cfg.Linux.Resume)
}

// CloseIO ends a container's standard input.
func (s *Service) CloseIO(ctx context.Context, r *api.CloseIORequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).closeIO, s.cfg.Linux.CloseIO)
}

// ResizePty sets the size of a container's terminal.
func (s *Service) ResizePty(ctx context.Context, r *api.ResizePtyRequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).resizePty, s.cfg.Linux.ResizePty)
}

// Exec adds a process to a Linux container.
func (s *Service) Exec(ctx context.Context, r *api.ExecProcessRequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).exec, s.cfg.Linux.Exec)
}

// Checkpoint writes a checkpoint of a Linux container.
func (s *Service) Checkpoint(ctx context.Context, r *api.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return route(s, ctx, r, (*app).checkpoint, s.cfg.Linux.Checkpoint)
}
