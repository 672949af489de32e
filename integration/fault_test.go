package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/stretchr/testify/require"
)

// startGuest runs a guest of guestApps as an artifact, with its name as its id.
func (l *lab) startGuest(t *testing.T, name string, flags ...string) *instance {
	t.Helper()
	return l.start(t, l.push(t, name, artifact.image(t, guestNamed(name).write(t))), name, flags...)
}

// pid is the process id of a container's task.
func (l *lab) pid(t *testing.T, id string) int {
	t.Helper()
	out, err := l.Ctr(t.Context(), "task", "list")
	require.NoError(t, err)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] == id {
			pid, err := strconv.Atoi(f[1])
			require.NoError(t, err)
			return pid
		}
	}
	t.Fatalf("no task %s: %s", id, out)
	return 0
}

// parent is the process id of a process's parent.
func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	ppid, err := strconv.Atoi(strings.Fields(rest)[1])
	require.NoError(t, err)
	return ppid
}

func TestContainerdRestarts(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			l := newLab(t)
			i := l.startGuest(t, "c-hello")
			require.NoError(t, l.Stop(signal))
			i.get(t, "/").requireText(t, "Hello from C!\n")
			require.NoError(t, l.Run(t.Context()))
			i.get(t, "/").requireText(t, "Hello from C!\n")
			l.requireEnd(t, i.id, "SIGTERM", 0)
		})
	}
}

func TestKilledWorker(t *testing.T) {
	l := newLab(t)
	i := l.startGuest(t, "c-hello")
	require.NoError(t, syscall.Kill(l.pid(t, i.id), syscall.SIGKILL))
	l.requireStopped(t, i.id)
	code, err := l.DeleteTask(t.Context(), i.id)
	require.NoError(t, err)
	require.Equal(t, 137, code)
}

// Containerd cleans up behind a daemon that died: no file, mount, cgroup or process is left, though nobody deletes the task.
func TestKilledDaemon(t *testing.T) {
	l := newLab(t)
	i := l.startGuest(t, "c-hello")
	require.NoError(t, syscall.Kill(parent(t, l.pid(t, i.id)), syscall.SIGKILL))
	require.Eventually(t, func() bool {
		out, err := l.Ctr(t.Context(), "task", "list", "--quiet")
		return err == nil && strings.TrimSpace(out) == ""
	}, time.Minute, 20*time.Millisecond)
}

// A prepare process that dies is an error of the start, and the next start prepares again.
func TestKilledPrepare(t *testing.T) {
	l := newLab(t)
	ref := l.push(t, "js-hello", artifact.image(t, guestNamed("js-hello").write(t)))
	killed := make(chan int)
	go func() { // ends when it has killed one
		for {
			if pid := processWith("prepare"); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed <- pid
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := l.tryStart(t, ref, "killed")
	<-killed
	require.ErrorContains(t, err, "killed")
	_, err = l.Ctr(t.Context(), "container", "delete", "killed")
	require.NoError(t, err)
	l.start(t, ref, "again").get(t, "/").requireText(t, "hello from js: GET /\n")
}

// processWith is a process of the shim with an argument.
func processWith(arg string) int {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lines {
		line, _ := os.ReadFile(name)
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && slices.Contains(args[1:], arg) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			return pid
		}
	}
	return 0
}

// What was accepted before SIGTERM is answered after it, and nothing is accepted any more.
func TestDrain(t *testing.T) {
	const clients = 20
	l := newLab(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		io.WriteString(w, "late")
	}))
	t.Cleanup(upstream.Close)
	i := l.startGuest(t, "c-spin", "--env", "SPIN_VARIABLE_UPSTREAM="+upstream.Listener.Addr().String())
	var all sync.WaitGroup
	answers := make(chan answer, clients)
	for range clients {
		all.Go(func() {
			resp, err := http.Get(i.url + "/fetch")
			if err != nil {
				answers <- answer{body: err.Error()}
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			answers <- answer{resp.StatusCode, resp.Header, fmt.Sprint(string(b), err)}
		})
	}
	for range clients {
		<-arrived
	}
	_, err := l.Ctr(t.Context(), "task", "kill", "--signal", "SIGTERM", i.id)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(i.url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, 5*time.Millisecond, "it goes on to accept")
	close(release)
	all.Wait()
	for range clients {
		require.Equal(t, "upstream 200: late<nil>", (<-answers).body)
	}
	l.requireStopped(t, i.id)
	code, err := l.DeleteTask(t.Context(), i.id)
	require.NoError(t, err)
	require.Zero(t, code)
}

// requireStopped waits until the container's task has ended.
func (l *lab) requireStopped(t *testing.T, id string) {
	t.Helper()
	require.Eventually(t, func() bool {
		out, err := l.Ctr(t.Context(), "task", "list")
		if err != nil {
			return false
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); f[0] == id {
				return f[2] == "STOPPED"
			}
		}
		return false
	}, time.Minute, 20*time.Millisecond, "the task does not end")
}

