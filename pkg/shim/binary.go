package shim

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// minBinaryFd is the least number of the binary's open file: children get files with low numbers, and find the binary by this one.
const minBinaryFd = 100

// openBinary opens the binary that runs, which may not be the one that has its name later. It is opened over a mount of its own that
// is read-only, so that not even root in a container can open it for writing: it would be everyone's.
func openBinary(ctx context.Context) (*os.File, error) {
	path := "/proc/self/exe"
	tree, err := readOnlyMount(path)
	if err != nil {
		log.G(ctx).WithError(err).Error("daemon: the kernel gives no read-only mount of the shim's binary: " +
			"root in a container without a user namespace could overwrite it")
	} else {
		// The mount lives on in what is open of it.
		defer unix.Close(tree)
		path = fmt.Sprintf("/proc/self/fd/%d", tree)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the shim's binary: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, minBinaryFd)
	if err != nil {
		return nil, fmt.Errorf("open the shim's binary: %w", err)
	}
	return os.NewFile(uintptr(fd), "binary"), nil
}

// readOnlyMount returns a mount of one file that is nowhere in the file system.
func readOnlyMount(path string) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("open_tree", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		_ = unix.Close(tree)
		return -1, os.NewSyscallError("mount_setattr", err)
	}
	return tree, nil
}
