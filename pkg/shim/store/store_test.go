package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
)

// The test binary is its own prepare process: what it does stands in the image's first blob.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "prepare" {
		if err := fakePrepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func fakePrepare() error {
	conn, err := handoff.OpenConn(os.NewFile(handoff.FdSocket, "socket"))
	if err != nil {
		return err
	}
	out := fmt.Sprintf("/proc/self/fd/%d", handoff.FdOutput)
	var request handoff.Request
	if _, err := conn.Receive(&request); err != nil {
		return err
	}
	done := handoff.Ask{Done: true}
	switch {
	case request.Step == handoff.StepCompile:
		wasm, err := io.ReadAll(os.NewFile(handoff.FdInput, "input"))
		if err != nil {
			return err
		}
		if bytes.Contains(wasm, []byte("invalid")) {
			done.Error = "decode at 0x8: invalid"
			break
		}
		if err := write(out, "code/wazero/"+fmt.Sprintf("%x", sha256.Sum256(wasm)), "code of "+string(wasm)); err != nil {
			return err
		}
	case request.Image == nil:
		done.Rootfs = true
		if err := write(out, "app.json", "from the root folder"); err != nil {
			return err
		}
	default:
		script, err := ask(conn, request.Image.Digest)
		if err != nil {
			return err
		}
		for line := range strings.Lines(script) {
			if err := act(conn, out, &done, strings.Fields(line)); err != nil {
				return err
			}
		}
	}
	return conn.Send(done, nil)
}

// act does what one line of an image says.
func act(conn *handoff.Conn, out string, done *handoff.Ask, words []string) error {
	switch words[0] {
	case "write":
		return write(out, words[1], strings.Join(words[2:], " "))
	case "component":
		content, err := ask(conn, words[1])
		if err != nil {
			done.Error = err.Error()
			return nil
		}
		done.Labels = map[string]string{strings.TrimPrefix(words[1], "sha256:"): `app "a": component "c"`}
		return write(out, handoff.ComponentFile(strings.TrimPrefix(words[1], "sha256:")), content)
	case "symlink":
		return os.Symlink("/etc/passwd", filepath.Join(out, words[1]))
	case "hardlink":
		if err := write(out, "app.json", "x"); err != nil {
			return err
		}
		return os.Link(filepath.Join(out, "app.json"), filepath.Join(out, words[1]))
	case "fifo":
		return unix.Mkfifo(filepath.Join(out, words[1]), 0o666)
	case "sparse":
		f, err := os.OpenFile(filepath.Join(out, words[1]), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(maxTotal + 1)
	case "die":
		panic("index out of range")
	case "hang":
		select {}
	case "error":
		done.Error = strings.Join(words[1:], " ") + "\x1b[31m"
	case "notapp":
		done.NotApp = true
	}
	return nil
}

func write(out, name, content string) error {
	name = filepath.Join(out, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(content), 0o666)
}

func ask(conn *handoff.Conn, digest string) (string, error) {
	if err := conn.Send(handoff.Ask{Blob: digest}, nil); err != nil {
		return "", err
	}
	var answer handoff.Answer
	f, err := conn.Receive(&answer)
	if err != nil {
		return "", err
	}
	if answer.Error != "" {
		return "", fmt.Errorf("blob: %s", answer.Error)
	}
	b, err := io.ReadAll(f)
	return string(b), err
}

// blobs is a content store.
type blobs map[string]string

func (b blobs) add(content string) string {
	d := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
	b[d] = content
	return d
}

func (b blobs) image(script string) *Image {
	d := b.add(script)
	return &Image{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: d, Size: int64(len(script)),
		Open: func(_ context.Context, digest string) (io.ReadCloser, error) {
			if c, ok := b[digest]; ok {
				return io.NopCloser(strings.NewReader(c)), nil
			}
			return nil, fmt.Errorf("blob %s: %w", digest, fs.ErrNotExist)
		}}
}

// counted is a store that counts the processes that it has started.
type counted struct {
	*Store
	started atomic.Int32
}

func open(t *testing.T, cfg Config) *counted {
	t.Helper()
	c := &counted{}
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "cache")
	}
	cfg.Binary = os.Args[0]
	cfg.Start = func(cmd *exec.Cmd) (func() error, error) {
		c.started.Add(1)
		cmd.SysProcAttr.Pdeathsig = 0 // a test's thread ends before its process
		return cmd.Wait, cmd.Start()
	}
	var err error
	c.Store, err = Open(cfg)
	require.NoError(t, err)
	return c
}

