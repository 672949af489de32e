package integration

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
	"github.com/stretchr/testify/require"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtimeOptions are further runtimes of containerd's configuration, with options in it and in a file of their own. CRI sends both as
// runtimeoptions.v1, the first as text and the second as a path.
const runtimeOptions = `
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.spin-options]
      runtime_type = 'io.containerd.spin.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.spin-options.options]
        BinaryName = 'runc'
        SystemdCgroup = false
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.spin-file-options]
      runtime_type = 'io.containerd.spin.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.spin-file-options.options]
        TypeUrl = 'runtimeoptions.v1.Options'
        ConfigPath = '%s'
`

// pod is a running pod.
type pod struct {
	*cri.PodSandboxConfig
	id, ip string
}

func (l *lab) dialCRI(t *testing.T) *node.CRI {
	t.Helper()
	c, err := l.CRI()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// runPod runs a pod's sandbox, and removes the pod at the end of the test.
func (l *lab) runPod(t *testing.T, c *node.CRI, runtime string, config *cri.PodSandboxConfig) *pod {
	t.Helper()
	require.NoError(t, os.MkdirAll(config.LogDirectory, 0o755))
	id, err := c.RunPod(t.Context(), runtime, config)
	require.NoError(t, err)
	t.Cleanup(func() { // does nothing if the test has done it
		// The test's context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.RemovePod(ctx, id); err != nil {
			t.Error(err)
		}
	})
	status, err := c.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: id})
	require.NoError(t, err)
	return &pod{config, id, status.Status.Network.Ip}
}

// containerConfig is a container of an image with Kubernetes' usual limits.
func containerConfig(name, image string, command ...string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: image},
		Command:  command,
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 256 << 20, CpuShares: 512},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func TestPod(t *testing.T) {
	file := filepath.Join(t.TempDir(), "options.toml")
	require.NoError(t, os.WriteFile(file, []byte("BinaryName = \"runc\"\nSystemdCgroup = false\n"), 0o644))
	l := newLab(t, func(c *node.Config) { c.CRI, c.Runtimes = true, fmt.Sprintf(runtimeOptions, file) })
	c := l.dialCRI(t)
	busybox := l.pushBusybox(t)
	app := l.push(t, "c-libc", artifact.image(t, guestNamed("c-libc").write(t)))
	for i, runtime := range []string{"spin", "spin-options", "spin-file-options"} {
		t.Run(runtime, func(t *testing.T) {
			hostPort := int32(18080 + i)
			config := l.Pod(runtime)
			config.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: hostPort}}
			p := l.runPod(t, c, runtime, config)

			spin := containerConfig("app", app, "/")
			id, err := c.Run(t.Context(), p.id, config, spin)
			require.NoError(t, err)

			const line = "hello from wasi-libc: /x env=hi file=a file t=1\n"
			for _, addr := range []string{net.JoinHostPort(p.ip, "80"), net.JoinHostPort(l.hostIP(t), strconv.Itoa(int(hostPort)))} {
				(&instance{url: "http://" + addr}).get(t, "/x").requireText(t, line)
			}

			// A sidecar sees the app on its own loopback interface.
			sidecar, err := c.Run(t.Context(), p.id, config, containerConfig("sidecar", busybox, "/bin/sleep", "1000"))
			require.NoError(t, err)
			exec, err := c.ExecSync(t.Context(), &cri.ExecSyncRequest{
				ContainerId: sidecar, Cmd: []string{"/bin/wget", "-q", "-O", "-", "http://127.0.0.1/x"}, Timeout: 10,
			})
			require.NoError(t, err)
			require.Equal(t, line, string(exec.Stdout), "%s", exec.Stderr)
			_, err = c.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"/bin/true"}, Timeout: 10})
			require.ErrorContains(t, err, "exec")

			require.Eventually(t, func() bool {
				log, err := os.ReadFile(filepath.Join(config.LogDirectory, "app.log"))
				return err == nil && strings.Contains(string(log), " stderr F log: "+line)
			}, time.Minute, 10*time.Millisecond)

			l.requireStats(t, c, id)
			l.requireCgroup(t, id)

			_, err = c.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: 10})
			require.NoError(t, err)
			status, err := c.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id})
			require.NoError(t, err)
			require.Equal(t, cri.ContainerState_CONTAINER_EXITED, status.Status.State)
			require.Zero(t, status.Status.ExitCode)
			require.NoError(t, c.RemovePod(t.Context(), p.id))
		})
	}
}

