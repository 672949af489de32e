package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

const (
	emptyComponent = "\x00asm\x0d\x00\x01\x00"
	emptyModule    = "\x00asm\x01\x00\x00\x00"
)

// store is an OCI image layout that a test fills, as tools do that push artifacts.
type store struct {
	t   testing.TB
	dir string
}

func newStore(t testing.TB) *store {
	s := &store{t, t.TempDir()}
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "blobs/sha256"), 0o755))
	s.write("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	s.write("index.json", `{"schemaVersion":2}`)
	return s
}

func (s *store) write(name, data string) {
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, name), []byte(data), 0o644))
}

// blob adds content and returns its descriptor.
func (s *store) blob(mediaType, data string) ocispec.Descriptor {
	d := digest.FromString(data)
	s.write("blobs/sha256/"+d.Encoded(), data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (s *store) json(mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	require.NoError(s.t, err)
	return s.blob(mediaType, string(data))
}

// push adds a manifest in the form that `spin registry push` writes: the locked app is the last layer, and the config is an
// image config without layers.
func (s *store) push(app string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	locked := s.blob(MediaTypeLockedApp, app)
	config := s.json(ocispec.MediaTypeImageConfig, map[string]any{
		"architecture": "wasm", "os": "Wasip1",
		"config": map[string]any{"Labels": map[string]string{"com.fermyon.spin.lockedAppDigest": locked.Digest.String()}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{}},
	})
	return s.manifest(config, append(layers, locked)...)
}

func (s *store) manifest(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	return s.json(ocispec.MediaTypeImageManifest, map[string]any{
		"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": config, "layers": layers,
		"annotations": map[string]string{"org.opencontainers.image.title": "shop", "org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
	})
}

// linux adds the manifest of a container image.
func (s *store) linux() ocispec.Descriptor {
	config := s.blob(ocispec.MediaTypeImageConfig, `{"architecture":"amd64","os":"linux"}`)
	return s.manifest(config, s.blob(ocispec.MediaTypeImageLayerGzip, "a layer"))
}

func (s *store) index(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return s.json(ocispec.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": manifests})
}

// open returns the store as blobs, and its index.
func (s *store) open() (*Layout, ocispec.Descriptor) {
	layout, desc, err := OpenLayout(openRoot(s.t, s.dir))
	require.NoError(s.t, err)
	return layout, desc
}

func openRoot(t testing.TB, dir string) *os.Root {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// folder writes files into a new folder; a name that ends in '/' is a folder, a content "-> x" a link to x.
func folder(t testing.TB, files map[string]string) *os.Root {
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		full := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if to, ok := bytes.CutPrefix([]byte(files[name]), []byte("-> ")); ok {
			require.NoError(t, os.Symlink(string(to), full))
		} else if name[len(name)-1] != '/' {
			require.NoError(t, os.WriteFile(full, []byte(files[name]), 0o644))
		}
	}
	return openRoot(t, dir)
}

// contents returns all files below root; a component is named by what it is called in the test.
func contents(t testing.TB, root *os.Root) map[string]string {
	files := make(map[string]string)
	require.NoError(t, fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		require.True(t, d.Type().IsRegular(), "%s: %s", name, d.Type())
		data, err := fs.ReadFile(root.FS(), name)
		files[name] = string(data)
		return err
	}))
	return files
}

// wasmName is where a component is in a resolved app.
func wasmName(data string) string {
	return "components/" + digest.FromString(data).Encoded() + ".wasm"
}

// tarball returns a tar+gzip archive.
func tarball(t testing.TB, entries ...tar.Header) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range entries {
		content := h.PAXRecords["TEST.content"]
		h.PAXRecords = nil
		h.Size = int64(len(content))
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.String()
}

// file is an entry of a tarball.
func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, PAXRecords: map[string]string{"TEST.content": content}}
}

// guest returns a real guest, which is built outside of this repository.
func guest(t testing.TB, name string) string {
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	data, err := os.ReadFile(filepath.Join(shared, "guests/built", name))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("guests are not here: %v", err)
		}
		t.Skipf("SKIPPED: set SHARED to the folder that holds guests/built: %v", err)
	}
	return string(data)
}
