package http

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func routerOf(t testing.TB, patterns ...string) *router {
	t.Helper()
	routes := make([]*route, len(patterns))
	for i, p := range patterns {
		r, err := parseRoute(p)
		require.NoError(t, err)
		r.target.component = fmt.Sprint(i)
		routes[i] = r
	}
	router, replaced, _ := newRouter(routes)
	require.Empty(t, replaced)
	return router
}

// describe returns what a match tells a component: the route, params and path info.
func describe(t *router, path string) string {
	r, captures := t.match(path, nil)
	if r == nil {
		return "none"
	}
	out := []string{r.raw}
	for i, name := range r.params {
		out = append(out, strings.ToLower(strings.TrimPrefix(name, "Spin-Path-Match-"))+"="+captures[i])
	}
	if info := r.pathInfo(path, captures); info != "" {
		out = append(out, info)
	}
	return strings.Join(out, " ")
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, routes string
		matches      map[string]string
	}{
		{"text", "/foo /foo/bar", map[string]string{
			"/foo": "/foo", "/foo/": "/foo", "//foo//": "/foo", "/foo/bar": "/foo/bar", "/foo/bar/baz": "none", "/": "none",
			"/Foo": "none", "/fo": "none", "/fooo": "none", "/%66oo": "none", "/foo//bar": "none",
		}},
		{"the root", "/", map[string]string{"/": "/", "//": "/", "/a": "none"}},
		{"wildcard of everything", "/...", map[string]string{
			"/": "/... /", "/a": "/... /a", "/a/": "/... /a/", "/a/b": "/... /a/b", "//a//b//": "/... /a//b/",
		}},
		{"wildcard keeps the client's slashes", "/test/...", map[string]string{
			"/test": "/test/...", "/test/": "/test/... /", "/test/a": "/test/... /a", "/test/a/": "/test/... /a/", "/testa": "none",
		}},
		{"longest prefix first", "/one/... /one/two/... /one/two/three/...", map[string]string{
			"/one/two/three/four": "/one/two/three/... /four", "/one/two/x": "/one/two/... /x", "/one": "/one/...",
		}},
		{"longest prefix first, in any order", "/one/two/three/... /one/two/... /one/...", map[string]string{
			"/one/two/three/four": "/one/two/three/... /four", "/one/two/x": "/one/two/... /x", "/one": "/one/...",
		}},
		{"text before param before wildcard", "/... /:x /a", map[string]string{"/a": "/a", "/b": "/:x x=b", "/b/c": "/... /b/c"}},
		{"early text before late", "/:x/b /a/:y", map[string]string{"/a/b": "/a/:y y=b", "/c/b": "/:x/b x=c"}},
		{"of equals the first", "/:x /:y", map[string]string{"/a": "/:x x=a"}},
		{"params", "/base/:path_segment/:path-end/...", map[string]string{
			"/base/path/end/rest": "/base/:path_segment/:path-end/... path-segment=path path-end=end /rest",
			"/base/path/end":      "/base/:path_segment/:path-end/... path-segment=path path-end=end",
			"/base/path":          "none",
		}},
		{"param of nothing", "/a/:x/b", map[string]string{"/a//b": "/a/:x/b x=", "/a/b": "none"}},
		{"param is not decoded", "/:x", map[string]string{"/a%2Fb": "/:x x=a%2Fb"}},
		{"a name twice", "/:x/:x", map[string]string{"/a/b": "/:x/:x x=a x=b"}},
		{"name and extension", "/:name.:ext", map[string]string{
			"/a.b": "/:name.:ext name=a ext=b", "/a.b.c": "/:name.:ext name=a ext=b.c", "/.b": "/:name.:ext name= ext=b",
			"/a": "none", "/a/b.c": "none", "/a.b/c": "none", "/a.": "none",
		}},
		{"dot is not there before it is", "/é.:x", map[string]string{"/é.y": "/é.:x x=.y", "/éy": "/é.:x x=y"}},
		{"dot is looked for at the wrong place", "/:x.y", map[string]string{"/ab.y": "/:x.y x=ab", "/é.y": "none"}},
		{"leading dot", "/:x/... /.well-known/a", map[string]string{"/.well-known/a": "/.well-known/a", "/.well-known/b": "/:x/... x=.well-known /b"}},
		{"slash before a dot is lost", "/a/.b", map[string]string{"/a.b": "/a/.b", "/a/.b": "none"}},
		{"slash behind two bytes is lost", "/é/x", map[string]string{"/éx": "/é/x", "/é/x": "none"}},
		{"a newer dot before a param, and the other way round", "/.b /:x", map[string]string{"/.b": "/:x x=.b"}},
		{"a newer param before a dot, and the other way round", "/:x /.b", map[string]string{"/.b": "/.b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			router := routerOf(t, strings.Fields(c.routes)...)
			for path, want := range c.matches {
				require.Equal(t, want, describe(router, path), "path %s", path)
			}
		})
	}
}

