package oci

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
	"github.com/stretchr/testify/require"
)

// shop is a locked app of one component "cart", whose source and files are given as JSON.
func shop(source, files string) string {
	return `{"spin_lock_version":1,"must_understand":["host_requirements"],"metadata":{"name":"shop","version":"1.0.0"},` +
		`"triggers":[{"id":"t","trigger_type":"http","trigger_config":{"component":"cart","route":"/..."}}],` +
		`"components":[{"id":"cart","metadata":{},"source":` + source + `,"files":` + files + `}]}`
}

func byDigest(d ocispec.Descriptor) string {
	return fmt.Sprintf(`{"content_type":"application/wasm","digest":%q}`, d.Digest)
}

func at(path string, d ocispec.Descriptor) string {
	return fmt.Sprintf(`{"digest":%q,"path":%q}`, d.Digest, path)
}

func TestResolveSpinArtifactWithRealGuests(t *testing.T) {
	t.Parallel()
	hello, rust, js := guest(t, "c-hello.wasm"), guest(t, "rust-wasi-http.wasm"), guest(t, "js-hello.wasm")
	s := newStore(t)
	helloLayer, rustLayer, jsLayer := s.blob(MediaTypeWasmLayer, hello), s.blob(MediaTypeWasmLayer, rust), s.blob(MediaTypeWasm, js)
	image := s.blob(MediaTypeDataLayer, strings.Repeat("image", 100))
	desc := s.push(`{
	  "spin_lock_version": 1, "must_understand": ["host_requirements"],
	  "metadata": {"name": "shop", "version": "0.1.0", "triggers": {"http": {}}, "trigger": {"type": "http"}, "origin": "file:///src/spin.toml"},
	  "host_requirements": {"local_service_chaining": "optional"},
	  "variables": {"api_host": {"default": "x"}},
	  "triggers": [
	    {"id": "a", "trigger_type": "http", "trigger_config": {"component": "hello", "route": "/..."}},
	    {"id": "b", "trigger_type": "http", "trigger_config": {"component": "rust", "route": "/rust/..."}},
	    {"id": "c", "trigger_type": "http", "trigger_config": {"component": "js", "route": {"private": true}}},
	    {"id": "d", "trigger_type": "http", "trigger_config": {"component": "again", "route": "/again"}}
	  ],
	  "components": [
	    {"id": "hello", "metadata": {"key_value_stores": ["default"]}, "source": `+byDigest(helloLayer)+`, "env": {"LEVEL": "info"},
	     "files": [`+at("img/a.png", image)+`, `+at("img/b.png", image)+`, {"inline": "aGk", "digest": "sha256:8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4", "path": "hi.txt"}, {"inline": "", "path": "empty"}]},
	    {"id": "rust", "source": `+byDigest(rustLayer)+`, "files": [`+at("img/a.png", image)+`]},
	    {"id": "js", "source": `+byDigest(jsLayer)+`},
	    {"id": "again", "source": `+byDigest(helloLayer)+`},
	    {"id": "nobody", "source": {"digest": "`+digest.FromString("absent").String()+`"}, "dependencies": {"a:b/c": {}}}
	  ]}`, helloLayer, rustLayer, jsLayer, image)

	layout, _ := s.open()
	out := openRoot(t, t.TempDir())
	app, err := Resolve(t.Context(), layout, desc, out)
	require.NoError(t, err)
	picture := strings.Repeat("image", 100)
	require.Equal(t, map[string]string{
		wasmName(hello): hello, wasmName(rust): rust, wasmName(js): js,
		"assets/hello/img/a.png": picture, "assets/hello/img/b.png": picture, "assets/hello/hi.txt": "hi", "assets/hello/empty": "",
		"assets/rust/img/a.png": picture,
	}, contents(t, out))

	encoded, err := app.Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{
	  "spin_lock_version": 1, "must_understand": ["host_requirements"],
	  "metadata": {"name": "shop", "version": "0.1.0", "triggers": {"http": {}}, "oci_image_digest": "`+desc.Digest.String()+`"},
	  "host_requirements": {"local_service_chaining": "optional"},
	  "variables": {"api_host": {"default": "x"}},
	  "triggers": [
	    {"id": "a", "trigger_type": "http", "trigger_config": {"component": "hello", "route": "/..."}},
	    {"id": "b", "trigger_type": "http", "trigger_config": {"component": "rust", "route": "/rust/..."}},
	    {"id": "c", "trigger_type": "http", "trigger_config": {"component": "js", "route": {"private": true}}},
	    {"id": "d", "trigger_type": "http", "trigger_config": {"component": "again", "route": "/again"}}
	  ],
	  "components": [
	    {"id": "hello", "metadata": {"key_value_stores": ["default"]}, "source": `+byDigest(helloLayer)+`, "env": {"LEVEL": "info"}},
	    {"id": "rust", "metadata": {}, "source": `+byDigest(rustLayer)+`},
	    {"id": "js", "metadata": {}, "source": `+byDigest(jsLayer)+`},
	    {"id": "again", "metadata": {}, "source": `+byDigest(helloLayer)+`}
	  ]}`, string(encoded))
	_, err = lockedapp.Decode(encoded)
	require.NoError(t, err)
}

func TestResolveForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		push  func(s *store) ocispec.Descriptor
		app   string // name of the app
		files map[string]string
	}{
		{
			name: "locked app as config, as Spin 1 wrote it",
			push: func(s *store) ocispec.Descriptor {
				wasm := s.blob(MediaTypeWasmLayer, emptyComponent)
				data := s.blob(MediaTypeDataLayer, "data")
				return s.manifest(s.blob(MediaTypeLockedApp, strings.Replace(shop(byDigest(wasm), "["+at("d", data)+"]"), `"spin_lock_version":1`, `"spin_lock_version":0`, 1)), wasm, data)
			},
			app: "shop", files: map[string]string{wasmName(emptyComponent): emptyComponent, "assets/cart/d": "data"},
		},
		{
			name: "one component and nothing else",
			push: func(s *store) ocispec.Descriptor {
				return s.manifest(s.blob("application/vnd.wasm.config.v0+json", "{}"), s.blob(MediaTypeWasm, emptyComponent))
			},
			app: "shop", files: map[string]string{wasmName(emptyComponent): emptyComponent},
		},
		{
			name: "one component that only its layer names",
			push: func(s *store) ocispec.Descriptor {
				layer := s.blob(MediaTypeWasm, emptyComponent)
				layer.Annotations = map[string]string{ocispec.AnnotationTitle: "out/hello.wasm"}
				return s.json(ocispec.MediaTypeImageManifest, map[string]any{"layers": []any{layer}})
			},
			app: "hello", files: map[string]string{wasmName(emptyComponent): emptyComponent},
		},
		{
			name: "one component without a name",
			push: func(s *store) ocispec.Descriptor {
				return s.json(ocispec.MediaTypeImageManifest, map[string]any{"layers": []any{s.blob(MediaTypeWasm, emptyComponent)}})
			},
			app: "app", files: map[string]string{wasmName(emptyComponent): emptyComponent},
		},
		{
			name: "inline source",
			push: func(s *store) ocispec.Descriptor { return s.push(shop(`{"inline":"AGFzbQ0AAQA="}`, `[]`)) },
			app:  "shop", files: map[string]string{wasmName(emptyComponent): emptyComponent},
		},
		{
			name: "files in an archive",
			push: func(s *store) ocispec.Descriptor {
				wasm := s.blob(MediaTypeWasmLayer, emptyComponent)
				one, two := s.blob("", "one"), s.blob("", "two")
				bundle := s.blob(MediaTypeBundleLayer, tarball(s.t, file("./a/one", "one"), file("two", "two"), file("three", "three")))
				return s.push(shop(byDigest(wasm), "["+at("a/one", one)+","+at("a/uno", one)+","+at("two", two)+`,{"inline":"","path":"empty"}]`), wasm, bundle)
			},
			app: "shop", files: map[string]string{
				wasmName(emptyComponent): emptyComponent,
				"assets/cart/a/one":      "one", "assets/cart/a/uno": "one", "assets/cart/two": "two", "assets/cart/empty": "",
			},
		},
		{
			name: "index of platforms, most of which were not fetched",
			push: func(s *store) ocispec.Descriptor {
				absent := s.index()
				require.NoError(s.t, os.Remove(filepath.Join(s.dir, "blobs/sha256", absent.Digest.Encoded())))
				wasm := s.blob(MediaTypeWasmLayer, emptyComponent)
				unknown := s.blob("application/octet-stream", "no JSON")
				return s.index(s.linux(), absent, unknown, s.index(s.push(shop(byDigest(wasm), "[]"), wasm)))
			},
			app: "shop", files: map[string]string{wasmName(emptyComponent): emptyComponent},
		},
		{
			name: "static responses only",
			push: func(s *store) ocispec.Descriptor {
				return s.push(`{"spin_lock_version":0,"metadata":{"name":"static"},"triggers":[{"id":"t","trigger_type":"http","trigger_config":{"static_response":{}}}]}`, s.blob(MediaTypeWasmLayer, ""))
			},
			app: "static", files: map[string]string{},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			desc := c.push(s)
			layout, _ := s.open()
			out := openRoot(t, t.TempDir())
			app, err := Resolve(t.Context(), layout, desc, out)
			require.NoError(t, err)
			require.Equal(t, c.app, app.Metadata.Name)
			require.Equal(t, c.files, contents(t, out))
			for _, component := range app.Components {
				require.Nil(t, component.Files)
				require.Equal(t, lockedapp.ContentRef{Digest: digest.FromString(emptyComponent)}, component.Source.ContentRef)
			}
			encoded, err := app.Encode()
			require.NoError(t, err)
			_, err = lockedapp.Decode(encoded)
			require.NoError(t, err)
		})
	}
}

func TestResolveSaysWhatIsNoApp(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	absent := s.index()
	require.NoError(t, os.Remove(filepath.Join(s.dir, "blobs/sha256", absent.Digest.Encoded())))
	layout, empty := s.open()
	for name, desc := range map[string]ocispec.Descriptor{
		"container image":                  s.linux(),
		"index of container images":        s.index(absent, s.linux()),
		"index without manifests":          empty,
		"document of some other kind":      s.json(ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 1}),
		"artifact whose content is no app": s.manifest(s.blob(ocispec.MediaTypeEmptyJSON, "{}"), s.blob(MediaTypeDataLayer, "data")),
	} {
		_, err := Resolve(t.Context(), layout, desc, openRoot(t, t.TempDir()))
		require.ErrorIs(t, err, ErrNotApp, name)
	}
	_, err := Resolve(t.Context(), layout, s.index(absent), openRoot(t, t.TempDir()))
	require.ErrorIs(t, err, fs.ErrNotExist, "an index of which nothing was fetched may have been an app")
	require.NotErrorIs(t, err, ErrNotApp)
}

func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	const (
		absent = "sha256:2d55af24fa7b0d9d3fb8d6e8d9f6dbe4d6a8d3b8f1d4e7f0a1b2c3d4e5f60718"
		inline = `{"inline":"AGFzbQ0AAQA"}`
		cart   = `app "shop": component "cart": `
	)
	for _, c := range []struct {
		name string
		push func(s *store) ocispec.Descriptor
		err  string
	}{
		{"manifest that is not there", func(s *store) ocispec.Descriptor { return ocispec.Descriptor{Digest: absent, Size: 2} },
			`read manifest: open blob ` + absent + `: statat blobs/sha256/` + absent[7:] + `: no such file or directory`},
		{"inlined content of another digest", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"inline":"aGk","digest":"`+absent+`","path":"a"}]`))
		}, cart + `file "a": its digest is sha256:8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4, not ` + absent},
		{"digest that is a path", func(s *store) ocispec.Descriptor {
			return ocispec.Descriptor{Digest: "sha256:../../../../../../../../etc/passwd", Size: 2}
		}, `read manifest: digest "sha256:../../../../../../../../etc/passwd" is not a sha256 digest`},
		{"manifest that is too large", func(s *store) ocispec.Descriptor { return ocispec.Descriptor{Digest: absent, Size: 1 << 40} },
			`read manifest: document ` + absent + ` of 1099511627776 bytes, at most 4194304 are read`},
		{"negative size", func(s *store) ocispec.Descriptor { return ocispec.Descriptor{Digest: absent, Size: -1} },
			`read manifest: document ` + absent + ` of -1 bytes, at most 4194304 are read`},
		{"manifest longer than its descriptor says", func(s *store) ocispec.Descriptor {
			d := s.linux()
			d.Size--
			return d
		}, `read manifest: blob DESC is not of the SIZE bytes that its descriptor says`},
		{"manifest shorter than its descriptor says", func(s *store) ocispec.Descriptor {
			d := s.linux()
			d.Size++
			return d
		}, `read manifest: blob DESC is not of the SIZE bytes that its descriptor says`},
		{"manifest that was changed", func(s *store) ocispec.Descriptor {
			d := s.blob("", "{}")
			s.write("blobs/sha256/"+d.Digest.Encoded(), "[]")
			return d
		}, `read manifest: blob DESC is damaged: its digest is sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945`},
		{"manifest that is no JSON", func(s *store) ocispec.Descriptor { return s.blob("", "<html>") },
			`decode manifest DESC: invalid character '<' looking for beginning of value`},
		{"manifest and index in one", func(s *store) ocispec.Descriptor { return s.blob("", `{"manifests":[],"layers":[]}`) },
			`decode manifest DESC: both a manifest and an index`},
		{"too many layers", func(s *store) ocispec.Descriptor {
			return s.blob("", `{"layers":[{}`+strings.Repeat(",{}", 1024)+`]}`)
		}, `manifest DESC has 1025 layers, at most 1024 are supported`},
		{"indexes inside each other", func(s *store) ocispec.Descriptor { return s.index(s.index(s.index(s.index(s.linux())))) },
			`more than 3 indexes inside each other`},
		{"index of too many", func(s *store) ocispec.Descriptor {
			var all []ocispec.Descriptor
			for range maxDocuments {
				all = append(all, s.linux())
			}
			return s.index(all...)
		}, `image with more than 128 manifests`},
		{"two components without a locked app", func(s *store) ocispec.Descriptor {
			wasm := s.blob(MediaTypeWasm, emptyComponent)
			return s.manifest(wasm, wasm, wasm)
		}, `image has 2 layers but no locked app`},
		{"two locked apps", func(s *store) ocispec.Descriptor { return s.push("{}", s.blob(MediaTypeLockedApp, "[]")) },
			`image has 2 locked apps`},
		{"locked app that is too large", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, "["+strings.Repeat(" ", lockedapp.MaxSize)+"]"))
		}, `read locked app: document sha256:`},
		{"locked app that is not one", func(s *store) ocispec.Descriptor { return s.push(`{"layers":[]}`) },
			`decode locked app: no spin_lock_version`},
		{"locked app of a newer version", func(s *store) ocispec.Descriptor {
			return s.push(strings.Replace(shop(inline, "[]"), `"spin_lock_version":1`, `"spin_lock_version":2`, 1))
		}, `locked app: spin_lock_version 2 is not supported`},
		{"dependencies", func(s *store) ocispec.Descriptor {
			return s.push(strings.Replace(shop(inline, "[]"), `"files"`, `"dependencies":{"a:b/c":{}},"files"`, 1))
		}, cart + `dependencies are not supported yet ("a:b/c"): push the app with Spin 3.2 or newer, which composes them`},
		{"source on the pusher's machine", func(s *store) ocispec.Descriptor { return s.push(shop(`{"source":"file:///src/a.wasm"}`, "[]")) },
			cart + `source "file:///src/a.wasm" is not in the image`},
		{"source that is not there", func(s *store) ocispec.Descriptor { return s.push(shop(`{"digest":"`+absent+`"}`, "[]")) },
			cart + `source: the image has no layer ` + absent},
		{"core module", func(s *store) ocispec.Descriptor {
			wasm := s.blob(MediaTypeWasmLayer, emptyModule)
			return s.push(shop(byDigest(wasm), "[]"), wasm)
		}, cart + "source is a core module, which is not supported yet: make a component of it with `wasm-tools component new`, or push the app with Spin 3.2 or newer, which does so"},
		{"inline core module", func(s *store) ocispec.Descriptor { return s.push(shop(`{"inline":"AGFzbQEAAAA"}`, "[]")) },
			cart + "source is a core module, which is not supported yet: make a component of it with `wasm-tools component new`, or push the app with Spin 3.2 or newer, which does so"},
		{"component of an older draft", func(s *store) ocispec.Descriptor {
			wasm := s.blob(MediaTypeWasmLayer, "\x00asm\x0c\x00\x01\x00")
			return s.push(shop(byDigest(wasm), "[]"), wasm)
		}, cart + `source is WebAssembly of an unknown version (0c 00 01 00)`},
		{"source that is a script", func(s *store) ocispec.Descriptor {
			wasm := s.blob(MediaTypeWasmLayer, "#!/bin/sh")
			return s.push(shop(byDigest(wasm), "[]"), wasm)
		}, cart + `source is not WebAssembly (it starts with 23 21 2f 62 69 6e 2f 73)`},
		{"source that is empty", func(s *store) ocispec.Descriptor {
			wasm := s.blob(MediaTypeWasmLayer, "")
			return s.push(shop(byDigest(wasm), "[]"), wasm)
		}, cart + `source is not WebAssembly (it starts with )`},
		{"truncated source", func(s *store) ocispec.Descriptor {
			wasm := s.blob(MediaTypeWasmLayer, emptyComponent)
			s.write("blobs/sha256/"+wasm.Digest.Encoded(), emptyComponent[:3])
			return s.push(shop(byDigest(wasm), "[]"), wasm)
		}, cart + `blob ` + digest.FromString(emptyComponent).String() + ` is not of the 8 bytes that its descriptor says`},
		{"damaged source", func(s *store) ocispec.Descriptor {
			wasm := s.blob(MediaTypeWasmLayer, emptyComponent)
			s.write("blobs/sha256/"+wasm.Digest.Encoded(), emptyModule)
			return s.push(shop(byDigest(wasm), "[]"), wasm)
		}, cart + `blob ` + digest.FromString(emptyComponent).String() + ` is damaged: its digest is ` + digest.FromString(emptyModule).String()},
		{"damaged file", func(s *store) ocispec.Descriptor {
			data := s.blob(MediaTypeDataLayer, "data")
			s.write("blobs/sha256/"+data.Digest.Encoded(), "date")
			return s.push(shop(inline, "["+at("a", data)+"]"), data)
		}, cart + `file "a": blob ` + digest.FromString("data").String() + ` is damaged: its digest is ` + digest.FromString("date").String()},
		{"file that is nowhere", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"digest":"`+absent+`","path":"a"}]`)) },
			cart + `file "a": the image has no layer or archived file ` + absent},
		{"file that is not in the archive", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"digest":"`+absent+`","path":"a"}]`), s.blob(MediaTypeBundleLayer, tarball(s.t, file("a", "x"))))
		}, cart + `file "a": the image has no layer or archived file ` + absent},
		{"archive that is none", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"digest":"`+absent+`","path":"a"}]`), s.blob(MediaTypeBundleLayer, "no gzip at all"))
		}, `app "shop": bundle of files ` + digest.FromString("no gzip at all").String() + `: gzip: invalid header`},
		{"file on the pusher's machine", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"source":"file:///src","path":"/"}]`))
		},
			cart + `file "/": path "/" is not a plain relative path`},
		{"file by path only", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"source":"file:///src","path":"a"}]`))
		},
			cart + `file "a": source "file:///src" is not in the image`},
		{"path that climbs", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"inline":"","path":"../cart2/a"}]`)) },
			cart + `file "../cart2/a": path "../cart2/a" is not a plain relative path`},
		{"path that climbs in the middle", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"inline":"","path":"a/../../b"}]`)) },
			cart + `file "a/../../b": path "a/../../b" is not a plain relative path`},
		{"absolute path", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"inline":"","path":"/etc/passwd"}]`)) },
			cart + `file "/etc/passwd": path "/etc/passwd" is not a plain relative path`},
		{"path of the folder itself", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"inline":"","path":"."}]`)) },
			cart + `file ".": path "." is not a plain relative path`},
		{"path with an empty segment", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"inline":"","path":"a//b"}]`)) },
			cart + `file "a//b": path "a//b" is not a plain relative path`},
		{"path with a NUL", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"inline":"","path":"a\u0000b"}]`)) },
			cart + `file "a\x00b": path "a\x00b" is not a plain relative path`},
		{"path with backslashes", func(s *store) ocispec.Descriptor { return s.push(shop(inline, `[{"inline":"","path":"..\\..\\b"}]`)) },
			cart + `file "..\\..\\b": path "..\\..\\b" is not a plain relative path`},
		{"path without end", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"inline":"","path":"`+strings.Repeat("a/", 2048)+`a"}]`))
		}, cart + `file "` + strings.Repeat("a/", 100) + `": path of 4097 bytes and 2048 folders, at most 4095 and 64 are supported`},
		{"path twice", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"inline":"","path":"a"},{"inline":"","path":"a"}]`))
		}, cart + `file "a": path is there twice`},
		{"file that is also a folder", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"inline":"","path":"a"},{"inline":"","path":"a/b"}]`))
		}, cart + `file "a/b": mkdirat assets/cart/a: file exists`},
		{"folder that is also a file", func(s *store) ocispec.Descriptor {
			return s.push(shop(inline, `[{"inline":"","path":"a/b"},{"inline":"","path":"a"}]`))
		}, cart + `file "a": path is there twice`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			desc := c.push(s)
			layout, _ := s.open()
			_, err := Resolve(t.Context(), layout, desc, openRoot(t, t.TempDir()))
			want := strings.NewReplacer("DESC", desc.Digest.String(), "SIZE", fmt.Sprint(desc.Size)).Replace(c.err)
			require.Error(t, err)
			require.True(t, err.Error() == want || strings.HasSuffix(want, ":") && strings.HasPrefix(err.Error(), want), "got  %s\nwant %s", err, want)
			require.NotErrorIs(t, err, ErrNotApp)
		})
	}
}

