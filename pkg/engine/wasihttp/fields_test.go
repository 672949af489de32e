package wasihttp

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// headerResult calls a function that returns a result<_, header-error>.
func (g *script) headerResult(name string, params func(*engine.Call)) (e headerError) {
	g.t.Helper()
	g.call(name, params, func(c *engine.Call) {
		e = noError
		if !c.Result() {
			e = headerError(c.Case())
		}
	})
	return e
}

func (g *script) append(f *fields, name, value string) headerError {
	g.t.Helper()
	return g.headerResult("[method]fields.append", func(c *engine.Call) {
		c.PutBorrow(f)
		c.PutString(name)
		c.PutBytes([]byte(value))
	})
}

func (g *script) setField(f *fields, name string, values ...string) headerError {
	g.t.Helper()
	return g.headerResult("[method]fields.set", func(c *engine.Call) {
		c.PutBorrow(f)
		c.PutString(name)
		c.PutList(len(values))
		for _, v := range values {
			c.PutBytes([]byte(v))
		}
	})
}

func (g *script) delete(f *fields, name string) headerError {
	g.t.Helper()
	return g.headerResult("[method]fields.delete", func(c *engine.Call) { c.PutBorrow(f); c.PutString(name) })
}

func (g *script) getField(f *fields, name string) (out []string) {
	g.t.Helper()
	g.call("[method]fields.get", func(c *engine.Call) { c.PutBorrow(f); c.PutString(name) }, func(c *engine.Call) {
		for range c.List() {
			out = append(out, string(c.Bytes()))
		}
	})
	return out
}

func (g *script) has(f *fields, name string) (has bool) {
	g.t.Helper()
	g.call("[method]fields.has", func(c *engine.Call) { c.PutBorrow(f); c.PutString(name) }, func(c *engine.Call) { has = c.Bool() })
	return has
}

func TestFieldsKeepOrderAndCase(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	f := own[*fields](g, "[constructor]fields", nil)
	require.Empty(t, g.entries(f))
	require.Equal(t, noError, g.append(f, "B", "1"))
	require.Equal(t, noError, g.append(f, "a", "2"))
	require.Equal(t, noError, g.append(f, "b", "\xff\x80 \t"))
	require.Equal(t, []string{"B", "1", "a", "2", "b", "\xff\x80 \t"}, g.entries(f))
	require.Equal(t, []string{"1", "\xff\x80 \t"}, g.getField(f, "b"))
	require.True(t, g.has(f, "A"))
	require.False(t, g.has(f, "c"))
	require.Empty(t, g.getField(f, "not a name"))
	require.False(t, g.has(f, "not a name"))

	clone := own[*fields](g, "[method]fields.clone", self(f))
	require.Equal(t, noError, g.append(f, "c", "original"))
	require.Equal(t, noError, g.append(clone, "c", "clone"))
	require.Equal(t, []string{"original"}, g.getField(f, "c"))
	require.Equal(t, []string{"clone"}, g.getField(clone, "c"))

	require.Equal(t, noError, g.setField(f, "B", "3", "4"))
	require.Equal(t, []string{"a", "2", "c", "original", "B", "3", "B", "4"}, g.entries(f))
	require.Equal(t, noError, g.setField(f, "b"))
	require.False(t, g.has(f, "B"))
	require.Equal(t, noError, g.delete(f, "A"))
	require.Equal(t, noError, g.delete(f, "absent"))
	require.Equal(t, []string{"c", "original"}, g.entries(f))
	require.Equal(t, []string{"B", "1", "a", "2", "b", "\xff\x80 \t", "c", "clone"}, g.entries(clone))

	f.drop()
	clone.drop()
	require.Zero(t, g.state().held)
}

