package task

import (
	"context"

	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/log"
)

// maxQueued is how many events wait for a containerd that does not answer before calls that cause events wait, too. Publishing gives
// up after seconds, so they do not wait for long.
const maxQueued = 128

// queue publishes events in order, and not while a call is answered.
type queue struct {
	events  chan any
	stop    chan struct{} // closed by close
	stopped chan struct{} // closed when all is published
}

func newQueue(ctx context.Context, publish func(ctx context.Context, topic string, event any) error) *queue {
	q := &queue{events: make(chan any, maxQueued), stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() { // ends with close
		defer close(q.stopped)
		for event := range q.all {
			if err := publish(ctx, runtime.GetTopic(event), event); err != nil {
				log.G(ctx).WithError(err).Error("task: publish event")
			}
		}
	}()
	return q
}

// all yields all events that are sent before close.
func (q *queue) all(yield func(any) bool) {
	for {
		select {
		case e := <-q.events:
			yield(e)
			continue
		case <-q.stop:
		}
		select {
		case e := <-q.events:
			yield(e)
		default:
			return
		}
	}
}

// send queues an event; after close it is dropped.
func (q *queue) send(event any) {
	select {
	case q.events <- event:
	case <-q.stop:
	}
}

// close returns when all events are published. It is called once.
func (q *queue) close() {
	close(q.stop)
	<-q.stopped
}
