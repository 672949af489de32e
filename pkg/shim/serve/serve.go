// Package serve runs an app from a folder, without containerd and without root: for local work, tests and benchmarks. From a prepared
// app on it is what runs in a container.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/prepare"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/worker"
)

const defaultListen = "127.0.0.1:3000"

// Main is the main function of the verb serve with its arguments; it returns the exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", defaultListen, "address of the HTTP trigger; port 0 takes a free one")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: containerd-shim-spin-v2 serve [--listen ADDRESS] PATH")
		fmt.Fprintln(stderr, "PATH is a folder with a spin.toml, with a locked app, or an OCI image layout.")
		flags.PrintDefaults()
	}
	path, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
		return 2
	}
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, path, *listen, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "serve "+path+":", err)
		return 1
	}
	return 0
}

// parse returns the one argument that is no flag, before or behind flags.
func parse(flags *flag.FlagSet, args []string) (string, error) {
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	if flags.NArg() == 0 {
		return "", errors.New("serve: PATH is missing")
	}
	path := flags.Arg(0)
	if err := flags.Parse(flags.Args()[1:]); err != nil {
		return "", err
	}
	if flags.NArg() > 0 {
		return "", fmt.Errorf("serve: unexpected argument %q", flags.Arg(0))
	}
	return path, nil
}

func run(ctx context.Context, path, listen string, stdout, stderr io.Writer) error {
	start := time.Now()
	state := filepath.Join(path, ".spin")
	unlock, err := lock(state)
	if err != nil {
		return err
	}
	defer unlock()
	app, codeDir, err := prepareFolder(ctx, path, state)
	if err != nil {
		return err
	}
	prepared := time.Now()
	loaded, err := worker.Load(ctx, worker.Config{
		Dir: app, CodeDir: codeDir, StateDir: state, Listen: listen,
		Stdout: stdout, Stderr: stderr, Log: slog.New(slog.NewTextHandler(stderr, nil)),
	}.WithEnvironment(os.LookupEnv))
	if err != nil {
		return err
	}
	loadedAt := time.Now()
	err = loaded.Run(ctx, func() {
		fmt.Fprintf(stderr, "app %q listens on http://%s (prepare %v, load %v)\n", loaded.Name(), loaded.Addr(),
			prepared.Sub(start).Round(time.Millisecond), loadedAt.Sub(prepared).Round(time.Millisecond))
		for _, t := range loaded.Triggers() {
			fmt.Fprintln(stderr, "  "+describe(t))
		}
	})
	return errors.Join(err, loaded.Close(context.WithoutCancel(ctx)))
}

// lock keeps other processes from serving the same folder, whose prepared app they would replace.
func lock(state string) (unlock func(), err error) {
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("another process serves this folder")
	}
	return func() { _ = f.Close() }, nil
}

// describe says which component answers on which route.
func describe(t lockedapp.Trigger) string {
	var config struct {
		Route     json.RawMessage `json:"route"`
		Component string          `json:"component"`
	}
	if err := json.Unmarshal(t.Config, &config); err != nil {
		return t.ID
	}
	var route string
	if json.Unmarshal(config.Route, &route) != nil {
		route = "(private)"
	}
	if config.Component == "" {
		config.Component = "static response"
	}
	return route + " → " + config.Component
}

// prepareFolder makes the prepared app below state, and returns it and the folder of machine code, which is the user's for all apps.
func prepareFolder(ctx context.Context, path, state string) (app, codeDir string, err error) {
	dir, err := os.OpenRoot(path)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	app = filepath.Join(state, "app")
	if err := os.RemoveAll(app); err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(app, 0o755); err != nil {
		return "", "", err
	}
	out, err := os.OpenRoot(app)
	if err != nil {
		return "", "", err
	}
	defer out.Close()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = state // without a home folder
	}
	codeDir = filepath.Join(cache, "containerd-shim-spin", handoff.CodeDir)
	_, err = prepare.Folder(ctx, dir, out, codeDir)
	return app, codeDir, err
}
