package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
	"github.com/stretchr/testify/require"
)

// update makes TestErrors write down what ctr says instead of comparing it.
var update = flag.Bool("update", false, "write testdata/errors.txt anew")

// brokenApp is an app that does not start, for a reason that a user can cause. What ctr says of it is in testdata/errors.txt.
type brokenApp struct {
	name   string
	image  func(t *testing.T) registry.Image
	damage func(t *testing.T, l *lab, image registry.Image) // on the node, before the start; or nil
	flags  []string
}

// edit is the app of c-hello with its manifest edited: old becomes new.
func edit(f form, old, new string) func(t *testing.T) registry.Image {
	return func(t *testing.T) registry.Image {
		manifest := fmt.Sprintf(guestManifest, "c-hello", "")
		require.Contains(t, manifest, old)
		return f.image(t, writeApp(t, map[string]string{
			"spin.toml": strings.Replace(manifest, old, new, 1), "c-hello.wasm": guest(t, "c-hello"),
		}))
	}
}

// withWasm is the app of c-hello with another component.
func withWasm(wasm func(t *testing.T) string) func(t *testing.T) registry.Image {
	return func(t *testing.T) registry.Image {
		return artifact.image(t, writeApp(t, map[string]string{
			"spin.toml": fmt.Sprintf(guestManifest, "c-hello", ""), "c-hello.wasm": wasm(t),
		}))
	}
}

// withLocked is the artifact of c-hello with its locked app edited: old becomes new.
func withLocked(old, new string) func(t *testing.T) registry.Image {
	return func(t *testing.T) registry.Image {
		image := artifact.image(t, guestNamed("c-hello").write(t))
		last := &image.Layers[len(image.Layers)-1]
		require.Contains(t, string(last.Bytes), old)
		last.Bytes = []byte(strings.Replace(string(last.Bytes), old, new, 1))
		return image
	}
}

// takenAddr is where the test itself listens.
const takenAddr = "127.0.0.1:18080"

var brokenApps = []brokenApp{
	{
		name:  "core module",
		image: withWasm(func(t *testing.T) string { return guest(t, "c-hello.core") }),
	},
	{
		name:  "not WebAssembly",
		image: withWasm(func(*testing.T) string { return strings.Repeat("not wasm ", 20) }),
	},
	{
		name:  "truncated component",
		image: withWasm(func(t *testing.T) string { return guest(t, "c-hello")[:3000] }),
	},
	{
		name:  "WASI 0.3",
		image: withWasm(func(t *testing.T) string { return guest(t, "c-p3") }),
	},
	{
		name: "component layer is missing",
		image: func(t *testing.T) registry.Image {
			image := artifact.image(t, guestNamed("c-hello").write(t))
			image.Layers = image.Layers[1:]
			return image
		},
	},
	{
		name:  "locked app that is no JSON",
		image: withLocked(`{"spin_lock_version"`, `{spin_lock_version`),
	},
	{
		name:  "locked app of a later version",
		image: withLocked(`"spin_lock_version":0`, `"spin_lock_version":7`),
	},
	{
		name:  "trigger of another type",
		image: withLocked(`"trigger_type":"http"`, `"trigger_type":"redis"`),
	},
	{
		name:  "trigger without its component",
		image: withLocked(`"component":"app"`, `"component":"other"`),
	},
	{
		name:  "route that is no text",
		image: edit(artifact, `route = "/..."`, `route = 7`),
	},
	{
		name:  "variable without a value",
		image: edit(artifact, `upstream = { default = "127.0.0.1:1" }`, `upstream = { required = true }`),
	},
	{
		name:  "allowed host that is none",
		image: edit(artifact, "source =", "allowed_outbound_hosts = [\"http://a/b\"]\nsource ="),
	},
	{
		name:  "key-value store that is not there",
		image: edit(artifact, "source =", "key_value_stores = [\"other\"]\nsource ="),
	},
	{
		name:  "SQLite database",
		image: edit(container, "source =", "sqlite_databases = [\"default\"]\nsource ="),
	},
	{
		name:  "manifest that is no TOML",
		image: func(t *testing.T) registry.Image { return containerOf(t, "spin.toml", "= 1") },
	},
	{
		name: "manifest with what is not supported",
		image: func(t *testing.T) registry.Image {
			return containerOf(t, "spin.toml", fmt.Sprintf(guestManifest, "c-hello", `ai_models = ["llama2-chat"]`), "c-hello.wasm", guest(t, "c-hello"))
		},
	},
	{
		name: "manifest whose source is not there",
		image: func(t *testing.T) registry.Image {
			return containerOf(t, "spin.toml", fmt.Sprintf(guestManifest, "c-hello", ""))
		},
	},
	{
		name: "manifest whose source climbs out",
		image: func(t *testing.T) registry.Image {
			return containerOf(t, "spin.toml", strings.Replace(fmt.Sprintf(guestManifest, "c-hello", ""), "c-hello.wasm", "../../c-hello.wasm", 1))
		},
	},
	{
		name:  "image that is neither app nor program",
		image: func(t *testing.T) registry.Image { return containerOf(t, "data", "data") },
	},
	{
		name:  "listen address that is none",
		image: edit(artifact, "", ""),
		flags: []string{"--env", "SPIN_HTTP_LISTEN_ADDR=nonsense"},
	},
	{
		name:  "port that is taken",
		image: edit(artifact, "", ""),
		flags: []string{"--env", "SPIN_HTTP_LISTEN_ADDR=" + takenAddr},
	},
	{
		name:  "port that only root may take",
		image: edit(artifact, "", ""),
		flags: []string{"--user", "1234:1234", "--env", "SPIN_HTTP_LISTEN_ADDR=127.0.0.1:80"},
	},
	{
		name:  "too little memory",
		image: func(t *testing.T) registry.Image { return artifact.image(t, guestNamed("go-raw").write(t)) },
		flags: []string{"--memory-limit", "8388608"},
	},
	{
		name:   "layer that is cut short",
		image:  func(t *testing.T) registry.Image { return artifact.image(t, guestNamed("c-libc").write(t)) },
		damage: damageLayer(func(wasm []byte) []byte { return wasm[:len(wasm)/2] }),
	},
	{
		name:  "layer that is not what was pushed",
		image: func(t *testing.T) registry.Image { return artifact.image(t, guestNamed("rust-wasi-http").write(t)) },
		damage: damageLayer(func(wasm []byte) []byte {
			changed := bytes.Clone(wasm)
			changed[len(changed)/2] ^= 1
			return changed
		}),
	},
	{
		name:  "component to retain that is not there",
		image: edit(artifact, "", ""),
		flags: []string{"--env", "SPIN_COMPONENTS_TO_RETAIN=other"},
	},
}

