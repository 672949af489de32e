package shim

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/container"
)

// minBinaryFd is the least number of the binary's open file: children get files with low numbers, and find the binary by this one.
const minBinaryFd = 100

// openBinary opens the binary that runs, which may not be the one that has its name later. Not even root in a container can open it
// for writing: it would be everyone's.
func openBinary(ctx context.Context) (*os.File, error) {
	f, err := container.Detached(ctx, "/proc/self/exe", true)
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
