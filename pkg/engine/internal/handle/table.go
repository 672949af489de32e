// Package handle holds the handle table of a component instance: the own and borrow handles through
// which core code names resources.
//
// Source: Table and ResourceHandle of
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/canonical-abi/definitions.py.
//
// Differences from the specification:
//   - A handle's representation is a core i32 or, for a resource of the host, a Go value.
//   - A table holds 2^20 handles, not 2^28 (Table.MAX_LENGTH).
//   - A handle that the host lends for one call is dropped with the call's scope.
package handle

import (
	"errors"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// MaxLength is the greatest index of a table. A handle costs the host 48 bytes that no guest memory bounds.
const MaxLength = 1<<20 - 1

// The faults of table operations; each is a trap of the guest that caused it.
var (
	ErrUnknown   = errors.New("unknown handle index")
	ErrWrongType = errors.New("handle index used with the wrong type")
	ErrLent      = errors.New("cannot remove owned resource while borrowed")
	ErrNotOwn    = errors.New("cannot lift own resource from a borrow")
	ErrFull      = errors.New("handle table is full")
)

// Handle is one entry of a table.
type Handle struct {
	Resource *component.Resource
	// Rep is the representation of a guest's resource, Host that of a host's.
	Rep  uint32
	Host any
	// Own says whether the handle owns the resource.
	Own bool
	// Lends counts the calls that borrow the resource through this handle now.
	Lends uint32
	// Borrows is the open count of the call that lent a borrow handle; nil for an own handle.
	Borrows *uint32
}

// Table is a handle table. The zero value is empty and ready. It is not safe for concurrent use.
type Table struct {
	entries []Handle // index 0 is never used; a free entry has a nil Resource
	free    []uint32
}

// Add stores h and returns its index, which is never 0.
func (t *Table) Add(h Handle) (uint32, error) {
	if n := len(t.free); n > 0 {
		i := t.free[n-1]
		t.free = t.free[:n-1]
		t.entries[i] = h
		return i, nil
	}
	if len(t.entries) == 0 {
		t.entries = make([]Handle, 1, 16)
	}
	if len(t.entries) > MaxLength {
		return 0, ErrFull
	}
	t.entries = append(t.entries, h)
	return uint32(len(t.entries) - 1), nil
}

// Get returns the handle at i, which must be of type r. The pointer is valid until the next Add.
func (t *Table) Get(i uint32, r *component.Resource) (*Handle, error) {
	if i >= uint32(len(t.entries)) || t.entries[i].Resource == nil {
		return nil, ErrUnknown
	}
	h := &t.entries[i]
	if h.Resource != r {
		return nil, ErrWrongType
	}
	return h, nil
}

// Remove takes the handle at i, which must be of type r and not be lent, out of the table.
func (t *Table) Remove(i uint32, r *component.Resource) (Handle, error) {
	h, err := t.Get(i, r)
	if err != nil {
		return Handle{}, err
	}
	if h.Lends != 0 {
		return Handle{}, ErrLent
	}
	out := *h
	*h = Handle{}
	t.free = append(t.free, i)
	return out, nil
}

// RemoveOwn is [Table.Remove] of a handle that must own its resource.
func (t *Table) RemoveOwn(i uint32, r *component.Resource) (Handle, error) {
	if h, err := t.Get(i, r); err != nil {
		return Handle{}, err
	} else if !h.Own {
		return Handle{}, ErrNotOwn
	}
	return t.Remove(i, r)
}

// Drain empties the table and calls f with each handle that was in it, last added first where no index
// was reused.
func (t *Table) Drain(f func(Handle)) {
	entries := t.entries
	t.entries, t.free = t.entries[:0], t.free[:0]
	for i := len(entries) - 1; i > 0; i-- {
		if entries[i].Resource != nil {
			f(entries[i])
		}
	}
	clear(entries)
}

// Len returns the number of handles in the table.
func (t *Table) Len() int {
	if len(t.entries) == 0 {
		return 0
	}
	return len(t.entries) - 1 - len(t.free)
}
