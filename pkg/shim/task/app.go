package task

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/container"
)

// Container is a container of a Spin app; *container.Container is one.
type Container interface {
	Pid() int
	State() container.State
	Exited() <-chan struct{}
	Exit() container.Exit
	Start(context.Context) error
	Kill(ctx context.Context, signal uint32, all bool) error
	Delete(context.Context) error
	Pids(context.Context) ([]int, error)
	Stats() (any, error)
	Update(ctx context.Context, resources []byte) error
	Pause(context.Context) error
	Resume(context.Context) error
	Resize(width, height uint32) error
	CloseStdin() error
}

// app is a task that is a Spin app.
type app struct {
	id        string
	container Container
	events    *queue

	// announcing is held by start until the start is announced, and by the announcement of the exit, so that they come in order.
	announcing sync.Mutex
	exitSent   chan struct{} // closed when the exit is announced
}

// newApp returns the app of a container whose creation is announced, and announces its end when it comes.
func newApp(id string, c Container, q *queue) *app {
	a := &app{id: id, container: c, events: q, exitSent: make(chan struct{})}
	go a.announceExit() // ends with the container's process, which Delete kills
	return a
}

func (a *app) announceExit() {
	<-a.container.Exited()
	a.announcing.Lock()
	defer a.announcing.Unlock()
	exit := a.container.Exit()
	a.events.send(&events.TaskExit{
		ContainerID: a.id, ID: a.id, Pid: uint32(a.container.Pid()),
		ExitStatus: uint32(exit.Status), ExitedAt: timestamppb.New(exit.At),
	})
	close(a.exitSent)
}

// noProcess is the error of calls for a process that was added to the container.
func (a *app) noProcess(id string) error {
	return fmt.Errorf("process %s in container %s: %w", id, a.id, errdefs.ErrNotFound)
}

func (a *app) start(ctx context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	if r.ExecID != "" {
		return nil, a.noProcess(r.ExecID)
	}
	a.announcing.Lock()
	defer a.announcing.Unlock()
	if err := a.container.Start(ctx); err != nil {
		return nil, err
	}
	pid := uint32(a.container.Pid())
	a.events.send(&events.TaskStart{ContainerID: a.id, Pid: pid})
	return &api.StartResponse{Pid: pid}, nil
}

func (a *app) state(_ context.Context, r *api.StateRequest) (*api.StateResponse, error) {
	if r.ExecID != "" {
		return nil, a.noProcess(r.ExecID)
	}
	s := a.container.State()
	answer := &api.StateResponse{
		ID: a.id, Bundle: s.Bundle, Pid: uint32(s.Pid), Status: statusOf(s.Status), ExitStatus: uint32(s.Exit.Status),
		Stdin: s.Stdio.Stdin, Stdout: s.Stdio.Stdout, Stderr: s.Stdio.Stderr, Terminal: s.Stdio.Terminal,
	}
	if !s.Exit.At.IsZero() {
		answer.ExitedAt = timestamppb.New(s.Exit.At)
	}
	return answer, nil
}

func statusOf(s container.Status) tasktypes.Status {
	switch s {
	case container.Created:
		return tasktypes.Status_CREATED
	case container.Running:
		return tasktypes.Status_RUNNING
	case container.Pausing:
		return tasktypes.Status_PAUSING
	case container.Paused:
		return tasktypes.Status_PAUSED
	case container.Stopped:
		return tasktypes.Status_STOPPED
	}
	return tasktypes.Status_UNKNOWN
}

func (a *app) wait(ctx context.Context, r *api.WaitRequest) (*api.WaitResponse, error) {
	if r.ExecID != "" {
		return nil, a.noProcess(r.ExecID)
	}
	select {
	case <-a.container.Exited():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	exit := a.container.Exit()
	return &api.WaitResponse{ExitStatus: uint32(exit.Status), ExitedAt: timestamppb.New(exit.At)}, nil
}

func (a *app) delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	if r.ExecID != "" {
		return nil, a.noProcess(r.ExecID)
	}
	if err := a.container.Delete(ctx); err != nil {
		return nil, err
	}
	<-a.exitSent // a deleted container is dead
	exit, pid := a.container.Exit(), uint32(a.container.Pid())
	a.events.send(&events.TaskDelete{
		ContainerID: a.id, Pid: pid, ExitStatus: uint32(exit.Status), ExitedAt: timestamppb.New(exit.At),
	})
	return &api.DeleteResponse{Pid: pid, ExitStatus: uint32(exit.Status), ExitedAt: timestamppb.New(exit.At)}, nil
}

func (a *app) kill(ctx context.Context, r *api.KillRequest) (*emptypb.Empty, error) {
	if r.ExecID != "" {
		return nil, a.noProcess(r.ExecID)
	}
	return &emptypb.Empty{}, a.container.Kill(ctx, r.Signal, r.All)
}

func (a *app) pids(ctx context.Context, _ *api.PidsRequest) (*api.PidsResponse, error) {
	pids, err := a.container.Pids(ctx)
	if err != nil {
		return nil, err
	}
	answer := &api.PidsResponse{}
	for _, pid := range pids {
		answer.Processes = append(answer.Processes, &tasktypes.ProcessInfo{Pid: uint32(pid)})
	}
	return answer, nil
}

func (a *app) stats(context.Context, *api.StatsRequest) (*api.StatsResponse, error) {
	metrics, err := a.container.Stats()
	if err != nil {
		return nil, err
	}
	stats, err := typeurl.MarshalAnyToProto(metrics)
	return &api.StatsResponse{Stats: stats}, err
}

func (a *app) update(ctx context.Context, r *api.UpdateTaskRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, a.container.Update(ctx, r.Resources.GetValue())
}

func (a *app) pause(ctx context.Context, _ *api.PauseRequest) (*emptypb.Empty, error) {
	if err := a.container.Pause(ctx); err != nil {
		return nil, err
	}
	a.events.send(&events.TaskPaused{ContainerID: a.id})
	return &emptypb.Empty{}, nil
}

func (a *app) resume(ctx context.Context, _ *api.ResumeRequest) (*emptypb.Empty, error) {
	if err := a.container.Resume(ctx); err != nil {
		return nil, err
	}
	a.events.send(&events.TaskResumed{ContainerID: a.id})
	return &emptypb.Empty{}, nil
}

func (a *app) closeIO(_ context.Context, r *api.CloseIORequest) (*emptypb.Empty, error) {
	if r.ExecID != "" {
		return nil, a.noProcess(r.ExecID)
	}
	if !r.Stdin {
		return &emptypb.Empty{}, nil
	}
	return &emptypb.Empty{}, a.container.CloseStdin()
}

func (a *app) resizePty(_ context.Context, r *api.ResizePtyRequest) (*emptypb.Empty, error) {
	if r.ExecID != "" {
		return nil, a.noProcess(r.ExecID)
	}
	return &emptypb.Empty{}, a.container.Resize(r.Width, r.Height)
}

func (a *app) exec(context.Context, *api.ExecProcessRequest) (*emptypb.Empty, error) {
	return nil, fmt.Errorf("exec in container %s: it runs a Spin app, which has no programs: %w", a.id, errdefs.ErrNotImplemented)
}

func (a *app) checkpoint(context.Context, *api.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, fmt.Errorf("checkpoint of container %s: it runs a Spin app: %w", a.id, errdefs.ErrNotImplemented)
}
