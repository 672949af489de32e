package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
	"github.com/stretchr/testify/require"
)

const maximal = `spin_manifest_version = 2

[application]
name = "shop"
version = "0.1.0"
description = "a shop"
authors = ["A <a@x>", "B"]
targets = ["spin-up:3.2"]
[application.trigger.http]
base = "/"
[application.tool.x]
y = 1

[variables]
api_host = { default = "x.org" }
token = { required = true, secret = true, description = "secret" }

[[trigger.http]]
route = "/cart/..."
component = "cart"
executor = { type = "http" }

[[trigger.http]]
route = { private = true }
component = "cart"

[[trigger.http]]
id = "own"
route = "/other"
component = "other"

[component.cart]
source = "target/cart.wasm"
description = "the cart"
variables = { url = "https://{{ api_host }}/v1" }
environment = { LEVEL = "info" }
files = ["static/**/*", "hi.txt", "docs", { source = "static/a.txt", destination = "/hi.txt" }, { source = "docs", destination = "/manual/" }]
allowed_outbound_hosts = ["https://{{ api_host }}"]
key_value_stores = ["default"]
targets = ["spin-up:3.2"]
[component.cart.build]
command = "make"
watch = ["src/**"]
[component.cart.tool.x]
y = [1, 2]

[component.other]
source = "./other.wasm"

[component.unused]
source = "is/not/there.wasm"
`