func TestFieldsRefuse(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	f := g.fields("x", "1")
	for _, tc := range []struct {
		name, value string
		want        headerError
	}{
		{"ok-!#$%&'*+.^_`|~09AZaz", "", noError},
		{"", "v", invalidSyntax},
		{"a b", "v", invalidSyntax},
		{"a:", "v", invalidSyntax},
		{"a\r\nb", "v", invalidSyntax},
		{"é", "v", invalidSyntax},
		{"x", "a\nb", invalidSyntax},
		{"x", "a\rb", invalidSyntax},
		{"x", "a\x00b", invalidSyntax},
		{"x", "a\x7fb", invalidSyntax},
		{"Connection", "close", forbidden},
		{"HOST", "a", forbidden},
		{"keep-alive", "a", forbidden},
		{"proxy-connection", "a", forbidden},
		{"Transfer-Encoding", "chunked", forbidden},
		{"upgrade", "h2c", forbidden},
		{"te", "trailers", noError},
		{"trailer", "x", noError},
	} {
		require.Equal(t, tc.want, g.append(f, tc.name, tc.value), "append %q %q", tc.name, tc.value)
		require.Equal(t, tc.want, g.setField(f, tc.name, "ok", tc.value), "set %q %q", tc.name, tc.value)
		require.Equal(t, tc.want, g.headerResult("[static]fields.from-list", func(c *engine.Call) {
			putEntries(c, []string{"a", "1", tc.name, tc.value})
		}), "from-list %q %q", tc.name, tc.value)
	}
	require.Equal(t, invalidSyntax, g.delete(f, "a b"))
	require.Equal(t, forbidden, g.delete(f, "Host"))
	require.Equal(t, []string{"ok", ""}, g.getField(f, "ok-!#$%&'*+.^_`|~09AZaz"))
}

func TestHeadersOfMessagesAreImmutable(t *testing.T) {
	t.Parallel()
	g := newScript(t, Config{})
	p := g.response(200, "a", "1")
	h := own[*fields](g, "[method]outgoing-response.headers", self(p))
	require.Equal(t, immutable, g.append(h, "b", "2"))
	require.Equal(t, immutable, g.setField(h, "a", "2"))
	require.Equal(t, immutable, g.delete(h, "a"))
	require.Equal(t, forbidden, g.append(h, "host", "2"))
	require.Equal(t, invalidSyntax, g.append(h, "a b", "2"))
	require.Equal(t, []string{"a", "1"}, g.entries(h))
	clone := own[*fields](g, "[method]fields.clone", self(h))
	require.Equal(t, noError, g.append(clone, "b", "2"))
	require.Equal(t, []string{"a", "1", "b", "2"}, g.entries(clone))
	require.Equal(t, []string{"a", "1"}, g.entries(h))
}

func TestFieldsAreBounded(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", maxFieldBytes/2)
	for name, grow := range map[string]func(g *script) error{
		"bytes by append": func(g *script) error {
			f := g.fields("a", half)
			return g.Call("wasi:http/types", "[method]fields.append", func(c *engine.Call) {
				c.PutBorrow(f)
				c.PutString("a")
				c.PutBytes([]byte(half))
			}, nil)
		},
		"bytes by set": func(g *script) error {
			f := g.fields()
			return g.Call("wasi:http/types", "[method]fields.set", func(c *engine.Call) {
				c.PutBorrow(f)
				c.PutString("a")
				c.PutList(2)
				c.PutBytes([]byte(half))
				c.PutBytes([]byte(half))
			}, nil)
		},
		"count by append": func(g *script) error {
			f := g.fields()
			for range maxFields {
				require.Equal(g.t, noError, g.append(f, "a", ""))
			}
			return g.Call("wasi:http/types", "[method]fields.append", func(c *engine.Call) {
				c.PutBorrow(f)
				c.PutString("a")
				c.PutBytes(nil)
			}, nil)
		},
		"count by from-list": func(g *script) error {
			return g.Call("wasi:http/types", "[static]fields.from-list", func(c *engine.Call) {
				putEntries(c, make([]string, 2*(maxFields+1)))
			}, nil)
		},
		"clones": func(g *script) error {
			f := g.fields("a", half)
			for range maxHeld / len(half) {
				if err := g.Call("wasi:http/types", "[method]fields.clone", self(f), func(c *engine.Call) { c.Handle() }); err != nil {
					return err
				}
			}
			return nil
		},
		"empty ones": func(g *script) error {
			for range maxHeld/resourceOverhead + 1 {
				if err := g.Call("wasi:http/types", "[constructor]fields", nil, func(c *engine.Call) { c.Handle() }); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.ErrorAs(t, grow(newScript(t, Config{})), new(*engine.Trap))
		})
	}
}

// FuzzNamesAndValues checks what passes for the name or the value of a header: nothing that ends a line, or that
// reads differently on the other side.
func FuzzNamesAndValues(f *testing.F) {
	f.Add("content-type", "text/plain")
	f.Add("x\r\ny", "a\nb")
	f.Add("é", "\xff")
	f.Fuzz(func(t *testing.T, name, value string) {
		if checkName(name) == noError {
			require.NotEmpty(t, name)
			require.NotContains(t, name, ":")
			for _, b := range []byte(name) {
				require.True(t, b > ' ' && b < 0x7f, "%q", name)
			}
		}
		if validValue([]byte(value)) {
			require.False(t, strings.ContainsAny(value, "\r\n\x00"), "%q", value)
		}
	})
}
