package task

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/container"
)

// fakeApp is a container without processes.
type fakeApp struct {
	Container // what a test does not expect panics

	started  func() error
	statusOf container.Status
	exited   chan struct{}
	exit     container.Exit
}

func newFakeApp() *fakeApp { return &fakeApp{exited: make(chan struct{})} }

func (f *fakeApp) Pid() int                { return 7 }
func (f *fakeApp) Exited() <-chan struct{} { return f.exited }
func (f *fakeApp) Exit() container.Exit    { return f.exit }
func (f *fakeApp) Start(context.Context) error {
	if f.started == nil {
		return nil
	}
	return f.started()
}
func (f *fakeApp) State() container.State {
	return container.State{Bundle: "/b", Pid: 7, Status: f.statusOf, Exit: f.exit}
}
func (f *fakeApp) Kill(context.Context, uint32, bool) error { f.die(137); return nil }
func (f *fakeApp) Delete(context.Context) error {
	select {
	case <-f.exited:
	default:
		f.die(137)
	}
	return nil
}

func (f *fakeApp) die(status int) {
	f.exit = container.Exit{Status: status, At: time.Unix(1, 0)}
	close(f.exited)
}

// fakeLinux is containerd's service for Linux containers, which notes the calls.
type fakeLinux struct {
	api.TTRPCTaskService // what a test does not expect panics

	calls   []string
	options *options.Options
	err     error
}

func (f *fakeLinux) note(call, id string) error {
	f.calls = append(f.calls, call+" "+id)
	return f.err
}

func (f *fakeLinux) Create(_ context.Context, r *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	v, err := typeurl.UnmarshalAny(r.Options)
	if err != nil {
		return nil, err
	}
	f.options = v.(*options.Options)
	return &api.CreateTaskResponse{Pid: 8}, f.note("create", r.ID)
}

func (f *fakeLinux) Start(_ context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	return &api.StartResponse{}, f.note("start", r.ID+r.ExecID)
}

func (f *fakeLinux) State(_ context.Context, r *api.StateRequest) (*api.StateResponse, error) {
	return &api.StateResponse{}, f.note("state", r.ID)
}

func (f *fakeLinux) Delete(_ context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	return &api.DeleteResponse{}, f.note("delete", r.ID+r.ExecID)
}

func (f *fakeLinux) Exec(_ context.Context, r *api.ExecProcessRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, f.note("exec", r.ID+r.ExecID)
}

// harness is a service in which the containers named app* are apps.
type harness struct {
	*Service
	linux     *fakeLinux
	apps      map[string]*fakeApp
	createErr error
	requests  []container.Request
	shutdowns int

	mu     sync.Mutex
	events []string // guarded by mu
}

func newHarness(t *testing.T) *harness {
	h := &harness{linux: &fakeLinux{}, apps: map[string]*fakeApp{}}
	h.Service = New(t.Context(), Config{
		Linux: h.linux,
		Create: func(_ context.Context, r container.Request) (Container, error) {
			h.requests = append(h.requests, r)
			switch app := h.apps[r.ID]; {
			case h.createErr != nil:
				return nil, h.createErr
			case app != nil:
				return app, nil
			}
			return nil, fmt.Errorf("look: %w", container.ErrNotApp)
		},
		Publish: func(_ context.Context, topic string, _ any) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.events = append(h.events, topic)
			return nil
		},
		Shutdown: func() { h.shutdowns++ },
	})
	t.Cleanup(func() {
		for _, app := range h.apps {
			_ = app.Delete(context.Background())
		}
		h.Close()
	})
	return h
}

func (h *harness) create(t *testing.T, id string) {
	t.Helper()
	_, err := h.Create(t.Context(), &api.CreateTaskRequest{ID: id, Bundle: "/b"})
	require.NoError(t, err)
}

func (h *harness) published() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.events...)
}

func TestCallsGoToWhereTheContainerIs(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.apps["app"] = newFakeApp()
	h.create(t, "app")
	h.create(t, "linux")
	ctx := t.Context()

	s, err := h.State(ctx, &api.StateRequest{ID: "app"})
	require.NoError(t, err)
	require.Equal(t, tasktypes.Status_CREATED, s.Status)
	require.Equal(t, uint32(7), s.Pid)
	require.Nil(t, s.ExitedAt)
	_, err = h.Start(ctx, &api.StartRequest{ID: "linux"})
	require.NoError(t, err)
	_, err = h.Exec(ctx, &api.ExecProcessRequest{ID: "linux", ExecID: "1"})
	require.NoError(t, err)
	_, err = h.State(ctx, &api.StateRequest{ID: "nobody"})
	require.NoError(t, err) // it is the Linux service that says no
	require.Equal(t, []string{"create linux", "start linux", "exec linux1", "state nobody"}, h.linux.calls)
}

