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

// Service is a task service for the containers of one daemon. Close ends it.
type Service struct {
	cfg    Config
	events *queue

	mu      sync.Mutex
	tasks   map[string]*task // by container, those being created and deleted included; guarded by mu
	closing bool             // no more tasks; guarded by mu
}

// task is a container that has been created and not deleted yet.
type task struct {
	app *app // nil for Linux containers, and until an app's container is created
}

// New returns a service that publishes events in ctx, which has the namespace.
func New(ctx context.Context, cfg Config) *Service {
	return &Service{cfg: cfg, events: newQueue(ctx, cfg.Publish), tasks: map[string]*task{}}
}

// Close publishes what is still to be published.
func (s *Service) Close() { s.events.close() }

// Create creates a container.
func (s *Service) Create(ctx context.Context, r *api.CreateTaskRequest) (_ *api.CreateTaskResponse, err error) {
	opts, err := DecodeOptions(r.Options)
	if err != nil {
		return nil, err
	}
	if err := s.reserve(r.ID); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.forget(r.ID)
		}
	}()
	if r.Checkpoint == "" { // only Linux containers have checkpoints
		answer, err := s.createApp(ctx, r, opts)
		if !errors.Is(err, container.ErrNotApp) {
			return answer, err
		}
	}
	if r.Options, err = typeurl.MarshalAnyToProto(opts); err != nil {
		return nil, err
	}
	return s.cfg.Linux.Create(ctx, r)
}

func (s *Service) createApp(ctx context.Context, r *api.CreateTaskRequest, opts *options.Options) (*api.CreateTaskResponse, error) {
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
	s.tasks[r.ID].app = a
	s.mu.Unlock()
	return &api.CreateTaskResponse{Pid: pid}, nil
}

// reserve takes an id for a new task.
func (s *Service) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return fmt.Errorf("the shim is ending: %w", errdefs.ErrUnavailable)
	}
	if s.tasks[id] != nil {
		return fmt.Errorf("task %s: %w", id, errdefs.ErrAlreadyExists)
	}
	s.tasks[id] = &task{}
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
func (s *Service) Delete(ctx context.Context, r *api.DeleteRequest) (answer *api.DeleteResponse, err error) {
	if a := s.app(r.ID); a != nil {
		answer, err = a.delete(ctx, r)
	} else {
		answer, err = s.cfg.Linux.Delete(ctx, r)
	}
	if err == nil && r.ExecID == "" {
		s.forget(r.ID)
	}
	return answer, err
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
