// Program bench measures apps under a private containerd and prints a table: how long a start takes, the first on a node and later
// ones, from the call of ctr to the first answer; requests per second, latency and CPU time per request by the number of
// connections; and the memory of a pod. A Linux container that does nothing is there to compare with.
//
//	bench [-for DURATION]
//
// The load comes from the same machine, so the figures compare apps and changes, not machines.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/infra"
	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
)

// warmStarts is how many starts the median is of.
const warmStarts = 7

func main() {
	duration := flag.Duration("for", 3*time.Second, "how long each load lasts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, *duration); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, duration time.Duration) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("containers need root")
	}
	cache, err := infra.OpenCache(ctx)
	if err != nil {
		return err
	}
	apps := []string{"c-hello", "rust-echo"}
	if _, err := exec.LookPath("npm"); err == nil {
		built := []string{"go-counter", "js-hello"}
		args := append([]string{"-s", "-C", filepath.Join(cache.Root(), "images")}, built...)
		if output, err := exec.CommandContext(ctx, "make", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("build apps: %w\n%s", err, output)
		}
		apps = append(apps, built...)
	}
	r, err := registry.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := node.Start(ctx, node.Config{Cache: cache})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	linux, err := startLinux(ctx, cache, n, r)
	if err != nil {
		return err
	}
	fmt.Printf("A Linux container on %s starts in %s.\n\n", node.RuncRuntime, linux)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "app\tfirst start\tstart\tconnections\trequests/s\tp50\tp99\tCPU/request\tPSS worker\tPSS shim\t")
	for _, name := range apps {
		if err := measure(ctx, cache, n, r, name, duration, table); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return table.Flush()
}

// startLinux is the median time in which ctr runs a container that does nothing, in the background.
func startLinux(ctx context.Context, cache *infra.Cache, n *node.Node, r *registry.Registry) (time.Duration, error) {
	file, err := cache.Pause(ctx)
	if err != nil {
		return 0, err
	}
	pause, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	image, err := registry.Linux{Entrypoint: []string{"/pause"}, Files: map[string][]byte{"/pause": pause}}.Image()
	if err != nil {
		return 0, err
	}
	ref, err := r.Push(ctx, "pause", image)
	if err != nil {
		return 0, err
	}
	if err := n.Pull(ctx, ref); err != nil {
		return 0, err
	}
	return median(func() (time.Duration, error) {
		began := time.Now()
		if _, err := n.Ctr(ctx, n.RunArgs([]string{"--detach", "--net-host", "--runtime", node.RuncRuntime}, ref, "pause")...); err != nil {
			return 0, err
		}
		took := time.Since(began)
		return took, n.Remove(ctx, "pause")
	})
}

func median(measure func() (time.Duration, error)) (time.Duration, error) {
	var all []time.Duration
	for range warmStarts {
		d, err := measure()
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return all[len(all)/2].Round(time.Millisecond), nil
}

func measure(ctx context.Context, cache *infra.Cache, n *node.Node, r *registry.Registry, name string, duration time.Duration, table io.Writer) error {
	app, err := registry.OpenApp(filepath.Join(cache.Root(), "images", name))
	if err != nil {
		return err
	}
	image, err := app.Artifact(false)
	if err != nil {
		return err
	}
	ref, err := r.Push(ctx, name, image)
	if err != nil {
		return err
	}
	if err := n.Pull(ctx, ref); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	start := func() (time.Duration, error) {
		began := time.Now()
		flags := []string{"--detach", "--net-host", "--env", "SPIN_HTTP_LISTEN_ADDR=" + addr}
		if _, err := n.Ctr(ctx, n.RunArgs(flags, ref, name)...); err != nil {
			return 0, err
		}
		// A connection of its own, since the app will be gone.
		err := ask(ctx, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, addr)
		return time.Since(began), err
	}
	first, err := start()
	if err != nil {
		return err
	}
	warm, err := median(func() (time.Duration, error) {
		if err := n.Remove(ctx, name); err != nil {
			return 0, err
		}
		return start()
	})
	if err != nil {
		return err
	}
	worker, shim, err := pids(ctx, n, name)
	if err != nil {
		return err
	}
	for _, connections := range []int{1, 8, 64} {
		l, err := load(ctx, addr, worker, connections, duration)
		if err != nil {
			return err
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%.0f\t%s\t%s\t%s\t%s\t%s\t\n", name, first.Round(time.Millisecond), warm, connections,
			l.rate, l.p50, l.p99, l.cpu, pss(worker), pss(shim))
	}
	return n.Remove(ctx, name)
}

// ask sends a request and reads the answer.
func ask(ctx context.Context, client *http.Client, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(resp.Status))
	}
	return errors.Join(err, resp.Body.Close())
}

// pids are the processes of a task: the worker, and the daemon that started it.
func pids(ctx context.Context, n *node.Node, id string) (worker, shim int, err error) {
	out, err := n.Ctr(ctx, "task", "list")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] == id {
			if worker, err = strconv.Atoi(f[1]); err != nil {
				return 0, 0, err
			}
		}
	}
	stat, err := stat(worker)
	if err != nil {
		return 0, 0, err
	}
	shim, err = strconv.Atoi(stat[1])
	return worker, shim, err
}

// stat are the fields of /proc/PID/stat from the state on.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])), nil
}

// cpu is the processor time that a process has used.
func cpu(pid int) (time.Duration, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	// The unit is a hundredth of a second on every Linux.
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

// pss is the memory of a process, with its share of what it shares.
func pss(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "Pss:" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("%.1f MB", float64(kb)/1000)
		}
	}
	return "?"
}

// loaded is what a load measured.
type loaded struct {
	rate          float64
	p50, p99, cpu time.Duration
}

// load sends requests over so many connections, each as fast as it is answered.
func load(ctx context.Context, addr string, worker, connections int, duration time.Duration) (loaded, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	before, err := cpu(worker)
	if err != nil {
		return loaded{}, err
	}
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		took   []time.Duration // guarded by mu
		failed error           // guarded by mu
	)
	began := time.Now()
	for range connections {
		all.Go(func() {
			var mine []time.Duration
			var err error
			for err == nil && time.Since(began) < duration {
				sent := time.Now()
				err = ask(ctx, client, addr)
				mine = append(mine, time.Since(sent))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			failed = cmp.Or(failed, err)
		})
	}
	all.Wait()
	elapsed := time.Since(began)
	after, err := cpu(worker)
	if err := errors.Join(failed, err); err != nil {
		return loaded{}, err
	}
	slices.Sort(took)
	return loaded{
		rate: float64(len(took)) / elapsed.Seconds(),
		p50:  took[len(took)/2].Round(10 * time.Microsecond),
		p99:  took[len(took)*99/100].Round(10 * time.Microsecond),
		cpu:  ((after - before) / time.Duration(len(took))).Round(time.Microsecond),
	}, nil
}
