// Package trigger is what turns events into calls of a Spin app's components. Each type of trigger is a package below.
package trigger

import "context"

// Trigger listens for one kind of event and calls components.
type Trigger interface {
	// Listen acquires what events arrive on. After it the trigger is ready: an event that arrives from now on is served.
	// A trigger that listens must be served, if only with a context that has ended: Serve releases what Listen acquired.
	Listen(ctx context.Context) error
	// Serve calls components until ctx ends; then it takes no new event, waits for the calls in flight, however long
	// they take, and returns nil.
	Serve(ctx context.Context) error
}

// Run lets all triggers listen, calls ready, and serves until ctx ends and every call in flight is done. The first
// trigger that ends by itself ends the others, and its error is Run's.
func Run(ctx context.Context, triggers []Trigger, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, t := range triggers {
		if err := t.Listen(ctx); err != nil {
			cancel()
			serve(ctx, cancel, triggers[:i])
			return err
		}
	}
	ready()
	return serve(ctx, cancel, triggers)
}

// serve returns the first error of the triggers' Serve, after the last has returned.
func serve(ctx context.Context, cancel context.CancelFunc, triggers []Trigger) error {
	errs := make(chan error)
	for _, t := range triggers {
		// Ends with the trigger, which ends with ctx.
		go func() { errs <- t.Serve(ctx) }()
	}
	var first error
	for range triggers {
		if err := <-errs; first == nil {
			first = err
		}
		cancel()
	}
	return first
}
