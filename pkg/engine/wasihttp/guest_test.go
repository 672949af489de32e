package wasihttp_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
)

// guest is a ready-built guest, linked with everything that guests import.
type guest struct {
	pre   *engine.InstancePre
	proxy *wasihttp.Proxy
	// upstream is the value of each Spin variable.
	upstream atomic.Value
	// failed receives the errors of Handle.
	failed chan error
	// running counts requests: the end of the engine ends the memory of their guests.
	running sync.WaitGroup
}

// codeDir is the folder of machine code that all tests share.
var codeDir string

func TestMain(m *testing.M) {
	var err error
	if codeDir, err = os.MkdirTemp("", "wasihttp"); err != nil {
		panic(err)
	}
	status := m.Run()
	if err := os.RemoveAll(codeDir); err != nil {
		panic(err)
	}
	os.Exit(status)
}

// load links the guest name, whose requests client sends.
func load(t testing.TB, name string, client wasihttp.Client) *guest {
	t.Helper()
	wasm := spectest.Guest(t, name)
	e, err := engine.New(t.Context(), engine.Config{CacheDir: codeDir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(context.WithoutCancel(t.Context()))) })
	c, err := e.Compile(t.Context(), wasm)
	require.NoError(t, err)
	g := &guest{failed: make(chan error, 100)}
	g.upstream.Store("")
	t.Cleanup(g.running.Wait)
	l := e.NewLinker()
	wasi.Add(l, wasi.Config{})
	host := wasihttp.Add(l, wasihttp.Config{Client: client})
	g.defineSpin(l)
	g.pre, err = l.Link(c)
	require.NoError(t, err)
	g.proxy, err = host.Proxy(g.pre)
	require.NoError(t, err)
	return g
}

// defineSpin defines what the guests import of Spin: variables, and a key-value store that they do not use.
func (g *guest) defineSpin(l *engine.Linker) {
	failure := engine.Variant(
		engine.Param{Name: "invalid-name", Type: engine.StringType}, engine.Param{Name: "undefined", Type: engine.StringType},
		engine.Param{Name: "provider", Type: engine.StringType}, engine.Param{Name: "other", Type: engine.StringType},
	)
	l.Define(engine.Interface{
		Type: &engine.InterfaceType{
			Name:  "fermyon:spin/variables@2.0.0",
			Types: []engine.NamedType{{Name: "error", Type: failure}},
			Funcs: []engine.NamedFunc{{Name: "get", Type: engine.FuncType{
				Params: []engine.Param{{Name: "name", Type: engine.StringType}},
				Result: engine.Result(engine.StringType, failure),
			}}},
		},
		Funcs: map[string]engine.HostFunc{"get": func(c *engine.Call) error {
			c.PutOk()
			c.PutString(g.upstream.Load().(string))
			return nil
		}},
	})
	store := engine.NewResource("store", nil)
	storeFailure := engine.Variant(
		engine.Param{Name: "store-table-full"}, engine.Param{Name: "no-such-store"},
		engine.Param{Name: "access-denied"}, engine.Param{Name: "other", Type: engine.StringType},
	)
	self := engine.Param{Name: "self", Type: engine.Borrow(store)}
	key := engine.Param{Name: "key", Type: engine.StringType}
	value := engine.List(engine.U8)
	kv := &engine.InterfaceType{
		Name:  "fermyon:spin/key-value@2.0.0",
		Types: []engine.NamedType{{Name: "store", Resource: store}, {Name: "error", Type: storeFailure}},
		Funcs: []engine.NamedFunc{
			{Name: "[static]store.open", Type: engine.FuncType{
				Params: []engine.Param{{Name: "label", Type: engine.StringType}},
				Result: engine.Result(engine.Own(store), storeFailure),
			}},
			{Name: "[method]store.get", Type: engine.FuncType{
				Params: []engine.Param{self, key}, Result: engine.Result(engine.Option(value), storeFailure),
			}},
			{Name: "[method]store.set", Type: engine.FuncType{
				Params: []engine.Param{self, key, {Name: "value", Type: value}}, Result: engine.Result(nil, storeFailure),
			}},
			{Name: "[method]store.delete", Type: engine.FuncType{
				Params: []engine.Param{self, key}, Result: engine.Result(nil, storeFailure),
			}},
			{Name: "[method]store.exists", Type: engine.FuncType{
				Params: []engine.Param{self, key}, Result: engine.Result(engine.Bool, storeFailure),
			}},
			{Name: "[method]store.get-keys", Type: engine.FuncType{
				Params: []engine.Param{self}, Result: engine.Result(engine.List(engine.StringType), storeFailure),
			}},
		},
	}
	unused := map[string]engine.HostFunc{}
	for _, f := range kv.Funcs {
		unused[f.Name] = func(*engine.Call) error { return errors.New("no store") }
	}
	l.Define(engine.Interface{Type: kv, Funcs: unused})
}

// ServeHTTP is what a trigger does with a request.
func (g *guest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.running.Add(1)
	defer g.running.Done()
	i, err := g.pre.Instantiate(r.Context())
	if err != nil {
		g.failed <- err
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	head := &headWatch{ResponseWriter: w}
	err = g.proxy.Handle(i, head, r)
	if err := i.Close(); err != nil {
		g.failed <- err
	}
	if err == nil {
		return
	}
	g.failed <- err
	if _, late := errors.AsType[*wasihttp.LateError](err); late {
		return
	}
	if head.sent {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusInternalServerError)
}

// headWatch knows whether the head of a response was sent.
type headWatch struct {
	http.ResponseWriter
	sent bool
}

func (w *headWatch) WriteHeader(status int) {
	w.sent = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *headWatch) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serve serves g over HTTP/1.1.
func serve(t testing.TB, g *guest) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return s
}

// transport is a [wasihttp.Client] of net/http.
type transport struct{ *http.Transport }

func newTransport(t testing.TB) transport {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return transport{tr}
}

func (t transport) Send(r *http.Request, _ wasihttp.SendOptions) (*http.Response, error) {
	return t.RoundTrip(r)
}