func TestResolveManifest(t *testing.T) {
	t.Parallel()
	const cart, other = emptyComponent + "cart", emptyComponent + "other"
	dir := folder(t, map[string]string{
		"spin.toml": maximal, "target/cart.wasm": cart, "other.wasm": "-> target/../lib/real.wasm", "lib/real.wasm": other,
		"static/a.txt": "a", "static/.b/c.txt": "c", "static/link": "-> ../docs", "hi.txt": "hi", "docs/index.md": "index", "secret": "secret",
		".spin/state": "state",
	})
	out := openRoot(t, t.TempDir())
	app, err := ResolveManifest(t.Context(), dir, out)
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		wasmName(cart): cart, wasmName(other): other,
		"assets/cart/static/a.txt": "a", "assets/cart/static/.b/c.txt": "c", "assets/cart/static/link/index.md": "index",
		"assets/cart/hi.txt": "a", "assets/cart/docs/index.md": "index", "assets/cart/manual/index.md": "index",
	}, contents(t, out))
	encoded, err := app.Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{
	  "spin_lock_version": 0,
	  "metadata": {"name": "shop", "version": "0.1.0", "description": "a shop", "authors": ["A <a@x>", "B"]},
	  "variables": {"api_host": {"default": "x.org"}, "token": {"secret": true, "description": "secret"}},
	  "triggers": [
	    {"id": "cart-http-trigger", "trigger_type": "http", "trigger_config": {"component": "cart", "route": "/cart/...", "executor": {"type": "http"}}},
	    {"id": "http-trigger1", "trigger_type": "http", "trigger_config": {"component": "cart", "route": {"private": true}}},
	    {"id": "own", "trigger_type": "http", "trigger_config": {"component": "other", "route": "/other"}}
	  ],
	  "components": [
	    {"id": "cart", "source": {"content_type": "application/wasm", "digest": "`+digest.FromString(cart).String()+`"},
	     "metadata": {"description": "the cart", "allowed_outbound_hosts": ["https://{{ api_host }}"], "key_value_stores": ["default"]},
	     "env": {"LEVEL": "info"}, "config": {"url": "https://{{ api_host }}/v1"}},
	    {"id": "other", "source": {"content_type": "application/wasm", "digest": "`+digest.FromString(other).String()+`"}, "metadata": {}}
	  ]}`, string(encoded))
	_, err = lockedapp.Decode(encoded)
	require.NoError(t, err)
}

func TestResolveManifestWithRealGuest(t *testing.T) {
	t.Parallel()
	wasm := guest(t, "js-app.wasm")
	dir := folder(t, map[string]string{"spin.toml": small("", ""), "c.wasm": wasm})
	out := openRoot(t, t.TempDir())
	app, err := ResolveManifest(t.Context(), dir, out)
	require.NoError(t, err)
	require.Equal(t, digest.FromString(wasm), app.Component("c").Source.Digest)
	require.Equal(t, map[string]string{wasmName(wasm): wasm}, contents(t, out))

	dir = folder(t, map[string]string{"spin.toml": small("", ""), "c.wasm": guest(t, "c-hello.core.wasm")})
	_, err = ResolveManifest(t.Context(), dir, openRoot(t, t.TempDir()))
	require.ErrorContains(t, err, `app "a": component "c": source is a core module, which is not supported yet`)
}

// small returns a small manifest, with old replaced.
func small(old, new string) string {
	const minimal = "spin_manifest_version = 2\n[application]\nname = \"a\"\n[variables]\n" +
		"[[trigger.http]]\nroute = \"/...\"\ncomponent = \"c\"\n[component.c]\nsource = \"c.wasm\"\n"
	return strings.Replace(minimal, old, new, 1)
}

func TestManifestRefuses(t *testing.T) {
	t.Parallel()
	const last = "source = \"c.wasm\"\n"
	for _, c := range []struct{ name, manifest, err string }{
		{"no TOML", "spin", `spin.toml:1: expected '=' after key`},
		{"no version", small("spin_manifest_version = 2", ""), `spin.toml: no spin_manifest_version`},
		{"version 1", small("spin_manifest_version = 2", `spin_manifest_version = "1"`), `spin.toml: only spin_manifest_version = 2 is supported`},
		{"version 1 by its older name", small("spin_manifest_version = 2", `spin_version = "1"`), `spin.toml: only spin_manifest_version = 2 is supported`},
		{"version 3", small("spin_manifest_version = 2", `spin_manifest_version = 3`), `spin.toml: only spin_manifest_version = 2 is supported`},
		{"no name", small(`name = "a"`, ""), `spin.toml: metadata: no name`},
		{"unknown table", small("[variables]", "[vars]"), `spin.toml:4: vars is not supported`},
		{"unknown key", small(last, last+"memory = 1"), `spin.toml:10: component.c.memory is not supported`},
		{"base", small("[variables]", "[application.trigger.http]\nbase = \"/api\"\n"), `spin.toml: application.trigger.http.base "/api" is not supported: only / is`},
		{"settings of another trigger", small("[variables]", "[application.trigger.redis]\naddress = \"redis://x\"\n"),
			`spin.toml:4: application.trigger.redis is not supported`},
		{"another trigger", small("[[trigger.http]]", "[[trigger.redis]]\nchannel = \"x\"\ncomponent = \"c\"\n[[trigger.http]]"), `spin.toml:5: trigger.redis is not supported`},
		{"no triggers", "spin_manifest_version = 2\n[application]\nname = \"a\"\n", `spin.toml: no triggers`},
		{"static response", small(`component = "c"`, "static_response = { body = \"x\" }"), `spin.toml:7: trigger.http.static_response is not supported`},
		{"middleware", small(`component = "c"`, "component = \"c\"\ndependencies = { middleware = [] }"), `spin.toml:8: trigger.http.dependencies is not supported`},
		{"inline component", small(`component = "c"`, "component = { source = \"c.wasm\" }"), `spin.toml: trigger.http[0]: an inline component is not supported yet`},
		{"trigger without component", small(`component = "c"`, ""), `spin.toml: trigger.http[0]: no component`},
		{"trigger of no component", small(`component = "c"`, `component = "d"`), `spin.toml: trigger "d-http-trigger": no component "d"`},
		{"trigger without route", small(`route = "/..."`, ""), `spin.toml: trigger.http[0]: route is neither a path nor {private = true}`},
		{"route that is not private", small(`route = "/..."`, "route = { private = false }"), `spin.toml: trigger.http[0]: route is neither a path nor {private = true}`},
		{"WAGI", small(`component = "c"`, "component = \"c\"\nexecutor = { type = \"wagi\" }"), `spin.toml: trigger.http[0]: executor "wagi" is not supported yet`},
		{"WAGI with arguments", small(`component = "c"`, "component = \"c\"\nexecutor = { type = \"wagi\", argv = \"x\" }"), `spin.toml:8: trigger.http.argv is not supported`},
		{"triggers of one id", small("[[trigger.http]]", "[[trigger.http]]\nid = \"t\"\nroute = \"/a\"\ncomponent = \"c\"\n[[trigger.http]]\nid = \"t\""), `spin.toml: trigger "t" is there twice`},
		{"variable without a value", small("[variables]", "[variables]\nx = { secret = true }"), `spin.toml: variable "x": either required = true or a default`},
		{"variable that is required and has a default", small("[variables]", "[variables]\nx = { required = true, default = \"\" }"), `spin.toml: variable "x": either required = true or a default`},
		{"variable whose default is a number", small("[variables]", "[variables]\nx = { default = 1 }"), `spin.toml:5: cannot decode TOML integer into struct field oci.manifestVariable.Default of type string`},
		{"variable with a dash", small("[variables]", "[variables]\nx-y = { default = \"1\" }"), `spin.toml: variable "x-y": a name is a lower-case letter, then letters, digits and single '_'`},
		{"component id that climbs", small("[component.c]", "[component.\"..\"]"), `spin.toml: component 0: id "..": only letters, digits, '-', '_' and '.' are allowed, the first a letter or digit`},
		{"source by URL", small(last, `source = { url = "https://x", digest = "sha256:00" }`), `spin.toml: component "c": source by {digest, url} is not supported yet: only a path is`},
		{"source from a registry", small(last, `source = { package = "a:b", version = "1" }`), `spin.toml: component "c": source by {package, version} is not supported yet: only a path is`},
		{"no source", small(last, ""), `spin.toml: component "c": source is not a path`},
		{"source that is a number", small(last, "source = 1"), `spin.toml: component "c": source is not a path`},
		{"dependencies", small(last, last+"[component.c.dependencies]\n\"a:b/c\" = \"1\""), `spin.toml:10: component.c.dependencies is not supported`},
		{"inherited configuration", small(last, last+"dependencies_inherit_configuration = true"), `spin.toml:10: component.c.dependencies_inherit_configuration is not supported`},
		{"SQLite", small(last, last+"sqlite_databases = [\"default\"]"), `spin.toml:10: component.c.sqlite_databases is not supported`},
		{"AI models", small(last, last+"ai_models = [\"x\"]"), `spin.toml:10: component.c.ai_models is not supported`},
		{"exclude_files", small(last, last+"exclude_files = [\"x\"]"), `spin.toml:10: component.c.exclude_files is not supported`},
		{"allowed_http_hosts", small(last, last+"allowed_http_hosts = [\"x\"]"), `spin.toml:10: component.c.allowed_http_hosts is not supported`},
		{"profile", small(last, last+"[component.c.profile.debug]\nsource = \"d.wasm\""), `spin.toml:10: component.c.profile.debug is not supported`},
		{"local service chaining", small(last, last+"allowed_outbound_hosts = [\"http://d.spin.internal\"]"),
			`spin.toml: component "c": allowed_outbound_hosts: "http://d.spin.internal" (local service chaining) is not supported yet`},
		{"source that climbs", small(last, `source = "../c.wasm"`), `app "a": component "c": source: path "../c.wasm" leads out of the folder`},
		{"absolute source", small(last, `source = "/c.wasm"`), `app "a": component "c": source: path "/c.wasm" leads out of the folder`},
		{"source that is not there", small(last, `source = "d.wasm"`), `app "a": component "c": source: statat d.wasm: no such file or directory`},
		{"source that is a folder", small(last, `source = "dir"`), `app "a": component "c": source: "dir" is not a regular file`},
		{"source that is a pipe", small(last, `source = "pipe"`), `app "a": component "c": source: "pipe" is not a regular file`},
		{"source by a link that leads out", small(last, `source = "out"`), `app "a": component "c": source: statat out: path escapes from parent`},
		{"source by an absolute link", small(last, `source = "absolute"`), `app "a": component "c": source: statat absolute: path escapes from parent`},
		{"file that is not there", small(last, last+`files = ["nothing"]`), `app "a": component "c": files[0]: statat nothing: no such file or directory`},
		{"file that climbs", small(last, last+`files = ["dir/../../x"]`), `app "a": component "c": files[0]: path "dir/../../x" leads out of the folder`},
		{"pattern that climbs", small(last, last+`files = ["../*"]`), `app "a": component "c": files[0]: path "../*" leads out of the folder`},
		{"pattern without end", small(last, last+`files = ["`+strings.Repeat("*", 4096)+`"]`), `app "a": component "c": files[0]: path of 4096 bytes, at most 4095 are supported`},
		{"absolute pattern", small(last, last+`files = ["/*"]`), `app "a": component "c": files[0]: path "/*" leads out of the folder`},
		{"malformed pattern", small(last, last+`files = ["dir/[a"]`), `app "a": component "c": files[0]: pattern "dir/[a" is malformed`},
		{"pattern that matches a pipe", small(last, last+`files = ["pi*"]`), `app "a": component "c": file "pipe": "pipe" is not a regular file`},
		{"pattern that matches a link that leads out", small(last, last+`files = ["o*"]`), `app "a": component "c": file "out": statat out: path escapes from parent`},
		{"folder of links that form a ring", small(last, last+`files = ["ring"]`), `app "a": component "c": file "ring` + strings.Repeat("/ring", 9) + `": statat ring` + strings.Repeat("/ring", 9) + `: too many levels of symbolic links`},
		{"folders inside each other", small(last, last+`files = ["deep"]`), `app "a": component "c": files[0]: "deep` + strings.Repeat("/d", 65) + `": more than 64 folders inside each other`},
		{"entry that is a number", small(last, last+`files = [1]`), `app "a": component "c": files[0]: neither a path or pattern nor {source, destination}`},
		{"entry with a third key", small(last, last+`files = [{ source = "dir", destination = "/", mode = 1 }]`), `app "a": component "c": files[0]: neither a path or pattern nor {source, destination}`},
		{"destination that climbs", small(last, last+`files = [{ source = "dir", destination = "/../x" }]`), `app "a": component "c": files[0]: path "../x" leads out of the folder`},
		{"destination with a backslash", small(last, last+`files = [{ source = "c.wasm", destination = 'a\b' }]`), `app "a": component "c": files[0]: path "a\\b" is not a plain relative path`},
		{"file as the root", small(last, last+`files = [{ source = "c.wasm", destination = "/" }]`), `app "a": component "c": files[0]: path "." is not a plain relative path`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, map[string]string{
				"spin.toml": c.manifest, "c.wasm": emptyComponent, "dir/x": "x", "out": "-> ../../x", "absolute": "-> /etc/passwd", "ring/ring": "-> .",
				"deep/" + strings.Repeat("d/", 70) + "x": "x",
			})
			require.NoError(t, syscall.Mkfifo(filepath.Join(dir.Name(), "pipe"), 0o644))
			_, err := ResolveManifest(t.Context(), dir, openRoot(t, t.TempDir()))
			require.EqualError(t, err, c.err)
			require.NotErrorIs(t, err, ErrNotApp)
		})
	}
}

func TestManifestPatterns(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"*":           "1 spin.toml c.wasm {b}.txt",
		"*.txt":       "{b}.txt",
		"{b}.txt":     "{b}.txt",
		"{b}.t?t":     "{b}.txt",
		"a/*":         "a/.hidden a/2",
		"a/*/*":       "a/b/3",
		"a/**/*":      "a/.hidden a/2 a/b/3 a/b/c/4",
		"**/[0-9]":    "1 a/2 a/b/3 a/b/c/4",
		"a/b/../2":    "a/2",
		"a/b":         "a/b/3 a/b/c/4",
		"./a/b/":      "a/b/3 a/b/c/4",
		".":           "1 a/.hidden a/2 a/b/3 a/b/c/4 spin.toml c.wasm {b}.txt",
		"nothing/*":   "",
		"c.wasm/*":    "",
		"a/*/nothing": "",
	} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{
				"spin.toml": small("source", fmt.Sprintf("files = [%q]\nsource", pattern)), "c.wasm": emptyComponent,
				"1": "", "{b}.txt": "", "a/2": "", "a/.hidden": "", "a/b/3": "", "a/b/c/4": "", ".spin/state.db": "",
			}
			out := openRoot(t, t.TempDir())
			_, err := ResolveManifest(t.Context(), folder(t, files), out)
			require.NoError(t, err)
			var got []string
			for name := range contents(t, out) {
				if asset, ok := strings.CutPrefix(name, "assets/c/"); ok {
					got = append(got, asset)
				}
			}
			require.ElementsMatch(t, strings.Fields(want), got)
		})
	}
}

func TestWalkIsBounded(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"1": "", "2": "", "3": ""})
	visit := func(string, bool) error { return nil }
	full := &tree{ctx: t.Context(), root: dir, walked: maxWalked - 3}
	require.NoError(t, full.walk(".", 0, visit))
	require.EqualError(t, full.walk(".", 0, visit), `".": more than 262144 files and folders`)
}

func TestManifestIsLookedForFirst(t *testing.T) {
	t.Parallel()
	_, err := ResolveManifest(t.Context(), folder(t, map[string]string{"bin/sh": ""}), openRoot(t, t.TempDir()))
	require.ErrorIs(t, err, ErrNotApp)

	_, err = ResolveManifest(t.Context(), folder(t, map[string]string{"spin.toml": "-> /etc/spin.toml"}), openRoot(t, t.TempDir()))
	require.EqualError(t, err, "statat spin.toml: path escapes from parent")

	dir := folder(t, map[string]string{"spin.toml": ""})
	require.NoError(t, os.Truncate(filepath.Join(dir.Name(), "spin.toml"), 1<<40))
	_, err = ResolveManifest(t.Context(), dir, openRoot(t, t.TempDir()))
	require.EqualError(t, err, "read spin.toml: more than 65536 bytes")
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(maximal))
	f.Add([]byte(small("", "")))
	f.Add([]byte("spin_manifest_version = 2\napplication = { name = \"a\" }\ntrigger.http = [{ component = \"c\", route = \"/\" }]\ncomponent.c = { source = \"c\", files = [[], {}] }"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, app, err := decodeManifest(data)
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "spin.toml:"), err)
			return
		}
		encoded, err := app.Encode()
		require.NoError(t, err)
		_, err = lockedapp.Decode(encoded)
		require.NoError(t, err)
	})
}

func TestManifestMayBeginWithAByteOrderMark(t *testing.T) {
	t.Parallel()
	_, app, err := decodeManifest([]byte("\ufeff" + maximal))
	require.NoError(t, err)
	require.Equal(t, "shop", app.Metadata.Name)
}
