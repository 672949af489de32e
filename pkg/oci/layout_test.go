package oci

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
)

// locked is a locked app of one component "cart", as it is before it is pushed.
func locked(source, files string) string {
	return strings.Replace(shop(source, files), `"spin_lock_version":1`, `"spin_lock_version":0`, 1)
}

func TestResolveFolderTellsWhatItIs(t *testing.T) {
	t.Parallel()
	d := digest.FromString(emptyComponent)
	blob := "blobs/sha256/" + d.Encoded()
	manifest := fmt.Sprintf(`{"layers":[{"mediaType":"application/wasm","digest":%q,"size":8}]}`, d)
	layout := map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}]}`,
			digest.FromString(manifest), len(manifest)),
		"blobs/sha256/" + digest.FromString(manifest).Encoded(): manifest,
		blob: emptyComponent,
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		app   string
		want  map[string]string // the assets
	}{
		{"manifest", map[string]string{"spin.toml": small("", ""), "c.wasm": emptyComponent, "locked.json": "{}"}, "a", nil},
		{"OCI image layout", layout, "app", nil},
		{"locked app with relative paths", map[string]string{
			"spin.lock":  locked(`{"source":"out/c.wasm"}`, `[{"source":"static","path":"/"},{"source":"a","path":"/x/a"},{"inline":"aGk","path":"hi"}]`),
			"out/c.wasm": emptyComponent, "static/b/c": "c", "a": "a",
		}, "shop", map[string]string{"assets/cart/b/c": "c", "assets/cart/x/a": "a", "assets/cart/hi": "hi"}},
		{"locked app with file URLs", map[string]string{
			"locked.json": locked(`{"source":"file://FOLDER/my%20app.wasm"}`, `[{"source":"file://FOLDER/static","path":"/assets"}]`),
			"my app.wasm": emptyComponent, "static/a": "a",
		}, "shop", map[string]string{"assets/cart/assets/a": "a"}},
		{"locked app with digests", map[string]string{
			"spin.json": locked(`{"digest":"`+d.String()+`"}`, `[{"digest":"`+digest.FromString("a").String()+`","path":"a"}]`),
			blob:        emptyComponent, "blobs/sha256/" + digest.FromString("a").Encoded(): "a",
		}, "shop", map[string]string{"assets/cart/a": "a"}},
		{"locked app with a path and a digest", map[string]string{
			"spin.json": locked(`{"source":"c.wasm","digest":"`+d.String()+`"}`, `[]`), "c.wasm": emptyComponent,
		}, "shop", nil},
		{"locked app with inline source", map[string]string{"spin.json": locked(`{"inline":"AGFzbQ0AAQA"}`, `[]`)}, "shop", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, out := lockedFolder(t, c.files), openRoot(t, t.TempDir())
			app, err := ResolveFolder(t.Context(), dir, out)
			require.NoError(t, err)
			require.Equal(t, c.app, app.Metadata.Name)
			require.Equal(t, d, app.Components[0].Source.Digest)
			require.Nil(t, app.Components[0].Files)
			want := map[string]string{wasmName(emptyComponent): emptyComponent}
			for name, content := range c.want {
				want[name] = content
			}
			require.Equal(t, want, contents(t, out))
		})
	}
}

// lockedFolder is a folder in whose locked app FOLDER stands for its path.
func lockedFolder(t *testing.T, files map[string]string) *os.Root {
	dir := folder(t, files)
	if app, ok := files["locked.json"]; ok {
		require.NoError(t, dir.WriteFile("locked.json", []byte(strings.ReplaceAll(app, "FOLDER", dir.Name())), 0o644))
	}
	return dir
}

func TestResolveFolderRefuses(t *testing.T) {
	t.Parallel()
	const inline = `{"inline":"AGFzbQ0AAQA"}`
	wrong := digest.FromString("x").String()
	for _, c := range []struct{ name, app, err string }{
		{"source that climbs", locked(`{"source":"../c.wasm"}`, `[]`), `app "shop": component "cart": source: path "../c.wasm" leads out of the folder`},
		{"source in another folder", locked(`{"source":"file:///etc/passwd"}`, `[]`), `leads out of the folder`},
		{"source on another machine", locked(`{"source":"file://host/c.wasm"}`, `[]`), `app "shop": component "cart": source: "file://host/c.wasm" is not a file`},
		{"source by URL", locked(`{"source":"https://x/c.wasm"}`, `[]`), `app "shop": component "cart": source: "https://x/c.wasm" is not a file`},
		{"source that is not there", locked(`{"source":"d.wasm"}`, `[]`), `app "shop": component "cart": source: statat d.wasm: no such file or directory`},
		{"digest that is not there", locked(`{"digest":"`+wrong+`"}`, `[]`), `no such file or directory`},
		{"source of another digest", locked(`{"source":"c.wasm","digest":"`+wrong+`"}`, `[]`),
			`app "shop": component "cart": its digest is ` + digest.FromString(emptyComponent).String() + `, not ` + wrong},
		{"core module", locked(`{"source":"core.wasm"}`, `[]`), `app "shop": component "cart": source is a core module, which is not supported yet`},
		{"file of another digest", locked(inline, `[{"source":"c.wasm","digest":"`+wrong+`","path":"a"}]`), `app "shop": component "cart": file "a": its digest is `},
		{"file that climbs", locked(inline, `[{"source":"../../x","path":"a"}]`), `app "shop": component "cart": file "a": path "../../x" leads out of the folder`},
		{"path that climbs", locked(inline, `[{"source":"c.wasm","path":"/../a"}]`), `app "shop": component "cart": file "/../a": path "../a" leads out of the folder`},
		{"inline path that climbs", locked(inline, `[{"inline":"","path":"../a"}]`), `app "shop": component "cart": file "../a": path "../a" is not a plain relative path`},
		{"path twice", locked(inline, `[{"inline":"","path":"a"},{"source":"c.wasm","path":"a"}]`), `app "shop": component "cart": file "a": file "a": path is there twice`},
		{"damaged locked app", `{`, `decode locked app: unexpected end of JSON input`},
		{"dependencies", strings.Replace(locked(inline, `[]`), `"files"`, `"dependencies":{"a:b/c":{}},"files"`, 1), `app "shop": component "cart": dependencies are not supported yet ("a:b/c")`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, map[string]string{"spin.json": c.app, "c.wasm": emptyComponent, "core.wasm": emptyModule})
			_, err := ResolveFolder(t.Context(), dir, openRoot(t, t.TempDir()))
			require.ErrorContains(t, err, c.err)
			require.NotErrorIs(t, err, ErrNotApp)
		})
	}

	_, err := ResolveFolder(t.Context(), folder(t, nil), openRoot(t, t.TempDir()))
	require.ErrorIs(t, err, ErrNotApp)
	require.EqualError(t, err, "not a Spin app: neither a spin.toml nor a locked app nor an OCI image layout")
}

func TestOpenLayoutRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ layout, err string }{
		{`{"imageLayoutVersion":"2.0.0"}`, `OCI image layout of version "2.0.0" is not supported`},
		{`no`, `decode oci-layout: invalid character 'o' in literal null (expecting 'u')`},
	} {
		_, _, err := OpenLayout(folder(t, map[string]string{"oci-layout": c.layout, "index.json": "{}"}))
		require.EqualError(t, err, c.err)
	}
	layout, _ := newStore(t).open()
	_, err := layout.Open(t.Context(), "sha256:../../index.json")
	require.EqualError(t, err, `digest "sha256:../../index.json" is not a sha256 digest`)
}
