package registry

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const manifestText = `spin_manifest_version = 2

[application]
name = "shop"
version = "0.1.0"
authors = ["A <a@example.com>", "B"]

[variables]
greeting = { default = "hi" }
token = { required = true, secret = true }

[[trigger.http]]
route = "/cart/..."
component = "cart"

[component.cart]
source = "cart.wasm"
files = ["img/**/*", { source = "docs", destination = "/help" }]
exclude_files = ["img/raw/*"]
allowed_outbound_hosts = ["https://example.com"]
key_value_stores = ["default"]
variables = { url = "{{ greeting }}" }
`

func openTestApp(t *testing.T) *App {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"spin.toml":    manifestText,
		"cart.wasm":    "\x00asm\x0d\x00\x01\x00" + strings.Repeat("x", maxInline),
		"img/a/b.png":  strings.Repeat("p", maxInline+1),
		"img/raw/c":    "left out",
		"docs/in/d.md": "small",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	a, err := OpenApp(dir)
	require.NoError(t, err)
	return a
}

func TestArtifactIsWhatSpinPushes(t *testing.T) {
	t.Parallel()
	a := openTestApp(t)
	image, err := a.Artifact(false)
	require.NoError(t, err)

	wasm, picture := digestOf(a.wasm["cart"]), digestOf([]byte(strings.Repeat("p", maxInline+1)))
	require.Equal(t, []string{typeWasm, typeData, typeLocked}, mediaTypes(image), "the small file has no layer")
	require.JSONEq(t, `{"spin_lock_version": 0,
		"metadata": {"name": "shop", "version": "0.1.0", "authors": ["A <a@example.com>", "B"], "trigger": {"type": "http"}, "triggers": {"http": {}}},
		"variables": {"greeting": {"default": "hi"}, "token": {"secret": true}},
		"triggers": [{"id": "cart-http-trigger", "trigger_type": "http", "trigger_config": {"component": "cart", "route": "/cart/..."}}],
		"components": [{"id": "cart",
			"metadata": {"allowed_outbound_hosts": ["https://example.com"], "key_value_stores": ["default"]},
			"source": {"content_type": "application/wasm", "digest": "`+wasm+`"},
			"files": [{"inline": "c21hbGw", "digest": "`+digestOf([]byte("small"))+`", "path": "help/in/d.md"}, {"digest": "`+picture+`", "path": "img/a/b.png"}],
			"config": {"url": "{{ greeting }}"}}]}`, string(image.Layers[2].Bytes))
	require.JSONEq(t, `{"architecture": "wasm", "os": "Wasip1", "rootfs": {"type": "layers", "diff_ids": []},
		"config": {"Labels": {"com.fermyon.spin.lockedAppDigest": "`+digestOf(image.Layers[2].Bytes)+`"}}}`, string(image.Config.Bytes))

	m, err := image.Manifest()
	require.NoError(t, err)
	var decoded manifest
	require.NoError(t, json.Unmarshal(m.Bytes, &decoded))
	require.Equal(t, "A <a@example.com>, B", decoded.Annotations["org.opencontainers.image.authors"])
}

func TestOtherFormsOfImages(t *testing.T) {
	t.Parallel()
	a := openTestApp(t)
	archived, err := a.Artifact(true)
	require.NoError(t, err)
	require.Equal(t, []string{typeWasm, typeArchive, typeLocked}, mediaTypes(archived))

	legacy, err := a.Legacy()
	require.NoError(t, err)
	require.Equal(t, typeLocked, legacy.Config.MediaType)
	require.Equal(t, []string{typeWasm, typeData, typeData}, mediaTypes(legacy), "nothing is inlined")
}

func TestPush(t *testing.T) {
	t.Parallel()
	r, err := Start()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	image, err := Linux{Files: map[string][]byte{"/bin/true": []byte("x")}}.Image()
	require.NoError(t, err)
	ref, err := r.Push(t.Context(), "tools/true", image)
	require.NoError(t, err)
	require.Equal(t, r.Addr+"/tools/true:latest", ref)
	_, err = r.PushIndex(t.Context(), "index", Entry{map[string]string{"os": "linux", "architecture": "amd64"}, image})
	require.NoError(t, err)
}

func mediaTypes(i Image) []string {
	var types []string
	for _, l := range i.Layers {
		types = append(types, l.MediaType)
	}
	return types
}
