// Package node runs a private containerd with the shim on its path: a node in a folder of its own, beside any other containerd of
// the machine, that leaves nothing when it is closed. The phases are Start, Ctr or CRI, Leaks (what containers left behind), Close.
package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/infra"
)

// The names by which containerd finds the shim, and its own for Linux containers.
const (
	Runtime     = "io.containerd.spin.v2"
	RuncRuntime = "io.containerd.runc.v2"
)

// patience is how long a node waits for what takes milliseconds on an idle machine.
const patience = 20 * time.Second

// Config says what a node is made of.
type Config struct {
	Cache   *infra.Cache
	Release infra.Release // of containerd; Containerd24 if empty
	CRI     bool          // with Kubernetes' interface, and a network for pods
	Pause   string        // image of pods' sandboxes, on Registry
	// Registry is the host and port of a registry without TLS that CRI may pull from.
	Registry string
	// Runtimes is more of containerd's configuration: further runtimes for CRI, as TOML.
	Runtimes string
	Env      []string // of containerd and so of the shim
	Apps     string   // folder of the shim's prepared apps, which the node then leaves there; one of its own if empty
	Trace    bool     // log at debug level
}

// Node is a running containerd.
type Node struct {
	Dir       string // all of the node's files; short, since paths of sockets are limited to 107 bytes
	Address   string // containerd's socket
	Namespace string // containerd namespace of Ctr's containers, and their cgroup: unique on the machine
	ctr       string
	cfg       Config
	daemon    string
	path      string
	cmd       *exec.Cmd
	log       *os.File
	made      []string   // folders of the machine that were not there before
	ended     chan error // gets the verdict of cmd.Wait
}

// Start starts a node. It is ready when Start returns. ctx bounds only the start.
func Start(ctx context.Context, cfg Config) (n *Node, err error) {
	cfg.Release = cmp.Or(cfg.Release, infra.Containerd24)
	dir, err := os.MkdirTemp("", "spin-node-")
	if err != nil {
		return nil, err
	}
	n = &Node{Dir: dir, cfg: cfg, made: absent(runcRoots...), Address: filepath.Join(dir, "c.sock"), Namespace: filepath.Base(dir)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start node: %w", errors.Join(err, n.Close()))
			n = nil
		}
	}()
	if err := n.install(ctx); err != nil {
		return n, err
	}
	if n.log, err = os.OpenFile(filepath.Join(dir, "containerd.log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return n, err
	}
	return n, n.Run(ctx)
}

// install puts the programs where containerd finds them, and writes its configuration.
func (n *Node) install(ctx context.Context) error {
	tools, err := n.cfg.Cache.Containerd(ctx, n.cfg.Release)
	if err != nil {
		return err
	}
	n.daemon, n.ctr = filepath.Join(tools, "containerd"), filepath.Join(tools, "ctr")
	runc, err := n.cfg.Cache.Runc(ctx)
	if err != nil {
		return err
	}
	shim, err := n.cfg.Cache.Shim(ctx)
	if err != nil {
		return err
	}
	bin := filepath.Join(n.Dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	for _, program := range []string{runc, filepath.Join(tools, "containerd-shim-runc-v2")} {
		if err := os.Symlink(program, filepath.Join(bin, filepath.Base(program))); err != nil {
			return err
		}
	}
	if err := copyFile(shim, n.Shim()); err != nil {
		return err
	}
	n.path = bin + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"
	return n.configure(ctx)
}

// Shim is the path of the shim's binary, this node's own copy.
func (n *Node) Shim() string { return filepath.Join(n.Dir, "bin", "containerd-shim-spin-v2") }

// Cache is the folder of the shim's prepared apps on this node.
func (n *Node) Cache() string { return cmp.Or(n.cfg.Apps, filepath.Join(n.Dir, "spin")) }

// Run starts containerd, at first or after Stop, and waits until it answers.
func (n *Node) Run(ctx context.Context) error {
	cmd := exec.Command(n.daemon, "-c", filepath.Join(n.Dir, "containerd.toml"))
	cmd.Env = append(os.Environ(), "PATH="+n.path, "SPIN_SHIM_CACHE="+n.Cache(), "TMPDIR="+n.Dir)
	cmd.Env = append(cmd.Env, n.cfg.Env...)
	cmd.Stdout, cmd.Stderr = n.log, n.log
	// In a session of its own: an interrupt from the terminal is for whoever runs the node, who then closes it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	n.cmd, n.ended = cmd, make(chan error, 1)
	go func(ended chan<- error) { ended <- cmd.Wait() }(n.ended) // ends with containerd
	deadline := time.Now().Add(patience)
	for {
		_, err := n.Ctr(ctx, "version")
		if err == nil {
			return nil
		}
		select {
		case err := <-n.ended:
			n.cmd = nil
			return fmt.Errorf("containerd ended: %w\n%s", err, n.Log())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("containerd does not answer: %w\n%s", err, n.Log())
		}
	}
}

// Stop ends containerd with a signal and waits until it is gone. Shims go on.
func (n *Node) Stop(signal syscall.Signal) error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.ended:
	case <-time.After(patience):
		n.cmd.Process.Kill()
		<-n.ended
	}
	n.cmd = nil
	return nil
}

