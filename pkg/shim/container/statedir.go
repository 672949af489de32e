package container

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/store"
)

// StateDir is the path of the folder of a container's own state: it is in the folder dir of the node's cache, on disk, since state may
// be large and the bundle is in memory. The name is computed, so that a process that knows nothing else finds it.
func StateDir(dir, address, namespace, id string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n", address, namespace, id))
	return filepath.Join(dir, "state", fmt.Sprintf("%x", sum))
}

// openStateDir makes the folder, empty and owned by the container's user. While the file is open in any process, the worker included,
// its lock says that the folder is in use.
func openStateDir(name string, uid, gid int) (*os.File, error) {
	if err := store.RemoveTree(name); err != nil { // of a container of that id that nobody deleted
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	if err := os.Mkdir(name, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	f, err := os.Open(name)
	if err == nil {
		err = errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), os.Chown(name, uid, gid))
	}
	if err != nil {
		return nil, fmt.Errorf("make state folder: %w", errors.Join(err, os.Remove(name)))
	}
	return f, nil
}

func removeStateDir(f *os.File) error {
	if err := errors.Join(store.RemoveTree(f.Name()), f.Close()); err != nil {
		return fmt.Errorf("remove state folder: %w", err)
	}
	return nil
}

// minStateAge is the age at which a state folder without a lock belongs to a container that is gone: another daemon may just have made
// a younger one.
const minStateAge = time.Minute

// SweepStateDirs removes the state of containers that are gone and that nobody could delete, as after a crash of the node.
func SweepStateDirs(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "state", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			continue // removed meanwhile
		}
		info, err := f.Stat()
		if err == nil && time.Since(info.ModTime()) > minStateAge && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			errs = append(errs, store.RemoveTree(name))
		}
		_ = f.Close()
	}
	return errors.Join(errs...)
}
