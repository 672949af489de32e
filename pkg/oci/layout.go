package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// ResolveFolder does what Resolve does for a folder that is one of these, the first that it is:
//   - a folder with a spin.toml;
//   - a folder with a locked app: spin.lock, locked.json or spin.json. Content is inline, or in a file: by a path or `file:`
//     URL below the folder (its name must be absolute for those that are), or by a digest in blobs/sha256;
//   - an OCI image layout, which holds one image or several, of which one is a Spin application.
//
// ErrNotApp means that it is none of these.
func ResolveFolder(ctx context.Context, dir, out *os.Root) (*lockedapp.App, error) {
	app, err := ResolveManifest(ctx, dir, out)
	if !errors.Is(err, ErrNotApp) {
		return app, err
	}
	t := &tree{ctx: ctx, root: dir}
	for _, name := range []string{"spin.lock", "locked.json", "spin.json"} {
		data, err := t.read(name, lockedapp.MaxSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return t.resolveLocked(data, out)
	}
	layout, desc, err := OpenLayout(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: neither a %s nor a locked app nor an OCI image layout", ErrNotApp, manifestName)
	}
	if err != nil {
		return nil, err
	}
	return Resolve(ctx, layout, desc, out)
}

// resolveLocked resolves a locked app, whose content is in the folder.
func (t *tree) resolveLocked(data []byte, out *os.Root) (*lockedapp.App, error) {
	app, err := lockedapp.Decode(data)
	if err != nil {
		return nil, err
	}
	o, err := newOutput(out)
	if err != nil {
		return nil, err
	}
	if err := resolveComponents(app, func(c *lockedapp.Component) error { return t.lockedComponent(o, c) }); err != nil {
		return nil, fmt.Errorf("app %.100q: %w", app.Metadata.Name, err)
	}
	return app, nil
}

func (t *tree) lockedComponent(o *output, c *lockedapp.Component) error {
	d, err := t.lockedSource(o, c.Source.ContentRef)
	if err != nil {
		return err
	}
	c.Source.ContentRef = lockedapp.ContentRef{Digest: d}
	for _, file := range c.Files {
		if err := t.lockedFile(o, c.ID, file); err != nil {
			return fmt.Errorf("file %.200q: %w", file.Path, err)
		}
	}
	return nil
}

func (t *tree) lockedSource(o *output, ref lockedapp.ContentRef) (digest.Digest, error) {
	if ref.Inline != nil {
		return o.component(bytes.NewReader(ref.Inline), ref.Digest)
	}
	name, err := t.place(ref)
	if err != nil {
		return "", fmt.Errorf("source: %w", err)
	}
	f, err := t.open(name)
	if err != nil {
		return "", fmt.Errorf("source: %w", err)
	}
	defer f.Close()
	return o.component(f, ref.Digest)
}

// lockedFile writes a file, or a folder with what is below it.
func (t *tree) lockedFile(o *output, component string, file lockedapp.File) error {
	to := strings.TrimPrefix(file.Path, "/")
	if file.Inline != nil {
		if err := checkPath(to); err != nil {
			return err
		}
		return o.asset(target{component, to}, bytes.NewReader(file.Inline), file.Digest)
	}
	name, err := t.place(file.ContentRef)
	if err != nil {
		return err
	}
	if file.Digest == "" {
		assets := make(mounts)
		if err := t.mount(assets, to, name); err != nil {
			return err
		}
		return t.write(o, component, assets)
	}
	if err := checkPath(to); err != nil {
		return err
	}
	f, err := t.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return o.asset(target{component, to}, f, file.Digest)
}

// place returns the path in the folder of what ref refers to.
func (t *tree) place(ref lockedapp.ContentRef) (string, error) {
	if ref.Source == "" {
		return blobName(ref.Digest), nil
	}
	name := ref.Source
	if strings.Contains(name, "://") {
		u, err := url.Parse(name)
		if err != nil {
			return "", err
		}
		if u.Scheme != "file" || u.Host != "" {
			return "", fmt.Errorf("%.200q is not a file", name)
		}
		name = u.Path
	}
	if filepath.IsAbs(name) {
		return filepath.Rel(t.root.Name(), name)
	}
	return name, nil
}

// Layout is an OCI image layout in a folder.
// See https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md.
type Layout struct {
	dir   *os.Root
	index digest.Digest
}

// OpenLayout returns the layout in dir, and its index as a descriptor that Resolve takes. The error is fs.ErrNotExist if there
// is no layout. The layout needs dir as long as it is used.
func OpenLayout(dir *os.Root) (*Layout, ocispec.Descriptor, error) {
	t := &tree{ctx: context.Background(), root: dir}
	data, err := t.read(ocispec.ImageLayoutFile, lockedapp.MaxSize)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(data, &layout); err != nil {
		return nil, ocispec.Descriptor{}, fmt.Errorf("decode %s: %w", ocispec.ImageLayoutFile, err)
	}
	if layout.Version != ocispec.ImageLayoutVersion {
		return nil, ocispec.Descriptor{}, fmt.Errorf("OCI image layout of version %.100q is not supported", layout.Version)
	}
	index, err := t.read(ocispec.ImageIndexFile, lockedapp.MaxSize)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	d := digest.FromBytes(index)
	return &Layout{dir, d}, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d, Size: int64(len(index))}, nil
}

// Open implements Blobs.
func (l *Layout) Open(ctx context.Context, d digest.Digest) (*os.File, error) {
	t := &tree{ctx: ctx, root: l.dir}
	if d == l.index {
		return t.open(ocispec.ImageIndexFile)
	}
	if err := lockedapp.ValidateDigest(d); err != nil {
		return nil, err
	}
	return t.open(blobName(d))
}

func blobName(d digest.Digest) string {
	return filepath.Join(ocispec.ImageBlobsDir, "sha256", d.Encoded())
}