// Every feature works from the real place: a read-only root, a user who is not root, no capability, and the node's name service.
func TestConfined(t *testing.T) {
	l := newLab(t)
	upstream := startUpstream(t)
	flags := []string{"--read-only", "--user", "1234:1234", "--env", "SPIN_VARIABLE_UPSTREAM=" + upstream}
	for _, cap := range []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"} {
		flags = append(flags, "--cap-drop", cap)
	}
	for _, name := range []string{"c-libc", "c-spin", "js-app"} {
		t.Run(name, func(t *testing.T) {
			i := l.startGuest(t, name, flags...)
			guestNamed(name).ask(t, i, upstream)
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.pid(t, i.id)))
			require.NoError(t, err)
			for _, want := range []string{"\nUid:\t1234\t1234\t1234\t1234\n", "\nCapEff:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"} {
				require.Contains(t, string(status), want)
			}
		})
	}
}

// A volume at /.spin keeps the app's state.
func TestStateVolume(t *testing.T) {
	l := newLab(t)
	volume := t.TempDir()
	require.NoError(t, os.Chmod(volume, 0o777))
	ref := l.push(t, "c-spin", artifact.image(t, guestNamed("c-spin").write(t)))
	for round := range 2 {
		id := fmt.Sprintf("round-%d", round)
		i := l.start(t, ref, id, "--mount", "type=bind,src="+volume+",dst=/.spin,options=rbind:rw")
		i.get(t, "/kv").requireText(t, fmt.Sprintf("n=%d\n", round+1))
		l.requireEnd(t, id, "SIGTERM", 0)
	}
}

func TestMoreConnectionsThanFiles(t *testing.T) {
	l := newLab(t)
	i := l.startGuest(t, "c-hello", "--rlimit-nofile", "1024")
	for range 1500 {
		// A connection beyond the limit waits in the listener's queue or is refused.
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(i.url, "http://"), time.Second)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	// Idle ones give way in time, and those that leave at once.
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusServiceUnavailable
	}, time.Minute, 100*time.Millisecond)
	l.requireEnd(t, i.id, "SIGTERM", 0)
}

func TestTaskVerbs(t *testing.T) {
	l := newLab(t)
	i := l.startGuest(t, "c-hello", "--memory-limit", "268435456")
	ctr := func(args ...string) string {
		t.Helper()
		out, err := l.Ctr(t.Context(), args...)
		require.NoError(t, err)
		return out
	}
	require.Contains(t, ctr("task", "ps", i.id), strconv.Itoa(l.pid(t, i.id)))
	require.Contains(t, ctr("task", "metrics", i.id), "memory")

	ctr("task", "pause", i.id)
	require.Contains(t, ctr("task", "list"), "PAUSED")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url, nil)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	ctr("task", "resume", i.id)
	i.get(t, "/").requireText(t, "Hello from C!\n")

	_, err = l.Ctr(t.Context(), "task", "exec", "--exec-id", "e", "--fifo-dir", l.Dir+"/fifo", i.id, "/bin/true")
	require.ErrorContains(t, err, "exec")
	_, err = l.Ctr(t.Context(), "task", "kill", "--exec-id", "none", i.id)
	require.ErrorContains(t, err, "not found")
}

// Starts and ends do not add up: neither in containerd nor, in a pod, in the daemon.
func TestRounds(t *testing.T) {
	l := newLab(t, func(c *node.Config) { c.CRI = true })
	c := l.dialCRI(t)
	ref := l.push(t, "c-hello", artifact.image(t, guestNamed("c-hello").write(t)))
	config := l.Pod("rounds")
	p := l.runPod(t, c, "spin", config)
	daemon := processWith("daemon")
	require.NotZero(t, daemon)
	var first [2]int
	for round := range rounds(t) {
		id, err := c.Run(t.Context(), p.id, config, containerConfig(fmt.Sprintf("app-%d", round), ref, "/"))
		require.NoError(t, err)
		(&instance{url: "http://" + net.JoinHostPort(p.ip, "80")}).get(t, "/").requireText(t, "Hello from C!\n")
		require.NoError(t, c.RemoveWithin(t.Context(), id, 10))
		http.DefaultClient.CloseIdleConnections()
		if round == 1 { // what is made once is there
			first = [2]int{openFiles(t, l.Pid()), openFiles(t, daemon)}
		}
	}
	require.LessOrEqual(t, openFiles(t, l.Pid()), first[0]+fileSlack, "open files of containerd")
	require.LessOrEqual(t, openFiles(t, daemon), first[1]+fileSlack, "open files of the daemon")
	require.NoError(t, c.RemovePod(t.Context(), p.id))
}

// fileSlack is how many open files more are no leak, but less than one for each round: connections come and go, and Go's collector closes
// the pidfd of a child.
const fileSlack = 12

// rounds is how often tests start and end an app: few times, unless the environment says more.
func rounds(t *testing.T) int {
	t.Helper()
	s := os.Getenv("ROUNDS")
	if s == "" {
		return 20
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	return len(files)
}
