package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spinkube/containerd-shim-spin-go/integration/node"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// events collects containerd's events.
type events struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

// watchEvents collects events until the end of the test. It returns when they come.
func (l *lab) watchEvents(t *testing.T, ref string) *events {
	t.Helper()
	line := l.CtrCommand("events")
	cmd := exec.Command(line[0], line[1:]...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	e := &events{}
	ended := make(chan struct{})
	go func() { // ends with ctr
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			e.mu.Lock()
			e.lines = append(e.lines, lines.Text())
			e.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		<-ended
		cmd.Wait() // its error is that it was killed
	})
	tries := 0
	require.Eventually(t, func() bool {
		tries++
		_, err := l.Ctr(t.Context(), "image", "label", ref, fmt.Sprintf("try=%d", tries))
		return err == nil && len(e.topics("")) > 0
	}, time.Minute, 20*time.Millisecond)
	return e
}

// topics are the topics of the events that came, of those with that text.
func (e *events) topics(text string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var topics []string
	for _, line := range e.lines {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") && strings.Contains(line, text) {
				topics = append(topics, word)
				break
			}
		}
	}
	return topics
}

// requireTopics waits until these are the topics of a container's task, in this order.
func (e *events) requireTopics(t *testing.T, id string, want ...string) {
	t.Helper()
	of := fmt.Sprintf(`"container_id":%q`, id)
	require.Eventually(t, func() bool { return len(e.topics(of)) >= len(want) }, time.Minute, 10*time.Millisecond, "%v", e.topics(of))
	require.Equal(t, want, e.topics(of))
}

func TestEvents(t *testing.T) {
	l := newLab(t)
	ref := l.push(t, "c-hello", artifact.image(t, guestNamed("c-hello").write(t)))
	e := l.watchEvents(t, ref)
	l.start(t, ref, "app")
	require.NoError(t, syscall.Kill(l.pid(t, "app"), syscall.SIGKILL))
	l.requireStopped(t, "app")
	e.requireTopics(t, "app", "/tasks/create", "/tasks/start", "/tasks/exit")
	require.Len(t, e.topics(`"exit_status":137`), 1)
	code, err := l.DeleteTask(t.Context(), "app")
	require.NoError(t, err)
	require.Equal(t, 137, code)
	e.requireTopics(t, "app", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
}

// A container whose requests need more memory than it may have is killed by the kernel, and containerd hears why.
func TestOutOfMemory(t *testing.T) {
	const requests = 400
	l := newLab(t)
	release := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(upstream.Close)
	t.Cleanup(func() { close(release) })
	addr := upstream.Listener.Addr().String()
	ref := l.push(t, "c-spin", artifact.image(t, guestNamed("c-spin").write(t)))
	e := l.watchEvents(t, ref)
	i := l.start(t, ref, "app", "--memory-limit", strconv.Itoa(32<<20), "--env", "SPIN_VARIABLE_UPSTREAM="+addr)
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			if resp, err := http.Get(i.url + "/fetch"); err == nil {
				resp.Body.Close()
			}
		})
	}
	l.requireStopped(t, i.id)
	all.Wait()
	code, err := l.DeleteTask(t.Context(), i.id)
	require.NoError(t, err)
	require.Equal(t, 137, code)
	require.Eventually(t, func() bool {
		for _, topic := range e.topics(`"container_id":"app"`) {
			if topic == "/tasks/oom" {
				return true
			}
		}
		return false
	}, time.Minute, 10*time.Millisecond)
}

// Clients that keep their connections alive and ask without pause see no failure when the app ends: each request is answered, or its
// connection refused.
func TestDrainUnderLoad(t *testing.T) {
	const clients, answersBeforeEnd = 8, 24
	l := newLab(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(200 * time.Millisecond):
			io.WriteString(w, "late")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(upstream.Close)
	i := l.startGuest(t, "c-spin", "--env", "SPIN_VARIABLE_UPSTREAM="+upstream.Listener.Addr().String())
	var answers, last atomic.Int64
	enough := make(chan struct{})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				resp, err := client.Get(i.url + "/fetch")
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(b) != "upstream 200: late" {
					t.Errorf("%d %q %v", resp.StatusCode, b, err)
				}
				if resp.Close {
					last.Add(1)
				}
				if answers.Add(1) == answersBeforeEnd {
					close(enough)
				}
			}
		})
	}
	<-enough
	l.requireEnd(t, i.id, "SIGTERM", 0)
	all.Wait()
	require.NotZero(t, last.Load(), "answers with Connection: close")
}

