package engine

import (
	"errors"
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// maxMemories bounds the linear memories of an engine at once. Each takes up to 4 GiB of address space, of which there
// are 128 TiB, and two of the 65,530 mappings that Linux gives a process; without either the Go runtime ends the process.
const maxMemories = 16 << 10

// ErrNoMemory says that an instance could not be made because the process has as many linear memories as it can have,
// or the system gives it no more memory. It passes when other instances are closed.
var ErrNoMemory = errors.New("no room for another linear memory")

// memoryAllocator gives the linear memories of one instance address space of their own: all that a memory may ever
// need is reserved at once, so that it grows in place, and is given back to the system at once when the instance closes.
type memoryAllocator struct {
	live *atomic.Int64 // the reservations of the engine
	full bool          // a memory did not get what it needs to begin with
}

// Allocate reserves max bytes, of which none is usable yet.
func (a *memoryAllocator) Allocate(_, most uint64) experimental.LinearMemory {
	m := &linearMemory{allocator: a}
	if most == 0 {
		return m
	}
	if a.live.Add(1) > maxMemories {
		a.live.Add(-1)
		return m
	}
	// Without access rights the reservation counts nowhere, not even where overcommitting is off.
	space, err := unix.Mmap(-1, 0, int(most), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		a.live.Add(-1)
		return m // every Reallocate fails: the instance cannot be made
	}
	m.space = space
	return m
}

// linearMemory is one linear memory. A module that only imports it may free it too: the instance is closed as a
// whole.
type linearMemory struct {
	allocator *memoryAllocator
	space     []byte // reserved
	usable    int
	begun     bool // it has had its first size
}

// Reallocate makes the first size bytes usable. It returns nil if the system gives no more.
func (m *linearMemory) Reallocate(size uint64) []byte {
	b := m.reallocate(size)
	if b == nil && size > 0 && !m.begun { // wazero takes this for granted, and panics: see instantiate
		m.Free()
		m.allocator.full = true
	}
	m.begun = true
	return b
}

func (m *linearMemory) reallocate(size uint64) []byte {
	if size > uint64(len(m.space)) {
		return nil
	}
	if n := int(size); n > m.usable {
		if err := unix.Mprotect(m.space[m.usable:n], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil
		}
		m.usable = n
	}
	return m.space[:size:size]
}

// Free gives the address space back.
func (m *linearMemory) Free() {
	if m.space != nil {
		_ = unix.Munmap(m.space)
		m.space = nil
		m.allocator.live.Add(-1)
	}
}