// TestMatchAsSpin compares with testdata/matches.jsonl: what Spin's library (routefinder 0.5.4) answered for random
// routes and paths, dots and other oddities more frequent than in life. Each match is the path and, if there is one,
// the route's index, the params and what the wildcard matched.
func TestMatchAsSpin(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/matches.jsonl")
	require.NoError(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	n := 0
	for lines.Scan() {
		var set struct {
			Routes  []string
			Matches [][]any
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &set))
		router := routerOf(t, set.Routes...)
		for _, want := range set.Matches {
			n++
			got := []any{want[0]}
			if r, captures := router.match(want[0].(string), nil); r != nil {
				params := []any{}
				for _, s := range r.segments {
					if s.kind == param {
						params = append(params, s.text+"="+captures[0])
						captures = captures[1:]
					}
				}
				var rest any
				if len(captures) > 0 {
					rest = captures[0]
				}
				for i, raw := range set.Routes {
					if raw == r.raw {
						got = append(got, float64(i), params, rest)
					}
				}
			}
			require.Equal(t, want, got, "routes %q", set.Routes)
		}
	}
	require.NoError(t, lines.Err())
	require.Greater(t, n, 400)
}

func TestNewRouterKeepsTheLastOfDuplicates(t *testing.T) {
	t.Parallel()
	var routes []*route
	for i, p := range []string{"/", "/:a", "/:b", "/:a", "/:a"} {
		r, err := parseRoute(p)
		require.NoError(t, err)
		r.target.component = fmt.Sprint(i)
		routes = append(routes, r)
	}
	router, replaced, by := newRouter(routes)
	require.Len(t, router.routes, 3)
	require.Equal(t, []*route{routes[1], routes[3]}, replaced)
	require.Equal(t, []*route{routes[3], routes[4]}, by)
	r, _ := router.match("/x", nil)
	require.Equal(t, "4", r.target.component, "the last definition, at the place of the first")
}

func FuzzMatch(f *testing.F) {
	f.Add("/a /:x/... /:name.:ext /.b", "/a/b.c")
	f.Add("/é/x /:x.y", "/é.y")
	f.Add("/... /a//b", "//\xff.//")
	f.Fuzz(func(t *testing.T, patterns, path string) {
		var routes []*route
		for _, p := range strings.Fields(patterns) {
			if r, err := parseRoute(p); err == nil {
				routes = append(routes, r)
			}
		}
		router, _, _ := newRouter(routes)
		r, captures := router.match(path, nil)
		if r == nil {
			for _, r := range router.routes {
				_, ok := r.match(strings.Trim(path, "/"), nil)
				require.False(t, ok)
			}
			return
		}
		require.GreaterOrEqual(t, len(captures), len(r.params))
		require.LessOrEqual(t, len(captures), len(r.params)+1)
		for _, c := range captures {
			require.Contains(t, path, c)
		}
		_ = r.pathInfo(path, captures)
	})
}

func TestMatchAllocatesNothing(t *testing.T) {
	router := routerOf(t, "/", "/static/...", "/users/:id", "/users/:id/posts/:post", "/:name.:ext", "/...")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		var room [8]string
		if r, captures := router.match("/users/1/posts/2", room[:0]); r == nil || len(captures) != 2 {
			panic("BUG: no match")
		}
	}))
}

func BenchmarkMatch(b *testing.B) {
	patterns := []string{"/...", "/users/:id/posts/:post"}
	for i := range 20 {
		patterns = append(patterns, fmt.Sprintf("/api/v%d/...", i))
	}
	router := routerOf(b, patterns...)
	b.ReportAllocs()
	for b.Loop() {
		var room [8]string
		if r, _ := router.match("/users/1/posts/2", room[:0]); r == nil {
			b.Fatal("no match")
		}
	}
}
