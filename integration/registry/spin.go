package registry

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/bmatcuk/doublestar/v4"
)

// Media types of Spin applications.
const (
	typeLocked  = "application/vnd.fermyon.spin.application.v1+config"
	typeWasm    = "application/vnd.wasm.content.layer.v1+wasm"
	typeData    = "application/vnd.wasm.content.layer.v1+data"
	typeArchive = "application/vnd.wasm.content.bundle.v1.tar+gzip"
	// What package managers of components write.
	typeComponent       = "application/wasm"
	typeComponentConfig = "application/vnd.wasm.config.v0+json"
)

// maxInline is the most bytes that spin puts into the locked app instead of a layer of their own.
const maxInline = 128

// App is a Spin application as its manifest describes it.
type App struct {
	locked     lockedApp
	wasm       map[string][]byte  // by component id
	files      map[string][]mount // by component id
	components []string           // ids in order
	title      map[string]string  // annotations of the manifest
}

type mount struct {
	path  string
	bytes []byte
}

type lockedApp struct {
	SpinLockVersion int                 `json:"spin_lock_version"`
	Metadata        map[string]any      `json:"metadata"`
	Variables       map[string]variable `json:"variables,omitempty"`
	Triggers        []lockedTrigger     `json:"triggers"`
	Components      []lockedComponent   `json:"components"`
}

type variable struct {
	Description string  `toml:"description" json:"description,omitempty"`
	Default     *string `toml:"default" json:"default,omitempty"`
	Required    bool    `toml:"required" json:"-"`
	Secret      bool    `toml:"secret" json:"secret,omitempty"`
}

type lockedTrigger struct {
	ID     string         `json:"id"`
	Type   string         `json:"trigger_type"`
	Config map[string]any `json:"trigger_config"`
}

type lockedComponent struct {
	ID       string            `json:"id"`
	Metadata map[string]any    `json:"metadata,omitempty"`
	Source   contentRef        `json:"source"`
	Env      map[string]string `json:"env,omitempty"`
	Files    []contentRef      `json:"files,omitempty"`
	Config   map[string]string `json:"config,omitempty"`
}

type contentRef struct {
	ContentType string  `json:"content_type,omitempty"`
	Inline      *string `json:"inline,omitempty"`
	Digest      string  `json:"digest,omitempty"`
	Path        string  `json:"path,omitempty"`
}

type spinManifest struct {
	Version     int `toml:"spin_manifest_version"`
	Application struct {
		Name        string         `toml:"name"`
		Version     string         `toml:"version"`
		Description string         `toml:"description"`
		Authors     []string       `toml:"authors"`
		Trigger     map[string]any `toml:"trigger"`
	} `toml:"application"`
	Variables map[string]variable         `toml:"variables"`
	Trigger   map[string][]map[string]any `toml:"trigger"`
	Component map[string]component        `toml:"component"`
}

type component struct {
	Source        string            `toml:"source"`
	Description   string            `toml:"description"`
	Variables     map[string]string `toml:"variables"`
	Environment   map[string]string `toml:"environment"`
	Files         []any             `toml:"files"`
	ExcludeFiles  []string          `toml:"exclude_files"`
	OutboundHosts []string          `toml:"allowed_outbound_hosts"`
	KeyValue      []string          `toml:"key_value_stores"`
	SQLite        []string          `toml:"sqlite_databases"`
	Build         map[string]any    `toml:"build"`
}

// OpenApp reads the spin.toml (version 2) of a folder, and the files that it names.
func OpenApp(dir string) (*App, error) {
	a, err := openApp(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("open app %s: %w", dir, err)
	}
	return a, nil
}

func openApp(dir fs.FS) (*App, error) {
	text, err := fs.ReadFile(dir, "spin.toml")
	if err != nil {
		return nil, err
	}
	var m spinManifest
	meta, err := toml.Decode(string(text), &m)
	if err != nil {
		return nil, err
	}
	for _, key := range meta.Undecoded() {
		// What is below a key of type any is always among these.
		if !slices.Contains(key, "trigger") && !slices.Contains(key, "files") && !slices.Contains(key, "build") {
			return nil, fmt.Errorf("%s is not understood here", key)
		}
	}
	if m.Version != 2 {
		return nil, fmt.Errorf("manifest version %d, want 2", m.Version)
	}
	a := &App{
		wasm:  map[string][]byte{},
		files: map[string][]mount{},
		title: map[string]string{},
		locked: lockedApp{
			Metadata:   map[string]any{"name": m.Application.Name},
			Variables:  m.Variables,
			Triggers:   []lockedTrigger{},
			Components: []lockedComponent{},
		},
	}
	a.describe(&m)
	a.addTriggers(&m)
	for _, id := range a.components {
		if err := a.addComponent(dir, id, m.Component[id]); err != nil {
			return nil, fmt.Errorf("component %q: %w", id, err)
		}
	}
	return a, nil
}

