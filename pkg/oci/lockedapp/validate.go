package lockedapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaxSize is the most bytes of a locked app that are read: as many as containerd reads of a manifest, since both are
// documents that are held in memory whole.
const MaxSize = 4 << 20

// What a host may be asked to hold; each is far above any app seen, and keeps what MaxSize allows from growing in memory.
const (
	maxComponents = 1024
	maxTriggers   = 4096
	maxVariables  = 4096
	maxIDLength   = 128 // a folder's name, with room for what a store puts around it
)

// Validate says what in the app contradicts itself or asks for more than this host can do. Decode calls it.
func (a *App) Validate() error {
	if a.LockVersion < 0 || a.LockVersion > 1 {
		return fmt.Errorf("spin_lock_version %d is not supported", a.LockVersion)
	}
	for _, feature := range a.MustUnderstand {
		if feature != "host_requirements" && feature != "component_host_requirements" {
			return fmt.Errorf("must_understand: %.100q is not supported", feature)
		}
	}
	if a.Metadata.Name == "" {
		return errors.New("metadata: no name")
	}
	if err := validateHostRequirements(a.HostRequirements); err != nil {
		return err
	}
	if len(a.Variables) > maxVariables {
		return fmt.Errorf("%d variables, at most %d are supported", len(a.Variables), maxVariables)
	}
	if err := validateVariableNames(a.Variables); err != nil {
		return err
	}
	components, err := a.validateComponents()
	if err != nil {
		return err
	}
	return a.validateTriggers(components)
}

func (a *App) validateComponents() (map[string]bool, error) {
	if len(a.Components) > maxComponents {
		return nil, fmt.Errorf("%d components, at most %d are supported", len(a.Components), maxComponents)
	}
	ids := make(map[string]bool, len(a.Components))
	for i := range a.Components {
		c := &a.Components[i]
		if err := validateComponentID(c.ID); err != nil {
			return nil, fmt.Errorf("component %d: %w", i, err)
		}
		if ids[c.ID] {
			return nil, fmt.Errorf("component %q is there twice", c.ID)
		}
		ids[c.ID] = true
		if err := c.validate(); err != nil {
			return nil, fmt.Errorf("component %q: %w", c.ID, err)
		}
	}
	return ids, nil
}

func (c *Component) validate() error {
	if err := validateHostRequirements(c.HostRequirements); err != nil {
		return err
	}
	if err := validateVariableNames(c.Config); err != nil {
		return err
	}
	if err := c.Source.validate(); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	for i := range c.Files {
		if c.Files[i].Path == "" {
			return fmt.Errorf("file %d: no path", i)
		}
		if err := c.Files[i].validate(); err != nil {
			return fmt.Errorf("file %.200q: %w", c.Files[i].Path, err)
		}
	}
	return nil
}

func (r *ContentRef) validate() error {
	if r.Source == "" && r.Digest == "" && r.Inline == nil {
		return errors.New("neither source nor digest nor inline")
	}
	if r.Inline != nil && r.Source != "" {
		return errors.New("inline beside source")
	}
	if r.Digest == "" {
		return nil
	}
	return ValidateDigest(r.Digest)
}

func (a *App) validateTriggers(components map[string]bool) error {
	if len(a.Triggers) == 0 {
		return errors.New("no triggers")
	}
	if len(a.Triggers) > maxTriggers {
		return fmt.Errorf("%d triggers, at most %d are supported", len(a.Triggers), maxTriggers)
	}
	ids := make(map[string]bool, len(a.Triggers))
	for i := range a.Triggers {
		t := &a.Triggers[i]
		if t.ID == "" {
			return fmt.Errorf("trigger %d: no id", i)
		}
		if ids[t.ID] {
			return fmt.Errorf("trigger %.100q is there twice", t.ID)
		}
		ids[t.ID] = true
		if err := t.validate(components); err != nil {
			return fmt.Errorf("trigger %.100q: %w", t.ID, err)
		}
	}
	return nil
}

func (t *Trigger) validate(components map[string]bool) error {
	if t.Type == "" {
		return errors.New("no trigger_type")
	}
	if len(t.Dependencies) > 0 {
		return errors.New("trigger_dependencies (middleware) are not supported yet")
	}
	if !strings.HasPrefix(string(t.Config), "{") {
		return errors.New("trigger_config is not an object")
	}
	id, err := t.ComponentID()
	if err != nil {
		return err
	}
	if id != "" && !components[id] {
		return fmt.Errorf("no component %.100q", id)
	}
	return nil
}

// validateHostRequirements refuses what an app requires of its host: this one meets no requirement yet. Spin knows
// local_service_chaining and middleware.
func validateHostRequirements(requirements map[string]json.RawMessage) error {
	for _, name := range slices.Sorted(maps.Keys(requirements)) {
		if string(requirements[name]) != `"optional"` {
			return fmt.Errorf("host requirement %.100q is not supported", name)
		}
	}
	return nil
}

// validateComponentID holds ids to what is safe as the name of a folder, which is more than Spin lets its users write.
func validateComponentID(id string) error {
	if id == "" {
		return errors.New("no id")
	}
	if len(id) > maxIDLength {
		return fmt.Errorf("id of %d bytes, at most %d are supported", len(id), maxIDLength)
	}
	for i, c := range []byte(id) {
		if !isLetter(c|0x20) && !isDigit(c) && (i == 0 || c != '-' && c != '_' && c != '.') {
			return fmt.Errorf("id %q: only letters, digits, '-', '_' and '.' are allowed, the first a letter or digit", id)
		}
	}
	return nil
}

func validateVariableNames[V any](variables map[string]V) error {
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if !isVariableName(name) {
			return fmt.Errorf("variable %.100q: a name is a lower-case letter, then letters, digits and single '_'", name)
		}
	}
	return nil
}

// isVariableName reports whether name is a key of Spin's template language.
func isVariableName(name string) bool {
	if name == "" || !isLetter(name[0]) || strings.HasSuffix(name, "_") || strings.Contains(name, "__") {
		return false
	}
	for _, c := range []byte(name) {
		if !isLetter(c) && !isDigit(c) && c != '_' {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// ValidateDigest accepts a well-formed SHA-256 digest, the one algorithm that is supported.
func ValidateDigest(d digest.Digest) error {
	hex, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return fmt.Errorf("digest %.100q is not a sha256 digest", d)
	}
	return nil
}
