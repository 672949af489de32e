// Program push pushes Spin apps, each a folder with a spin.toml, to a registry without TLS, in the form that spin registry push
// writes:
//
//	push [-registry HOST:PORT] FOLDER...
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
)

func main() {
	addr := flag.String("registry", "127.0.0.1:5000", "`host:port` of the registry")
	flag.Parse()
	if err := push(context.Background(), registry.At(*addr), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(1)
	}
}

func push(ctx context.Context, r *registry.Registry, folders []string) error {
	for _, folder := range folders {
		app, err := registry.OpenApp(folder)
		if err != nil {
			return err
		}
		image, err := app.Artifact(false)
		if err != nil {
			return err
		}
		ref, err := r.Push(ctx, filepath.Base(folder), image)
		if err != nil {
			return err
		}
		fmt.Println(ref)
	}
	return nil
}
