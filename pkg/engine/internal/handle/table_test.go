package handle

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

func TestTable(t *testing.T) {
	t.Parallel()
	file, socket := &component.Resource{Name: "file"}, &component.Resource{Name: "socket"}
	var table Table
	add := func(h Handle) uint32 {
		i, err := table.Add(h)
		require.NoError(t, err)
		return i
	}
	own := add(Handle{Resource: file, Rep: 7, Own: true})
	borrow := add(Handle{Resource: file})
	require.NotZero(t, own, "index 0 is never used")

	_, err := table.Get(own, socket)
	require.ErrorIs(t, err, ErrWrongType)
	_, err = table.Get(99, file)
	require.ErrorIs(t, err, ErrUnknown)
	_, err = table.RemoveOwn(borrow, file)
	require.ErrorIs(t, err, ErrNotOwn)

	h, err := table.Get(own, file)
	require.NoError(t, err)
	h.Lends++
	_, err = table.Remove(own, file)
	require.ErrorIs(t, err, ErrLent)
	h.Lends--
	got, err := table.Remove(own, file)
	require.NoError(t, err)
	require.Equal(t, uint32(7), got.Rep)
	_, err = table.Get(own, file)
	require.ErrorIs(t, err, ErrUnknown, "a removed handle is gone")
	require.Equal(t, own, add(Handle{Resource: socket}), "a free index is used again")

	require.Equal(t, 2, table.Len())
	var drained []*component.Resource
	table.Drain(func(h Handle) { drained = append(drained, h.Resource) })
	require.Equal(t, []*component.Resource{file, socket}, drained)
	require.Zero(t, table.Len())
}

func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	r := &component.Resource{}
	var table Table
	for range MaxLength {
		_, err := table.Add(Handle{Resource: r})
		require.NoError(t, err)
	}
	_, err := table.Add(Handle{Resource: r})
	require.ErrorIs(t, err, ErrFull)
}
