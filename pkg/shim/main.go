// Package shim is the shim's command line: containerd's verbs start, delete and -info, the daemon that start leaves behind, and the
// processes that the daemon starts from the same binary. It wires the packages below it and decides nothing.
//
// Files: main.go chooses, bootstrap.go is start, daemon.go the daemon, delete.go cleans up behind one that is dead, info.go says what
// this is, binary.go opens the binary for workers.
package shim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/prepare"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/serve"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/store"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/worker"
)

// cacheVar names the environment variable, of containerd, that moves the node's cache.
const cacheVar = "SPIN_SHIM_CACHE"

// Main is the main function of the shim that containerd knows by the runtime's name.
func Main(name string) { os.Exit(run(name, os.Args[1:])) }

func run(name string, args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "worker":
			return worker.Main()
		case "prepare":
			return prepare.Main()
		case "serve":
			return serve.Main(args[1:], os.Stdout, os.Stderr)
		}
	}
	if err := runVerb(name, args); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// runVerb runs a verb of containerd's, and writes its answer.
func runVerb(name string, args []string) error {
	c, err := parseCommand(args)
	if err != nil {
		return err
	}
	c.runtime = name
	if c.debug {
		if err := log.SetLevel(log.DebugLevel.String()); err != nil {
			return err
		}
	}
	ctx := log.WithLogger(context.Background(), log.L.WithField("runtime", name))
	if c.namespace != "" {
		ctx = namespaces.WithNamespace(ctx, c.namespace)
	}
	var answer []byte
	switch {
	case c.version:
		answer = versionText(filepath.Base(os.Args[0]))
	case c.info:
		answer, err = info(ctx, name, os.Stdin)
	case c.namespace == "" || c.id == "":
		err = fmt.Errorf("-namespace and -id must be given: containerd starts this program")
	case c.verb == "start":
		answer, err = start(ctx, c, os.Stdin)
	case c.verb == "delete":
		answer, err = remove(ctx, c)
	case c.verb == "daemon":
		return serveDaemon(ctx, c)
	default:
		err = fmt.Errorf("unknown verb %q", c.verb)
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(answer)
	return err
}

// command is containerd's command line.
type command struct {
	runtime                                string // the runtime's name
	debug, version, info                   bool
	namespace, id, bundle, address, binary string
	verb                                   string
}

func parseCommand(args []string) (command, error) {
	var c command
	f := flag.NewFlagSet("containerd-shim-spin-v2", flag.ContinueOnError)
	f.SetOutput(io.Discard) // errors are returned
	f.BoolVar(&c.debug, "debug", false, "write debug messages to the log")
	f.BoolVar(&c.version, "v", false, "print the version")
	f.BoolVar(&c.version, "version", false, "print the version")
	f.BoolVar(&c.info, "info", false, "write a protobuf RuntimeInfo for the options on standard input")
	f.StringVar(&c.namespace, "namespace", "", "containerd's `namespace` of the container")
	f.StringVar(&c.id, "id", "", "`id` of the container")
	f.StringVar(&c.bundle, "bundle", "", "`path` of the bundle, if not the working directory")
	f.StringVar(&c.address, "address", "", "`path` of containerd's socket")
	f.StringVar(&c.binary, "publish-binary", "", "containerd's `binary`; events go over $TTRPC_ADDRESS")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println("usage: containerd-shim-spin-v2 serve PATH, or -v; the rest is for containerd:")
		f.SetOutput(os.Stdout)
		f.PrintDefaults()
	}
	c.verb = f.Arg(0)
	return c, err
}

// cacheDir is the folder of the node's cache.
func cacheDir() string {
	if dir := os.Getenv(cacheVar); dir != "" {
		return dir
	}
	return store.DefaultDir
}
