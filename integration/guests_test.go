package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// guestApp is a component, the app around it, and what it answers.
type guestApp struct {
	name     string
	manifest string            // below [component.app]
	files    map[string]string // beside the manifest
	ask      func(t *testing.T, i *instance, upstream string)
}

var guestApps = []guestApp{
	{name: "c-hello", ask: func(t *testing.T, i *instance, _ string) {
		for _, path := range []string{"/", "/a/b?c=d"} {
			a := i.get(t, path)
			a.requireText(t, "Hello from C!\n")
			require.Equal(t, "text/plain", a.header.Get("Content-Type"))
		}
	}},
	{
		name: "c-spin",
		manifest: `key_value_stores = ["default"]
allowed_outbound_hosts = ["http://{{ upstream }}"]
variables = { greeting = "{{ greeting }}", upstream = "{{ upstream }}" }`,
		ask: askCSpin,
	},
	{
		name: "c-libc",
		manifest: `environment = { GREETING = "hi" }
files = [{ source = "hello.txt", destination = "/etc/hello.txt" }]`,
		files: map[string]string{"hello.txt": "a file"},
		ask: func(t *testing.T, i *instance, _ string) {
			const line = "hello from wasi-libc: /x env=hi file=a file t=1\n"
			i.get(t, "/x").requireText(t, line)
			// What the guest wrote takes another way than its answer.
			require.Eventually(t, func() bool { return strings.Contains(i.guestLog(t), "log: "+line) }, time.Minute, 10*time.Millisecond)
		},
	},
	{name: "rust-wasi-http", ask: askRust},
	{name: "go-raw", ask: func(t *testing.T, i *instance, _ string) {
		for range 3 {
			require.Regexp(t, `^hello from go: path=/x\?y n=1 env=\d+ go1\.\d+`, i.get(t, "/x?y").body)
		}
	}},
	{name: "js-hello", ask: func(t *testing.T, i *instance, _ string) {
		i.get(t, "/a?b").requireText(t, "hello from js: GET /a\n")
		i.ask(t, http.MethodPost, "/c", "ignored").requireText(t, "hello from js: POST /c\n")
	}},
	{
		name: "js-app",
		manifest: `key_value_stores = ["default"]
allowed_outbound_hosts = ["http://{{ upstream }}"]
variables = { greeting = "{{ greeting }}" }`,
		ask: func(t *testing.T, i *instance, upstream string) {
			i.get(t, "/kv").requireText(t, "n=1 keys=n\n")
			i.get(t, "/kv").requireText(t, "n=2 keys=n\n")
			i.get(t, "/var").requireText(t, "greeting=bonjour\n")
			i.get(t, "/fetch?u=http://"+upstream+"/up").requireText(t, "status=200 body=GET /up\n")
			a := i.ask(t, http.MethodPut, "/echo", strings.Repeat("echo ", 10_000))
			a.requireText(t, strings.Repeat("echo ", 10_000))
			require.Equal(t, "PUT", a.header.Get("X-Method"))
			require.Equal(t, http.StatusNotFound, i.get(t, "/").status)
		},
	},
}

func askCSpin(t *testing.T, i *instance, upstream string) {
	i.get(t, "/kv").requireText(t, "n=1\n")
	i.get(t, "/kv").requireText(t, "n=2\n")
	i.get(t, "/var").requireText(t, "bonjour\n")
	i.get(t, "/fetch").requireText(t, "upstream 200: GET /up")
	i.ask(t, http.MethodPost, "/echo", strings.Repeat("0123456789", 100_000)).requireText(t, strings.Repeat("0123456789", 100_000))

	var pattern strings.Builder
	for j := range 4096 {
		pattern.WriteByte(byte('a' + j%26))
	}
	i.get(t, "/big").requireText(t, strings.Repeat(pattern.String(), 256))

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.url+"/hdr", nil)
	require.NoError(t, err)
	req.Header.Set("X-Mine", "yes")
	req.Header.Set("Spin-Full-Url", "http://forged/")
	listed := send(t, req).body
	require.Contains(t, listed, "x-mine: yes\n")
	require.Contains(t, listed, "spin-full-url: "+i.url+"/hdr\n")
	require.NotContains(t, listed, "forged")

	for path, status := range map[string]int{"/none": 404, "/trap": 500, "/nores": 500} {
		a := i.get(t, path)
		require.Equal(t, status, a.status, path)
		require.Equal(t, status == 500, a.body == "", path)
	}
}

func askRust(t *testing.T, i *instance, _ string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.url+"/a?b=c", strings.NewReader("body"))
	require.NoError(t, err)
	req.Header.Set("X-Mine", "yes")
	a := send(t, req)
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, "4", a.header.Get("X-Body-Len"))
	require.Regexp(t, `^Method::Post /a\?b=c\n`, a.body)
	require.Contains(t, a.body, "x-mine: yes\n")
	require.Contains(t, a.body, "spin-raw-component-route: /...\n")
	require.True(t, strings.HasSuffix(a.body, "\nbody"))
	require.Equal(t, http.StatusTeapot, i.get(t, "/teapot").status)
}

func guestNamed(name string) guestApp {
	for _, g := range guestApps {
		if g.name == name {
			return g
		}
	}
	panic("BUG: no guest " + name)
}

const guestManifest = `spin_manifest_version = 2

[application]
name = %[1]q

[variables]
greeting = { default = "bonjour" }
upstream = { default = "127.0.0.1:1" }

[[trigger.http]]
route = "/..."
component = "app"

[component.app]
source = "%[1]s.wasm"
%[2]s
`

func (g guestApp) write(t *testing.T) string {
	t.Helper()
	files := map[string]string{"spin.toml": fmt.Sprintf(guestManifest, g.name, g.manifest), g.name + ".wasm": guest(t, g.name)}
	for name, text := range g.files {
		files[name] = text
	}
	return writeApp(t, files)
}

func TestGuests(t *testing.T) {
	l := newLab(t)
	upstream := startUpstream(t)
	for _, g := range guestApps {
		for _, f := range []form{artifact, container} {
			id := strings.ReplaceAll(g.name+"-"+f.name, " ", "-")
			t.Run(id, func(t *testing.T) {
				i := l.start(t, l.push(t, id, f.image(t, g.write(t))), id, "--env", "SPIN_VARIABLE_UPSTREAM="+upstream)
				g.ask(t, i, upstream)
				l.requireEnd(t, id, "SIGTERM", 0)
			})
		}
	}
}

func TestArchivedFiles(t *testing.T) {
	l := newLab(t)
	g := guestNamed("c-libc")
	g.ask(t, l.start(t, l.push(t, g.name, archived.image(t, g.write(t))), g.name), "")
}

// A guest that never returns answers nothing, and the container ends all the same.
func TestLoopingGuest(t *testing.T) {
	l := newLab(t)
	g := guestNamed("c-spin")
	i := l.start(t, l.push(t, g.name, artifact.image(t, g.write(t))), g.name)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url+"/loop", nil)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	l.requireEnd(t, g.name, "SIGKILL", 137)
}

// requireEnd sends a signal to the container's task and checks the exit code with which it ends.
func (l *lab) requireEnd(t *testing.T, id, signal string, code int) {
	t.Helper()
	_, err := l.Ctr(t.Context(), "task", "kill", "--signal", signal, id)
	require.NoError(t, err)
	l.requireStopped(t, id)
	got, err := l.DeleteTask(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, code, got, "exit code")
}

// startUpstream starts a server that answers with what it was asked, and returns its address.
func startUpstream(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
