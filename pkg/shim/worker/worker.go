// Package worker is the half of the shim that runs inside the container: it loads a prepared app from open files, listens, gives up
// what it does not need any more, and serves the app's triggers until it is told to end.
//
// Files: worker.go is the process in a container, app.go loads and runs an app in any process, exit.go has the exit codes.
package worker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/sandbox"
)

const (
	// listenVar names the environment variable with the address of the HTTP trigger, and defaultListen is what it is without.
	listenVar     = "SPIN_HTTP_LISTEN_ADDR"
	defaultListen = "0.0.0.0:80"
	// retainVar names the one with the components to run.
	retainVar = "SPIN_COMPONENTS_TO_RETAIN"
	// stateVolume is where a volume can be mounted to keep the app's state beyond its container.
	stateVolume = "/.spin"
)

// Main is the worker's main function; it returns the exit code.
func Main() int {
	report := os.NewFile(handoff.FdReport, "report")
	log := slog.New(slog.NewTextHandler(os.NewFile(handoff.FdLog, "log"), nil))
	for fd := handoff.FdBinary; fd < handoff.FdBinary+handoff.WorkerFiles; fd++ {
		syscall.CloseOnExec(fd)
	}
	// Nobody may read the guests' output any more: that is no reason to die.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	limitMemory()
	return run(ctx, containerConfig(log), report)
}

// containerConfig is the configuration that the open files and the container's environment make.
func containerConfig(log *slog.Logger) Config {
	dir := fmt.Sprintf("/proc/self/fd/%d", handoff.FdApp)
	cfg := Config{
		Dir: dir, CodeDir: dir + "/" + handoff.CodeDir, StateDir: fmt.Sprintf("/proc/self/fd/%d", handoff.FdState),
		Listen: defaultListen, Stdout: os.Stdout, Stderr: os.Stderr, Log: log,
	}.WithEnvironment(os.LookupEnv)
	if info, err := os.Stat(stateVolume); err == nil && info.IsDir() {
		cfg.StateDir = stateVolume
	}
	if addr := os.Getenv(listenVar); addr != "" {
		cfg.Listen = addr
	}
	return cfg
}

// run loads and serves the app, and reports.
func run(ctx context.Context, cfg Config, report *os.File) int {
	start := time.Now()
	app, err := Load(ctx, cfg)
	if err != nil {
		_ = handoff.Report{Error: err.Error()}.Write(report)
		return exitStart
	}
	loaded := time.Now()
	ready := false
	err = app.Run(ctx, func() {
		r := handoff.Report{Load: loaded.Sub(start), Listen: time.Since(loaded)}
		// What is accepted is served only from here on, so that no foreign code has run yet.
		if err := sandbox.Worker(); err != nil {
			r.Warnings = append(r.Warnings, "the worker is less confined than it should be: "+err.Error())
		}
		if err := r.Write(report); err != nil {
			cfg.Log.Error("report to the daemon", "err", err)
		}
		_ = report.Close()
		ready = true
	})
	switch {
	case err == nil:
		if err := app.Close(context.WithoutCancel(ctx)); err != nil { // all requests have ended
			cfg.Log.Warn("close the app", "err", err)
		}
		return exitDone
	case !ready:
		_ = handoff.Report{Error: err.Error()}.Write(report)
		return exitStart
	}
	cfg.Log.Error("serve", "err", err)
	return exitServe
}

// limitMemory tells Go's collector what the container may use, so that it works harder before the kernel kills the container.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if most, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && most < 1<<50 { // cgroup v1's "none" is 2^63
			debug.SetMemoryLimit(most / 10 * 9)
		}
		return
	}
}
