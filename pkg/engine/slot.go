package engine

// Slot is where a host package keeps its own state of each instance: what a guest's environment,
// preopened folders or open connections are. A Slot belongs to the [Linker] that made it and is safe for
// concurrent use.
type Slot[T any] struct{ index int }

// NewSlot reserves a slot in the instances of l. fresh makes the state of a new instance, before any
// guest code runs; it is called by the goroutine that instantiates.
func NewSlot[T any](l *Linker, fresh func(*Instance) T) Slot[T] {
	l.slots = append(l.slots, func(i *Instance) any { return fresh(i) })
	return Slot[T]{len(l.slots) - 1}
}

// Of returns the state of instance i.
func (s Slot[T]) Of(i *Instance) T { return i.slots[s.index].(T) }
