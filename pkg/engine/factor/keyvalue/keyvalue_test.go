package keyvalue

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/passthrough"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// guest calls the functions of fermyon:spin/key-value.
type guest struct {
	*passthrough.Guest
	t *testing.T
}

func newGuest(t *testing.T, s *Stores, labels ...string) guest {
	t.Helper()
	return guest{passthrough.New(t, func(l *engine.Linker) {
		require.NoError(t, s.Link(l, componentWith(labels...)))
	}, keyValueType()), t}
}

func newStores(t *testing.T, dir string) *Stores {
	t.Helper()
	s, err := New(&lockedapp.App{}, Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func componentWith(labels ...string) *lockedapp.Component {
	return &lockedapp.Component{ID: "shop", Metadata: lockedapp.ComponentMetadata{KeyValueStores: labels}}
}

func (g guest) call(name string, params, result func(*engine.Call)) error {
	return g.Call("fermyon:spin/key-value", name, params, result)
}

// open opens a store, or returns the case of the error.
func (g guest) open(label string) (s *store, failed int) {
	require.NoError(g.t, g.call("[static]store.open", func(c *engine.Call) { c.PutString(label) }, func(c *engine.Call) {
		if c.Result() {
			s = engine.Rep[*store](c)
		} else {
			failed = c.Case()
		}
	}))
	return s, failed
}

// method calls a method with strings and returns the text of its error, or reads its result.
func (g guest) method(s *store, name string, args []string, result func(*engine.Call)) (failed string) {
	require.NoError(g.t, g.call("[method]store."+name, func(c *engine.Call) {
		c.PutBorrow(s)
		for i, arg := range args {
			if i == 0 {
				c.PutString(arg)
			} else {
				c.PutBytes([]byte(arg))
			}
		}
	}, func(c *engine.Call) {
		if !c.Result() {
			require.Equal(g.t, errorOther, c.Case())
			failed = c.String()
		} else if result != nil {
			result(c)
		}
	}))
	return failed
}

func TestStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := newGuest(t, newStores(t, dir), "default")
	s, _ := g.open("default")
	require.NotNil(t, s)
	get := func(key string) (value string, found bool) {
		require.Empty(t, g.method(s, "get", []string{key}, func(c *engine.Call) {
			if found = c.Option(); found {
				value = string(c.Bytes())
			}
		}))
		return value, found
	}
	exists := func(key string) (found bool) {
		require.Empty(t, g.method(s, "exists", []string{key}, func(c *engine.Call) { found = c.Bool() }))
		return found
	}
	_, found := get("k")
	require.False(t, found)
	require.False(t, exists("k"))
	require.Empty(t, g.method(s, "set", []string{"k", "v"}, nil))
	require.Empty(t, g.method(s, "set", []string{"empty", ""}, nil))
	value, found := get("k")
	require.True(t, found)
	require.Equal(t, "v", value)
	value, found = get("empty")
	require.True(t, found)
	require.Empty(t, value)
	require.True(t, exists("k"))
	var keys []string
	require.Empty(t, g.method(s, "get-keys", nil, func(c *engine.Call) {
		for range c.List() {
			keys = append(keys, c.String())
		}
	}))
	slices.Sort(keys)
	require.Equal(t, []string{"empty", "k"}, keys)
	require.Empty(t, g.method(s, "delete", []string{"k"}, nil))
	require.Empty(t, g.method(s, "delete", []string{"k"}, nil))
	require.False(t, exists("k"))

	long := strings.Repeat("k", maxKeyBytes+1)
	for name, args := range map[string][]string{"get": {long}, "set": {long, ""}, "delete": {long}, "exists": {long}} {
		require.Contains(t, g.method(s, name, args, nil), "a key of 8193 bytes", name)
	}
	require.FileExists(t, filepath.Join(dir, fileName))
}

func TestComponentsShareTheStore(t *testing.T) {
	t.Parallel()
	stores := newStores(t, "")
	a, b := newGuest(t, stores, "default"), newGuest(t, stores, "default")
	s, _ := a.open("default")
	require.Empty(t, a.method(s, "set", []string{"k", "v"}, nil))
	s, _ = b.open("default")
	require.Empty(t, b.method(s, "get", []string{"k"}, func(c *engine.Call) {
		require.True(t, c.Option())
		require.Equal(t, "v", string(c.Bytes()))
	}))
}

func TestOpenIsDeniedUnlessGranted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stores := newStores(t, dir)
	_, failed := newGuest(t, stores).open("default")
	require.Equal(t, errorAccessDenied, failed)
	g := newGuest(t, stores, "default")
	for _, label := range []string{"", "other", "Default", "default\x00"} {
		_, failed = g.open(label)
		require.Equal(t, errorAccessDenied, failed, "%q", label)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "nothing is opened before a guest opens a store")
}

func TestLinkRefusesOtherStores(t *testing.T) {
	t.Parallel()
	err := newStores(t, "").Link(new(engine.Linker), componentWith("default", "cache"))
	require.EqualError(t, err, `key-value store "cache": only "default" is supported`)
}

func TestStoreTableFills(t *testing.T) {
	t.Parallel()
	g := newGuest(t, newStores(t, ""), "default")
	stores := make([]*store, maxOpenStores)
	for i := range stores {
		stores[i], _ = g.open("default")
		require.NotNil(t, stores[i])
	}
	s, failed := g.open("default")
	require.Nil(t, s)
	require.Equal(t, errorStoreTableFull, failed)
	stores[0].close()
	s, _ = g.open("default")
	require.NotNil(t, s)
}

func TestUnusableFolderIsAnErrorOfOpen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	g := newGuest(t, newStores(t, dir), "default")
	require.NoError(t, g.call("[static]store.open", func(c *engine.Call) { c.PutString("default") }, func(c *engine.Call) {
		require.False(t, c.Result())
		require.Equal(t, errorOther, c.Case())
		require.Contains(t, c.String(), "open key-value store: statfs")
	}))
	require.NoError(t, os.Mkdir(dir, 0o700))
	s, _ := g.open("default")
	require.NotNil(t, s, "the next use tries again")
}

func TestRequestThatEndsEndsItsInstance(t *testing.T) {
	t.Parallel()
	g := newGuest(t, newStores(t, ""), "default")
	s, _ := g.open("default")
	var cancel context.CancelFunc
	g.Context, cancel = context.WithCancel(g.Context)
	cancel()
	err := g.call("[method]store.exists", func(c *engine.Call) { c.PutBorrow(s); c.PutString("k") }, nil)
	require.ErrorIs(t, err, context.Canceled)
}
