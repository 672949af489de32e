package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long an app may take from `ctr run` to its first answer: compiling JavaScript's engine takes seconds.
const patience = time.Minute

// pod is a running container.
type pod struct {
	id, addr string
	took     time.Duration // from the call of ctr to the end of the first answer
	pid      int           // of the app; the parent is the shim
}

// start runs a subject as container id on the host's network and waits for its first answer with status 200.
func (l *lab) start(ctx context.Context, s *subject, id string) (*pod, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args := []string{id}
	for _, a := range s.command {
		args = append(args, strings.ReplaceAll(a, "%s", addr))
	}
	// Nobody would read what guests write, and they would wait for that.
	flags := []string{"--detach", "--null-io", "--net-host", "--runtime", s.runtime, "--env", "SPIN_HTTP_LISTEN_ADDR=" + addr}
	began := time.Now()
	if _, err := l.node.Ctr(ctx, l.node.RunArgs(flags, s.ref, args...)...); err != nil {
		return nil, err
	}
	if err := firstAnswer(ctx, "http://"+addr+s.path); err != nil {
		return nil, err
	}
	p := &pod{id: id, addr: addr, took: time.Since(began)}
	p.pid, err = l.pid(ctx, id)
	return p, err
}

// firstAnswer asks until there is an answer with status 200. An app listens when ctr returns; busybox may not yet.
func firstAnswer(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		err := ask(ctx, client, url)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Millisecond / 2):
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("%s: %s", url, resp.Status))
	}
	return errors.Join(err, resp.Body.Close())
}

// pid is the process id of a container's task.
func (l *lab) pid(ctx context.Context, id string) (int, error) {
	out, err := l.node.Ctr(ctx, "task", "list")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] == id {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("no task %s", id)
}

// started are the starts of one subject.
type started struct {
	App  string `json:"app"`
	Cold sample `json:"cold_ms"` // first on the node
	Warm sample `json:"warm_ms"`
	// Phases are the medians that the shim logged of the warm starts.
	Phases map[string]float64 `json:"phases_ms,omitempty"`
}

// measureStarts starts the subjects in turn, first each time on a node without prepared apps, then with.
func (l *lab) measureStarts(ctx context.Context, all []*subject, o options) ([]*started, error) {
	var result []*started
	for _, s := range all {
		result = append(result, &started{App: s.name})
	}
	once := func(s *subject) (float64, error) {
		p, err := l.start(ctx, s, "start")
		if err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
		return millis(p.took), l.remove(ctx, p)
	}
	for range o.cold {
		for i, s := range all {
			if err := l.forget(); err != nil {
				return nil, err
			}
			took, err := once(s)
			if err != nil {
				return nil, err
			}
			result[i].Cold.add(took)
		}
	}
	for _, s := range all { // so that all of them are prepared
		if _, err := once(s); err != nil {
			return nil, err
		}
	}
	phases := make([]map[string]*sample, len(all))
	for range o.warm {
		for i, s := range all {
			from := len(l.node.Log())
			took, err := once(s)
			if err != nil {
				return nil, err
			}
			result[i].Warm.add(took)
			if phases[i] == nil {
				phases[i] = map[string]*sample{}
			}
			for phase, ms := range phasesOf(l.node.Log()[from:]) {
				if phases[i][phase] == nil {
					phases[i][phase] = &sample{}
				}
				phases[i][phase].add(ms)
			}
		}
	}
	for i, r := range result {
		r.Phases = map[string]float64{}
		for phase, s := range phases[i] {
			r.Phases[phase] = s.median()
		}
	}
	return result, nil
}

// phaseNames are the phases of a start, in order.
var phaseNames = []string{"t_resolve", "t_prepare", "t_spawn", "t_load", "t_listen"}

// phasesOf finds the milliseconds of each phase in the log of one start.
func phasesOf(log string) map[string]float64 {
	found := map[string]float64{}
	for _, phase := range phaseNames {
		m := regexp.MustCompile(phase + `="?([0-9.]+)`).FindStringSubmatch(log)
		if m == nil {
			continue
		}
		if ms, err := strconv.ParseFloat(m[1], 64); err == nil {
			found[phase] = ms
		}
	}
	return found
}

// remove removes pods and waits until their processes are gone: the next measurement has the machine for itself.
func (l *lab) remove(ctx context.Context, pods ...*pod) error {
	for _, p := range pods {
		if err := l.node.Remove(ctx, p.id); err != nil {
			return err
		}
	}
	if leaks := l.node.Leaks(ctx); len(leaks) > 0 {
		return fmt.Errorf("left behind: %s", strings.Join(leaks, ", "))
	}
	return nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func machine() string {
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d processors, load average %s before the start.", runtime.NumCPU(), strings.Join(strings.Fields(string(load))[:3], " "))
}
