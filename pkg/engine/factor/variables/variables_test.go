package variables

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/passthrough"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// env is an environment.
type env map[string]string

func (e env) lookup(name string) (string, bool) {
	value, ok := e[name]
	return value, ok
}

func app(variables map[string]lockedapp.Variable, config map[string]string) *lockedapp.App {
	return &lockedapp.App{Variables: variables, Components: []lockedapp.Component{{ID: "shop", Config: config}, {ID: "cart"}}}
}

func TestGet(t *testing.T) {
	t.Parallel()
	v, err := New(app(
		map[string]lockedapp.Variable{
			"greeting": {Default: new("hello")},
			"name":     {},
			"empty":    {Default: new("full")},
			"token":    {Secret: true},
		},
		map[string]string{
			"text":    "just text",
			"message": "{{ greeting }}, {{name}}!",
			"nothing": "{{empty}}",
			"braces":  "{ }} {{ token }}",
		},
	), env{"SPIN_VARIABLE_NAME": "world", "SPIN_VARIABLE_EMPTY": "", "SPIN_VARIABLE_TOKEN": "s3cr3t", "SPIN_VARIABLE_OTHER": "x", "greeting": "no"}.lookup)
	require.NoError(t, err)
	for _, tt := range []struct {
		component, name, want string
		failed                int
		message               string
	}{
		{component: "shop", name: "text", want: "just text"},
		{component: "shop", name: "message", want: "hello, world!"},
		{component: "shop", name: "nothing", want: ""},
		{component: "shop", name: "braces", want: "{ }} s3cr3t"},
		{component: "shop", name: "greeting", failed: errorUndefined, message: `the component has no variable "greeting"`},
		{component: "cart", name: "text", failed: errorUndefined, message: `the component has no variable "text"`},
		{component: "shop", name: "", failed: errorInvalidName, message: `"": a name must not be empty`},
		{component: "shop", name: "aX", failed: errorInvalidName, message: `"aX": a name consists of lower-case letters, digits and '_'`},
		{component: "shop", name: "x-y", failed: errorInvalidName, message: `"x-y": a name consists of lower-case letters, digits and '_'`},
		{component: "shop", name: "ä", failed: errorInvalidName, message: `"ä": a name consists of lower-case letters, digits and '_'`},
		{component: "shop", name: "1bc", failed: errorInvalidName, message: `"1bc": a name starts with a letter`},
		{component: "shop", name: "_x", failed: errorInvalidName, message: `"_x": a name starts with a letter`},
		{component: "shop", name: "x_", failed: errorInvalidName, message: `"x_": a '_' in a name stands between two letters or digits`},
		{component: "shop", name: "a__b", failed: errorInvalidName, message: `"a__b": a '_' in a name stands between two letters or digits`},
	} {
		got, failed, err := v.get(v.components[tt.component], tt.name)
		if tt.message != "" {
			require.EqualError(t, err, tt.message)
			require.Equal(t, tt.failed, failed, tt.name)
			continue
		}
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, got, tt.name)
	}
	_, _, err = v.get(nil, strings.Repeat("A", 1<<20))
	require.Less(t, len(err.Error()), 300)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		variables map[string]lockedapp.Variable
		config    map[string]string
		env       env
		want      string
	}{
		{
			name:      "required variables without a value, all at once",
			variables: map[string]lockedapp.Variable{"b_2": {}, "a": {Secret: true}, "c": {Default: new("")}, "d": {}},
			env:       env{"SPIN_VARIABLE_D": ""},
			want:      "required variables have no value: set SPIN_VARIABLE_A, SPIN_VARIABLE_B_2",
		},
		{
			name:      "bytes that are not text",
			variables: map[string]lockedapp.Variable{"a": {}},
			env:       env{"SPIN_VARIABLE_A": "s3cr3t\xff"},
			want:      `variable "a": SPIN_VARIABLE_A is not UTF-8`,
		},
		{
			name:   "a template over a variable that the app does not have",
			config: map[string]string{"a": "{{ b }}"},
			want:   `component "shop": variable "a": the app has no variable "b"`,
		},
		{
			name:   "a template without an end",
			config: map[string]string{"a": "{{ b"},
			want:   `component "shop": variable "a": template: {{ without }}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := New(app(tt.variables, tt.config), tt.env.lookup)
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestNewNamesFewOfManyMissing(t *testing.T) {
	t.Parallel()
	required := map[string]lockedapp.Variable{}
	for i := range maxNamed + 5 {
		required[fmt.Sprintf("v%d", i)] = lockedapp.Variable{}
	}
	_, err := New(app(required, nil), env{}.lookup)
	require.ErrorContains(t, err, "SPIN_VARIABLE_V0, ")
	require.ErrorContains(t, err, ", and 5 more")
}

func TestResolve(t *testing.T) {
	t.Parallel()
	v, err := New(app(map[string]lockedapp.Variable{"host": {Default: new("example.com")}}, nil), env{}.lookup)
	require.NoError(t, err)
	got, err := v.Resolve(t.Context(), "https://{{ host }}:8443")
	require.NoError(t, err)
	require.Equal(t, "https://example.com:8443", got)
	_, err = v.Resolve(t.Context(), "{{ other }}")
	require.EqualError(t, err, `the app has no variable "other"`)
	_, err = v.Resolve(t.Context(), "{{ host")
	require.EqualError(t, err, "template: {{ without }}")
}

func TestGetIsBounded(t *testing.T) {
	t.Parallel()
	v, err := New(app(
		map[string]lockedapp.Variable{"big": {Default: new(strings.Repeat("s3cr3t", factor.MaxExpanded/24))}},
		map[string]string{"bomb": strings.Repeat("{{big}}", 1000)},
	), env{}.lookup)
	require.NoError(t, err)
	_, failed, err := v.get(v.components["shop"], "bomb")
	require.EqualError(t, err, "template expands to more than 4194304 bytes")
	require.Equal(t, errorOther, failed)
}

func TestLinkKnowsComponents(t *testing.T) {
	t.Parallel()
	v, err := New(app(nil, nil), env{}.lookup)
	require.NoError(t, err)
	l := new(engine.Linker)
	require.NoError(t, v.Link(l, &lockedapp.Component{ID: "shop"}))
	require.EqualError(t, v.Link(l, &lockedapp.Component{ID: "other"}), `variables: the app has no component "other"`)
	require.NoError(t, v.Close())
}

func TestGuestGets(t *testing.T) {
	t.Parallel()
	v, err := New(app(
		map[string]lockedapp.Variable{"name": {Default: new("wörld")}, "big": {Default: new(strings.Repeat("x", factor.MaxExpanded/2+1))}},
		map[string]string{"message": "hello, {{ name }}!", "bomb": "{{big}}{{big}}"},
	), env{}.lookup)
	require.NoError(t, err)
	g := passthrough.New(t, func(l *engine.Linker) {
		require.NoError(t, v.Link(l, &lockedapp.Component{ID: "shop"}))
	}, variablesType())
	get := func(name string) (got string) {
		require.NoError(t, g.Call("fermyon:spin/variables", "get", func(c *engine.Call) { c.PutString(name) }, func(c *engine.Call) {
			if !c.Result() {
				got = fmt.Sprintf("error %d: ", c.Case())
			}
			got += c.String()
		}))
		return got
	}
	require.Equal(t, "hello, wörld!", get("message"))
	require.Equal(t, `error 0: "A": a name consists of lower-case letters, digits and '_'`, get("A"))
	require.Equal(t, `error 1: the component has no variable "name"`, get("name"))
	require.Equal(t, "error 3: template expands to more than 4194304 bytes", get("bomb"))
}
