package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
)

// worker is what the daemon hears of a worker.
type worker struct {
	report, log *os.File
	stderr      head // the beginning of its standard error
}

// newWorker makes the pipes of a worker. The second and third results are the worker's ends, of the caller to close.
func newWorker() (w *worker, report, log *os.File, err error) {
	reportR, report, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	logR, log, err := os.Pipe()
	if err != nil {
		_, _ = reportR.Close(), report.Close()
		return nil, nil, nil, err
	}
	return &worker{report: reportR, log: logR}, report, log, nil
}

func (w *worker) close() { _, _ = w.report.Close(), w.log.Close() }

// Start starts the worker and returns when it listens. The error is the reason why it does not, in one sentence; the worker is dead
// then, and the container stopped.
func (c *Container) Start(ctx context.Context) error {
	leave, err := c.enter("start", starting, created)
	if err != nil {
		return err
	}
	report, err := c.start(ctx)
	if err != nil {
		if killed := c.kill(context.WithoutCancel(ctx)); killed != nil {
			err = fmt.Errorf("%w (and %w)", err, killed)
		}
		leave(created)
		return err
	}
	leave(running)
	logger := log.G(ctx).WithField("container", c.id)
	for _, w := range report.Warnings {
		logger.WithField("warning", w).Warn("container: worker is not as it should be")
	}
	logger.WithFields(log.Fields{
		"t_resolve": millis(c.app.Resolve), "t_prepare": millis(c.app.Prepare), "t_spawn": millis(c.spawn),
		"t_load": millis(report.Load), "t_listen": millis(report.Listen),
	}).Info("container: app started")
	return nil
}

// millis keeps log lines short and their fields comparable.
func millis(d time.Duration) string { return fmt.Sprintf("%.1fms", d.Seconds()*1e3) }

func (c *Container) start(ctx context.Context) (handoff.Report, error) {
	begin := time.Now()
	if err := c.runc.Start(ctx, c.id); err != nil {
		return handoff.Report{}, c.runcError("start", err)
	}
	c.spawn += time.Since(begin)
	// A worker that is killed, as when the client gives up, ends the report.
	stop := context.AfterFunc(ctx, func() { _ = c.signal(unix.SIGKILL) })
	defer stop()
	report, err := handoff.ReadReport(c.watch.report)
	switch {
	case ctx.Err() != nil:
		return report, fmt.Errorf("wait for the worker: %w", context.Cause(ctx))
	case errors.Is(err, handoff.ErrNoReport):
		if killed := c.kill(ctx); killed != nil { // dying, or one that has closed the pipe without a word
			return report, errors.Join(err, killed)
		}
		return report, fmt.Errorf("%w: %s", err, c.death())
	case err != nil:
		return report, err
	case report.Error != "":
		return report, fmt.Errorf("start %s", report.Error)
	}
	return report, nil
}

// death says how a worker ended, and its first words.
func (c *Container) death() string {
	status := c.Exit().Status
	how := fmt.Sprintf("exit code %d", status)
	switch signal := unix.Signal(status - 128); {
	case signal == unix.SIGKILL && c.cgroup.killedForMemory():
		how = "the kernel killed it for lack of memory: the container's memory limit is too low"
	case signal > 0:
		how = fmt.Sprintf("killed by signal %d (%s)", int(signal), unix.SignalName(signal))
	}
	if words := c.watch.stderr.line(); words != "" {
		how += ": " + words
	}
	return how
}

// copyLog writes the worker's log lines into the shim's log. It ends when the worker does, or with close.
func (w *worker) copyLog(ctx context.Context, id string) {
	lines := bufio.NewReaderSize(w.log, 4<<10) // a longer line is cut in pieces
	for {
		b, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		line := string(b)
		log.G(ctx).WithFields(log.Fields{"container": id, "line": line}).Log(levelOf(line), "worker: log")
	}
}

// levelOf is the level of a line of log/slog.
func levelOf(line string) log.Level {
	_, rest, _ := strings.Cut(line, "level=")
	switch level, _, _ := strings.Cut(rest, " "); level {
	case "ERROR":
		return log.ErrorLevel
	case "WARN":
		return log.WarnLevel
	case "DEBUG":
		return log.DebugLevel
	}
	return log.InfoLevel
}

// maxHead bounds what is kept of a worker's first words, in bytes.
const maxHead = 1 << 10

// head keeps the beginning of what is written.
type head struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf = append(h.buf, b[:min(len(b), maxHead-len(h.buf))]...)
	return len(b), nil
}

// line is the first line with anything in it.
func (h *head) line() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	line, _, _ := strings.Cut(strings.TrimSpace(string(h.buf)), "\n")
	return strings.ToValidUTF8(line, "?")
}

// await returns the end of the process whose id comes from pids, or false if none comes. It may be dead before its id is known.
func await(exits <-chan runc.Exit, pids <-chan int) (runc.Exit, bool) {
	early := map[int]runc.Exit{}
	pid := 0
	for {
		select {
		case p, ok := <-pids:
			if e, dead := early[p]; dead || !ok {
				return e, ok
			}
			pid, pids, early = p, nil, nil
		case e, ok := <-exits:
			switch {
			case !ok || e.Pid == pid:
				return e, ok
			case pid == 0:
				early[e.Pid] = e
			}
		}
	}
}