// containerOf is a container image of files: names and texts by turns.
func containerOf(t *testing.T, files ...string) registry.Image {
	t.Helper()
	l := registry.Linux{Files: map[string][]byte{}}
	for i := 0; i < len(files); i += 2 {
		l.Files["/"+files[i]] = []byte(files[i+1])
	}
	image, err := l.Image()
	require.NoError(t, err)
	return image
}

// damageLayer changes the first layer in the node's content store.
func damageLayer(change func(wasm []byte) []byte) func(*testing.T, *lab, registry.Image) {
	return func(t *testing.T, l *lab, image registry.Image) {
		sum := sha256.Sum256(image.Layers[0].Bytes)
		blob := filepath.Join(l.Dir, "root/io.containerd.content.v1.content/blobs/sha256", hex.EncodeToString(sum[:]))
		require.FileExists(t, blob)
		require.NoError(t, os.WriteFile(blob, change(image.Layers[0].Bytes), 0o644))
	}
}

// What goes wrong before the app is up is what ctr says, in a sentence, and leaves nothing.
func TestErrors(t *testing.T) {
	l := newLab(t)
	taken, err := net.Listen("tcp", takenAddr)
	require.NoError(t, err)
	defer taken.Close()
	file := filepath.Join("testdata", "errors.txt")
	golden, err := os.ReadFile(file)
	if !*update {
		require.NoError(t, err)
	}
	table := "| what is wrong | what ctr says |\n|---|---|\n"
	for _, b := range brokenApps {
		t.Run(b.name, func(t *testing.T) {
			id := strings.ReplaceAll(strings.ToLower(b.name), " ", "-")
			image := b.image(t)
			ref := l.push(t, id, image)
			if b.damage != nil {
				b.damage(t, l, image)
			}
			_, err := l.tryStart(t, ref, id, b.flags...)
			said := sentence(t, err)
			require.NotContains(t, said, "\n", "it is one sentence")
			line := fmt.Sprintf("| %s | %s |\n", b.name, said)
			table += line
			if !*update {
				require.Contains(t, string(golden), line)
			}
		})
	}
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(table), 0o644))
	}
}

// sentence is what ctr said of the shim's error.
func sentence(t *testing.T, err error) string {
	t.Helper()
	var failed *node.CtrError
	require.ErrorAs(t, err, &failed)
	return failed.Said
}
