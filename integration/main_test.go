// Package integration tests the shim under real containerd: each test pulls from a registry, runs containers through ctr or CRI, asks
// them over HTTP, and checks that they left nothing. The tests run in namespaces of their own (see node.Isolate), as root.
package integration

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/infra"
	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
	"github.com/stretchr/testify/require"
)

// cache is set once, before the tests run.
var cache *infra.Cache

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if cache, err = infra.OpenCache(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if !node.Isolated() { // the network is here
		if err := build(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return node.Isolate(m.Run)
}

// build builds or installs all that the tests use.
func build(ctx context.Context) error {
	for _, tool := range []func(context.Context) (string, error){
		cache.Runc, cache.Busybox, cache.CNI, cache.Pause, cache.Shim,
	} {
		if _, err := tool(ctx); err != nil {
			return err
		}
	}
	for _, release := range []infra.Release{infra.Containerd24, infra.Containerd22, infra.Containerd17} {
		if _, err := cache.Containerd(ctx, release); err != nil {
			return err
		}
	}
	return cache.Iptables(ctx)
}

// lab is a node and a registry for one test.
type lab struct {
	*node.Node
	registry *registry.Registry
}

// newLab starts a node and a registry. At the end of the test it stops them, and reports what containers left behind.
// Tests with a lab are not parallel: what is left is told by what is there.
func newLab(t *testing.T, configure ...func(*node.Config)) *lab {
	t.Helper()
	needRoot(t)
	r, err := registry.Start()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	cfg := node.Config{Cache: cache, Registry: r.Addr, Trace: true}
	for _, c := range configure {
		c(&cfg)
	}
	if cfg.CRI {
		cfg.Pause = pushPause(t, r)
	}
	n, err := node.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		// The test's context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, leak := range n.Leaks(ctx) {
			t.Errorf("left behind: %s", leak)
		}
		if t.Failed() {
			t.Logf("containerd and shims said:\n%s", n.Log())
		}
		require.NoError(t, n.Close())
	})
	return &lab{n, r}
}

// needRoot skips the test without root; in CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("integration tests need root")
	}
	t.Skip("integration tests need root")
}

// removeAtEnd removes a container at the end of the test, if it is there.
func (l *lab) removeAtEnd(t *testing.T, id string) {
	t.Cleanup(func() {
		// The test's context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := l.Remove(ctx, id); err != nil && !strings.Contains(err.Error(), "not found") {
			t.Error(err)
		}
	})
}

func pushPause(t *testing.T, r *registry.Registry) string {
	t.Helper()
	file, err := cache.Pause(t.Context())
	require.NoError(t, err)
	pause, err := os.ReadFile(file)
	require.NoError(t, err)
	image, err := registry.Linux{Entrypoint: []string{"/pause"}, Files: map[string][]byte{"/pause": pause}}.Image()
	require.NoError(t, err)
	ref, err := r.Push(t.Context(), "pause", image)
	require.NoError(t, err)
	return ref
}

// pushBusybox pushes an image with a shell and its tools.
func (l *lab) pushBusybox(t *testing.T) string {
	t.Helper()
	file, err := cache.Busybox(t.Context())
	require.NoError(t, err)
	busybox, err := os.ReadFile(file)
	require.NoError(t, err)
	links := map[string]string{}
	for _, tool := range []string{"sh", "cat", "echo", "httpd", "id", "ip", "kill", "ls", "sleep", "true", "wget"} {
		links[filepath.Join("/bin", tool)] = "busybox"
	}
	image, err := registry.Linux{
		Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sh"}, Files: map[string][]byte{"/bin/busybox": busybox}, Links: links,
	}.Image()
	require.NoError(t, err)
	ref, err := l.registry.Push(t.Context(), "busybox", image)
	require.NoError(t, err)
	return ref
}