func TestResolveStopsWhenItsCallerDoes(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	wasm := s.blob(MediaTypeWasmLayer, emptyComponent)
	desc := s.push(shop(byDigest(wasm), "[]"), wasm)
	layout, _ := s.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Resolve(ctx, layout, desc, openRoot(t, t.TempDir()))
	require.ErrorIs(t, err, context.Canceled)
}

// FuzzResolve reads manifests of an image whose blobs are sound.
func FuzzResolve(f *testing.F) {
	s := newStore(f)
	wasm := s.blob(MediaTypeWasmLayer, emptyComponent)
	data := s.blob("", "one")
	bundle := s.blob(MediaTypeBundleLayer, tarball(f, file("one", "one")))
	spin := s.push(shop(byDigest(wasm), "["+at("a/one", data)+"]"), wasm, bundle)
	for _, d := range []ocispec.Descriptor{spin, s.linux(), s.index(s.linux(), spin), s.manifest(wasm, wasm)} {
		manifest, err := os.ReadFile(filepath.Join(s.dir, "blobs/sha256", d.Digest.Encoded()))
		require.NoError(f, err)
		f.Add(manifest)
	}
	layout, _ := s.open()
	f.Fuzz(func(t *testing.T, manifest []byte) {
		desc := ocispec.Descriptor{Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
		out := openRoot(t, t.TempDir())
		app, err := Resolve(t.Context(), overlay{layout, desc.Digest, manifest}, desc, out)
		for name := range contents(t, out) {
			require.True(t, name == incoming || name == wasmName(emptyComponent) || strings.HasPrefix(name, "assets/"), name)
		}
		if err == nil {
			require.NoError(t, app.Validate())
		}
	})
}

// overlay are blobs with one more.
type overlay struct {
	Blobs
	digest digest.Digest
	data   []byte
}

func (o overlay) Open(ctx context.Context, d digest.Digest) (*os.File, error) {
	if d != o.digest {
		return o.Blobs.Open(ctx, d)
	}
	r, w, err := os.Pipe() // a pipe holds what a fuzzer tries
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if _, err := w.Write(o.data[:min(len(o.data), 1<<16)]); err != nil {
		return nil, err
	}
	return r, nil
}
