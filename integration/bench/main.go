// Program bench measures apps under a private containerd and prints tables: how long a start takes, the first on a node and later
// ones; requests per second, latency and CPU time by the number of connections; memory of a pod. A Linux container with busybox's web
// server is started in between to compare with, and a plain net/http server gets the same load.
//
//	bench [-guests LIST] [-json FILE] [-cold N] [-warm N] [-rounds N] [-for DURATION] [-pods N]
//
// All apps take turns in each round and a figure is the median of the rounds, so that what else the machine does hits all of them
// alike. The load comes from the same machine: the figures compare apps and changes, not machines. Needs root, and the components of
// the folder SHARED.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/infra"
	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
)

// options say how much is measured.
type options struct {
	guests, json string
	cold, warm   int // starts of each app
	rounds       int // of load
	duration     time.Duration
	pods         int // of one app at once, for their memory
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 {
		for name, verb := range map[string]func(context.Context, []string) error{verbLoad: loadMain, verbPlain: plainMain} {
			if os.Args[1] == name {
				return report(verb(ctx, os.Args[2:]))
			}
		}
	}
	return benchMain(ctx)
}

// report prints an error and returns the exit code.
func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func benchMain(ctx context.Context) int {
	var o options
	flag.StringVar(&o.guests, "guests", "", "measure only these guests, separated by commas")
	flag.StringVar(&o.json, "json", "", "write all figures to this file")
	flag.IntVar(&o.cold, "cold", 3, "first starts of each app, each on a node without prepared apps")
	flag.IntVar(&o.warm, "warm", 11, "later starts of each app")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of load")
	flag.DurationVar(&o.duration, "for", 2*time.Second, "how long each load lasts at most")
	flag.IntVar(&o.pods, "pods", 10, "pods of one app whose memory is measured")
	flag.Parse()
	cache, err := infra.OpenCache(ctx)
	if err == nil && !node.Isolated() { // the network is here
		err = build(ctx, cache)
	}
	if err != nil {
		return report(err)
	}
	return node.Isolate(func() int { return report(bench(ctx, cache, o)) })
}

func build(ctx context.Context, cache *infra.Cache) error {
	if os.Geteuid() != 0 {
		return errors.New("containers need root")
	}
	_, err := cache.Containerd(ctx, infra.Containerd24)
	for _, tool := range []func(context.Context) (string, error){cache.Runc, cache.Busybox, cache.Shim} {
		if err == nil {
			_, err = tool(ctx)
		}
	}
	return err
}

func bench(ctx context.Context, cache *infra.Cache, o options) (err error) {
	l, err := newLab(ctx, cache)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "containerd and the shims said:\n%s", l.node.Log())
		}
		err = errors.Join(err, l.close())
	}()
	r := &figures{Machine: machine()}
	fmt.Printf("%s\n\n", r.Machine)
	apps, err := l.pushAll(ctx, o.guests)
	if err != nil {
		return err
	}
	if r.Starts, err = l.measureStarts(ctx, apps, o); err != nil {
		return err
	}
	r.printStarts(os.Stdout)
	if r.Memory, err = l.measureMemory(ctx, apps, o); err != nil {
		return err
	}
	r.printMemory(os.Stdout, o.pods)
	if r.Loads, err = l.measureLoads(ctx, apps, o); err != nil {
		return err
	}
	r.printLoads(os.Stdout)
	if o.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(b, '\n'), 0o644)
}

// lab is a node and a registry.
type lab struct {
	cache    *infra.Cache
	node     *node.Node
	registry *registry.Registry
	dir      string // of apps' sources
}

func newLab(ctx context.Context, cache *infra.Cache) (*lab, error) {
	dir, err := os.MkdirTemp("", "spin-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{cache: cache, dir: dir}
	if l.registry, err = registry.Start(); err == nil {
		l.node, err = node.Start(ctx, node.Config{Cache: cache})
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lab) close() error {
	var errs []error
	if l.node != nil {
		errs = append(errs, l.node.Close())
	}
	if l.registry != nil {
		errs = append(errs, l.registry.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// forget removes all prepared apps from the node. No app runs.
func (l *lab) forget() error { return os.RemoveAll(l.node.Cache()) }
