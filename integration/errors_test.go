package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
	"github.com/stretchr/testify/require"
)

// brokenApp is an app that does not start, for a reason that a user can cause, and what ctr says.
type brokenApp struct {
	name  string
	image func(t *testing.T) registry.Image
	flags []string
	want  string
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

var brokenApps = []brokenApp{
	{
		name:  "core module",
		image: withWasm(func(t *testing.T) string { return guest(t, "c-hello.core") }),
		want:  `component "app": `,
	},
	{
		name:  "not WebAssembly",
		image: withWasm(func(*testing.T) string { return strings.Repeat("not wasm ", 20) }),
		want:  `source is not WebAssembly`,
	},
	{
		name:  "truncated component",
		image: withWasm(func(t *testing.T) string { return guest(t, "c-hello")[:3000] }),
		want:  `decode at `,
	},
	{
		name:  "WASI 0.3",
		image: withWasm(func(t *testing.T) string { return guest(t, "c-p3") }),
		want:  `component "app": `,
	},
	{
		name: "component layer is missing",
		image: func(t *testing.T) registry.Image {
			image := artifact.image(t, guestNamed("c-hello").write(t))
			image.Layers = image.Layers[1:]
			return image
		},
		want: `source: the image has no layer sha256:`,
	},
	{
		name:  "locked app that is no JSON",
		image: withLocked(`{"spin_lock_version"`, `{spin_lock_version`),
		want:  `decode locked app`,
	},
	{
		name:  "locked app of a later version",
		image: withLocked(`"spin_lock_version":0`, `"spin_lock_version":7`),
		want:  `version 7`,
	},
	{
		name:  "trigger of another type",
		image: withLocked(`"trigger_type":"http"`, `"trigger_type":"redis"`),
		want:  `triggers of type "redis" are not supported`,
	},
	{
		name:  "trigger without its component",
		image: withLocked(`"component":"app"`, `"component":"other"`),
		want:  `"other"`,
	},
	{
		name:  "route that is no text",
		image: edit(artifact, `route = "/..."`, `route = 7`),
		want:  `route`,
	},
	{
		name:  "variable without a value",
		image: edit(artifact, `upstream = { default = "127.0.0.1:1" }`, `upstream = { required = true }`),
		want:  `SPIN_VARIABLE_UPSTREAM`,
	},
	{
		name:  "allowed host that is none",
		image: edit(artifact, "source =", "allowed_outbound_hosts = [\"http://a/b\"]\nsource ="),
		want:  `http://a/b`,
	},
	{
		name:  "key-value store that is not there",
		image: edit(artifact, "source =", "key_value_stores = [\"other\"]\nsource ="),
		want:  `"other"`,
	},
	{
		name:  "SQLite database",
		image: edit(container, "source =", "sqlite_databases = [\"default\"]\nsource ="),
		want:  `sqlite_databases`,
	},
	{
		name:  "manifest that is no TOML",
		image: func(t *testing.T) registry.Image { return containerOf(t, "spin.toml", "= 1") },
		want:  `spin.toml`,
	},
	{
		name: "manifest with what is not supported",
		image: func(t *testing.T) registry.Image {
			return containerOf(t, "spin.toml", fmt.Sprintf(guestManifest, "c-hello", `ai_models = ["llama2-chat"]`), "c-hello.wasm", guest(t, "c-hello"))
		},
		want: `ai_models`,
	},
	{
		name: "manifest whose source is not there",
		image: func(t *testing.T) registry.Image {
			return containerOf(t, "spin.toml", fmt.Sprintf(guestManifest, "c-hello", ""))
		},
		want: `c-hello.wasm`,
	},
	{
		name: "manifest whose source climbs out",
		image: func(t *testing.T) registry.Image {
			return containerOf(t, "spin.toml", strings.Replace(fmt.Sprintf(guestManifest, "c-hello", ""), "c-hello.wasm", "../../c-hello.wasm", 1))
		},
		want: `../../c-hello.wasm`,
	},
	{
		name:  "image that is neither app nor program",
		image: func(t *testing.T) registry.Image { return containerOf(t, "data", "data") },
		want:  ``,
	},
	{
		name:  "listen address that is none",
		image: edit(artifact, "", ""),
		flags: []string{"--env", "SPIN_HTTP_LISTEN_ADDR=nonsense"},
		want:  `nonsense`,
	},
	{
		name:  "component to retain that is not there",
		image: edit(artifact, "", ""),
		flags: []string{"--env", "SPIN_COMPONENTS_TO_RETAIN=other"},
		want:  `other`,
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

// What goes wrong before the app is up is what ctr says, in a sentence, and leaves nothing.
func TestErrors(t *testing.T) {
	l := newLab(t)
	table := map[string]string{}
	for _, b := range brokenApps {
		t.Run(b.name, func(t *testing.T) {
			id := strings.ReplaceAll(strings.ToLower(b.name), " ", "-")
			_, err := l.tryStart(t, l.push(t, id, b.image(t)), id, b.flags...)
			table[b.name] = sentence(t, err)
			require.Contains(t, table[b.name], b.want)
			require.NotContains(t, table[b.name], "\n", "it is one sentence")
		})
	}
	t.Run("port that is taken", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer taken.Close()
		_, err = l.tryStart(t, l.push(t, "taken", edit(artifact, "", "")(t)), "taken", "--env", "SPIN_HTTP_LISTEN_ADDR="+taken.Addr().String())
		table["port that is taken"] = sentence(t, err)
		require.Contains(t, table["port that is taken"], "address already in use")
	})
	b, err := json.MarshalIndent(table, "", "  ")
	require.NoError(t, err)
	t.Logf("what ctr says:\n%s", b)
}

// sentence is what ctr said of the shim's error: the last line, without ctr's own head.
func sentence(t *testing.T, err error) string {
	t.Helper()
	require.Error(t, err)
	_, said, _ := strings.Cut(err.Error(), "exit status 1: ")
	return said
}
