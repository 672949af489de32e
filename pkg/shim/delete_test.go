package shim

import (
	"os"
	"path/filepath"
	"testing"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/container"
)

func TestRemoveOfWhatIsGone(t *testing.T) {
	cache := t.TempDir()
	t.Setenv(cacheVar, cache)
	c := command{runtime: "io.containerd.spin.v2", namespace: "k8s.io", id: "app", address: "/c.sock", bundle: filepath.Join(t.TempDir(), "app")}
	state := container.StateDir(cache, c.address, c.namespace, c.id)
	require.NoError(t, os.MkdirAll(filepath.Join(state, "db"), 0o700))
	for range 2 {
		b, err := remove(namespaces.WithNamespace(t.Context(), c.namespace), c)
		require.NoError(t, err)
		var answer api.DeleteResponse
		require.NoError(t, proto.Unmarshal(b, &answer))
		require.Equal(t, uint32(137), answer.ExitStatus)
		require.NotNil(t, answer.ExitedAt)
		require.NoDirExists(t, state)
	}
}

func TestRemoveOfABundle(t *testing.T) {
	t.Setenv(cacheVar, filepath.Join(t.TempDir(), "none"))
	bundle := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.MkdirAll(filepath.Join(bundle, "rootfs"), 0o700))
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := listen("unix://" + socket)
	require.NoError(t, err)
	listener.SetUnlinkOnClose(false)
	called := filepath.Join(t.TempDir(), "called")
	for name, content := range map[string]string{
		addressName: "unix://" + socket, "runtime": fakeRunc(t, `echo "$@" >>`+called), "options.json": `{"root":"/run/r"}`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(bundle, name), []byte(content), 0o600))
	}
	c := command{runtime: "io.containerd.spin.v2", namespace: "k8s.io", id: "app", address: "/c.sock", bundle: bundle}
	ctx := namespaces.WithNamespace(t.Context(), c.namespace)
	t.Chdir(t.TempDir()) // it changes the working directory

	_, err = remove(ctx, c)
	require.NoError(t, err)
	require.FileExists(t, socket, "the pod's daemon lives")
	require.NoError(t, listener.Close())
	_, err = remove(ctx, c)
	require.NoError(t, err)
	require.NoFileExists(t, socket)
	b, err := os.ReadFile(called)
	require.NoError(t, err)
	require.Contains(t, string(b), "--root /run/r/k8s.io")
	require.Contains(t, string(b), "delete --force app")
}
