package passthrough

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

var thing = engine.NewResource("thing", nil)

// things has each way in which a function may borrow.
func things() *engine.InterfaceType {
	return &engine.InterfaceType{
		Name:  "test:test/things@1.0.0",
		Types: []engine.NamedType{{Name: "thing", Resource: thing}, {Name: "alias", Resource: thing}},
		Funcs: []engine.NamedFunc{
			{Name: "[method]thing.name", Type: engine.FuncType{
				Params: []engine.Param{{Name: "self", Type: engine.Borrow(thing)}}, Result: engine.StringType,
			}},
			{Name: "names", Type: engine.FuncType{
				Params: []engine.Param{{Name: "n", Type: engine.U64}, {Name: "of", Type: engine.List(engine.Borrow(thing))}},
				Result: engine.List(engine.StringType),
			}},
			{Name: "make", Type: engine.FuncType{Params: []engine.Param{{Name: "name", Type: engine.StringType}}, Result: engine.Own(thing)}},
		},
	}
}

func newThings(t *testing.T) *Guest {
	return New(t, func(l *engine.Linker) {
		l.Define(engine.Interface{Type: things(), Funcs: map[string]engine.HostFunc{
			"[method]thing.name": func(c *engine.Call) error { c.PutString(engine.Rep[string](c)); return nil },
			"names": func(c *engine.Call) error {
				_ = c.U64()
				n := c.List()
				c.PutList(n)
				for range n {
					c.PutString(engine.Rep[string](c))
				}
				return nil
			},
			"make": func(c *engine.Call) error { c.PutOwn(c.Lifter.String()); return nil },
		}})
	}, things())
}

func TestHandlesPassThrough(t *testing.T) {
	t.Parallel()
	g := newThings(t)
	for range 2 {
		var made string
		require.NoError(t, g.Call("test:test/things", "make", func(c *engine.Call) { c.PutString("a") }, func(c *engine.Call) { made = engine.Rep[string](c) }))
		require.Equal(t, "a", made)
		require.NoError(t, g.Call("test:test/things", "[method]thing.name", func(c *engine.Call) { c.PutBorrow("b") }, func(c *engine.Call) {
			require.Equal(t, "b", c.Lifter.String())
		}))
		for n := range 3 {
			require.NoError(t, g.Call("test:test/things", "names", func(c *engine.Call) {
				c.PutU64(0)
				c.PutList(n)
				for range n {
					c.PutBorrow("c")
				}
			}, func(c *engine.Call) {
				require.Equal(t, n, c.List())
				for range n {
					require.Equal(t, "c", c.Lifter.String())
				}
			}))
		}
	}
}

func TestBugsOfTheCallerPanic(t *testing.T) {
	t.Parallel()
	g := newThings(t)
	require.PanicsWithValue(t, "BUG: value is a string, not a u32", func() {
		_ = g.Call("test:test/things", "make", func(c *engine.Call) { c.PutU32(1) }, nil)
	})
}
