// Package infra builds and finds the programs that tests and the demo run the shim under: containerd and ctr, CNI plugins, runc,
// a static busybox, the shim itself. What comes from Go modules is pinned, with checksums, by the modules beside this file
// (containerd, containerd-2.2, cni), and is built once into integration/.cache; what comes from Debian is installed when missing.
package infra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Cache builds tools and keeps them.
type Cache struct {
	module string // folder of the integration module
	dir    string
}

// OpenCache opens the cache of the module that the working folder is in.
func OpenCache(ctx context.Context) (*Cache, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("find the integration module: %w", err)
	}
	module := filepath.Dir(strings.TrimSpace(string(out)))
	if filepath.Base(module) != "integration" {
		return nil, fmt.Errorf("find the integration module: the working folder is in %s", module)
	}
	dir := filepath.Join(module, ".cache")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &Cache{module: module, dir: dir}, nil
}

// Apps is a folder for the apps that the shim prepared, where they outlive a node.
func (c *Cache) Apps() string { return filepath.Join(c.dir, "apps") }

// Root is the root of the repository.
func (c *Cache) Root() string { return filepath.Dir(c.module) }

// tool returns the folder of the cache that fill filled for this key, calling it if there is none. Processes that want the same
// tool at once build it once; a build that dies leaves nothing that looks finished.
func (c *Cache) tool(name, key string, fill func(dir string) error) (string, error) {
	sum := sha256.Sum256([]byte(key))
	name += "-" + hex.EncodeToString(sum[:6])
	dir := filepath.Join(c.dir, name)
	unlock, err := c.lock(name)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer unlock()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return dir, err
	}
	part := dir + ".part"
	if err := errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o755)); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := fill(part); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return dir, os.Rename(part, dir)
}

// lock takes an exclusive lock that ends with the process at the latest.
func (c *Cache) lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, name+".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// goBuild builds packages, as the module in folder dir pins them, into folder out.
func goBuild(ctx context.Context, dir, out string, flags []string, packages ...string) error {
	args := append([]string{"build", "-C", dir, "-trimpath", "-o", out + string(filepath.Separator)}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, output)
	}
	return nil
}

// apt serialises this process's use of Debian's packages; apt's own lock does so among processes.
var apt sync.Mutex

// debian returns the path of a program, installing the Debian package that has it if it is not there.
func debian(ctx context.Context, program, pkg string) (string, error) {
	apt.Lock()
	defer apt.Unlock()
	if p, err := lookPath(program); err == nil {
		return p, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%s is not installed: install Debian's package %s, or run as root", program, pkg)
	}
	for _, args := range [][]string{
		{"update", "-q"},
		{"install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", pkg},
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, output)
		}
	}
	return lookPath(program)
}

// lookPath is exec.LookPath that also looks where root's programs are, whatever PATH says.
func lookPath(program string) (string, error) {
	p, err := exec.LookPath(program)
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if err != nil {
			p, err = exec.LookPath(filepath.Join(dir, program))
		}
	}
	return p, err
}
