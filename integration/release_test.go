package integration

import (
	"testing"

	"github.com/spinkube/containerd-shim-spin-go/integration/infra"
	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/stretchr/testify/require"
)

// Older releases of containerd start shims with flags and JSON, and 1.7 speaks version 2 of the task API.
func TestOlderContainerd(t *testing.T) {
	for _, release := range []infra.Release{infra.Containerd22, infra.Containerd17} {
		t.Run(string(release), func(t *testing.T) {
			l := newLab(t, func(c *node.Config) { c.Release = release })
			busybox := l.pushBusybox(t)
			require.NoError(t, l.Pull(t.Context(), busybox))
			out, err := l.Ctr(t.Context(), l.RunArgs([]string{"--rm"}, busybox, "linux", "/bin/echo", "linux")...)
			require.NoError(t, err)
			require.Equal(t, "linux\n", out)

			g := guestNamed("c-hello")
			i := l.start(t, l.push(t, g.name, artifact.image(t, g.write(t))), g.name)
			g.ask(t, i, "")
			l.requireEnd(t, g.name, "SIGTERM", 0)
		})
	}
}