// describe writes what the application says about itself, for machines and, as annotations, for people.
func (a *App) describe(m *spinManifest) {
	app := m.Application
	for key, value := range map[string]string{"version": app.Version, "description": app.Description} {
		if value != "" {
			a.locked.Metadata[key] = value
			a.title["org.opencontainers.image."+key] = value
		}
	}
	a.title["org.opencontainers.image.title"] = app.Name
	if len(app.Authors) > 0 {
		a.locked.Metadata["authors"] = app.Authors
		a.title["org.opencontainers.image.authors"] = strings.Join(app.Authors, ", ")
	}
	triggers := map[string]any{}
	for kind := range m.Trigger {
		triggers[kind] = map[string]any{}
		if config, ok := app.Trigger[kind]; ok {
			triggers[kind] = config
		}
	}
	a.locked.Metadata["triggers"] = triggers
	if kinds := slices.Collect(maps.Keys(triggers)); len(kinds) == 1 {
		a.locked.Metadata["trigger"] = map[string]string{"type": kinds[0]}
	}
}

// addTriggers locks the triggers and notes which components they use: no other is part of what is pushed.
func (a *App) addTriggers(m *spinManifest) {
	for _, kind := range slices.Sorted(maps.Keys(m.Trigger)) {
		for i, t := range m.Trigger[kind] {
			config := maps.Clone(t)
			name, _ := config["component"].(string)
			id, _ := config["id"].(string)
			delete(config, "id")
			fallback := fmt.Sprintf("%s-%s-trigger", name, kind)
			if name == "" {
				fallback = fmt.Sprintf("%s-trigger%d", kind, i+1)
			}
			a.locked.Triggers = append(a.locked.Triggers, lockedTrigger{ID: cmp.Or(id, fallback), Type: kind, Config: config})
			if name != "" && !slices.Contains(a.components, name) {
				a.components = append(a.components, name)
			}
		}
	}
}

func (a *App) addComponent(dir fs.FS, id string, c component) error {
	wasm, err := fs.ReadFile(dir, c.Source)
	if err != nil {
		return err
	}
	a.wasm[id] = wasm
	if a.files[id], err = mounts(dir, c); err != nil {
		return err
	}
	metadata := map[string]any{}
	if c.Description != "" {
		metadata["description"] = c.Description
	}
	for key, list := range map[string][]string{
		"allowed_outbound_hosts": c.OutboundHosts, "key_value_stores": c.KeyValue, "databases": c.SQLite,
	} {
		if len(list) > 0 {
			metadata[key] = list
		}
	}
	if len(c.Build) > 0 {
		metadata["build"] = c.Build
	}
	a.locked.Components = append(a.locked.Components, lockedComponent{ID: id, Metadata: metadata, Env: c.Environment, Config: c.Variables})
	return nil
}

// mounts reads the static files of a component, sorted by the path at which it sees them.
func mounts(dir fs.FS, c component) ([]mount, error) {
	found := map[string][]byte{}
	add := func(source, destination string) error {
		for _, pattern := range c.ExcludeFiles {
			if match, err := doublestar.Match(pattern, source); match || err != nil {
				return err
			}
		}
		b, err := fs.ReadFile(dir, source)
		found[strings.TrimPrefix(destination, "/")] = b
		return err
	}
	// below adds a file, or the files below a folder, as destination.
	below := func(source, destination string) error {
		return fs.WalkDir(dir, source, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return add(name, path.Join(destination, strings.TrimPrefix(name, source)))
		})
	}
	for _, entry := range c.Files {
		switch e := entry.(type) {
		case string:
			names, err := doublestar.Glob(dir, e)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if err := below(name, name); err != nil {
					return nil, err
				}
			}
		case map[string]any:
			source, _ := e["source"].(string)
			destination, _ := e["destination"].(string)
			if err := below(source, destination); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("files: %T is not understood here", entry)
		}
	}
	var sorted []mount
	for _, name := range slices.Sorted(maps.Keys(found)) {
		sorted = append(sorted, mount{name, found[name]})
	}
	return sorted, nil
}

// SetDefault sets the default of a variable of the application, as an edit of its manifest would.
func (a *App) SetDefault(name, value string) {
	v := a.locked.Variables[name]
	v.Default = &value
	a.locked.Variables[name] = v
}

