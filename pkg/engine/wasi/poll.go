package wasi

import (
	"context"
	"sync"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// maxPollables bounds the pollables of one poll call: each costs the host a registration, and a list may
// name the same handle millions of times.
const maxPollables = 1 << 16

// Waitable is what a pollable stands for: the representation of [Pollable] is a Waitable. A pollable may
// outlive what it was made from; it is ready then.
type Waitable interface {
	// Ready says whether the guest would not have to wait. It does not block.
	Ready() bool
	// Watch registers wake, which is called from any goroutine each time that Ready may have become
	// true, until stop has returned. Ready is asked once more after Watch, so that wake need not be
	// called for what happened before. wake does not block and calls nothing of the Waitable.
	Watch(wake func()) (stop func())
}

// Always is a Waitable that is always ready.
type Always struct{}

// Ready is true.
func (Always) Ready() bool { return true }

// Watch never calls wake.
func (Always) Watch(func()) (stop func()) { return func() {} }

// Signal is a Waitable that its owner turns on and off. The zero value is off. It is safe for concurrent
// use.
type Signal struct {
	mu       sync.Mutex
	on       bool              // guarded by mu
	watchers map[uint64]func() // guarded by mu
	last     uint64            // guarded by mu: the key of the newest watcher
}

// Set turns the signal on or off.
func (s *Signal) Set(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
	if on {
		for _, wake := range s.watchers {
			wake()
		}
	}
}

// Ready says whether the signal is on.
func (s *Signal) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on
}

// Watch calls wake when the signal is turned on.
func (s *Signal) Watch(wake func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = map[uint64]func(){}
	}
	s.last++
	key := s.last
	s.watchers[key] = wake
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, key)
	}
}

// Wait blocks until at least one of ws, of which there must be one, is ready, and returns the indices of
// those that are. It fails only if ctx ends.
func Wait(ctx context.Context, ws ...Waitable) ([]uint32, error) {
	if in, ok := ws[0].(*Input); ok && len(ws) == 1 && in.paced == nil {
		// There is nothing else to wait for: read on this goroutine instead of starting one.
		return []uint32{0}, in.fill(ctx, chunk)
	}
	if ready := readyOf(ws); len(ready) > 0 {
		return ready, nil
	}
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	for _, w := range ws {
		defer w.Watch(wake)()
	}
	for {
		if ready := readyOf(ws); len(ready) > 0 {
			return ready, nil
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func readyOf(ws []Waitable) (ready []uint32) {
	for i, w := range ws {
		if w.Ready() {
			ready = append(ready, uint32(i))
		}
	}
	return ready
}

func poll(c *engine.Call) error {
	n := c.List()
	if n == 0 {
		return &engine.Trap{Msg: "poll of an empty list"}
	}
	if n > maxPollables {
		return &engine.Trap{Msg: "poll of more pollables than maxPollables"}
	}
	ws := make([]Waitable, n)
	for i := range ws {
		ws[i] = engine.Rep[Waitable](c)
	}
	ready, err := Wait(c.Context(), ws...)
	if err != nil {
		return err
	}
	c.PutList(len(ready))
	for _, i := range ready {
		c.PutU32(i)
	}
	return nil
}

func pollableReady(c *engine.Call) error {
	c.PutBool(engine.Rep[Waitable](c).Ready())
	return nil
}

func pollableBlock(c *engine.Call) error {
	_, err := Wait(c.Context(), engine.Rep[Waitable](c))
	return err
}
