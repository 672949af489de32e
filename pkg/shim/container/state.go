package container

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// stage is where a container is in its life. The stages that end in -ing are those in which an operation runs; no other one that
// changes the stage can begin then, and death ends them all but deleting.
type stage int

const (
	created stage = iota
	starting
	running
	pausing
	paused
	resuming
	stopped
	deleting
	deleted
)

func (s stage) String() string {
	return [...]string{"created", "starting", "running", "pausing", "paused", "resuming", "stopped", "being deleted", "deleted"}[s]
}

// alive says whether the container has a process.
func (s stage) alive() bool { return s < stopped }

// Status is a container's state in the words of containerd.
type Status int

// The states of a container that clients see.
const (
	Created Status = iota
	Running
	Pausing
	Paused
	Stopped
)

func (s stage) status() Status {
	switch s {
	case created, starting:
		return Created
	case running:
		return Running
	case pausing:
		return Pausing
	case paused, resuming:
		return Paused
	}
	return Stopped
}

// refused is the error of an operation in a stage that does not allow it.
func refused(operation string, s stage) error {
	return fmt.Errorf("cannot %s a container that is %v: %w", operation, s, errdefs.ErrFailedPrecondition)
}

// enter begins an operation that is possible in the stages from, and leave ends it, in the stage that the operation led to. If the
// worker has died meanwhile, the container stays stopped.
func (c *Container) enter(operation string, during stage, from ...stage) (leave func(stage), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(from, c.stage) {
		return nil, refused(operation, c.stage)
	}
	c.stage = during
	return func(to stage) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.stage != during {
			return
		}
		c.stage = to
		if to.alive() && c.dead() {
			c.stage = stopped
		}
	}, nil
}
