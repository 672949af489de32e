package container

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// Detached opens a file or folder of the node for a process that foreign code may take over. It is open over a mount of its own that is
// nowhere in the file system: nothing is above it, so that not even root in the container gets from there to the rest of the node.
// With readOnly nobody can write by it either. Kernels before 5.12 cannot do that; then the log says so.
func Detached(ctx context.Context, path string, readOnly bool) (*os.File, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, fmt.Errorf("detach %s: %w", path, os.NewSyscallError("open_tree", err))
	}
	defer unix.Close(tree) // the mount lives on in what is open of it
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			log.G(ctx).WithError(os.NewSyscallError("mount_setattr", err)).WithField("path", path).
				Error("container: the kernel gives no read-only mount: root in a container without a user namespace could write there")
		}
	}
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", tree))
}

// handOut opens an open folder of the node for the worker, with a lock of its own that says that the folder is in use.
func handOut(ctx context.Context, folder *os.File, readOnly bool) (*os.File, error) {
	f, err := Detached(ctx, fmt.Sprintf("/proc/self/fd/%d", folder.Fd()), readOnly)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", folder.Name(), os.NewSyscallError("flock", err))
	}
	return f, nil
}