func TestLinuxContainersGetTheirOptionsDecoded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	generic, err := typeurl.MarshalAnyToProto(&runtimeoptions.Options{ConfigBody: []byte("BinaryName = 'crun'")})
	require.NoError(t, err)
	_, err = h.Create(t.Context(), &api.CreateTaskRequest{ID: "linux", Options: generic})
	require.NoError(t, err)
	require.Equal(t, "crun", h.linux.options.BinaryName)
	h.create(t, "without")
	require.NotNil(t, h.linux.options)

	bad, err := typeurl.MarshalAnyToProto(&runtimeoptions.Options{ConfigBody: []byte("Binary = 'crun'")})
	require.NoError(t, err)
	_, err = h.Create(t.Context(), &api.CreateTaskRequest{ID: "bad", Options: bad})
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	require.Len(t, h.linux.calls, 2)
}

func TestCheckpointsAreForLinuxContainers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.apps["app"] = newFakeApp()
	_, err := h.Create(t.Context(), &api.CreateTaskRequest{ID: "app", Checkpoint: "/c"})
	require.NoError(t, err)
	require.Equal(t, []string{"create app"}, h.linux.calls)
	require.Empty(t, h.requests)
}

func TestCreate(t *testing.T) {
	t.Parallel()
	t.Run("a second container of an id is refused", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		h.apps["app"] = newFakeApp()
		h.create(t, "app")
		h.create(t, "linux")
		for _, id := range []string{"app", "linux"} {
			_, err := h.Create(t.Context(), &api.CreateTaskRequest{ID: id})
			require.ErrorIs(t, err, errdefs.ErrAlreadyExists)
		}
	})
	t.Run("one that failed leaves its id free", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		h.apps["app"] = newFakeApp()
		h.createErr = errors.New("component is broken")
		_, err := h.Create(t.Context(), &api.CreateTaskRequest{ID: "app"})
		require.EqualError(t, err, "component is broken")
		require.Empty(t, h.linux.calls)
		h.createErr = nil
		h.create(t, "app")

		h.linux.err = errors.New("no runc")
		_, err = h.Create(t.Context(), &api.CreateTaskRequest{ID: "linux"})
		require.EqualError(t, err, "no runc")
		h.linux.err = nil
		h.create(t, "linux")
	})
}

func TestEventsOfAnAppAreInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		app := newFakeApp()
		app.started = func() error {
			app.die(0) // before the start is announced
			return nil
		}
		h.apps["app"] = app
		h.create(t, "app")
		h.requests[0].OutOfMemory()
		_, err := h.Start(t.Context(), &api.StartRequest{ID: "app"})
		require.NoError(t, err)
		w, err := h.Wait(t.Context(), &api.WaitRequest{ID: "app"})
		require.NoError(t, err)
		require.Equal(t, time.Unix(1, 0).UTC(), w.ExitedAt.AsTime())
		_, err = h.Delete(t.Context(), &api.DeleteRequest{ID: "app"})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{"/tasks/create", "/tasks/oom", "/tasks/start", "/tasks/exit", "/tasks/delete"}, h.published())
	})
}

func TestFailedStartAnnouncesTheEndOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		app := newFakeApp()
		app.started = func() error {
			app.die(1)
			return errors.New("listen: address in use")
		}
		h.apps["app"] = app
		h.create(t, "app")
		_, err := h.Start(t.Context(), &api.StartRequest{ID: "app"})
		require.EqualError(t, err, "listen: address in use")
		synctest.Wait()
		require.Equal(t, []string{"/tasks/create", "/tasks/exit"}, h.published())
	})
}

