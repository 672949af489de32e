package factor

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTemplate(t *testing.T) {
	t.Parallel()
	value := func(name string) (string, error) {
		if name == "" {
			return "", errors.New("no variable")
		}
		return "<" + name + ">", nil
	}
	for _, tt := range []struct {
		template, want string
		names          []string
	}{
		{"", "", nil},
		{"text", "text", nil},
		{"a-{{ one }}-b", "a-<one>-b", []string{"one"}},
		{"{{one}}{{ \ttwo\n }}", "<one><two>", []string{"one", "two"}},
		{"{{one}}{{one}}", "<one><one>", []string{"one", "one"}},
		{"{ {} } }}", "{ {} } }}", nil},
		{"{{one}}}", "<one>}", []string{"one"}},
		{"{{{one}}", "<{one>", []string{"{one"}},
		{"{{ {{ one }}", "<{{ one>", []string{"{{ one"}},
	} {
		parsed, err := ParseTemplate(tt.template)
		require.NoError(t, err, tt.template)
		require.Equal(t, tt.names, parsed.Names(), tt.template)
		got, err := parsed.Expand(value)
		require.NoError(t, err, tt.template)
		require.Equal(t, tt.want, got, tt.template)
	}
	for _, template := range []string{"{{", "a {{ one", "{{ one }} {{ two", "{{ one }"} {
		_, err := ParseTemplate(template)
		require.EqualError(t, err, "template: {{ without }}", template)
	}
	parsed, err := ParseTemplate("a{{}}")
	require.NoError(t, err)
	_, err = parsed.Expand(value)
	require.EqualError(t, err, "no variable")
}

func TestTemplateExpandsToBoundedText(t *testing.T) {
	t.Parallel()
	parsed, err := ParseTemplate(strings.Repeat("{{a}}", 5))
	require.NoError(t, err)
	_, err = parsed.Expand(func(string) (string, error) { return strings.Repeat("x", MaxExpanded/4), nil })
	require.EqualError(t, err, "template expands to more than 4194304 bytes")
}

func FuzzParseTemplate(f *testing.F) {
	for _, seed := range []string{"", "text", "a {{ b }} c", "{{a}}{{b}}", "{{", "}}", "{{{{}}}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := ParseTemplate(s)
		if err != nil {
			return
		}
		// Expanding each variable to its own text gives the template back, but for white space.
		got, err := parsed.Expand(func(name string) (string, error) { return "{{ " + name + " }}", nil })
		require.NoError(t, err)
		again, err := ParseTemplate(got)
		require.NoError(t, err)
		require.Equal(t, parsed, again)
	})
}
