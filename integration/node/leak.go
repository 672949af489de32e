package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CgroupParent is the cgroup of the node's pods, to be named in each pod's configuration.
func (n *Node) CgroupParent() string { return "/" + n.Namespace + "-pods" }

// Leaks returns what containers left on the machine, one sentence each, once none should run any more. It waits a while for it to go:
// a shim answers containerd before it ends.
func (n *Node) Leaks(ctx context.Context) []string {
	var leaks []string
	deadline := time.Now().Add(patience / 4)
	for {
		if leaks = n.leaks(ctx); len(leaks) == 0 || time.Now().After(deadline) {
			return leaks
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (n *Node) leaks(ctx context.Context) []string {
	var leaks []string
	for _, p := range n.processes() {
		leaks = append(leaks, fmt.Sprintf("process %d: %s", p.pid, p.line))
	}
	for _, m := range mountsBelow(n.Dir) {
		leaks = append(leaks, "mount "+m)
	}
	for _, dir := range n.cgroups() {
		leaks = append(leaks, "cgroup "+dir)
	}
	for _, pattern := range n.volatile() {
		// The patterns are constants around paths without special characters.
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			leaks = append(leaks, "file "+name)
		}
	}
	if out, err := n.Ctr(ctx, "container", "list", "--quiet"); err == nil && strings.TrimSpace(out) != "" {
		leaks = append(leaks, "container "+out)
	}
	return leaks
}

// volatile are patterns of files that only running containers have.
func (n *Node) volatile() []string {
	patterns := []string{
		n.Dir + "/state/io.containerd.runtime.v2.task/*/*",
		n.Dir + "/root/io.containerd.runtime.v2.task/*/*",
		n.Dir + "/s/*",
		n.Dir + "/fifo/*",
		n.Dir + "/ipam/spin/*.*.*.*",
		n.Cache() + "/tmp/*",
		n.Cache() + "/state/*",
	}
	for _, namespace := range []string{n.Namespace, "k8s.io"} {
		patterns = append(patterns, filepath.Join(runcRoots[0], namespace, "*"))
	}
	if Isolated() { // all of /run is the node's
		patterns = append(patterns, "/run/netns/*", "/run/containerd/s/*", "/run/containerd/fifo/*")
	}
	return patterns
}

type process struct {
	pid  int
	line string
}

// processes are those that the node's containers run, shims included. Each process of an isolated test is the node's but for those of
// the test; elsewhere a process is known by the node's folder in its command line or environment, or by its cgroup.
func (n *Node) processes() []process {
	pids, _ := filepath.Glob("/proc/[0-9]*")
	var found []process
	for _, dir := range pids {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if pid == os.Getpid() || pid == n.Pid() || Isolated() && pid == 1 {
			continue
		}
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil || !Isolated() && !n.owns(dir, string(line)) {
			continue
		}
		if Isolated() && len(line) == 0 {
			if status, err := os.ReadFile(dir + "/comm"); err == nil { // a zombie that init has not reaped yet
				line = fmt.Appendf(nil, "(%s)", strings.TrimSpace(string(status)))
			}
		}
		found = append(found, process{pid, strings.Trim(strings.ReplaceAll(string(line), "\x00", " "), " ")})
	}
	return found
}

func (n *Node) owns(dir, line string) bool {
	if strings.Contains(line, n.Dir+"/") {
		return true
	}
	cgroup, _ := os.ReadFile(dir + "/cgroup")
	if strings.Contains(string(cgroup), "/"+n.Namespace) {
		return true
	}
	env, _ := os.ReadFile(dir + "/environ")
	return strings.Contains(string(env), "SPIN_SHIM_CACHE="+n.Cache()+"\x00")
}

// mountsBelow returns mount points below dir, the innermost first.
func mountsBelow(dir string) []string {
	info, _ := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	slices.Reverse(points)
	return points
}

// cgroups are those of containers, in each hierarchy; the innermost first.
func (n *Node) cgroups() []string {
	var found []string
	for _, root := range n.cgroupRoots() {
		filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && name != root {
				found = append(found, name)
			}
			return nil
		})
	}
	slices.Reverse(found)
	return found
}

// cgroupRoots are the node's own cgroups.
func (n *Node) cgroupRoots() []string {
	var roots []string
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		for _, name := range []string{"/" + n.Namespace, n.CgroupParent()} {
			found, _ := filepath.Glob(hierarchy + name)
			roots = append(roots, found...)
		}
	}
	return roots
}

// sweep ends and removes what the node has beyond its folder. containerd is gone by now.
func (n *Node) sweep(ctx context.Context) error {
	for len(n.processes()) > 0 && ctx.Err() == nil {
		for _, p := range n.processes() {
			if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill process %d: %w", p.pid, err)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	var errs []error
	for _, m := range mountsBelow(n.Dir) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	for _, dir := range append(n.cgroups(), n.cgroupRoots()...) {
		errs = append(errs, ignoreAbsent(os.Remove(dir)))
	}
	errs = append(errs, ignoreAbsent(os.RemoveAll(filepath.Join(runcRoots[0], n.Namespace))))
	for _, dir := range n.made {
		// Another containerd may use it by now: then it is not empty.
		if err := os.Remove(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
			errs = append(errs, ignoreAbsent(err))
		}
	}
	return errors.Join(errs...)
}

// runcRoots are the folders in which containerd and its shims make one for each namespace.
var runcRoots = []string{"/run/containerd/runc", "/run/containerd"}

// absent returns those of the folders that are not there.
func absent(dirs ...string) []string {
	return slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	})
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
