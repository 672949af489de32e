// Package lockedapp is the locked app: the JSON document that says what a Spin application consists of. It is written by
// `spin registry push` into an artifact and by package oci into a prepared app.
package lockedapp

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// App is a locked app.
// See https://github.com/spinframework/spin/blob/main/crates/locked-app/src/locked.rs.
//
// Differences from the specification:
//   - Fields that no part of this host reads are not kept; like unknown ones they are ignored.
//   - Middleware (trigger_dependencies) is known only well enough to refuse it.
type App struct {
	LockVersion      int                        `json:"spin_lock_version"`
	MustUnderstand   []string                   `json:"must_understand,omitempty"`
	Metadata         Metadata                   `json:"metadata"`
	HostRequirements map[string]json.RawMessage `json:"host_requirements,omitempty"`
	Variables        map[string]Variable        `json:"variables,omitempty"`
	Triggers         []Trigger                  `json:"triggers"`
	Components       []Component                `json:"components"`
}

// Metadata describes the app. Name is never empty.
type Metadata struct {
	Name        string   `json:"name"`
	Version     string   `json:"version,omitempty"`
	Description string   `json:"description,omitempty"`
	Authors     []string `json:"authors,omitempty"`
	// Triggers holds the app-wide settings of each trigger type.
	Triggers       map[string]json.RawMessage `json:"triggers,omitempty"`
	OCIImageDigest digest.Digest              `json:"oci_image_digest,omitempty"`
}

// Variable is an application variable. A variable without a default must get its value from a provider.
type Variable struct {
	Description string  `json:"description,omitempty"`
	Default     *string `json:"default,omitempty"`
	Secret      bool    `json:"secret,omitempty"`
}

// Trigger connects a kind of event to a component.
type Trigger struct {
	ID   string `json:"id"`
	Type string `json:"trigger_type"`
	// Config is a JSON object, whose keys only the trigger of this type knows; all but `component`.
	Config json.RawMessage `json:"trigger_config"`
	// Dependencies is the middleware in front of the component.
	Dependencies map[string]json.RawMessage `json:"trigger_dependencies,omitempty"`
}

// Component is one WebAssembly component and what it may use.
type Component struct {
	// ID is a valid name of a folder.
	ID               string                     `json:"id"`
	Metadata         ComponentMetadata          `json:"metadata"`
	Source           Source                     `json:"source"`
	Env              map[string]string          `json:"env,omitempty"`
	Files            []File                     `json:"files,omitempty"`
	Config           map[string]string          `json:"config,omitempty"` // the component's variables; values are templates
	Dependencies     map[string]json.RawMessage `json:"dependencies,omitempty"`
	HostRequirements map[string]json.RawMessage `json:"host_requirements,omitempty"`
}

// ComponentMetadata is what a component is granted; nothing is by default.
type ComponentMetadata struct {
	Description          string   `json:"description,omitempty"`
	AllowedOutboundHosts []string `json:"allowed_outbound_hosts,omitempty"` // templates
	KeyValueStores       []string `json:"key_value_stores,omitempty"`
	Databases            []string `json:"databases,omitempty"` // SQLite
	AIModels             []string `json:"ai_models,omitempty"`
}

// Source is a component's WebAssembly.
type Source struct {
	ContentType string `json:"content_type,omitempty"`
	ContentRef
}

// File is a file that a component sees at Path, below its root folder. In an app that is not in an artifact yet, it may be a
// whole folder.
type File struct {
	ContentRef
	Path string `json:"path"`
}

// ContentRef says where bytes are: in a place (a `file:` URL or a path), in a blob of that digest, or here. One of the
// three is always set; a digest may accompany a place or, as `spin registry push` writes it, inlined content.
type ContentRef struct {
	Source string        `json:"source,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	Inline Bytes         `json:"inline,omitzero"`
}

// Bytes are written as standard base64 without padding and read with or without it. Nil is absence; empty is not.
type Bytes []byte

// MarshalText encodes b.
func (b Bytes) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText decodes text into b.
func (b *Bytes) UnmarshalText(text []byte) error {
	encoding := base64.RawStdEncoding
	if bytes.HasSuffix(text, []byte("=")) {
		encoding = base64.StdEncoding
	}
	decoded, err := encoding.AppendDecode([]byte{}, text)
	if err != nil {
		return err
	}
	*b = decoded
	return nil
}

// Decode reads a locked app of at most MaxSize bytes and validates it.
func Decode(data []byte) (*App, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("decode locked app: %d bytes, at most %d are read", len(data), MaxSize)
	}
	var version struct {
		LockVersion *int `json:"spin_lock_version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("decode locked app: %w", err)
	}
	if version.LockVersion == nil {
		return nil, fmt.Errorf("decode locked app: no spin_lock_version")
	}
	// Components are large and may be written in two bytes, so that they are counted before they are decoded.
	type plain App
	var doc struct {
		plain
		Components []json.RawMessage `json:"components"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("decode locked app: %w", err)
	}
	if len(doc.Components) > maxComponents {
		return nil, fmt.Errorf("decode locked app: %d components, at most %d are supported", len(doc.Components), maxComponents)
	}
	app := (*App)(&doc.plain)
	app.Components = make([]Component, len(doc.Components))
	for i, raw := range doc.Components {
		if err := json.Unmarshal(raw, &app.Components[i]); err != nil {
			return nil, fmt.Errorf("decode locked app: component %d: %w", i, err)
		}
	}
	if err := app.Validate(); err != nil {
		return nil, fmt.Errorf("locked app: %w", err)
	}
	return app, nil
}

// Encode is the inverse of Decode, but for white space.
func (a *App) Encode() ([]byte, error) {
	return json.Marshal(a)
}

// Component returns the component of that id, or nil.
func (a *App) Component(id string) *Component {
	for i := range a.Components {
		if a.Components[i].ID == id {
			return &a.Components[i]
		}
	}
	return nil
}

// ComponentID is the id of the component that the trigger calls, or empty if it calls none.
func (t *Trigger) ComponentID() (string, error) {
	var config struct {
		Component *string `json:"component"`
	}
	if err := json.Unmarshal(t.Config, &config); err != nil {
		return "", fmt.Errorf("trigger_config: %w", err)
	}
	if config.Component == nil {
		return "", nil
	}
	if *config.Component == "" {
		return "", fmt.Errorf("trigger_config: component is empty")
	}
	return *config.Component, nil
}
