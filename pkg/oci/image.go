// Package oci turns what a Spin application is delivered as into a folder that is ready to be prepared: an image in
// containerd's content store (Resolve), or a folder with a spin.toml, a locked app or an OCI image layout (ResolveManifest,
// ResolveFolder). It knows nothing of engines: a component is a file to it.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// ErrNotApp says that an image or a folder holds no Spin application: it is a Linux container's.
var ErrNotApp = errors.New("not a Spin app")

const (
	maxDocuments  = 128  // manifests and indexes read to find the app: an index lists a manifest per platform
	maxIndexDepth = 3    // indexes in indexes; one level is what tools write
	maxLayers     = 1024 // of a manifest; Spin writes at most 500
)

// Resolve writes the Spin application of the image desc into out, an empty folder, and returns its locked app, in which each
// component's source is a digest and files are left out:
//
//	components/<64 hex digits>.wasm   a component by its digest
//	assets/<component id>/...         what the component sees below "/"; not there if it has no files
//
// The image is a manifest or an index; of an index, it is the first manifest that is a Spin application. Every blob is
// compared with its digest and size. Components that no trigger names are left out. File modes are subject to the umask.
func Resolve(ctx context.Context, src Blobs, desc ocispec.Descriptor, out *os.Root) (*lockedapp.App, error) {
	f := finder{src: src}
	img, err := f.find(ctx, descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}, 0)
	if err != nil {
		return nil, err
	}
	app, err := img.app(ctx, src)
	if err != nil {
		return nil, err
	}
	app.Metadata.OCIImageDigest = img.digest
	o, err := newOutput(out)
	if err != nil {
		return nil, err
	}
	r := &imageResolver{src: src, out: o, layers: make(map[digest.Digest]descriptor, len(img.Layers)), wanted: make(map[digest.Digest][]target)}
	for _, layer := range img.Layers {
		r.layers[layer.Digest] = layer
	}
	if err := r.resolve(ctx, app, img.Layers); err != nil {
		return nil, fmt.Errorf("app %.100q: %w", app.Metadata.Name, err)
	}
	return app, nil
}

// document is an OCI image manifest or an OCI image index, or Docker's form of these.
// See https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md and image-index.md beside it.
type document struct {
	Config      *descriptor       `json:"config"`
	Layers      []descriptor      `json:"layers"`
	Manifests   []descriptor      `json:"manifests"`
	Annotations map[string]string `json:"annotations"`
}

// image is the manifest of a Spin application.
type image struct {
	document
	digest digest.Digest
}

// finder looks for the Spin application among manifests.
type finder struct {
	src       Blobs
	documents int // read so far
}

// find returns the image d, or the first one below the index d, that is a Spin application, or else ErrNotApp.
func (f *finder) find(ctx context.Context, d descriptor, depth int) (*image, error) {
	if f.documents++; f.documents > maxDocuments {
		return nil, fmt.Errorf("image with more than %d manifests", maxDocuments)
	}
	data, err := readDocument(ctx, f.src, d)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	img := &image{digest: d.Digest}
	if err := json.Unmarshal(data, &img.document); err != nil {
		return nil, fmt.Errorf("decode manifest %s: %w", d.Digest, err)
	}
	isManifest := img.Config != nil || img.Layers != nil
	switch {
	case isManifest && img.Manifests != nil:
		return nil, fmt.Errorf("decode manifest %s: both a manifest and an index", d.Digest)
	case len(img.Layers) > maxLayers:
		return nil, fmt.Errorf("manifest %s has %d layers, at most %d are supported", d.Digest, len(img.Layers), maxLayers)
	case isManifest && img.isApp():
		return img, nil
	case isManifest:
		return nil, ErrNotApp
	case depth == maxIndexDepth:
		return nil, fmt.Errorf("more than %d indexes inside each other", maxIndexDepth)
	}
	// containerd fetches the platforms it was asked for: what is not there is nobody's app.
	absent, found := error(nil), false
	for _, m := range img.Manifests {
		if !isManifestType(m.MediaType) {
			continue
		}
		img, err := f.find(ctx, m, depth+1)
		switch {
		case err == nil:
			return img, nil
		case errors.Is(err, ErrNotApp):
			found = true
		case errors.Is(err, fs.ErrNotExist):
			absent = err
		default:
			return nil, err
		}
	}
	if absent != nil && !found {
		return nil, absent
	}
	return nil, ErrNotApp
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, mediaTypeDockerManifest, mediaTypeDockerManifestList:
		return true
	}
	return false
}

// isApp reports whether the manifest is a Spin application, whole or damaged.
func (m *image) isApp() bool {
	return m.Config != nil && m.Config.MediaType == MediaTypeLockedApp ||
		slices.ContainsFunc(m.Layers, func(l descriptor) bool {
			return l.MediaType == MediaTypeLockedApp || l.MediaType == MediaTypeWasmLayer || l.MediaType == MediaTypeWasm
		})
}

// app returns the locked app as it is in the image, or makes one for an image that is a component and nothing else.
func (m *image) app(ctx context.Context, src Blobs) (*lockedapp.App, error) {
	var locked []descriptor
	for _, layer := range m.Layers {
		if layer.MediaType == MediaTypeLockedApp {
			locked = append(locked, layer)
		}
	}
	if len(locked) == 0 && m.Config != nil && m.Config.MediaType == MediaTypeLockedApp {
		locked = append(locked, *m.Config)
	}
	switch {
	case len(locked) > 1:
		return nil, fmt.Errorf("image has %d locked apps", len(locked))
	case len(locked) == 1:
		data, err := readDocument(ctx, src, locked[0])
		if err != nil {
			return nil, fmt.Errorf("read locked app: %w", err)
		}
		return lockedapp.Decode(data)
	case len(m.Layers) > 1:
		return nil, fmt.Errorf("image has %d layers but no locked app", len(m.Layers))
	}
	return m.implicitApp()
}

