package factor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxExpanded bounds the text that a template expands to: no value is longer than the locked app that it
// comes from, but a template may name the same variable many times.
const MaxExpanded = 4 << 20

// Template is text in which `{{ name }}` stands for the value of a variable. There is no way to write a
// literal `{{`.
type Template struct{ parts []part }

// part is a piece of text or, if variable is set, the name of a variable.
type part struct {
	text     string
	variable bool
}

// ParseTemplate parses a template. The names in it are not checked.
func ParseTemplate(s string) (Template, error) {
	var t Template
	for s != "" {
		text, rest, found := strings.Cut(s, "{{")
		if text != "" {
			t.parts = append(t.parts, part{text: text})
		}
		if !found {
			break
		}
		name, rest, closed := strings.Cut(rest, "}}")
		if !closed {
			return Template{}, errors.New("template: {{ without }}")
		}
		t.parts = append(t.parts, part{strings.TrimSpace(name), true})
		s = rest
	}
	return t, nil
}

// Names returns the names of the variables in t, in order, each as often as it occurs.
func (t Template) Names() []string {
	var names []string
	for _, p := range t.parts {
		if p.variable {
			names = append(names, p.text)
		}
	}
	return names
}

// Expand returns t with the values that value has for its variables, at most [MaxExpanded] bytes.
func (t Template) Expand(value func(name string) (string, error)) (string, error) {
	var out strings.Builder
	for _, p := range t.parts {
		text := p.text
		if p.variable {
			var err error
			if text, err = value(p.text); err != nil {
				return "", err
			}
		}
		if out.Len()+len(text) > MaxExpanded {
			return "", fmt.Errorf("template expands to more than %d bytes", MaxExpanded)
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

// isLiteral says that t has no variables.
func (t Template) isLiteral() bool {
	return !slices.ContainsFunc(t.parts, func(p part) bool { return p.variable })
}
