package wasi

import (
	"context"
	"io"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

func (h *Host) getEnvironment(c *engine.Call) error {
	c.PutList(len(h.env))
	for _, v := range h.env {
		c.PutString(v[0])
		c.PutString(v[1])
	}
	return nil
}

func (h *Host) getArguments(c *engine.Call) error {
	c.PutList(len(h.cfg.Args))
	for _, a := range h.cfg.Args {
		c.PutString(a)
	}
	return nil
}

// initialCwd is none: libraries then start in "/".
func initialCwd(c *engine.Call) error {
	c.PutNone()
	return nil
}

func exit(c *engine.Call) error {
	if c.Result() {
		return &engine.ExitError{Code: 0}
	}
	return &engine.ExitError{Code: 1}
}

func exitWithCode(c *engine.Call) error {
	return &engine.ExitError{Code: uint32(c.U8())}
}

func (h *Host) getStdin(c *engine.Call) error {
	var src Source = noInput{}
	if h.cfg.Stdin != nil {
		src = h.cfg.Stdin(c.Instance())
	}
	c.PutOwn(NewInput(c.Context(), src))
	return nil
}

// getOutput is get-stdout or get-stderr.
func getOutput(w io.Writer) engine.HostFunc {
	if w == nil {
		w = io.Discard
	}
	return func(c *engine.Call) error {
		c.PutOwn(NewOutput(c.Context(), stdio{w}))
		return nil
	}
}

// noTerminal says of any of the standard streams that it is not a terminal.
func noTerminal(c *engine.Call) error {
	c.PutNone()
	return nil
}

// noInput is a [Source] without bytes.
type noInput struct{ Always }

func (noInput) Read(context.Context, []byte) (int, error) { return 0, io.EOF }
func (noInput) Close()                                    {}

// stdio is the [Sink] of standard output and error.
type stdio struct{ w io.Writer }

func (s stdio) Write(ctx context.Context, p []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.w.Write(p)
	return err
}

func (stdio) Flush(context.Context) error { return nil }
func (stdio) Close()                      {}