// implicitApp is the app of an image that is a component: it answers every HTTP request.
func (m *image) implicitApp() (*lockedapp.App, error) {
	layer := m.Layers[0]
	title := m.Annotations[ocispec.AnnotationTitle]
	if title == "" {
		title = strings.TrimSuffix(path.Base(layer.Annotations[ocispec.AnnotationTitle]), ".wasm")
	}
	const id = "app"
	if title == "" || title == "." {
		title = id
	}
	app := &lockedapp.App{
		Metadata: lockedapp.Metadata{Name: title, Version: m.Annotations[ocispec.AnnotationVersion], Description: m.Annotations[ocispec.AnnotationDescription]},
		Triggers: []lockedapp.Trigger{{ID: "app-http-trigger", Type: "http", Config: json.RawMessage(`{"component":"app","route":"/..."}`)}},
		Components: []lockedapp.Component{{ID: id, Source: lockedapp.Source{
			ContentType: "application/wasm", ContentRef: lockedapp.ContentRef{Digest: layer.Digest},
		}}},
	}
	return app, app.Validate()
}

// resolveComponents drops the components that no trigger calls, and resolves each of the others.
func resolveComponents(app *lockedapp.App, resolve func(*lockedapp.Component) error) error {
	called := make(map[string]bool)
	for i := range app.Triggers {
		id, err := app.Triggers[i].ComponentID()
		if err != nil {
			return err
		}
		called[id] = true
	}
	app.Components = slices.DeleteFunc(app.Components, func(c lockedapp.Component) bool { return !called[c.ID] })
	for i := range app.Components {
		c := &app.Components[i]
		err := refuseDependencies(c)
		if err == nil {
			err = resolve(c)
		}
		if err != nil {
			return fmt.Errorf("component %q: %w", c.ID, err)
		}
		c.Files = nil
	}
	return nil
}

func refuseDependencies(c *lockedapp.Component) error {
	if names := slices.Sorted(maps.Keys(c.Dependencies)); len(names) > 0 {
		return fmt.Errorf("dependencies are not supported yet (%.100q): push the app with Spin 3.2 or newer, which composes them", names[0])
	}
	return nil
}

// imageResolver writes the content of an app from an image's layers.
type imageResolver struct {
	src    Blobs
	out    *output
	layers map[digest.Digest]descriptor
	wanted map[digest.Digest][]target // files that no layer is, so that they must be in an archive
}

func (r *imageResolver) resolve(ctx context.Context, app *lockedapp.App, layers []descriptor) error {
	if err := resolveComponents(app, func(c *lockedapp.Component) error { return r.component(ctx, c) }); err != nil {
		return err
	}
	for _, layer := range layers {
		if layer.MediaType == MediaTypeBundleLayer && len(r.wanted) > 0 {
			if err := r.bundle(ctx, layer); err != nil {
				return fmt.Errorf("bundle of files %s: %w", layer.Digest, err)
			}
		}
	}
	if missing := slices.Sorted(maps.Keys(r.wanted)); len(missing) > 0 {
		t := r.wanted[missing[0]][0]
		return fmt.Errorf("component %q: file %.200q: the image has no layer or archived file %s", t.component, t.path, missing[0])
	}
	return nil
}

func (r *imageResolver) component(ctx context.Context, c *lockedapp.Component) error {
	if err := r.source(ctx, &c.Source); err != nil {
		return err
	}
	for _, f := range c.Files {
		if err := r.file(ctx, target{c.ID, f.Path}, f.ContentRef); err != nil {
			return fmt.Errorf("file %.200q: %w", f.Path, err)
		}
	}
	return nil
}

// source writes a component and makes its digest its source.
func (r *imageResolver) source(ctx context.Context, s *lockedapp.Source) error {
	d := s.Digest
	switch layer, ok := r.layers[d]; {
	case r.out.wasm[d]:
		// Another component has the same source.
	case s.Inline != nil:
		var err error
		if d, err = r.out.component(bytes.NewReader(s.Inline), d); err != nil {
			return err
		}
	case d == "":
		return fmt.Errorf("source %.200q is not in the image", s.Source)
	case !ok:
		return fmt.Errorf("source: the image has no layer %s", d)
	default:
		b, err := openBlob(ctx, r.src, layer)
		if err != nil {
			return err
		}
		defer b.Close()
		if _, err := r.out.component(b, d); err != nil {
			return err
		}
	}
	s.ContentRef = lockedapp.ContentRef{Digest: d}
	return nil
}

// file writes a static file, or notes that it is wanted from an archive.
func (r *imageResolver) file(ctx context.Context, to target, ref lockedapp.ContentRef) error {
	if err := checkPath(to.path); err != nil {
		return err
	}
	switch layer, ok := r.layers[ref.Digest]; {
	case ref.Inline != nil:
		return r.out.asset(to, bytes.NewReader(ref.Inline), ref.Digest)
	case ref.Digest == "":
		return fmt.Errorf("source %.200q is not in the image", ref.Source)
	case !ok:
		r.wanted[ref.Digest] = append(r.wanted[ref.Digest], to)
		return nil
	default:
		b, err := openBlob(ctx, r.src, layer)
		if err != nil {
			return err
		}
		defer b.Close()
		return r.out.asset(to, b, ref.Digest)
	}
}

func (r *imageResolver) bundle(ctx context.Context, layer descriptor) error {
	b, err := openBlob(ctx, r.src, layer)
	if err != nil {
		return err
	}
	defer b.Close()
	return r.out.bundle(b, r.wanted)
}
