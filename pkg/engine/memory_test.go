package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLinearMemoryGrowsInPlace(t *testing.T) {
	t.Parallel()
	m := memoryAllocator{}.Allocate(1<<16, 4<<30)
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
	m := memoryAllocator{}.Allocate(0, 0)
	require.Empty(t, m.Reallocate(0))
	m.Free()
}
