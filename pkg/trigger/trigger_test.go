package trigger

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// fake is a Trigger that writes down what is done to it. fail, if not nil, makes Serve return without being told.
type fake struct {
	log       chan<- string
	name      string
	listenErr error
	fail      <-chan error
}

func (f *fake) Listen(context.Context) error {
	f.log <- f.name + " listens"
	return f.listenErr
}

func (f *fake) Serve(ctx context.Context) error {
	defer func() { f.log <- f.name + " ended" }()
	select {
	case err := <-f.fail:
		return err
	case <-ctx.Done():
		return nil
	}
}

func collect(log chan string) []string {
	close(log)
	var lines []string
	for line := range log {
		lines = append(lines, line)
	}
	return lines
}

func TestRun(t *testing.T) {
	t.Parallel()
	fault := errors.New("broken")

	t.Run("serves until the context ends", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		log := make(chan string, 9)
		err := Run(ctx, []Trigger{&fake{log: log, name: "a"}, &fake{log: log, name: "b"}}, func() { log <- "ready"; cancel() })
		require.NoError(t, err)
		lines := collect(log)
		require.Equal(t, []string{"a listens", "b listens", "ready"}, lines[:3])
		require.ElementsMatch(t, []string{"a ended", "b ended"}, lines[3:])
	})

	t.Run("one that ends ends the others", func(t *testing.T) {
		t.Parallel()
		fail := make(chan error, 1)
		log := make(chan string, 9)
		err := Run(t.Context(), []Trigger{&fake{log: log, name: "a"}, &fake{log: log, name: "b", fail: fail}}, func() { fail <- fault })
		require.ErrorIs(t, err, fault)
		require.Equal(t, []string{"a listens", "b listens", "b ended", "a ended"}, collect(log))
	})

	t.Run("one that cannot listen releases those before it", func(t *testing.T) {
		t.Parallel()
		log := make(chan string, 9)
		err := Run(t.Context(), []Trigger{
			&fake{log: log, name: "a"}, &fake{log: log, name: "b", listenErr: fault}, &fake{log: log, name: "c"},
		}, func() { log <- "ready" })
		require.ErrorIs(t, err, fault)
		require.Equal(t, []string{"a listens", "b listens", "a ended"}, collect(log))
	})
}
