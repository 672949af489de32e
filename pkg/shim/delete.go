package shim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/container"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/store"
)

// remove removes what is left of a container, of which there may be all, some or nothing, and returns the answer for containerd: how
// the container ended. containerd runs it after each container, and when a daemon is gone.
func remove(ctx context.Context, c command) ([]byte, error) {
	status, err := stop(ctx, c)
	if err != nil {
		return nil, err
	}
	dir := cacheDir()
	if err := store.RemoveTree(container.StateDir(dir, c.address, c.namespace, c.id)); err != nil {
		log.G(ctx).WithError(err).Warn("delete: remove state folder")
	}
	if _, err := os.Stat(dir); err == nil {
		// Opening removes what a dead daemon has left. What it is opened with does not matter: nothing is prepared.
		if _, err := store.Open(store.Config{Dir: dir}); err != nil {
			log.G(ctx).WithError(err).Warn("delete: clean cache")
		}
	}
	return proto.Marshal(&api.DeleteResponse{
		Pid: uint32(status.Pid), ExitStatus: uint32(status.ExitStatus), ExitedAt: timestamppb.New(status.ExitedAt),
	})
}

// stop removes the container of a bundle from runc, with its processes, mounts and cgroup, and the socket of its daemon if that is dead.
func stop(ctx context.Context, c command) (shim.StopStatus, error) {
	if c.bundle != "" {
		err := os.Chdir(c.bundle)
		if errors.Is(err, fs.ErrNotExist) {
			return shim.StopStatus{ExitStatus: 128 + int(unix.SIGKILL), ExitedAt: time.Now()}, nil
		}
		if err != nil {
			return shim.StopStatus{}, err
		}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return shim.StopStatus{}, err
	}
	bundle := filepath.Join(filepath.Dir(cwd), c.id) // containerd may run us in the bundle of another container of the pod
	status, err := manager.NewShimManager(c.runtime).Stop(ctx, c.id)
	if err != nil {
		return status, fmt.Errorf("delete %s: %w", c.id, err)
	}
	address, err := shim.ReadAddress(filepath.Join(bundle, addressName))
	if err == nil && !shim.CanConnect(address) {
		_ = shim.RemoveSocket(address)
	}
	return status, nil
}
