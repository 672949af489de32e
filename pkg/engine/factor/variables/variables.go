// Package variables gives components their variables: fermyon:spin/variables.
//
// An app has variables, with a default or required; the environment variable SPIN_VARIABLE_<NAME> of the host
// sets one. A component has variables of its own, whose values are templates over the app's. A guest asks for
// a variable of its component and never for one of the app.
//
// Values may be secret: no log and no error of this package holds one.
package variables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// envPrefix stands before the upper-case name of an app's variable in the environment.
const envPrefix = "SPIN_VARIABLE_"

// maxNamed bounds the missing variables that an error names, since an app can have thousands.
const maxNamed = 20

// The cases of fermyon:spin/variables.error. The other two, provider and other, are for values that are fetched
// when a guest asks: here all are known before a guest runs.
const (
	errorInvalidName = 0
	errorUndefined   = 1
	errorOther       = 3
)

// Variables are the variables of one app. They do not change, and are safe for concurrent use.
type Variables struct {
	values     map[string]string                     // of the app
	components map[string]map[string]factor.Template // by component and name
}

var (
	_ factor.Factor   = (*Variables)(nil)
	_ factor.Resolver = (*Variables)(nil)
)

// New returns the variables of app. lookupEnv finds an environment variable, as [os.LookupEnv] does; one that is
// empty counts. Like Spin, it refuses an app that lacks a required variable, whether a component uses it or not.
func New(app *lockedapp.App, lookupEnv func(string) (string, bool)) (*Variables, error) {
	v := &Variables{
		values:     make(map[string]string, len(app.Variables)),
		components: make(map[string]map[string]factor.Template, len(app.Components)),
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(app.Variables)) {
		env := envPrefix + strings.ToUpper(name)
		value, found := lookupEnv(env)
		switch {
		case found && !utf8.ValidString(value):
			return nil, fmt.Errorf("variable %q: %s is not UTF-8", name, env)
		case found:
			v.values[name] = value
		case app.Variables[name].Default != nil:
			v.values[name] = *app.Variables[name].Default
		default:
			missing = append(missing, env)
		}
	}
	if n := len(missing); n > maxNamed {
		missing = append(missing[:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("required variables have no value: set %s", strings.Join(missing, ", "))
	}
	for i := range app.Components {
		c := &app.Components[i]
		templates, err := v.parse(c.Config)
		if err != nil {
			return nil, fmt.Errorf("component %q: %w", c.ID, err)
		}
		v.components[c.ID] = templates
	}
	return v, nil
}

// parse parses the variables of a component.
func (v *Variables) parse(config map[string]string) (map[string]factor.Template, error) {
	templates := make(map[string]factor.Template, len(config))
	for _, name := range slices.Sorted(maps.Keys(config)) {
		t, err := factor.ParseTemplate(config[name])
		if err != nil {
			return nil, fmt.Errorf("variable %q: %w", name, err)
		}
		for _, used := range t.Names() {
			if _, err := v.value(used); err != nil {
				return nil, fmt.Errorf("variable %q: %w", name, err)
			}
		}
		templates[name] = t
	}
	return templates, nil
}

// value returns the value of a variable of the app.
func (v *Variables) value(name string) (string, error) {
	value, ok := v.values[name]
	if !ok {
		return "", fmt.Errorf("the app has no variable %.100q", name)
	}
	return value, nil
}

// Resolve implements [factor.Resolver].
func (v *Variables) Resolve(_ context.Context, template string) (string, error) {
	t, err := factor.ParseTemplate(template)
	if err != nil {
		return "", err
	}
	return t.Expand(v.value)
}

// Link defines fermyon:spin/variables with the variables of component c of the app.
func (v *Variables) Link(l *engine.Linker, c *lockedapp.Component) error {
	templates, ok := v.components[c.ID]
	if !ok {
		return fmt.Errorf("variables: the app has no component %q", c.ID)
	}
	l.Define(engine.Interface{Type: variablesType(), Funcs: map[string]engine.HostFunc{
		"get": func(c *engine.Call) error {
			value, failed, err := v.get(templates, c.String())
			if err != nil {
				c.PutErr()
				c.PutCase(failed)
				c.PutString(err.Error())
				return nil
			}
			c.PutOk()
			c.PutString(value)
			return nil
		},
	}})
	return nil
}

// Close has nothing to release.
func (v *Variables) Close() error { return nil }

// get returns the value of a component's variable, or the case of the interface's error and its text.
func (v *Variables) get(templates map[string]factor.Template, name string) (value string, failed int, err error) {
	if err := checkName(name); err != nil {
		return "", errorInvalidName, fmt.Errorf("%.100q: %w", name, err)
	}
	t, ok := templates[name]
	if !ok {
		return "", errorUndefined, fmt.Errorf("the component has no variable %.100q", name)
	}
	value, err = t.Expand(v.value)
	return value, errorOther, err
}

// checkName says what in name keeps it from being the name of a variable.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a name must not be empty")
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		return errors.New("a name consists of lower-case letters, digits and '_'")
	case name[0] < 'a':
		return errors.New("a name starts with a letter")
	case strings.HasSuffix(name, "_") || strings.Contains(name, "__"):
		return errors.New("a '_' in a name stands between two letters or digits")
	}
	return nil
}