func prepare(t *testing.T, s *counted, src Source) *App {
	t.Helper()
	app, err := s.Prepare(t.Context(), src)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, app.Close()) })
	return app
}

func read(t *testing.T, app *App, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s", app.Dir.Fd(), name))
	require.NoError(t, err)
	return string(b)
}

// shop is an image with one component.
func shop(b blobs) *Image {
	return b.image("write app.json {}\nwrite assets/c/index.html hello\ncomponent " + b.add("wasm"))
}

func TestPrepareOnceForAllContainers(t *testing.T) {
	t.Parallel()
	s, b := open(t, Config{}), blobs{}
	app := prepare(t, s, Source{Image: shop(b)})
	require.Equal(t, "{}", read(t, app, "app.json"))
	require.Equal(t, "hello", read(t, app, "assets/c/index.html"))
	hex := strings.TrimPrefix(b.add("wasm"), "sha256:")
	require.Equal(t, "wasm", read(t, app, handoff.ComponentFile(hex)))
	require.Equal(t, "code of wasm", read(t, app, "code/wazero/"+hex))
	require.Equal(t, int32(2), s.started.Load(), "resolve and compile")

	prepare(t, s, Source{Image: shop(b)})
	again := open(t, Config{Dir: s.cfg.Dir})
	prepare(t, again, Source{Image: shop(b)})
	require.Equal(t, int32(2), s.started.Load()+again.started.Load(), "the second container and the second daemon find it")

	other := prepare(t, s, Source{Image: b.image("write app.json {}\nwrite assets/x y\ncomponent " + b.add("wasm"))})
	require.Equal(t, "code of wasm", read(t, other, "code/wazero/"+hex))
	require.Equal(t, int32(3), s.started.Load(), "a component of two images is compiled once")
}

func TestHammerPrepareAtOnce(t *testing.T) {
	t.Parallel()
	dir, b := filepath.Join(t.TempDir(), "cache"), blobs{}
	image := shop(b)
	stores := []*counted{open(t, Config{Dir: dir}), open(t, Config{Dir: dir})}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			app, err := stores[i%2].Prepare(t.Context(), Source{Image: image})
			if err != nil {
				t.Error(err)
				return
			}
			if err := app.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(2), stores[0].started.Load()+stores[1].started.Load())
}

func TestDamagedEntryIsPreparedAgain(t *testing.T) {
	t.Parallel()
	hex := fmt.Sprintf("%x", sha256.Sum256([]byte("wasm")))
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a byte of the code": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "code/wazero", hex), []byte("CODE of wasm"), 0o644))
		},
		"a missing component": func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, handoff.ComponentFile(hex))))
		},
		"a shortened asset": func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "assets/c/index.html"), 1))
		},
		"an empty list": func(t *testing.T, dir string) { require.NoError(t, os.Truncate(filepath.Join(dir, sumsName), 0)) },
		"a list of other form": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, sumsName), []byte("x\n"), 0o644))
		},
		"a list that leads out": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, sumsName), []byte("00000000 0 \"../../x\"\n"), 0o644))
		},
		"a link in the place of a file": func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, "app.json")))
			require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "app.json")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, b := open(t, Config{}), blobs{}
			image := shop(b)
			prepare(t, s, Source{Image: image})
			damage(t, s.path("apps", s.key("app", image.Digest)))
			app := prepare(t, s, Source{Image: image})
			require.Equal(t, "{}", read(t, app, "app.json"))
			require.Equal(t, "hello", read(t, app, "assets/c/index.html"))
			require.Equal(t, "code of wasm", read(t, app, "code/wazero/"+hex))
		})
	}
}

