package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
)

// subject is what is started and asked.
type subject struct {
	name, ref string
	path      string // that answers 200
	runtime   string
	// command is a Linux container's, with %s for the address to listen on.
	command []string
}

// guests are the components that are measured, where they are there.
var guests = []struct {
	name, path string
	manifest   string            // below [component.app]
	files      map[string]string // beside the manifest
}{
	{name: "c-hello", path: "/"},
	{
		name: "c-libc", path: "/",
		manifest: "environment = { GREETING = \"hi\" }\nfiles = [{ source = \"hello.txt\", destination = \"/etc/hello.txt\" }]",
		files:    map[string]string{"hello.txt": "a file"},
	},
	{name: "rust-wasi-http", path: "/"},
	{name: "go-raw", path: "/"},
	{name: "go-spin-kv", path: "/", manifest: `key_value_stores = ["default"]`},
	{name: "js-hello", path: "/"},
	{name: "js-app", path: "/var", manifest: "key_value_stores = [\"default\"]\nvariables = { greeting = \"bonjour\" }"},
}

const manifest = `spin_manifest_version = 2

[application]
name = %[1]q

[[trigger.http]]
route = "/..."
component = "app"

[component.app]
source = "app.wasm"
%[2]s
`

// linux is the name of the Linux container, and httpd its command.
const linux = "runc busybox"

// pushAll pushes the Linux container and the guests of a list, or all, and pulls them to the node.
func (l *lab) pushAll(ctx context.Context, list string) ([]*subject, error) {
	wanted := func(name string) bool { return list == "" || slices.Contains(strings.Split(list, ","), name) }
	s, err := l.pushLinux(ctx)
	if err != nil {
		return nil, err
	}
	all := []*subject{s}
	built := os.Getenv("SHARED")
	if built == "" {
		built = filepath.Join(l.cache.Root(), "..", "shared")
	}
	built = filepath.Join(built, "guests", "built")
	for _, g := range guests {
		if !wanted(g.name) {
			continue
		}
		wasm, err := os.ReadFile(filepath.Join(built, g.name+".wasm"))
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Printf("Left out: %s, which is not in %s.\n", g.name, built)
			continue
		}
		if err != nil {
			return nil, err
		}
		files := map[string]string{"app.wasm": string(wasm), "spin.toml": fmt.Sprintf(manifest, g.name, g.manifest)}
		for name, text := range g.files {
			files[name] = text
		}
		image, err := l.artifact(g.name, files)
		if err != nil {
			return nil, err
		}
		ref, err := l.push(ctx, g.name, image)
		if err != nil {
			return nil, err
		}
		all = append(all, &subject{name: g.name, ref: ref, path: g.path, runtime: node.Runtime})
	}
	if len(all) == 1 {
		return nil, fmt.Errorf("no guests: set SHARED to a folder that has them")
	}
	return all, nil
}

// artifact is what spin pushes of an app that is these files.
func (l *lab) artifact(name string, files map[string]string) (registry.Image, error) {
	dir := filepath.Join(l.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return registry.Image{}, err
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return registry.Image{}, err
		}
	}
	app, err := registry.OpenApp(dir)
	if err != nil {
		return registry.Image{}, err
	}
	return app.Artifact(false)
}

func (l *lab) pushLinux(ctx context.Context) (*subject, error) {
	file, err := l.cache.Busybox(ctx)
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	image, err := registry.Linux{
		Files: map[string][]byte{"/bin/busybox": busybox, "/www/index.html": []byte("Hello from busybox!\n")},
	}.Image()
	if err != nil {
		return nil, err
	}
	ref, err := l.push(ctx, "busybox", image)
	return &subject{
		name: linux, ref: ref, path: "/index.html", runtime: node.RuncRuntime,
		command: []string{"/bin/busybox", "httpd", "-f", "-p", "%s", "-h", "/www"},
	}, err
}

func (l *lab) push(ctx context.Context, name string, image registry.Image) (string, error) {
	ref, err := l.registry.Push(ctx, name, image)
	if err != nil {
		return "", err
	}
	return ref, l.node.Pull(ctx, ref)
}
