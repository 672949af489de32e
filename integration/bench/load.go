package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The verbs by which bench runs itself as another process, whose processor time is then its own.
const (
	verbLoad  = "load"
	verbPlain = "plain"
)

const (
	// maxRequests bounds one load, and so the memory for its times.
	maxRequests = 1_000_000
	// warmUp is the load before a load: connections, pools and the garbage collector find their sizes.
	warmUp = 300 * time.Millisecond
	// stuck is when a request counts as never answered.
	stuck = 30 * time.Second
)

// connections are how many there are at once.
var connections = []int{1, 8, 64}

// loaded is what a load saw.
type loaded struct {
	Requests int           `json:"requests"`
	Took     time.Duration `json:"took"` // of all
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
}

// loadMain is the process that sends requests, each connection the next as soon as one is answered, and writes a [loaded].
func loadMain(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(verbLoad, flag.ContinueOnError)
	n := flags.Int("connections", 1, "")
	duration := flags.Duration("for", time.Second, "")
	addr := flags.String("addr", "", "")
	path := flags.String("path", "/", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	result, err := load(ctx, *addr, *path, *n, *duration)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func load(ctx context.Context, addr, path string, connections int, duration time.Duration) (*loaded, error) {
	var (
		all    sync.WaitGroup
		budget atomic.Int64 // requests that may still be sent
		mu     sync.Mutex
		took   []time.Duration // guarded by mu
		failed error           // guarded by mu
	)
	budget.Store(maxRequests)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	for range connections {
		all.Go(func() {
			mine, err := connection(ctx, addr, path, func() bool {
				return ctx.Err() == nil && time.Since(began) < duration && budget.Add(-1) >= 0
			})
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if err != nil && failed == nil {
				failed = err
				cancel()
			}
		})
	}
	all.Wait()
	if failed != nil {
		return nil, failed
	}
	if len(took) == 0 {
		return nil, errors.New("no time for any request")
	}
	result := &loaded{Requests: len(took), Took: time.Since(began)}
	slices.Sort(took)
	result.P50, result.P99 = took[len(took)/2], took[len(took)*99/100]
	return result, nil
}

// connection sends requests over one connection while more says so. It does not use net/http's client, which takes more processor time
// than the servers that are measured.
func connection(ctx context.Context, addr, path string, more func() bool) ([]time.Duration, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr)
	r := bufio.NewReader(conn)
	var took []time.Duration
	for more() {
		sent := time.Now()
		if err := conn.SetDeadline(sent.Add(stuck)); err != nil {
			return nil, err
		}
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK || resp.Close {
			return nil, fmt.Errorf("answer %s, close %t", resp.Status, resp.Close)
		}
		took = append(took, time.Since(sent))
	}
	return took, nil
}

// plainMain is a server that does what a guest that says hello does, but is plain net/http.
func plainMain(ctx context.Context, args []string) error {
	server := &http.Server{Addr: args[0], Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "Hello from Go!\n")
	})}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// loads are the loads of one subject with so many connections.
type loads struct {
	App         string `json:"app"`
	Connections int    `json:"connections"`
	Rate        sample `json:"requests_per_s"`
	CPU         sample `json:"cpu_per_request_us"`
	P50         sample `json:"p50_ms"`
	P99         sample `json:"p99_ms"`
}

// plain is the name of the server that is plain net/http.
const plain = "net/http"

// measureLoads loads the subjects in turn, each with one pod that is new in each round.
func (l *lab) measureLoads(ctx context.Context, all []*subject, o options) ([]*loads, error) {
	var result []*loads
	measure := func(round, first int, name, addr, path string, pid int) error {
		for i, n := range connections {
			if round == 0 {
				result = append(result, &loads{App: name, Connections: n})
			}
			if err := result[first+i].measure(ctx, addr, path, pid, o.duration); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	for round := range o.rounds {
		first := 0
		if err := withPlain(ctx, func(addr string, pid int) error { return measure(round, first, plain, addr, "/", pid) }); err != nil {
			return nil, err
		}
		for _, s := range all {
			if s.name == linux { // closes each connection
				continue
			}
			first += len(connections)
			p, err := l.start(ctx, s, "load")
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if err := measure(round, first, s.name, p.addr, s.path, p.pid); err != nil {
				return nil, err
			}
			if err := l.remove(ctx, p); err != nil {
				return nil, err
			}
		}
	}
	return result, nil
}

// measure loads a server whose process is pid.
func (l *loads) measure(ctx context.Context, addr, path string, pid int, duration time.Duration) error {
	if _, err := loadFrom(ctx, addr, path, l.Connections, warmUp); err != nil {
		return err
	}
	before, err := cpuTime(pid)
	if err != nil {
		return err
	}
	r, err := loadFrom(ctx, addr, path, l.Connections, duration)
	if err != nil {
		return err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return err
	}
	l.Rate.add(float64(r.Requests) / r.Took.Seconds())
	l.CPU.add(float64((after - before).Microseconds()) / float64(r.Requests))
	l.P50.add(millis(r.P50))
	l.P99.add(millis(r.P99))
	return nil
}

// loadFrom loads from a process of its own.
func loadFrom(ctx context.Context, addr, path string, connections int, duration time.Duration) (*loaded, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", verbLoad, "-addr", addr, "-path", path,
		"-connections", strconv.Itoa(connections), "-for", duration.String())
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("load: %w: %s", err, &said)
	}
	r := new(loaded)
	return r, json.Unmarshal(out, r)
}

// withPlain runs f with the address and process of a server that is plain net/http.
func withPlain(ctx context.Context, f func(addr string, pid int) error) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", verbPlain, addr)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait() // killed
	}()
	if err := firstAnswer(ctx, "http://"+addr+"/"); err != nil {
		return err
	}
	return f(addr, cmd.Process.Pid)
}
