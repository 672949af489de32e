package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"maps"
	"path"
	"runtime"
	"slices"
)

// Linux is a container image with one layer.
type Linux struct {
	Entrypoint, Cmd, Env []string
	User                 string
	Files                map[string][]byte // by absolute path; all are executable
	Links                map[string]string // symbolic links: path to target
}

// Image makes the image. The same content gives the same image.
func (l Linux) Image() (Image, error) {
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	dirs := map[string]bool{"/": true}
	var write func(h *tar.Header, b []byte) error
	write = func(h *tar.Header, b []byte) error {
		if dir := path.Dir(h.Name); !dirs[dir] {
			dirs[dir] = true
			if err := write(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil); err != nil {
				return err
			}
		}
		header := *h
		header.Name = header.Name[1:]
		if err := t.WriteHeader(&header); err != nil {
			return err
		}
		_, err := t.Write(b)
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(l.Files)) {
		b := l.Files[name]
		if err := write(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(b))}, b); err != nil {
			return Image{}, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Links)) {
		if err := write(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: l.Links[name]}, nil); err != nil {
			return Image{}, err
		}
	}
	if err := t.Close(); err != nil {
		return Image{}, err
	}
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(layer.Bytes()); err != nil {
		return Image{}, err
	}
	if err := z.Close(); err != nil {
		return Image{}, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": l.Entrypoint, "Cmd": l.Cmd, "Env": l.Env, "User": l.User},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer.Bytes())}},
	})
	return Image{Config: Blob{typeConfig, config}, Layers: []Blob{{typeLayer, compressed.Bytes()}}}, err
}
