package http

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// String returns the segments of r in a form to compare.
func (r *route) String() string {
	var parts []string
	for _, s := range r.segments {
		switch s.kind {
		case slash:
			parts = append(parts, "/")
		case dot:
			parts = append(parts, ".")
		case exact:
			parts = append(parts, fmt.Sprintf("%q", s.text))
		case param:
			parts = append(parts, ":"+s.text)
		case wildcard:
			parts = append(parts, "*")
		}
	}
	return strings.Join(parts, " ")
}

func TestParseRoute(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, route, segments, full string }{
		{"the root", "/", ``, ""},
		{"nothing is the root", "", ``, ""},
		{"slash before is implied", "a", `"a"`, "/a"},
		{"one slash after is not there", "/a/", `"a"`, "/a"},
		{"more slashes after are, and match as none", "/a//", `"a"`, "/a/"},
		{"slashes before match as one", "//a", `"a"`, "//a"},
		{"doubled slash is one", "/a//b", `"a" / "b"`, "/a//b"},
		{"wildcard", "/a/...", `"a" / *`, "/a/..."},
		{"wildcard of everything", "/...", `*`, "/..."},
		{"wildcard as star", "/a/*", `"a" / *`, "/a/*"},
		{"dots without slash are dots", "/a...", `"a..."`, "/a..."},
		{"params", "/u/:id/p/:no", `"u" / :id / "p" / :no`, "/u/:id/p/:no"},
		{"colon within is text", "/a:b", `"a:b"`, "/a:b"},
		{"star within is text", "/a*", `"a*"`, "/a*"},
		{"dot in text belongs to what is before", "/index.html", `"index." "html"`, "/index.html"},
		{"two dots", "/a..b", `"a.." "b"`, "/a..b"},
		{"dot after a param", "/:name.:ext", `:name . :ext`, "/:name.:ext"},
		{"two dots after a param", "/:a..b", `:a . . "b"`, "/:a..b"},
		{"param after a dot", "/a.:b", `"a." :b`, "/a.:b"},
		{"dot at the start", "/.well-known/x", `. "well-known" / "x"`, "/.well-known/x"},
		{"dot after a slash takes the slash's place", "/a/.b", `"a." "b"`, "/a/.b"},
		{"dot between slashes takes the place of the first", "/a/./b", `"a." / "b"`, "/a/./b"},
		{"wildcard within is dots", "/a/.../b/...", `"a..." / "b" / *`, "/a/.../b/..."},
		{"slash is lost behind two bytes", "/é/x", `"é" "x"`, "/é/x"},
		{"dot is lost behind two bytes", "/é.x", `"é" "x"`, "/é.x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, err := parseRoute(c.route)
			require.NoError(t, err)
			require.Equal(t, c.segments, r.String())
			require.Equal(t, c.full, r.full)
		})
	}
}

func TestParseRouteRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ route, err string }{
		{"/:", `route "/:": a parameter needs a name`},
		{"/*rest", `route "/*rest": a wildcard has no name: write "*" instead of "*rest"`},
		{"/*/a", `route "/*/a": a wildcard must be at the end`},
		{"/*/...", `route "/*/...": a wildcard must be at the end`},
		{"/*.", `route "/*.": a wildcard must be at the end`},
		{"/:é/x", `route "/:é/x": parameter "é" must be followed by '/' or '.' or be at the end`},
		{"/:é", `route "/:é": parameter "é" cannot be part of a header's name`},
		{"/:a b", `route "/:a b": parameter "a b" cannot be part of a header's name`},
	} {
		t.Run(c.route, func(t *testing.T) {
			t.Parallel()
			_, err := parseRoute(c.route)
			require.EqualError(t, err, c.err)
		})
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, seed := range []string{"/", "/a/:b/...", "/:name.:ext", "a/.b/*", "/é/:x.é", "//..//", ":a/é/:b", "/\xff/."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := parseRoute(raw)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(r.segments), 2*len(raw)+1)
		for i, s := range r.segments {
			require.False(t, s.kind == slash && i == len(r.segments)-1, "match looks at what follows a slash")
		}
		// A route is one of the paths that it matches, if it has nothing but text.
		if strings.Trim(raw, "abcdefghijklmnopqrstuvwxyz/") == "" && !strings.Contains(raw, "//") {
			_, ok := r.match(strings.Trim(raw, "/"), nil)
			require.True(t, ok)
		}
	})
}