// A daemon for each container leaves nothing open in containerd.
func TestRoundsOfDaemons(t *testing.T) {
	l := newLab(t)
	ref := l.push(t, "c-hello", artifact.image(t, guestNamed("c-hello").write(t)))
	first := 0
	for round := range rounds(t) {
		id := fmt.Sprintf("round-%d", round)
		i := l.start(t, ref, id)
		i.get(t, "/").requireText(t, "Hello from C!\n")
		http.DefaultClient.CloseIdleConnections()
		l.requireEnd(t, id, "SIGTERM", 0)
		_, err := l.Ctr(t.Context(), "container", "delete", id)
		require.NoError(t, err)
		require.Empty(t, l.Leaks(t.Context()))
		if round == 1 { // what is made once is there
			first = openFiles(t, l.Pid())
		}
	}
	require.LessOrEqual(t, openFiles(t, l.Pid()), first+fileSlack, "open files of containerd")
}

// The shim's delete verb may run at any time, and any number of times, for containers that are there, gone, or of others.
func TestDeleteAgain(t *testing.T) {
	l := newLab(t)
	i := l.startGuest(t, "c-hello")
	bundles := filepath.Join(l.Dir, "state/io.containerd.runtime.v2.task", l.Namespace)
	remove := func(id string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), l.Shim(), "-namespace", l.Namespace, "-address", l.Address, "-id", id,
			"-bundle", filepath.Join(bundles, id), "delete")
		cmd.Env = append(os.Environ(), "SPIN_SHIM_CACHE="+l.Cache())
		cmd.Dir = l.Dir
		out, err := cmd.Output()
		require.NoError(t, err)
		require.NotEmpty(t, out)
	}
	remove("never-was")
	i.get(t, "/").requireText(t, "Hello from C!\n")
	l.requireEnd(t, i.id, "SIGTERM", 0)
	_, err := l.DeleteTask(t.Context(), i.id)
	require.ErrorContains(t, err, "not found")
	for range 2 {
		remove(i.id)
	}
}

func TestUpdateLimits(t *testing.T) {
	l := newLab(t, func(c *node.Config) { c.CRI = true })
	c := l.dialCRI(t)
	config := l.Pod("limits")
	p := l.runPod(t, c, "spin", config)
	ref := l.push(t, "c-hello", artifact.image(t, guestNamed("c-hello").write(t)))
	id, err := c.Run(t.Context(), p.id, config, containerConfig("app", ref, "/"))
	require.NoError(t, err)
	const limit = 128 << 20
	_, err = c.UpdateContainerResources(t.Context(), &cri.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: &cri.LinuxContainerResources{MemoryLimitInBytes: limit},
	})
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", l.CgroupParent(), id, "memory.limit_in_bytes"))
	if os.IsNotExist(err) {
		got, err = os.ReadFile(filepath.Join("/sys/fs/cgroup", l.CgroupParent(), id, "memory.max"))
	}
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(limit), strings.TrimSpace(string(got)))
	(&instance{url: "http://" + net.JoinHostPort(p.ip, "80")}).get(t, "/").requireText(t, "Hello from C!\n")
	require.NoError(t, c.RemovePod(t.Context(), p.id))
}

// The port takes what clients may send, HTTP/2 without TLS included, and refuses what it must; pkg/trigger/http tests it case by case.
func TestPort(t *testing.T) {
	l := newLab(t)
	i := l.startGuest(t, "c-hello")
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &only}}
	t.Cleanup(client.CloseIdleConnections)
	resp, err := client.Get(i.url)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 2, resp.ProtoMajor)
	require.Equal(t, http.StatusOK, resp.StatusCode)

	for name, request := range map[string]string{
		"two lengths":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nabcd",
		"no host":         "GET / HTTP/1.1\r\n\r\n",
		"no HTTP":         "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
		"NUL in a header": "GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(i.url, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			context.AfterFunc(ctx, func() { conn.Close() })
			_, err = io.WriteString(conn, request)
			require.NoError(t, err)
			b, err := io.ReadAll(conn) // it ends: the server closes
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(string(b), "HTTP/1.1 400 "), "%q", b)
		})
	}
	i.get(t, "/").requireText(t, "Hello from C!\n")
}

// A cache on a small file system that is mounted noexec serves what fits, and says what is wrong with the rest.
func TestSmallCache(t *testing.T) {
	l := newLab(t)
	require.NoError(t, os.MkdirAll(l.Cache(), 0o700))
	require.NoError(t, unix.Mount("tmpfs", l.Cache(), "tmpfs", unix.MS_NOEXEC, "size=2m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(l.Cache(), unix.MNT_DETACH)) })
	_, err := l.tryStart(t, l.push(t, "go-raw", artifact.image(t, guestNamed("go-raw").write(t))), "large")
	require.ErrorContains(t, err, "no space left on device")
	l.startGuest(t, "c-hello").get(t, "/").requireText(t, "Hello from C!\n")
}
