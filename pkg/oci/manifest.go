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
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// manifestName is where a manifest is, below the root of a container's or a developer's folder.
const manifestName = "spin.toml"

// maxManifest is the most bytes of a manifest. It is written by hand; the decoder needs the square of it to say what it does not
// know, more than a second for this much.
const maxManifest = 64 << 10

// ResolveManifest does what Resolve does for a folder with a spin.toml at its top, such as the root of a container image that
// holds an app's files. ErrNotApp means that there is none. Links in the folder are followed as long as they stay in it.
func ResolveManifest(ctx context.Context, dir, out *os.Root) (*lockedapp.App, error) {
	t := &tree{ctx: ctx, root: dir}
	data, err := t.read(manifestName, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no %s", ErrNotApp, manifestName)
	}
	if err != nil {
		return nil, err
	}
	m, app, err := decodeManifest(data)
	if err != nil {
		return nil, err
	}
	o, err := newOutput(out)
	if err != nil {
		return nil, err
	}
	if err := resolveComponents(app, func(c *lockedapp.Component) error {
		return t.manifestComponent(o, c, m.Component[c.ID].Files)
	}); err != nil {
		return nil, fmt.Errorf("app %.100q: %w", app.Metadata.Name, err)
	}
	return app, nil
}

// manifestComponent writes a component and its files.
func (t *tree) manifestComponent(o *output, c *lockedapp.Component, files []any) error {
	f, err := t.open(c.Source.Source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	defer f.Close()
	d, err := o.component(f, "")
	if err != nil {
		return err
	}
	c.Source.ContentRef = lockedapp.ContentRef{Digest: d}
	assets := make(mounts)
	for i, file := range files {
		if err := t.manifestFile(assets, file); err != nil {
			return fmt.Errorf("files[%d]: %w", i, err)
		}
	}
	return t.write(o, c.ID, assets)
}

// manifestFile adds what an entry of `files` names. Where two entries name the same path for the guest, the last one is seen.
func (t *tree) manifestFile(assets mounts, entry any) error {
	if name, ok := entry.(string); ok {
		clean, err := cleanPath(name)
		if err != nil {
			return err
		}
		if _, err := t.root.Stat(clean); err != nil && isPattern(clean) {
			return t.glob(assets, clean)
		}
		return t.mount(assets, clean, clean)
	}
	table, _ := entry.(map[string]any)
	source, ok := table["source"].(string)
	destination, ok2 := table["destination"].(string)
	if !ok || !ok2 || len(table) != 2 {
		return errors.New("neither a path or pattern nor {source, destination}")
	}
	return t.mount(assets, strings.TrimPrefix(destination, "/"), source)
}

// manifest is a spin.toml of version 2.
// See https://github.com/spinframework/spin/blob/main/crates/manifest/src/schema/v2.rs.
//
// Differences from the specification:
//   - What is missing here is refused by name. The keys of type any without a reader are for development only.
//   - Every component is checked, whether a trigger names it or not.
type manifest struct {
	Version     int64                       `toml:"spin_manifest_version"`
	Application manifestApplication         `toml:"application"`
	Variables   map[string]manifestVariable `toml:"variables"`
	Trigger     struct {
		HTTP []httpTrigger `toml:"http"`
	} `toml:"trigger"`
	Component map[string]manifestComponent `toml:"component"`
}

type manifestApplication struct {
	Name        string   `toml:"name"`
	Version     string   `toml:"version"`
	Description string   `toml:"description"`
	Authors     []string `toml:"authors"`
	Trigger     struct {
		HTTP struct {
			Base string `toml:"base"`
		} `toml:"http"`
	} `toml:"trigger"`
	Targets any `toml:"targets"`
	Tool    any `toml:"tool"`
}

type manifestVariable struct {
	Required    bool    `toml:"required"`
	Default     *string `toml:"default"`
	Secret      bool    `toml:"secret"`
	Description string  `toml:"description"`
}

type httpTrigger struct {
	ID        string        `toml:"id"`
	Component any           `toml:"component"`
	Route     any           `toml:"route"`
	Executor  *httpExecutor `toml:"executor"`
}

type httpExecutor struct {
	Type string `toml:"type" json:"type"`
}

type manifestComponent struct {
	Source               any               `toml:"source"`
	Description          string            `toml:"description"`
	Variables            map[string]string `toml:"variables"`
	Environment          map[string]string `toml:"environment"`
	Files                []any             `toml:"files"`
	AllowedOutboundHosts []string          `toml:"allowed_outbound_hosts"`
	KeyValueStores       []string          `toml:"key_value_stores"`
	Targets              any               `toml:"targets"`
	Build                any               `toml:"build"`
	Tool                 any               `toml:"tool"`
}

// decodeManifest returns the manifest and the locked app that it describes, in which sources are still paths and files are
// left out.
func decodeManifest(data []byte) (*manifest, *lockedapp.App, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // a mark that editors on Windows put there
	var version struct {
		V1     any `toml:"spin_version"` // the key's older name
		Number any `toml:"spin_manifest_version"`
	}
	if err := toml.Unmarshal(data, &version); err != nil {
		return nil, nil, manifestError(err)
	}
	if version.Number != int64(2) {
		if version.Number == nil && version.V1 == nil {
			return nil, nil, fmt.Errorf("%s: no spin_manifest_version", manifestName)
		}
		return nil, nil, fmt.Errorf("%s: only spin_manifest_version = 2 is supported", manifestName)
	}
	m := new(manifest)
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(m); err != nil {
		return nil, nil, manifestError(err)
	}
	app, err := m.lock()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	return m, app, nil
}

// manifestError says where in the manifest something is wrong.
func manifestError(err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		line, _ := strict.Errors[0].Position()
		return fmt.Errorf("%s:%d: %.200s is not supported", manifestName, line, strings.Join(strict.Errors[0].Key(), "."))
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := decode.Position()
		return fmt.Errorf("%s:%d: %s", manifestName, line, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", manifestName, err)
}

// lock makes a locked app of the manifest.
func (m *manifest) lock() (*lockedapp.App, error) {
	a := &m.Application
	if base := a.Trigger.HTTP.Base; base != "" && base != "/" {
		return nil, fmt.Errorf("application.trigger.http.base %.200q is not supported: only / is", base)
	}
	app := &lockedapp.App{Metadata: lockedapp.Metadata{Name: a.Name, Version: a.Version, Description: a.Description, Authors: a.Authors}}
	for _, name := range slices.Sorted(maps.Keys(m.Variables)) {
		v := m.Variables[name]
		if v.Required == (v.Default != nil) {
			return nil, fmt.Errorf("variable %.100q: either required = true or a default", name)
		}
		if app.Variables == nil {
			app.Variables = make(map[string]lockedapp.Variable)
		}
		app.Variables[name] = lockedapp.Variable{Description: v.Description, Default: v.Default, Secret: v.Secret}
	}
	for _, id := range slices.Sorted(maps.Keys(m.Component)) {
		c, err := m.Component[id].lock(id)
		if err != nil {
			return nil, fmt.Errorf("component %.100q: %w", id, err)
		}
		app.Components = append(app.Components, c)
	}
	var err error
	if app.Triggers, err = lockTriggers(m.Trigger.HTTP); err != nil {
		return nil, err
	}
	return app, app.Validate()
}

func (c manifestComponent) lock(id string) (lockedapp.Component, error) {
	source, ok := c.Source.(string)
	if table, isTable := c.Source.(map[string]any); isTable {
		keys := strings.Join(slices.Sorted(maps.Keys(table)), ", ")
		return lockedapp.Component{}, fmt.Errorf("source by {%.100s} is not supported yet: only a path is", keys)
	}
	if !ok || source == "" {
		return lockedapp.Component{}, errors.New("source is not a path")
	}
	for _, host := range c.AllowedOutboundHosts {
		if strings.Contains(host, ".spin.internal") {
			return lockedapp.Component{}, fmt.Errorf("allowed_outbound_hosts: %.200q (local service chaining) is not supported yet", host)
		}
	}
	return lockedapp.Component{
		ID: id,
		Metadata: lockedapp.ComponentMetadata{
			Description: c.Description, AllowedOutboundHosts: c.AllowedOutboundHosts, KeyValueStores: c.KeyValueStores,
		},
		Source: lockedapp.Source{ContentType: "application/wasm", ContentRef: lockedapp.ContentRef{Source: source}},
		Env:    c.Environment,
		Config: c.Variables,
	}, nil
}

// lockTriggers gives an id to each trigger that has none, as Spin does.
func lockTriggers(triggers []httpTrigger) ([]lockedapp.Trigger, error) {
	ids := make(map[string]bool)
	for _, t := range triggers {
		ids[t.ID] = true
	}
	locked := make([]lockedapp.Trigger, len(triggers))
	for i, t := range triggers {
		config, component, err := t.lock()
		if err != nil {
			return nil, fmt.Errorf("trigger.http[%d]: %w", i, err)
		}
		id := t.ID
		if id == "" {
			id = component + "-http-trigger"
		}
		for n := 1; t.ID == "" && ids[id]; n++ {
			id = fmt.Sprintf("http-trigger%d", n)
		}
		ids[id] = true
		locked[i] = lockedapp.Trigger{ID: id, Type: "http", Config: config}
	}
	return locked, nil
}

// lock returns the trigger's config in a locked app, and its component.
func (t *httpTrigger) lock() (config json.RawMessage, component string, err error) {
	component, ok := t.Component.(string)
	if _, inline := t.Component.(map[string]any); inline {
		return nil, "", errors.New("an inline component is not supported yet")
	}
	if !ok || component == "" {
		return nil, "", errors.New("no component")
	}
	if route, isTable := t.Route.(map[string]any); isTable {
		if private, _ := route["private"].(bool); !private || len(route) != 1 {
			return nil, "", errors.New("route is neither a path nor {private = true}")
		}
	} else if _, isPath := t.Route.(string); !isPath {
		return nil, "", errors.New("route is neither a path nor {private = true}")
	}
	if t.Executor != nil && t.Executor.Type != "http" && t.Executor.Type != "spin" {
		return nil, "", fmt.Errorf("executor %.100q is not supported yet", t.Executor.Type)
	}
	config, err = json.Marshal(struct {
		Component string        `json:"component"`
		Route     any           `json:"route"`
		Executor  *httpExecutor `json:"executor,omitempty"`
	}{component, t.Route, t.Executor})
	return config, component, err
}
