// Program demo shows the shim at work: it starts a private containerd and a registry, pushes the apps of images/ as spin registry push
// does, runs each with ctr, asks it over HTTP, prints what it asked and what came back, and leaves no trace.
//
//	demo [-keep]
//
// With -keep it prints the commands to play with, and waits for an interrupt before it cleans up.
package main

import (
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
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/infra"
	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/spinkube/containerd-shim-spin-go/integration/registry"
)

func main() {
	keep := flag.Bool("keep", false, "leave the apps running until an interrupt")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// request is one line of the demo.
type request struct {
	method, path, body string
	header             http.Header
}

// app is a folder of images/ and what the demo asks of it.
type app struct {
	name     string
	npm      bool // whether its wasm is built with tools from npm, and not committed
	env      []string
	requests []request
	addr     string
}

// apps are in the order in which they start: c-spin fetches from c-hello.
func apps() []*app {
	get := func(path string) request { return request{method: http.MethodGet, path: path} }
	return []*app{
		{name: "c-hello", requests: []request{get("/")}},
		{name: "c-spin", requests: []request{
			get("/kv"), get("/kv"), get("/var"), get("/fetch"), {method: http.MethodPost, path: "/echo", body: "Streamed through C."},
		}},
		{name: "rust-echo", requests: []request{
			{method: http.MethodPut, path: "/shop?item=1", body: "Streamed through Rust.", header: http.Header{"X-Demo": {"yes"}}}, get("/teapot"),
		}},
		{name: "go-counter", npm: true, requests: []request{get("/a"), get("/b")}},
		{name: "js-hello", npm: true, requests: []request{get("/a"), get("/b")}},
	}
}

func demo(ctx context.Context, keep bool) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("containers need root")
	}
	began := time.Now()
	cache, err := infra.OpenCache(ctx)
	if err != nil {
		return err
	}
	fmt.Println("Building what is missing of containerd, the shim and the apps …")
	left, err := build(ctx, cache)
	if err != nil {
		return err
	}
	r, err := registry.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := node.Start(ctx, node.Config{Cache: cache, Apps: cache.Apps()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clean(n)) }()
	fmt.Printf("Private containerd in %s, registry at %s, ready after %s.\n", n.Dir, r.Addr, time.Since(began).Round(time.Millisecond))
	var running []*app
	for _, a := range apps() {
		if a.npm && left != "" {
			continue
		}
		if len(running) > 0 {
			a.env = append(a.env, "SPIN_VARIABLE_UPSTREAM="+running[0].addr)
		}
		if err := run(ctx, cache, n, r, a); err != nil {
			return fmt.Errorf("%s: %w\ncontainerd and the shim said:\n%s", a.name, err, n.Log())
		}
		running = append(running, a)
	}
	if left != "" {
		fmt.Printf("\nLeft out: the apps in Go and JavaScript, %s.\n", left)
	}
	if keep {
		play(n, running)
		<-ctx.Done()
	}
	return nil
}

// build builds the tools first, so that what the demo times is the demo, and the apps whose wasm is not committed. It says why these
// are left out.
func build(ctx context.Context, cache *infra.Cache) (left string, err error) {
	var all sync.WaitGroup
	var tools, shim error
	all.Go(func() { _, tools = cache.Containerd(ctx, infra.Containerd24) })
	all.Go(func() { _, shim = cache.Shim(ctx) })
	all.Go(func() { left = buildApps(ctx, cache) })
	all.Wait()
	return left, errors.Join(tools, shim, ctx.Err())
}

func buildApps(ctx context.Context, cache *infra.Cache) (left string) {
	if _, err := exec.LookPath("npm"); err != nil {
		return "which are built with tools from npm: there is no npm here"
	}
	targets := []string{"-s", "-C", filepath.Join(cache.Root(), "images")}
	for _, a := range apps() {
		if a.npm {
			targets = append(targets, a.name)
		}
	}
	if output, err := exec.CommandContext(ctx, "make", targets...).CombinedOutput(); err != nil {
		return fmt.Sprintf("which did not build: %v: %s", err, output)
	}
	return ""
}

