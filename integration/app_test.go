package integration

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
	"github.com/stretchr/testify/require"
)

// form is how an app gets to a node.
type form struct {
	name  string
	image func(t *testing.T, dir string) registry.Image
}

// The forms that spin and docker push, of an app that is a folder with a spin.toml.
var (
	artifact = form{"artifact", func(t *testing.T, dir string) registry.Image {
		image, err := openApp(t, dir).Artifact(false)
		require.NoError(t, err)
		return image
	}}
	archived = form{"artifact with archives", func(t *testing.T, dir string) registry.Image {
		image, err := openApp(t, dir).Artifact(true)
		require.NoError(t, err)
		return image
	}}
	container = form{"container image", func(t *testing.T, dir string) registry.Image {
		image, err := registry.Container(dir)
		require.NoError(t, err)
		return image
	}}
)

func openApp(t *testing.T, dir string) *registry.App {
	t.Helper()
	app, err := registry.OpenApp(dir)
	require.NoError(t, err)
	return app
}

// instance is a running app.
type instance struct {
	id, url string
	log     string // file with the guest's output
}

// push pushes an image and pulls it to the node.
func (l *lab) push(t *testing.T, name string, image registry.Image) string {
	t.Helper()
	ref, err := l.registry.Push(t.Context(), name, image)
	require.NoError(t, err)
	require.NoError(t, l.Pull(t.Context(), ref))
	return ref
}

// start runs an image on the host's network with `ctr run`, and removes it at the end of the test.
func (l *lab) start(t *testing.T, ref, id string, flags ...string) *instance {
	t.Helper()
	i, err := l.tryStart(t, ref, id, flags...)
	require.NoError(t, err)
	return i
}

// tryStart is start for what may not start.
func (l *lab) tryStart(t *testing.T, ref, id string, flags ...string) (*instance, error) {
	t.Helper()
	addr := freeAddr(t)
	i := &instance{id: id, url: "http://" + addr, log: filepath.Join(t.TempDir(), "log")}
	flags = append([]string{
		"--detach", "--net-host", "--env", "SPIN_HTTP_LISTEN_ADDR=" + addr, "--log-uri", "file://" + i.log,
	}, flags...)
	l.removeAtEnd(t, id)
	_, err := l.Ctr(t.Context(), l.RunArgs(flags, ref, id)...)
	return i, err
}

// guestLog is what the guest wrote to its standard output and error.
func (i *instance) guestLog(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(i.log)
	require.NoError(t, err)
	return string(b)
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request to a path of the app.
func (i *instance) ask(t *testing.T, method, path, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, i.url+path, strings.NewReader(body))
	require.NoError(t, err)
	return send(t, req)
}

func (i *instance) get(t *testing.T, path string) answer {
	t.Helper()
	return i.ask(t, http.MethodGet, path, "")
}

func send(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// requireText checks that the answer is 200 with that text.
func (a answer) requireText(t *testing.T, want string) {
	t.Helper()
	require.Equal(t, want, a.body)
	require.Equal(t, http.StatusOK, a.status)
}

// freeAddr is an address that nothing listens on; nothing but the test uses this network.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

// writeApp writes the files of an app to a folder.
func writeApp(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
	}
	return dir
}

// guest reads a component that was built for the tests, from the folder SHARED.
func guest(t *testing.T, name string) string {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = filepath.Join(cache.Root(), "..", "shared")
	}
	b, err := os.ReadFile(filepath.Join(shared, "guests", "built", name+".wasm"))
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("no guests: set SHARED to a folder that has them: %v", err)
	}
	require.NoError(t, err)
	return string(b)
}