// Artifact is the image that `spin registry push` writes today: an ordinary image configuration without file system layers, one
// layer for each component's wasm and for each static file, and last the locked app. Content of at most 128 bytes is in the locked
// app itself; a static file of that size has no layer. With archive, the static files are one layer for each component, as spin does
// for applications with more files than registries allow layers.
func (a *App) Artifact(archive bool) (Image, error) {
	locked := a.locked
	locked.Components = slices.Clone(locked.Components)
	var layers []Blob
	for i := range locked.Components {
		c := &locked.Components[i]
		wasm := Blob{typeWasm, a.wasm[c.ID]}
		c.Source = refer(wasm)
		c.Source.ContentType = typeComponent
		layers = append(layers, wasm)
		for _, f := range a.files[c.ID] {
			data := Blob{typeData, f.bytes}
			ref := refer(data)
			ref.Path = f.path
			c.Files = append(c.Files, ref)
			if ref.Inline == nil && !archive {
				layers = append(layers, data)
			}
		}
		if archive && len(a.files[c.ID]) > 0 {
			bundle, err := bundle(a.files[c.ID])
			if err != nil {
				return Image{}, err
			}
			layers = append(layers, Blob{typeArchive, bundle})
		}
	}
	document, err := json.Marshal(locked)
	if err != nil {
		return Image{}, err
	}
	app := Blob{typeLocked, document}
	config, err := ociConfig("Wasip1", map[string]string{"com.fermyon.spin.lockedAppDigest": digestOf(document)})
	return Image{Config: config, Layers: append(unique(layers), app), Annotations: a.title}, err
}

// Legacy is the image that Spin before 2.0 wrote: the locked app is the image's configuration.
func (a *App) Legacy() (Image, error) {
	locked := a.locked
	locked.Components = slices.Clone(locked.Components)
	var layers []Blob
	for i := range locked.Components {
		c := &locked.Components[i]
		wasm := Blob{typeWasm, a.wasm[c.ID]}
		c.Source = contentRef{ContentType: typeComponent, Digest: digestOf(wasm.Bytes)}
		layers = append(layers, wasm)
		for _, f := range a.files[c.ID] {
			data := Blob{typeData, f.bytes}
			c.Files = append(c.Files, contentRef{Digest: digestOf(f.bytes), Path: f.path})
			layers = append(layers, data)
		}
	}
	document, err := json.Marshal(locked)
	return Image{Config: Blob{typeLocked, document}, Layers: unique(layers)}, err
}

// Component is an image of one component and nothing else, with an ordinary image configuration.
func Component(wasm []byte) (Image, error) {
	config, err := ociConfig("wasip2", nil)
	return Image{Config: config, Layers: []Blob{{typeComponent, wasm}}}, err
}

// Package is an image of one component as package managers of components write it.
func Package(wasm []byte) (Image, error) {
	config, err := json.Marshal(map[string]any{"architecture": "wasm", "os": "wasip2", "layerDigests": []string{digestOf(wasm)}})
	return Image{Config: Blob{typeComponentConfig, config}, Layers: []Blob{{typeComponent, wasm}}}, err
}

// Container is the application as the files of an ordinary container image: spin.toml and what it names, at the root.
func Container(dir string) (Image, error) {
	files := map[string][]byte{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files["/"+name], err = fs.ReadFile(root, name)
		return err
	})
	if err != nil {
		return Image{}, err
	}
	return Linux{Files: files}.Image()
}

func refer(b Blob) contentRef {
	ref := contentRef{Digest: digestOf(b.Bytes)}
	if len(b.Bytes) <= maxInline {
		inline := base64.RawStdEncoding.EncodeToString(b.Bytes)
		ref.Inline = &inline
	}
	return ref
}

// ociConfig is an image configuration without layers: containerd unpacks nothing.
func ociConfig(os string, labels map[string]string) (Blob, error) {
	b, err := json.Marshal(map[string]any{
		"architecture": "wasm",
		"os":           os,
		"config":       map[string]any{"Labels": labels},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{}},
	})
	return Blob{typeConfig, b}, err
}

func unique(layers []Blob) []Blob {
	seen := map[string]bool{}
	return slices.DeleteFunc(layers, func(b Blob) bool {
		digest := digestOf(b.Bytes)
		defer func() { seen[digest] = true }()
		return seen[digest]
	})
}

func bundle(files []mount) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}); err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := t.WriteHeader(&tar.Header{Name: "./" + f.path, Mode: 0o644, Size: int64(len(f.bytes))}); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.bytes); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
