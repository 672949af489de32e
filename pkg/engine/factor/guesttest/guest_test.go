package guesttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/keyvalue"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/outbound"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/variables"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// guest is a ready-built guest. The guests with capabilities have the same routes: /kv counts in the store, /var
// answers the variable greeting, /fetch what the authority in the variable upstream answers.
type guest struct {
	engine *engine.Engine
	c      *engine.Component
}

func load(t *testing.T, name string) guest {
	t.Helper()
	wasm := spectest.Guest(t, name)
	e, err := engine.New(t.Context(), engine.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(context.Background())) })
	c, err := e.Compile(t.Context(), wasm)
	require.NoError(t, err)
	return guest{e, c}
}

// run serves g as the one component of an app, with what component grants it.
func (g guest) run(t *testing.T, dir string, env map[string]string, component lockedapp.Component) (url string, stop func()) {
	t.Helper()
	component.ID = "shop"
	app := &lockedapp.App{
		Variables:  map[string]lockedapp.Variable{"name": {Default: new("world")}, "upstream": {}, "allowed": {Default: new("")}},
		Components: []lockedapp.Component{component},
	}
	vars, err := variables.New(app, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	require.NoError(t, err)
	stores, err := keyvalue.New(app, keyvalue.Config{Dir: dir})
	require.NoError(t, err)
	out, err := outbound.New(app, vars, outbound.Config{})
	require.NoError(t, err)
	client, err := out.Client(&component)
	require.NoError(t, err)

	l := g.engine.NewLinker()
	wasi.Add(l, wasi.Config{})
	host := wasihttp.Add(l, wasihttp.Config{Client: client})
	for _, f := range []factor.Factor{vars, stores} {
		require.NoError(t, f.Link(l, &component))
	}
	pre, err := l.Link(g.c)
	require.NoError(t, err)
	proxy, err := host.Proxy(pre)
	require.NoError(t, err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := pre.Instantiate(r.Context())
		if err == nil {
			err = errors.Join(proxy.Handle(i, w, r), i.Close())
		}
		if err != nil {
			t.Log(err) // a trap of a guest that was denied something
		}
	}))
	stop = sync.OnceFunc(func() {
		s.Close()
		require.NoError(t, errors.Join(out.Close(), stores.Close(), vars.Close()))
	})
	t.Cleanup(stop)
	return s.URL, stop
}

// get returns the status and body of an answer.
func get(t *testing.T, url string) string {
	t.Helper()
	p, err := http.Get(url)
	require.NoError(t, err)
	body, err := io.ReadAll(p.Body)
	require.NoError(t, err)
	require.NoError(t, p.Body.Close())
	return fmt.Sprintf("%d %s", p.StatusCode, strings.TrimSpace(string(body)))
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %q", r.URL, r.Header)
	}))
	t.Cleanup(upstream.Close)
	for _, tt := range []struct {
		name                           string
		greeting, count, fetched       string // granted
		noGreeting, noStore, noRequest string // denied
	}{
		{
			"c-spin",
			"200 hello, Spin", "200 n=%d", `200 upstream 200: /up map[]`,
			`500 error 1 the component has no variable "greeting"`, "500 kv open error 2", "502 response error 15",
		},
		{
			"js-app",
			"200 greeting=hello, Spin", "200 n=%d keys=n", `200 status=200 body=/up map[`,
			`500 err={"tag":"undefined","val":"the component has no variable \"greeting\""}`, "500", "500",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := load(t, tt.name)
			dir := t.TempDir()
			fetch := "/fetch?u=" + upstream.URL + "/up"
			env := map[string]string{
				"SPIN_VARIABLE_UPSTREAM": strings.TrimPrefix(upstream.URL, "http://"),
				"SPIN_VARIABLE_ALLOWED":  upstream.URL,
				"SPIN_VARIABLE_NAME":     "Spin",
			}
			granted := lockedapp.Component{
				Config: map[string]string{"greeting": "hello, {{ name }}", "upstream": "{{ upstream }}"},
				Metadata: lockedapp.ComponentMetadata{
					KeyValueStores: []string{"default"}, AllowedOutboundHosts: []string{"{{ allowed }}"},
				},
			}
			url, stop := g.run(t, dir, env, granted)
			require.Equal(t, tt.greeting, get(t, url+"/var"))
			require.Contains(t, get(t, url+"/kv"), fmt.Sprintf(tt.count, 1))
			require.Contains(t, get(t, url+"/kv"), fmt.Sprintf(tt.count, 2))
			require.Contains(t, get(t, url+fetch), tt.fetched)
			stop()

			url, stop = g.run(t, dir, env, granted)
			require.Contains(t, get(t, url+"/kv"), fmt.Sprintf(tt.count, 3), "the store outlives the process")
			stop()

			delete(granted.Config, "greeting")
			granted.Metadata = lockedapp.ComponentMetadata{}
			url, _ = g.run(t, dir, env, granted)
			require.Equal(t, tt.noGreeting, get(t, url+"/var"))
			require.Contains(t, get(t, url+"/kv"), tt.noStore)
			require.Contains(t, get(t, url+fetch), tt.noRequest)
		})
	}
}
