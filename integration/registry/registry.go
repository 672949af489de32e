// Package registry is an OCI registry in memory and what is pushed to it: Spin applications in each form in which they are found in
// registries (spin.go), and ordinary container images (linux.go).
package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is a registry without TLS.
type Registry struct {
	Addr   string       // host:port; the first part of the references of what is in it
	server *http.Server // nil if it is somebody else's
}

// At is the registry of somebody else at an address.
func At(addr string) *Registry { return &Registry{Addr: addr} }

// Start starts a registry on a port of its own on the loopback interface.
func Start() (*Registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	r := &Registry{
		Addr:   l.Addr().String(),
		server: &http.Server{Handler: registry.New(registry.Logger(quiet)), ErrorLog: quiet},
	}
	go r.server.Serve(l) // ends with Close
	return r, nil
}

// Close stops a registry that Start started and forgets what is in it.
func (r *Registry) Close() error { return r.server.Close() }

// Media types of the documents that every image has.
const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// Blob is bytes of a media type.
type Blob struct {
	MediaType string
	Bytes     []byte
}

// Descriptor is how an image refers to a blob.
type Descriptor struct {
	MediaType string            `json:"mediaType"`
	Digest    string            `json:"digest"`
	Size      int64             `json:"size"`
	Platform  map[string]string `json:"platform,omitempty"`
}

// Descriptor describes the blob.
func (b Blob) Descriptor() Descriptor {
	return Descriptor{MediaType: b.MediaType, Digest: digestOf(b.Bytes), Size: int64(len(b.Bytes))}
}

// Image is an image as it is pushed.
type Image struct {
	Config      Blob
	Layers      []Blob
	Annotations map[string]string
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Manifest is the image's manifest.
func (i Image) Manifest() (Blob, error) {
	m := manifest{SchemaVersion: 2, MediaType: typeManifest, Config: i.Config.Descriptor(), Layers: []Descriptor{}, Annotations: i.Annotations}
	for _, l := range i.Layers {
		m.Layers = append(m.Layers, l.Descriptor())
	}
	b, err := json.Marshal(m)
	return Blob{typeManifest, b}, err
}

// Push pushes an image as name:latest and returns its reference.
func (r *Registry) Push(ctx context.Context, name string, i Image) (string, error) {
	m, err := r.push(ctx, name, i)
	if err != nil {
		return "", fmt.Errorf("push %s: %w", name, err)
	}
	return r.tag(ctx, name, m)
}

// Entry is one image of an index.
type Entry struct {
	Platform map[string]string
	Image    Image
}

// PushIndex pushes an index of images as name:latest and returns its reference.
func (r *Registry) PushIndex(ctx context.Context, name string, entries ...Entry) (string, error) {
	index := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []Descriptor `json:"manifests"`
	}{SchemaVersion: 2, MediaType: typeIndex}
	for _, e := range entries {
		m, err := r.push(ctx, name, e.Image)
		if err != nil {
			return "", fmt.Errorf("push %s: %w", name, err)
		}
		d := m.Descriptor()
		if err := r.put(ctx, name+"/manifests/"+d.Digest, m); err != nil {
			return "", fmt.Errorf("push %s: %w", name, err)
		}
		d.Platform = e.Platform
		index.Manifests = append(index.Manifests, d)
	}
	b, err := json.Marshal(index)
	if err != nil {
		return "", err
	}
	return r.tag(ctx, name, Blob{typeIndex, b})
}

// push pushes the blobs of an image, and returns the manifest.
func (r *Registry) push(ctx context.Context, name string, i Image) (Blob, error) {
	for _, b := range append([]Blob{i.Config}, i.Layers...) {
		if err := r.blob(ctx, name, b.Bytes); err != nil {
			return Blob{}, err
		}
	}
	return i.Manifest()
}

func (r *Registry) blob(ctx context.Context, name string, b []byte) error {
	return r.send(ctx, http.MethodPost, name+"/blobs/uploads/?digest="+digestOf(b), "application/octet-stream", b)
}

func (r *Registry) tag(ctx context.Context, name string, manifest Blob) (string, error) {
	return r.Addr + "/" + name + ":latest", r.put(ctx, name+"/manifests/latest", manifest)
}

func (r *Registry) put(ctx context.Context, path string, b Blob) error {
	return r.send(ctx, http.MethodPut, path, b.MediaType, b.Bytes)
}

func (r *Registry) send(ctx context.Context, method, path, mediaType string, b []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.Addr+"/v2/"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusCreated {
		return errors.Join(fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer), err)
	}
	return errors.Join(err, resp.Body.Close())
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
