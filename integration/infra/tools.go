package infra

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Release is a containerd release that the tests run under: a folder beside this file with a module that pins it.
type Release string

// The releases: the newest, the newest that starts shims with flags and JSON, and the newest that speaks version 2 of the task API.
const (
	Containerd24 Release = "containerd"
	Containerd22 Release = "containerd-2.2"
	Containerd17 Release = "containerd-1.7"
)

// Containerd returns a folder with containerd, ctr and containerd's shim for Linux containers, which is there to compare with.
func (c *Cache) Containerd(ctx context.Context, r Release) (string, error) {
	path := "github.com/containerd/containerd"
	if r != Containerd17 {
		path += "/v2"
	}
	return c.pinned(ctx, string(r), path, path+"/cmd/containerd", path+"/cmd/ctr", path+"/cmd/containerd-shim-runc-v2")
}

// CNI returns a folder with the CNI plugins that a pod's network needs.
func (c *Cache) CNI(ctx context.Context) (string, error) {
	const path = "github.com/containernetworking/plugins"
	return c.pinned(ctx, "cni", path,
		path+"/plugins/main/bridge", path+"/plugins/main/loopback", path+"/plugins/ipam/host-local", path+"/plugins/meta/portmap")
}

// pinned builds packages of the module path as the module in infra/name pins it.
func (c *Cache) pinned(ctx context.Context, name, path string, packages ...string) (string, error) {
	dir := filepath.Join(c.module, "infra", name)
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return "", err
	}
	version := ""
	for line := range strings.Lines(string(mod)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == path {
			version = f[1]
		}
	}
	if version == "" {
		return "", fmt.Errorf("build %s: its go.mod does not require %s", name, path)
	}
	// containerd tells shims its version; without the flag it would be "unknown". The tags leave out what needs cgo or C libraries.
	flags := []string{"-tags", "no_btrfs,no_devmapper,no_zfs", "-ldflags", "-s -w -X " + path + "/version.Version=" + version}
	key := strings.Join(append([]string{string(mod), string(sums), runtime.Version(), runtime.GOARCH}, flags...), "\n")
	return c.tool(name+"-"+version, key, func(out string) error {
		return goBuild(ctx, dir, out, flags, packages...)
	})
}

// Pause returns a static program that does nothing until it is asked to end: the process of a pod's sandbox.
func (c *Cache) Pause(ctx context.Context) (string, error) {
	source, err := os.ReadFile(filepath.Join(c.module, "infra", "pause", "main.go"))
	if err != nil {
		return "", err
	}
	dir, err := c.tool("pause", string(source)+runtime.Version()+runtime.GOARCH, func(out string) error {
		return goBuild(ctx, c.module, out, []string{"-ldflags", "-s -w"}, "./infra/pause")
	})
	return filepath.Join(dir, "pause"), err
}

// shim is the name by which containerd finds the shim of the runtime io.containerd.spin.v2.
const shim = "containerd-shim-spin-v2"

// Shim builds the shim from the tree as it is now, and returns the path of the binary. It is not to be run from there, since the
// next build writes over it; a copy is.
func (c *Cache) Shim(ctx context.Context) (string, error) {
	unlock, err := c.lock(shim)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", shim, err)
	}
	defer unlock()
	out := filepath.Join(c.dir, "shim")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", c.Root(), "build", "BIN="+out)
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", shim, err, output)
	}
	return filepath.Join(out, shim), nil
}

// Runc returns the path of runc.
func (c *Cache) Runc(ctx context.Context) (string, error) { return debian(ctx, "runc", "runc") }

// Iptables makes sure that iptables is there for the portmap plugin.
func (c *Cache) Iptables(ctx context.Context) error {
	_, err := debian(ctx, "iptables", "iptables")
	return err
}

// Busybox returns the path of a busybox that needs no library.
func (c *Cache) Busybox(ctx context.Context) (string, error) {
	p, err := debian(ctx, "busybox", "busybox-static")
	if err != nil {
		return "", err
	}
	f, err := elf.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, prog := range f.Progs {
		if prog.Type == elf.PT_INTERP {
			return "", errors.New(p + " is not static: install Debian's package busybox-static")
		}
	}
	return p, nil
}