func TestStateAnswersDuringStart(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	app := newFakeApp()
	inStart, goOn := make(chan struct{}), make(chan struct{})
	app.started = func() error {
		close(inStart)
		<-goOn
		return nil
	}
	h.apps["app"] = app
	h.create(t, "app")
	done := make(chan error, 1)
	go func() {
		_, err := h.Start(t.Context(), &api.StartRequest{ID: "app"})
		done <- err
	}()
	<-inStart
	_, err := h.State(t.Context(), &api.StateRequest{ID: "app"})
	require.NoError(t, err)
	_, err = h.Connect(t.Context(), &api.ConnectRequest{ID: "app"})
	require.NoError(t, err)
	h.create(t, "other")
	close(goOn)
	require.NoError(t, <-done)
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.apps["app"] = newFakeApp()
	h.create(t, "app")
	h.create(t, "linux")
	shutdown := func(want int) {
		t.Helper()
		_, err := h.Shutdown(t.Context(), &api.ShutdownRequest{Now: true})
		require.NoError(t, err)
		require.Equal(t, want, h.shutdowns)
	}
	shutdown(0)
	_, err := h.Delete(t.Context(), &api.DeleteRequest{ID: "linux", ExecID: "1"})
	require.NoError(t, err)
	_, err = h.Delete(t.Context(), &api.DeleteRequest{ID: "app"})
	require.NoError(t, err)
	shutdown(0) // a process of linux is deleted, not linux
	h.linux.err = errdefs.ErrFailedPrecondition
	_, err = h.Delete(t.Context(), &api.DeleteRequest{ID: "linux"})
	require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
	shutdown(0)
	h.linux.err = nil
	_, err = h.Delete(t.Context(), &api.DeleteRequest{ID: "linux"})
	require.NoError(t, err)
	shutdown(1)
	shutdown(1)
	_, err = h.Create(t.Context(), &api.CreateTaskRequest{ID: "late"})
	require.ErrorIs(t, err, errdefs.ErrUnavailable)
}

func TestAppsHaveNoFurtherProcesses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.apps["app"] = newFakeApp()
	h.create(t, "app")
	ctx := t.Context()
	_, err := h.Exec(ctx, &api.ExecProcessRequest{ID: "app", ExecID: "1"})
	require.ErrorIs(t, err, errdefs.ErrNotImplemented)
	_, err = h.Checkpoint(ctx, &api.CheckpointTaskRequest{ID: "app"})
	require.ErrorIs(t, err, errdefs.ErrNotImplemented)
	for name, call := range map[string]func() error{
		"start":     func() error { _, err := h.Start(ctx, &api.StartRequest{ID: "app", ExecID: "1"}); return err },
		"state":     func() error { _, err := h.State(ctx, &api.StateRequest{ID: "app", ExecID: "1"}); return err },
		"kill":      func() error { _, err := h.Kill(ctx, &api.KillRequest{ID: "app", ExecID: "1"}); return err },
		"wait":      func() error { _, err := h.Wait(ctx, &api.WaitRequest{ID: "app", ExecID: "1"}); return err },
		"delete":    func() error { _, err := h.Delete(ctx, &api.DeleteRequest{ID: "app", ExecID: "1"}); return err },
		"closeIO":   func() error { _, err := h.CloseIO(ctx, &api.CloseIORequest{ID: "app", ExecID: "1"}); return err },
		"resizePty": func() error { _, err := h.ResizePty(ctx, &api.ResizePtyRequest{ID: "app", ExecID: "1"}); return err },
	} {
		require.ErrorIs(t, call(), errdefs.ErrNotFound, name)
	}
}

func TestWaitEndsWithItsCall(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.apps["app"] = newFakeApp()
	h.create(t, "app")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Wait(ctx, &api.WaitRequest{ID: "app"})
	require.ErrorIs(t, err, context.Canceled)
}

func TestCloseLosesNoEvent(t *testing.T) {
	t.Parallel()
	var got []any
	q := newQueue(t.Context(), func(_ context.Context, _ string, event any) error {
		got = append(got, event)
		return errors.New("nobody listens")
	})
	for range maxQueued {
		q.send(&events.TaskOOM{})
	}
	q.close()
	require.Len(t, got, maxQueued)
	q.send(&events.TaskOOM{}) // it is dropped, and does not block
}