// Pid is containerd's process id, 0 if it does not run.
func (n *Node) Pid() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// CtrCommand is the command line of ctr for this node, to be completed.
func (n *Node) CtrCommand(args ...string) []string {
	return append([]string{n.ctr, "--address", n.Address, "--namespace", n.Namespace}, args...)
}

// Ctr runs ctr and returns its standard output. The error of a run that fails is what ctr said.
func (n *Node) Ctr(ctx context.Context, args ...string) (string, error) {
	out, _, err := n.run(ctx, args...)
	return out, err
}

// run is Ctr that also returns what ctr said of a run that does not fail.
func (n *Node) run(ctx context.Context, args ...string) (out, warnings string, err error) {
	line := n.CtrCommand(args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = cmd.Run(); err != nil {
		err = &CtrError{Args: args, Err: err, Said: said(stderr.String())}
	}
	return stdout.String(), said(stderr.String()), err
}

// CtrError is the error of a run of ctr.
type CtrError struct {
	Args []string
	Said string // ctr's standard error
	Err  error  // how it ended
}

func (e *CtrError) Error() string {
	return fmt.Sprintf("ctr %s: %v: %s", strings.Join(e.Args, " "), e.Err, e.Said)
}

func (e *CtrError) Unwrap() error { return e.Err }

// said leaves out containerd's advice about the machine.
func said(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "DEPRECATION") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// Pull pulls an image by Ctr.
func (n *Node) Pull(ctx context.Context, image string) error {
	_, err := n.Ctr(ctx, "image", "pull", "--plain-http", image)
	return err
}

// RunArgs are the arguments of `ctr run` that run a container on the shim's runtime, where flags name no other. What comes after
// image is the container's id and, for Linux containers, the command.
func (n *Node) RunArgs(flags []string, image string, id ...string) []string {
	args := append([]string{"run", "--runtime", Runtime, "--fifo-dir", filepath.Join(n.Dir, "fifo")}, flags...)
	return append(append(args, image), id...)
}

// DeleteTask deletes a task that ended, and returns its exit code.
func (n *Node) DeleteTask(ctx context.Context, id string) (int, error) {
	_, warnings, err := n.run(ctx, "task", "delete", id)
	if err != nil {
		return 0, err
	}
	_, text, found := strings.Cut(warnings, "non-zero exit code ")
	if !found {
		return 0, nil
	}
	return strconv.Atoi(strings.TrimRight(strings.Fields(text)[0], `"`))
}

// Remove kills the container and deletes all of it.
func (n *Node) Remove(ctx context.Context, id string) error {
	// A task that ended, or never was, has nothing to kill.
	n.Ctr(ctx, "task", "kill", "-s", "SIGKILL", id)
	if _, err := n.Ctr(ctx, "task", "delete", "--force", id); err != nil && !strings.Contains(err.Error(), "not found") {
		return err
	}
	_, err := n.Ctr(ctx, "container", "delete", id)
	return err
}

// Log is what containerd and the shims logged.
func (n *Node) Log() string {
	if n.log == nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(n.log, 0, 1<<30))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Close removes all containers, stops containerd and what is left of the node's processes, and removes its files. It does as much of
// that as it can.
func (n *Node) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	var errs []error
	if n.cmd != nil {
		errs = append(errs, n.removeAll(ctx), n.Stop(syscall.SIGTERM))
	}
	errs = append(errs, n.sweep(ctx))
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(n.Dir))...)
}

func (n *Node) removeAll(ctx context.Context) error {
	out, err := n.Ctr(ctx, "container", "list", "--quiet")
	for _, id := range strings.Fields(out) {
		err = errors.Join(err, n.Remove(ctx, id))
	}
	if n.cfg.CRI {
		err = errors.Join(err, n.removePods(ctx))
	}
	return err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
