package serve

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const manifest = `spin_manifest_version = 2
[application]
name = "hello"
[[trigger.http]]
route = "/hello/..."
component = "hello"
[component.hello]
source = "c-hello.wasm"
`

// folder makes an app's folder with a guest.
func folder(t *testing.T, manifest string) string {
	t.Helper()
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../../shared"
	}
	wasm, err := os.ReadFile(filepath.Join(shared, "guests", "built", "c-hello.wasm"))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("guests are missing: ", err)
		}
		t.Skip("SKIPPED: set SHARED to the folder that holds guests/built: ", err)
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c-hello.wasm"), wasm, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "spin.toml"), []byte(manifest), 0o644))
	return dir
}

// console collects output and says when it has a match.
type console struct {
	want  *regexp.Regexp
	found chan string

	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf.Write(p)
	if m := c.want.FindSubmatch(c.buf.Bytes()); m != nil {
		select {
		case c.found <- string(m[1]):
		default:
		}
	}
	return len(p), nil
}

func TestServeAFolderUntilItIsToldToEnd(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := folder(t, manifest)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &console{want: regexp.MustCompile(`app "hello" listens on (http://\S+)[^/]+/hello/\.\.\. → hello`), found: make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, dir, "127.0.0.1:0", io.Discard, out) }()
	select {
	case err := <-ended:
		t.Fatal(err)
	case url := <-out.found:
		resp, err := http.Get(url + "/hello/x")
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "Hello from C!\n", string(body))
		http.DefaultClient.CloseIdleConnections()

		require.ErrorContains(t, run(t.Context(), dir, "127.0.0.1:0", io.Discard, io.Discard), "another process serves this folder")
	}
	cancel()
	require.NoError(t, <-ended)
}

func TestServeSaysWhatIsWrong(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := folder(t, manifest)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c-hello.wasm"), []byte("\x00asm\x0d\x00\x01\x00\x63\x00"), 0o644))
	require.EqualError(t, run(t.Context(), dir, "127.0.0.1:0", io.Discard, io.Discard),
		`app "hello": component "hello": decode at 0x8: unknown section id 0x63`)

	var stderr bytes.Buffer
	for _, args := range [][]string{{}, {"a", "b"}, {"--no", "a"}} {
		require.Equal(t, 2, Main(args, io.Discard, &stderr), args)
	}
	require.Contains(t, stderr.String(), "usage:")
	require.Equal(t, 1, Main([]string{filepath.Join(dir, "nothing")}, io.Discard, &stderr))
}
