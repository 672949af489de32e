package http

import (
	"errors"
	"fmt"
	"net/textproto"
	"strings"
)

// This file implements the syntax of routes. For example, the route "/users/:id.:format/..." is the segments
//
//	exact "users" · slash · param "id" · dot · param "format" · slash · wildcard
//
// Routes mean what they mean to Spin, whose library they were written for, oddities included; each is a case in
// route_test.go.

type kind uint8

const (
	slash    kind = iota // one '/', or the end of the path before a wildcard
	dot                  // one '.'
	exact                // text, with the dots that follow it
	param                // what is there up to the next '/', or '.' if a dot follows
	wildcard             // the rest; always last
)

type segment struct {
	kind kind
	text string // of exact; the name of param
}

// A route is a pattern of paths.
type route struct {
	raw      string // as the app writes it
	full     string // with one '/' before and none after: "" for "/"
	segments []segment
	dots     int
	params   []string // the names of the headers that tell what the params matched
	headers  routeHeaders
	target   target
}

// routeHeaders are the values of headers that are the same for each request.
type routeHeaders struct{ matched, base, raw, component []string }

// A target is what answers the requests of a route: a component, or the app's configuration alone.
type target struct {
	component string // its id
	handler   handler
	static    *staticResponse
}

// parseRoute reads a route.
func parseRoute(raw string) (*route, error) {
	r := &route{raw: raw, full: raw}
	if !strings.HasPrefix(raw, "/") {
		r.full = "/" + raw
	}
	r.full = strings.TrimSuffix(r.full, "/")

	pattern := r.full
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		pattern = prefix + "/*"
	}
	if err := r.parse(strings.Trim(pattern, "/")); err != nil {
		return nil, fmt.Errorf("route %.200q: %w", raw, err)
	}
	r.headers = routeHeaders{
		matched:   []string{r.full},
		base:      []string{"/"},
		raw:       []string{raw},
		component: []string{strings.TrimSuffix(raw, "/...")},
	}
	return r, nil
}

// parse splits pattern at dots and slashes. A separator is known by the character at its offset, not by the byte: behind
// a character of several bytes it is mistaken for a later one, and so lost or doubled.
func (r *route) parse(pattern string) error {
	for start, separator := 0, rune(0); start <= len(pattern); {
		end := len(pattern)
		if i := strings.IndexAny(pattern[start:], "./"); i >= 0 {
			end = start + i
		}
		part, err := parseSegment(pattern[start:end])
		if err != nil {
			return err
		}
		if separator == '.' {
			r.addDot()
		}
		if part.text != "" || part.kind == wildcard {
			if separator == '/' {
				r.segments = append(r.segments, segment{kind: slash})
			}
			r.segments = append(r.segments, part)
		}
		separator = charAt(pattern, end)
		start = end + 1
	}
	return r.check()
}

// parseSegment reads what is between two separators; nothing is an exact segment without text.
func parseSegment(s string) (segment, error) {
	switch {
	case s == "*":
		return segment{kind: wildcard}, nil
	case strings.HasPrefix(s, "*"):
		return segment{}, fmt.Errorf("a wildcard has no name: write \"*\" instead of %q", s)
	case s == ":":
		return segment{}, errors.New("a parameter needs a name")
	case strings.HasPrefix(s, ":"):
		return segment{kind: param, text: s[1:]}, nil
	}
	return segment{kind: exact, text: s}, nil
}

// addDot adds a dot to the text before it, if there is one.
func (r *route) addDot() {
	if n := len(r.segments); n > 0 && r.segments[n-1].kind == exact {
		r.segments[n-1].text += "."
		return
	}
	r.segments = append(r.segments, segment{kind: dot})
	r.dots++
}

// check refuses routes that Spin accepts and then fails on with each request.
func (r *route) check() error {
	for i, s := range r.segments {
		last := i == len(r.segments)-1
		switch {
		case s.kind == wildcard && !last:
			return errors.New("a wildcard must be at the end")
		case s.kind == param && !last && r.segments[i+1].kind != slash && r.segments[i+1].kind != dot:
			return fmt.Errorf("parameter %q must be followed by '/' or '.' or be at the end", s.text)
		}
		if s.kind == param {
			if !isToken(s.text) {
				return fmt.Errorf("parameter %q cannot be part of a header's name", s.text)
			}
			header := "Spin-Path-Match-" + strings.ReplaceAll(s.text, "_", "-")
			r.params = append(r.params, textproto.CanonicalMIMEHeaderKey(header))
		}
	}
	return nil
}

// isToken reports whether s is a token, as header names are. See https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// charAt returns the character of s that n others precede, or 0.
func charAt(s string, n int) rune {
	for _, c := range s {
		if n == 0 {
			return c
		}
		n--
	}
	return 0
}