func TestPrepareRefusesWhatABrokenProcessLeaves(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, script, want string }{
		{"a link", "write app.json x\nsymlink assets", "not a plain file"},
		{"a link to a file of its own", "hardlink assets-x", "a link to another file"},
		{"a fifo", "write app.json x\nfifo code", "not a plain file"},
		{"a file of another name", "write app.json x\nwrite etc/passwd x", "unexpected file"},
		{"a component under a name that is no digest", "write components/x.wasm x", "unexpected file"},
		{"a list of checksums", "write sums x", "unexpected file"},
		{"more than a disk should hold", "sparse app.json", "more than"},
		{"nothing", "", "empty"},
		{"a panic", "die", "prepare process died: exit status 2: panic: index out of range"},
		{"an error with an escape sequence", "error decode at 0x4", "decode at 0x4 [31m"},
		{"no app", "notapp", ErrNotApp.Error()},
		{"a blob that no document names", "component sha256:" + strings.Repeat("0", 64), "is not in the content store"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, b := open(t, Config{}), blobs{}
			_, err := s.Prepare(t.Context(), Source{Image: b.image(tt.script)})
			require.Error(t, err)
			if !strings.Contains(tt.script, "component sha256") {
				require.ErrorContains(t, err, tt.want)
			}
			for _, dir := range []string{"tmp", "apps", "components"} {
				left, err := os.ReadDir(s.path(dir))
				require.NoError(t, err)
				require.Empty(t, left, dir)
			}
		})
	}
}

func TestPrepareNamesTheComponentThatDoesNotCompile(t *testing.T) {
	t.Parallel()
	s, b := open(t, Config{}), blobs{}
	_, err := s.Prepare(t.Context(), Source{Image: b.image("write app.json {}\ncomponent " + b.add("invalid"))})
	require.EqualError(t, err, `app "a": component "c": decode at 0x8: invalid`)
}

func TestBlobsOfOtherImagesAreNotHandedOut(t *testing.T) {
	t.Parallel()
	b := blobs{}
	secret := b.add("secret")
	server := &blobServer{image: b.image("names nothing")}
	answer, pipe := server.open(t.Context(), secret)
	require.NotEmpty(t, answer.Error)
	require.Nil(t, pipe)
	for _, d := range []string{"", "sha256:", "names", "sha256:" + strings.Repeat("Z", 64)} {
		answer, _ := server.open(t.Context(), d)
		require.NotEmpty(t, answer.Error, d)
	}

	server = &blobServer{image: b.image("names " + secret)}
	answer, pipe = server.open(t.Context(), server.image.Digest)
	require.Empty(t, answer.Error)
	_, err := io.ReadAll(pipe)
	require.NoError(t, err)
	require.NoError(t, pipe.Close())
	answer, pipe = server.open(t.Context(), secret)
	require.Empty(t, answer.Error, "a document that was read names it")
	require.NoError(t, pipe.Close())
	server.wait()
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, b := open(t, Config{}), blobs{}
	ctx, cancel := context.WithCancelCause(t.Context())
	image := b.image("hang")
	openBlob := image.Open
	image.Open = func(ctx context.Context, d string) (io.ReadCloser, error) {
		cancel(fmt.Errorf("containerd gave up"))
		return openBlob(ctx, d)
	}
	_, err := s.Prepare(ctx, Source{Image: image})
	require.ErrorContains(t, err, "containerd gave up")
}