// run pushes, pulls and starts an app, and asks it.
func run(ctx context.Context, cache *infra.Cache, n *node.Node, r *registry.Registry, a *app) error {
	spin, err := registry.OpenApp(filepath.Join(cache.Root(), "images", a.name))
	if err != nil {
		return err
	}
	image, err := spin.Artifact(false)
	if err != nil {
		return err
	}
	ref, err := r.Push(ctx, a.name, image)
	if err != nil {
		return err
	}
	if err := n.Pull(ctx, ref); err != nil {
		return err
	}
	if a.addr, err = freeAddr(); err != nil {
		return err
	}
	flags := []string{"--detach", "--net-host", "--env", "SPIN_HTTP_LISTEN_ADDR=" + a.addr}
	for _, env := range a.env {
		flags = append(flags, "--env", env)
	}
	fmt.Printf("\n== %s\n$ ctr run --runtime %s %s %s %s\n", a.name, node.Runtime, strings.Join(flags, " "), ref, a.name)
	began := time.Now()
	if _, err := n.Ctr(ctx, n.RunArgs(flags, ref, a.name)...); err != nil {
		return err
	}
	fmt.Printf("listening after %s (%s)\n", time.Since(began).Round(time.Millisecond), phases(n.Log()))
	for _, q := range a.requests {
		if err := ask(ctx, a.addr, q); err != nil {
			return err
		}
	}
	return nil
}

// phases is what the shim logged of the last start, in the order of the phases.
func phases(log string) string {
	var last []string
	for _, phase := range []string{"t_resolve", "t_prepare", "t_spawn", "t_load", "t_listen"} {
		if all := regexp.MustCompile(phase+`="?([0-9a-zµ.]+)`).FindAllStringSubmatch(log, -1); all != nil {
			last = append(last, phase+" "+all[len(all)-1][1])
		}
	}
	return strings.Join(last, ", ")
}

func ask(ctx context.Context, addr string, q request) error {
	req, err := http.NewRequestWithContext(ctx, q.method, "http://"+addr+q.path, strings.NewReader(q.body))
	if err != nil {
		return err
	}
	line := "curl"
	if q.method != http.MethodGet {
		line += " -X " + q.method
	}
	for name, values := range q.header {
		req.Header[name] = values
		line += fmt.Sprintf(" -H '%s: %s'", name, values[0])
	}
	if q.body != "" {
		line += fmt.Sprintf(" -d '%s'", q.body)
	}
	fmt.Printf("$ %s '%s'\n", line, req.URL)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", resp.Status, strings.TrimSuffix(string(body), "\n"))
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s %s: %s", q.method, q.path, resp.Status)
	}
	return nil
}

// play prints how to go on by hand.
func play(n *node.Node, running []*app) {
	fmt.Printf("\nAll apps are running. To play with them, in another terminal:\n\n")
	for _, a := range running {
		fmt.Printf("  curl -i http://%s%s\n", a.addr, a.requests[0].path)
	}
	for _, args := range [][]string{{"task", "list"}, {"task", "metrics", "c-hello"}, {"task", "kill", "c-hello"}} {
		fmt.Println(" ", strings.Join(n.CtrCommand(args...), " "))
	}
	fmt.Printf("  tail -f %s\n\nAn interrupt (Ctrl-C) stops everything and cleans up.\n", filepath.Join(n.Dir, "containerd.log"))
}

// clean removes the containers and then the node, and checks that the first left nothing for the second to find.
func clean(n *node.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	for _, a := range apps() {
		if err := n.Remove(ctx, a.name); err != nil && !strings.Contains(err.Error(), "not found") {
			errs = append(errs, err)
		}
	}
	leaks := n.Leaks(ctx)
	for _, leak := range leaks {
		errs = append(errs, errors.New("left behind: "+leak))
	}
	if err := errors.Join(append(errs, n.Close())...); err != nil {
		return err
	}
	fmt.Println("\nAll stopped, nothing left behind.")
	return nil
}

// freeAddr is an address that nothing listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
