package engine

import (
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// memoryAllocator gives linear memories address space of their own: all that a memory may ever need is reserved
// at once, so that it grows in place, and is given back to the system at once when the instance closes.
type memoryAllocator struct{}

// Allocate reserves max bytes, of which none is usable yet.
func (memoryAllocator) Allocate(_, most uint64) experimental.LinearMemory {
	if most == 0 {
		return &linearMemory{}
	}
	// Without access rights the reservation counts nowhere, not even where overcommitting is off.
	space, err := unix.Mmap(-1, 0, int(most), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		space = nil // every Reallocate fails: the instance cannot be made
	}
	return &linearMemory{space: space}
}

// linearMemory is one linear memory. A module that only imports it may free it too: the instance is closed as a
// whole.
type linearMemory struct {
	space  []byte // reserved
	usable int
}

// Reallocate makes the first size bytes usable. It returns nil if the system gives no more.
func (m *linearMemory) Reallocate(size uint64) []byte {
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
	}
}