func TestDeleteGivesUpACreation(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		end  func(context.Context, *fakeApp) (Container, error) // of the creation
		want []string                                           // events
	}{
		{"that waits", func(ctx context.Context, _ *fakeApp) (Container, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil},
		{"that succeeds all the same", func(ctx context.Context, app *fakeApp) (Container, error) {
			<-ctx.Done()
			return app, nil
		}, []string{"/tasks/create", "/tasks/exit", "/tasks/delete"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t)
				app := newFakeApp()
				h.cfg.Create = func(ctx context.Context, _ container.Request) (Container, error) { return c.end(ctx, app) }
				done := make(chan error, 1)
				go func() {
					_, err := h.Create(t.Context(), &api.CreateTaskRequest{ID: "app"})
					done <- err
				}()
				synctest.Wait()
				_, err := h.Shutdown(t.Context(), &api.ShutdownRequest{})
				require.NoError(t, err)
				require.Zero(t, h.shutdowns, "a container is being created")

				_, err = h.Delete(t.Context(), &api.DeleteRequest{ID: "app"})
				require.ErrorIs(t, err, errdefs.ErrNotFound)
				require.Error(t, <-done)
				_, err = h.Shutdown(t.Context(), &api.ShutdownRequest{})
				require.NoError(t, err)
				require.Equal(t, 1, h.shutdowns)
				synctest.Wait()
				require.Equal(t, c.want, h.published())
			})
		})
	}
}

// hammered is a container that may be called by many.
type hammered struct {
	Container

	die    func()
	exited chan struct{}
}

func newHammered() *hammered {
	h := &hammered{exited: make(chan struct{})}
	h.die = sync.OnceFunc(func() { close(h.exited) })
	return h
}

func (h *hammered) Pid() int                                 { return 7 }
func (h *hammered) Exited() <-chan struct{}                  { return h.exited }
func (h *hammered) Exit() container.Exit                     { return container.Exit{} }
func (h *hammered) State() container.State                   { return container.State{} }
func (h *hammered) Start(context.Context) error              { return nil }
func (h *hammered) Kill(context.Context, uint32, bool) error { h.die(); return nil }
func (h *hammered) Delete(context.Context) error             { h.die(); return nil }

func TestHammerCalls(t *testing.T) {
	t.Parallel()
	const ids, rounds = 3, 200
	shutdowns := 0
	s := New(t.Context(), Config{
		Linux:    hammeredLinux{},
		Publish:  func(context.Context, string, any) error { return nil },
		Shutdown: func() { shutdowns++ },
		Create: func(_ context.Context, r container.Request) (Container, error) {
			if r.ID == "0" {
				return nil, container.ErrNotApp
			}
			return newHammered(), nil
		},
	})
	ctx := t.Context()
	var callers sync.WaitGroup
	for i := range ids {
		id := fmt.Sprint(i)
		for _, call := range []func(){
			func() { _, _ = s.Create(ctx, &api.CreateTaskRequest{ID: id}) },
			func() { _, _ = s.Start(ctx, &api.StartRequest{ID: id}) },
			func() { _, _ = s.State(ctx, &api.StateRequest{ID: id}) },
			func() { _, _ = s.Kill(ctx, &api.KillRequest{ID: id}) },
			func() { _, _ = s.Delete(ctx, &api.DeleteRequest{ID: id}) },
			func() { _, _ = s.Delete(ctx, &api.DeleteRequest{ID: id, ExecID: "1"}) },
			func() { _, _ = s.Connect(ctx, &api.ConnectRequest{ID: id}) },
		} {
			callers.Go(func() {
				for range rounds {
					call()
				}
			})
		}
	}
	callers.Wait()
	for i := range ids {
		_, _ = s.Delete(ctx, &api.DeleteRequest{ID: fmt.Sprint(i)})
	}
	_, err := s.Shutdown(ctx, &api.ShutdownRequest{})
	require.NoError(t, err)
	require.Equal(t, 1, shutdowns, "all are deleted")
	s.Close()
}

// hammeredLinux is a service that always says yes.
type hammeredLinux struct{ api.TTRPCTaskService }

func (hammeredLinux) Create(context.Context, *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	return &api.CreateTaskResponse{}, nil
}

func (hammeredLinux) Start(context.Context, *api.StartRequest) (*api.StartResponse, error) {
	return &api.StartResponse{}, nil
}

func (hammeredLinux) State(context.Context, *api.StateRequest) (*api.StateResponse, error) {
	return &api.StateResponse{}, nil
}

func (hammeredLinux) Kill(context.Context, *api.KillRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (hammeredLinux) Delete(context.Context, *api.DeleteRequest) (*api.DeleteResponse, error) {
	return &api.DeleteResponse{}, nil
}

func (hammeredLinux) Connect(context.Context, *api.ConnectRequest) (*api.ConnectResponse, error) {
	return &api.ConnectResponse{}, nil
}