func TestAppOfARootFolderEndsWithItsContainer(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	root, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer root.Close()
	app, err := s.Prepare(t.Context(), Source{Rootfs: root})
	require.NoError(t, err)
	require.Equal(t, "from the root folder", read(t, app, "app.json"))
	open(t, Config{Dir: s.cfg.Dir})
	require.Equal(t, "from the root folder", read(t, app, "app.json"), "another daemon leaves it alone")
	require.NoError(t, app.Close())
	left, err := os.ReadDir(s.path("tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestLeftoversOfDeadProcessesAreRemoved(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	require.NoError(t, os.MkdirAll(s.path("tmp", "work-1", "out", "assets"), 0o755))
	open(t, Config{Dir: s.cfg.Dir})
	left, err := os.ReadDir(s.path("tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestLeastRecentlyUsedEntriesMakeRoom(t *testing.T) {
	t.Parallel()
	s, b := open(t, Config{MaxBytes: 3000}), blobs{}
	image := func(i int) *Image { return b.image(fmt.Sprintf("write app.json %d%s", i, strings.Repeat(" x", 500))) }
	place := func(i *Image) string { return s.path("apps", s.key("app", i.Digest)) }
	inUse, err := s.Prepare(t.Context(), Source{Image: image(0)})
	require.NoError(t, err)
	for i := 1; i < 4; i++ {
		app, err := s.Prepare(t.Context(), Source{Image: image(i)})
		require.NoError(t, err)
		require.NoError(t, app.Close())
		used := time.Now().Add(time.Duration(i-10) * time.Hour)
		if i == 1 {
			used = time.Now().Add(time.Hour) // the one that was used last
		}
		_ = os.Chtimes(filepath.Join(place(image(i)), sumsName), used, used)
	}
	require.DirExists(t, place(image(0)), "in use")
	require.DirExists(t, place(image(3)), "just prepared")
	require.NoDirExists(t, place(image(2)), "least recently used")
	require.NoError(t, inUse.Close())
}

func TestErrorsOfTheDiskNameTheCache(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(Config{Dir: filepath.Join(file, "cache")})
	require.ErrorContains(t, err, "cache of prepared apps")
}

func FuzzParseSum(f *testing.F) {
	f.Add(`0000abcd 12 "assets/x"`)
	f.Add(`zz 1 "`)
	f.Fuzz(func(t *testing.T, line string) {
		got, err := parseSum(line)
		if err == nil && !filepath.IsLocal(got.path) {
			t.Errorf("%q leads out", got.path)
		}
	})
}

func TestComponentMustHaveTheDigestOfItsName(t *testing.T) {
	t.Parallel()
	s, b := open(t, Config{}), blobs{}
	hex := strings.TrimPrefix(b.add("wasm"), "sha256:")
	_, err := s.Prepare(t.Context(), Source{Image: b.image("write app.json {}\nwrite components/" + hex + ".wasm evil")})
	require.ErrorContains(t, err, "whose digest is")
	app := prepare(t, s, Source{Image: shop(b)})
	require.Equal(t, "code of wasm", read(t, app, "code/wazero/"+hex), "another image's component is not touched")
}

func TestRunningAppKeepsTheFilesOfADamagedEntry(t *testing.T) {
	t.Parallel()
	s, b := open(t, Config{}), blobs{}
	image := shop(b)
	running, err := s.Prepare(t.Context(), Source{Image: image})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(s.path("apps", s.key("app", image.Digest)), "app.json"), []byte("[]"), 0o644))
	prepare(t, s, Source{Image: image})
	require.Equal(t, "hello", read(t, running, "assets/c/index.html"))
	require.NoError(t, running.Close())
	open(t, Config{Dir: s.cfg.Dir})
	left, err := os.ReadDir(s.path("tmp"))
	require.NoError(t, err)
	require.Empty(t, left, "the next daemon removes it")
}

func TestHammerDaemonsThatStartWhileOthersPrepare(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	stop := make(chan struct{})
	var sweepers sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.removeLeftovers()
				}
			}
		})
	}
	for range 300 {
		w, err := s.newWork()
		if err != nil {
			t.Error(err)
			continue
		}
		if err := os.WriteFile(filepath.Join(w.out, "file"), nil, 0o600); err != nil {
			t.Error(err)
		}
		w.close()
	}
	close(stop)
	sweepers.Wait()
}

func TestCodeThatAppsShareCountsOnce(t *testing.T) {
	t.Parallel()
	s, b := open(t, Config{}), blobs{}
	wasm := b.add("wasm" + strings.Repeat(" ", 1000))
	for i := range 3 {
		app, err := s.Prepare(t.Context(), Source{Image: b.image(fmt.Sprintf("write app.json %d\ncomponent %s", i, wasm))})
		require.NoError(t, err)
		require.NoError(t, app.Close())
	}
	c, err := s.contents()
	require.NoError(t, err)
	require.Less(t, c.total, int64(5000), "three apps with a component of 1,000 bytes each, and its code of as many bytes once")
	require.Greater(t, c.total, int64(4000))
	s.cfg.MaxBytes = 500
	s.evict(t.Context())
	for _, kind := range []string{"apps", "components"} {
		left, err := os.ReadDir(s.path(kind))
		require.NoError(t, err)
		require.Empty(t, left, "what nobody uses goes, down to the last: code goes with its last app")
	}
}
