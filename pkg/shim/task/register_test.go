package task

import (
	"net"
	"path/filepath"
	"testing"

	v2 "github.com/containerd/containerd/api/runtime/task/v2"
	v3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

func TestBothVersionsHaveTheSameMessages(t *testing.T) {
	t.Parallel()
	older := protodesc.ToFileDescriptorProto(v2.File_runtime_task_v2_shim_proto)
	newer := protodesc.ToFileDescriptorProto(v3.File_runtime_task_v3_shim_proto)
	require.Len(t, newer.MessageType, len(older.MessageType))
	for i, m := range older.MessageType {
		require.Equal(t, m.GetName(), newer.MessageType[i].GetName())
		require.Equal(t, wire(m), wire(newer.MessageType[i]), m.GetName())
	}
}

// wire says what of a message is on the wire.
func wire(m *descriptorpb.DescriptorProto) map[int32]string {
	fields := map[int32]string{}
	for _, f := range m.Field {
		fields[f.GetNumber()] = f.GetName() + " " + f.GetType().String() + " " + f.GetLabel().String()
	}
	return fields
}

func TestBothVersionsAreServed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.apps["app"] = newFakeApp()
	server, err := ttrpc.NewServer()
	require.NoError(t, err)
	h.Register(server)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), l) }()
	conn, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, ttrpc.ErrServerClosed)
	})
	older, newer := v2.NewTTRPCTaskClient(client), v3.NewTTRPCTaskClient(client)
	ctx := t.Context()

	created, err := older.Create(ctx, &v2.CreateTaskRequest{ID: "app", Bundle: "/b", Stdout: "/out"})
	require.NoError(t, err)
	require.Equal(t, uint32(7), created.Pid)
	require.Equal(t, "/out", h.requests[0].Stdio.Stdout)
	state, err := newer.State(ctx, &v3.StateRequest{ID: "app"})
	require.NoError(t, err)
	require.Equal(t, "/b", state.Bundle)
	_, err = newer.Create(ctx, &v3.CreateTaskRequest{ID: "app"})
	require.ErrorIs(t, errgrpc.ToNative(err), errdefs.ErrAlreadyExists)
	_, err = older.Exec(ctx, &v2.ExecProcessRequest{ID: "app", ExecID: "1"})
	require.ErrorIs(t, errgrpc.ToNative(err), errdefs.ErrNotImplemented)
	require.ErrorContains(t, err, "it runs a Spin app")
}