// requireStats checks that CRI has figures of the container from the kernel.
func (l *lab) requireStats(t *testing.T, c *node.CRI, id string) {
	t.Helper()
	require.Eventually(t, func() bool {
		stats, err := c.ContainerStats(t.Context(), &cri.ContainerStatsRequest{ContainerId: id})
		return err == nil && stats.Stats.Memory.GetWorkingSetBytes().GetValue() > 0 && stats.Stats.Cpu.GetUsageCoreNanoSeconds().GetValue() > 0
	}, 10*time.Second, 50*time.Millisecond)
}

// requireCgroup checks that the container has a process in a cgroup of its own below the pod's.
func (l *lab) requireCgroup(t *testing.T, id string) {
	t.Helper()
	procs, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", l.CgroupParent(), id, "cgroup.procs"))
	if os.IsNotExist(err) {
		procs, err = os.ReadFile(filepath.Join("/sys/fs/cgroup", l.CgroupParent(), id, "cgroup.procs"))
	}
	require.NoError(t, err)
	require.NotEmpty(t, strings.Fields(string(procs)))
}

// hostIP is the node's address on the pods' bridge.
func (l *lab) hostIP(t *testing.T) string {
	t.Helper()
	bridge, err := net.InterfaceByName(node.PodBridge)
	require.NoError(t, err)
	addrs, err := bridge.Addrs()
	require.NoError(t, err)
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP.To4(); ip != nil {
			return ip.String()
		}
	}
	t.Fatalf("%s has no address", node.PodBridge)
	return ""
}

// Forms of images that only CRI runs, or that have no app around the component.
func TestOtherForms(t *testing.T) {
	l := newLab(t, func(c *node.Config) { c.CRI = true })
	c := l.dialCRI(t)
	g := guestNamed("c-hello")
	app := openApp(t, g.write(t))
	hello := []byte(guest(t, "c-hello"))
	for name, make := range map[string]func() (string, error){
		"legacy": func() (string, error) {
			image, err := app.Legacy()
			require.NoError(t, err)
			return l.registry.Push(t.Context(), "legacy", image)
		},
		"component": func() (string, error) {
			image, err := registry.Component(hello)
			require.NoError(t, err)
			return l.registry.Push(t.Context(), "component", image)
		},
		"package": func() (string, error) {
			image, err := registry.Package(hello)
			require.NoError(t, err)
			return l.registry.Push(t.Context(), "package", image)
		},
		"index": func() (string, error) {
			image, err := app.Artifact(false)
			require.NoError(t, err)
			other, err := registry.Component(hello)
			require.NoError(t, err)
			return l.registry.PushIndex(t.Context(), "index",
				registry.Entry{Platform: map[string]string{"os": "linux", "architecture": "riscv64"}, Image: other},
				registry.Entry{Platform: map[string]string{"os": "linux", "architecture": runtime.GOARCH}, Image: image})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ref, err := make()
			require.NoError(t, err)
			config := l.Pod(name)
			p := l.runPod(t, c, "spin", config)
			spin := containerConfig("app", ref, "/")
			_, err = c.Run(t.Context(), p.id, config, spin)
			require.NoError(t, err)
			(&instance{url: "http://" + net.JoinHostPort(p.ip, "80")}).get(t, "/").requireText(t, "Hello from C!\n")
			require.NoError(t, c.RemovePod(t.Context(), p.id))
		})
	}
}
