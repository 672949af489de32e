package task

import (
	"context"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
)

// Register makes server serve s, as both versions of the task service: their messages are the same on the wire.
func (s *Service) Register(server *ttrpc.Server) {
	methods := map[string]ttrpc.Method{
		"State": method(s.State), "Create": method(s.Create), "Start": method(s.Start), "Delete": method(s.Delete),
		"Pids": method(s.Pids), "Pause": method(s.Pause), "Resume": method(s.Resume), "Checkpoint": method(s.Checkpoint),
		"Kill": method(s.Kill), "Exec": method(s.Exec), "ResizePty": method(s.ResizePty), "CloseIO": method(s.CloseIO),
		"Update": method(s.Update), "Wait": method(s.Wait), "Stats": method(s.Stats), "Connect": method(s.Connect),
		"Shutdown": method(s.Shutdown),
	}
	for _, name := range []string{"containerd.task.v2.Task", "containerd.task.v3.Task"} {
		server.RegisterService(name, &ttrpc.ServiceDesc{Methods: methods})
	}
}

// method makes a function a method of a service, with errors as clients of the service understand them.
func method[Req, Answer any](call func(context.Context, *Req) (*Answer, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		var r Req
		if err := unmarshal(&r); err != nil {
			return nil, err
		}
		answer, err := call(ctx, &r)
		if err != nil {
			return nil, errgrpc.ToGRPC(err)
		}
		return answer, nil
	}
}
