package http

import "strings"

// This file implements finding the route of a path. Routes are tried one after the other: of /a/b, /a/:x and /a/..., the
// path /a/b takes the first, /a/c the second and /a/b/c the third.

// A router finds routes. It is safe for concurrent use.
type router struct {
	routes []*route // in the order in which they are tried
}

// newRouter returns a router for routes. Of routes with the same text the last one counts; replaced are the others, and
// by the same index by what.
func newRouter(routes []*route) (t *router, replaced, by []*route) {
	places := make(map[string]int, len(routes))
	unique := make([]*route, 0, len(routes))
	for _, r := range routes {
		if i, ok := places[r.raw]; ok {
			replaced, by = append(replaced, unique[i]), append(by, r)
			unique[i] = r
			continue
		}
		places[r.raw] = len(unique)
		unique = append(unique, r)
	}
	return &router{order(unique)}, replaced, by
}

// match finds the route of an URL's path, which is not decoded. It appends to captures what the route's params match, in
// their order, and then, if there is a wildcard, what that matches. A nil route means that there is none.
func (t *router) match(path string, captures []string) (*route, []string) {
	trimmed := strings.Trim(path, "/")
	for _, r := range t.routes {
		if captures, ok := r.match(trimmed, captures); ok {
			return r, captures
		}
	}
	return nil, captures
}

// match matches a path without slashes at its ends.
func (r *route) match(path string, captures []string) ([]string, bool) {
	for i, s := range r.segments {
		switch s.kind {
		case slash:
			switch {
			case strings.HasPrefix(path, "/"):
				path = path[1:]
			case path != "" || r.segments[i+1].kind != wildcard:
				return captures, false
			}
		case dot:
			if !strings.HasPrefix(path, ".") {
				return captures, false
			}
			path = path[1:]
		case exact:
			if !strings.HasPrefix(path, s.text) {
				return captures, false
			}
			path = path[len(s.text):]
		case param:
			end := paramEnd(path, i+1 < len(r.segments) && r.segments[i+1].kind == dot)
			if path == "" || end < 0 {
				return captures, false
			}
			captures = append(captures, path[:end])
			path = path[end:]
		case wildcard:
			return append(captures, path), true
		}
	}
	return captures, path == "" || path == "/"
}

// paramEnd returns the length of what a param matches of path, or -1. Like the route's separators, the dot is looked for
// among the characters, at its offset in bytes.
func paramEnd(path string, beforeDot bool) int {
	if !beforeDot {
		if i := strings.IndexByte(path, '/'); i >= 0 {
			return i
		}
		return len(path)
	}
	i := strings.IndexAny(path, "./")
	if i < 0 || charAt(path, i) != '.' {
		return -1
	}
	return i
}
