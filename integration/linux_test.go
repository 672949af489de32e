package integration

import (
	"testing"

	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/stretchr/testify/require"
)

func TestLinuxContainer(t *testing.T) {
	l := newLab(t)
	busybox := l.pushBusybox(t)
	require.NoError(t, l.Pull(t.Context(), busybox))
	for _, runtime := range []string{node.RuncRuntime, node.Runtime} {
		t.Run(runtime, func(t *testing.T) {
			out, err := l.Ctr(t.Context(), l.RunArgs([]string{"--rm", "--runtime", runtime}, busybox, "hello", "/bin/echo", "hello from linux")...)
			require.NoError(t, err)
			require.Equal(t, "hello from linux\n", out)

			_, err = l.Ctr(t.Context(), l.RunArgs([]string{"--rm", "--runtime", runtime}, busybox, "exit", "/bin/sh", "-c", "exit 7")...)
			var failed *node.CtrError
			require.ErrorAs(t, err, &failed)
			require.ErrorContains(t, failed.Err, "exit status 7")
		})
	}
}
