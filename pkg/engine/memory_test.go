package engine

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binaryencoding"
)

func TestLinearMemoryGrowsInPlace(t *testing.T) {
	t.Parallel()
	m := (&memoryAllocator{live: new(atomic.Int64)}).Allocate(1<<16, 4<<30)
	b := m.Reallocate(1 << 16)
	require.Len(t, b, 1<<16)
	b[0], b[1<<16-1] = 1, 2
	grown := m.Reallocate(3 << 16)
	require.Len(t, grown, 3<<16)
	require.Same(t, &b[0], &grown[0])
	grown[3<<16-1] = 3
	require.Equal(t, []byte{1, 2}, []byte{grown[0], grown[1<<16-1]})
	require.Nil(t, m.Reallocate(4<<30+1), "more than was reserved")
	m.Free()
	m.Free() // a module that only imports a memory frees it too
}

func TestLinearMemoryMayBeEmpty(t *testing.T) {
	t.Parallel()
	m := (&memoryAllocator{live: new(atomic.Int64)}).Allocate(0, 0)
	require.Empty(t, m.Reallocate(0))
	m.Free()
}

// TestInstancesRunOutOfMemories makes instances of many memories each until there is no room for one, and then again
// after they are closed.
func TestInstancesRunOutOfMemories(t *testing.T) {
	t.Parallel()
	module := &binaryencoding.Module{}
	module.Memory("", 1)
	encoded := &binaryencoding.Component{}
	core := encoded.CoreModule(module.Bytes())
	const each = 1500
	for range each {
		encoded.CoreInstantiate(core)
	}
	e, err := New(t.Context(), Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(t.Context())) })
	c, err := e.Compile(t.Context(), encoded.Bytes())
	require.NoError(t, err)
	pre, err := e.NewLinker().Link(c)
	require.NoError(t, err)
	for range 2 {
		var instances []*Instance
		for range maxMemories / each {
			i, err := pre.Instantiate(t.Context())
			require.NoError(t, err)
			instances = append(instances, i)
		}
		_, err := pre.Instantiate(t.Context())
		require.ErrorIs(t, err, ErrNoMemory)
		require.EqualValues(t, maxMemories/each*each, e.memories.Load(), "what had been made is given back")
		for _, i := range instances {
			require.NoError(t, i.Close())
		}
		require.Zero(t, e.memories.Load())
	}
}
