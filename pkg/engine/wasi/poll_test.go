package wasi

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWaitReturnsAllThatAreReady(t *testing.T) {
	t.Parallel()
	var on, off Signal
	on.Set(true)
	ready, err := Wait(t.Context(), &off, &on, Always{}, &on)
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 2, 3}, ready)
	require.Empty(t, off.watchers)
}

func TestWaitWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var a, b Signal
		var ready []uint32
		var err error
		go func() { ready, err = Wait(t.Context(), &a, &b) }()
		synctest.Wait()
		require.Nil(t, ready)
		b.Set(true)
		synctest.Wait()
		require.NoError(t, err)
		require.Equal(t, []uint32{1}, ready)
		require.Empty(t, a.watchers)
		require.Empty(t, b.watchers)
	})
}

func TestWaitSleepsOnAfterASignalThatWentOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w := &countingSignal{}
		done := make(chan error)
		go func() { _, err := Wait(ctx, w); done <- err }()
		synctest.Wait()
		asked := w.asked
		w.mu.Lock() // off again before the waiter sees it
		for _, wake := range w.watchers {
			wake()
		}
		w.mu.Unlock()
		synctest.Wait()
		require.Equal(t, asked+1, w.asked, "asked once for one wake, and not again")
		cancel(errTest)
		require.ErrorIs(t, <-done, errTest)
		require.Empty(t, w.watchers)
	})
}

// countingSignal counts how often it is asked.
type countingSignal struct {
	Signal
	asked int
}

func (c *countingSignal) Ready() bool {
	c.asked++
	return c.Signal.Ready()
}

func TestTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &Host{start: time.Now()}
		require.True(t, timer{h, 0}.Ready())
		require.False(t, timer{h, 1}.Ready())
		start := time.Now()
		ready, err := Wait(t.Context(), timer{h, 3 * time.Second}, timer{h, 2 * time.Second}, timer{h, duration(1 << 63)})
		require.NoError(t, err)
		require.Equal(t, []uint32{1}, ready)
		require.Equal(t, 2*time.Second, time.Since(start))
	})
}

func TestHammerSignal(t *testing.T) {
	t.Parallel()
	const pairs, rounds = 8, 200
	var never Signal
	var wg sync.WaitGroup
	for range pairs {
		var ask, answer Signal
		wg.Go(func() {
			for range rounds {
				_, _ = Wait(t.Context(), &never, &ask)
				ask.Set(false)
				answer.Set(true)
			}
		})
		wg.Go(func() {
			for range rounds {
				ask.Set(true)
				_, _ = Wait(t.Context(), &answer, &never)
				answer.Set(false)
			}
		})
	}
	wg.Wait()
	require.Empty(t, never.watchers)
}
