package container

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	oomv1 "github.com/containerd/containerd/v2/pkg/oom/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

// cgroup is a container's cgroup; one of the two is set, or none if it could not be found.
type cgroup struct {
	v1 cgroup1.Cgroup
	v2 *cgroup2.Manager
}

// cgroupOf finds the cgroup of a process.
func cgroupOf(pid int) (cgroup, error) {
	if cgroups.Mode() != cgroups.Unified {
		v1, err := cgroup1.Load(cgroup1.PidPath(pid))
		return cgroup{v1: v1}, err
	}
	path, err := cgroup2.PidGroupPath(pid)
	if err != nil {
		return cgroup{}, err
	}
	v2, err := cgroup2.Load(path)
	return cgroup{v2: v2}, err
}

// Stats are the container's metrics: a message of containerd's cgroups of version 1 or 2.
func (c *Container) Stats() (any, error) {
	switch {
	case c.cgroup.v1 != nil:
		return c.cgroup.v1.Stat(cgroup1.IgnoreNotExist)
	case c.cgroup.v2 != nil:
		return c.cgroup.v2.Stat()
	}
	return nil, fmt.Errorf("cgroup does not exist: %w", errdefs.ErrNotFound)
}

// killedForMemory says whether the kernel has killed in the cgroup for lack of memory.
func (g cgroup) killedForMemory() bool {
	switch {
	case g.v1 != nil:
		m, err := g.v1.Stat(cgroup1.IgnoreNotExist)
		return err == nil && m.GetMemoryOomControl().GetOomKill() > 0
	case g.v2 != nil:
		m, err := g.v2.Stat()
		return err == nil && m.GetMemoryEvents().GetOomKill() > 0
	}
	return false
}

// oomWatch tells containers that the kernel has killed for lack of memory in their cgroup.
type oomWatch struct {
	ctx context.Context

	mu     sync.Mutex
	v1     interface{ Add(id string, cg any) error } // of all containers, made for the first; guarded by mu
	called map[string]func()                         // by container, for v1; guarded by mu
}

// add calls killed for each kill in the cgroup of container id, until the cgroup is removed.
func (w *oomWatch) add(id string, cg cgroup, killed func()) error {
	switch {
	case cg.v1 != nil:
		return w.addV1(id, cg.v1, killed)
	case cg.v2 != nil:
		kills, errs := cg.v2.EventChan()
		go watchV2(w.ctx, id, kills, errs, killed) // ends with the cgroup
	}
	return nil
}

func (w *oomWatch) addV1(id string, cg cgroup1.Cgroup, killed func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.v1 == nil {
		watcher, err := oomv1.New(w)
		if err != nil {
			return err
		}
		go watcher.Run(w.ctx) // ends with the daemon: it blocks in the kernel
		w.v1, w.called = watcher, map[string]func(){}
	}
	w.called[id] = killed
	return w.v1.Add(id, cg)
}

// remove forgets a container.
func (w *oomWatch) remove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.called, id)
}

// Publish gets the events of containerd's watcher of cgroups v1.
func (w *oomWatch) Publish(_ context.Context, _ string, event events.Event) error {
	oom, ok := event.(*eventsapi.TaskOOM)
	if !ok {
		return nil
	}
	w.mu.Lock()
	killed := w.called[oom.ContainerID]
	w.mu.Unlock()
	if killed != nil {
		killed()
	}
	return nil
}

func watchV2(ctx context.Context, id string, kills <-chan cgroup2.Event, errs <-chan error, killed func()) {
	var last uint64
	for {
		select {
		case e := <-kills:
			if e.OOMKill > last {
				last = e.OOMKill
				killed()
			}
		case err := <-errs:
			if err != nil {
				log.G(ctx).WithError(err).WithField("container", id).Warn("container: watch for lack of memory")
			}
			return
		}
	}
}
