// Package store is the node's cache of prepared apps, and the daemon's side of preparing them.
//
// A prepared app is a folder that a worker can run from: app.json, components/<hex>.wasm, assets/<component id>/, and code/ with the
// machine code of its components. Foreign bytes become such a folder in short-lived processes without rights (package prepare), of
// which this package believes nothing: it hands out the inputs, checks what came out, and computes the keys itself from the digests
// of the inputs, so that whoever breaks into a prepare process can spoil only what was prepared from its own bytes. That is also why
// components are compiled one by one, each in a process that sees nothing else.
//
// Below the cache's folder, which only root can enter:
//
//	apps/<key>/        prepared apps, by the image's digest
//	components/<key>/  machine code, by the component's digest; prepared apps link to these files
//	tmp/               what is being prepared, and what was prepared for one container only
//	locks/             who prepares what, across the daemons of a node
//	state/             state of running containers; package container's
//
// Both keys cover the version of the format, the engine's version, wazero's, and the CPU ([Config.CacheKey]). Every entry has a list
// of its files with checksums; a damaged one is removed and prepared again. Entries that no worker uses are removed, least recently
// used first, when the cache exceeds its bound. Where the file system is mounted noexec does not matter: machine code is copied into
// anonymous memory.
//
// Files: store.go finds or prepares an app, process.go runs a prepare process, work.go checks what it made, entry.go is the cache on
// disk, remove.go removes foreign folders, image.go finds a container's image in containerd. RATIONALE.md says why, from "Why is
// preparing an app the work of several processes?" on.
package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
)

// DefaultDir is where the node's cache is.
const DefaultDir = "/var/lib/containerd-shim-spin"

// DefaultMaxBytes bounds the cache: some hundred JavaScript apps, or thousands of others.
const DefaultMaxBytes = 16 << 30

// formatVersion counts changes of what a prepared app looks like.
const formatVersion = 1

// ErrNotApp says that a container is not a Spin app: it is a Linux container.
var ErrNotApp = errors.New("not a Spin app")

// Config configures a [Store].
type Config struct {
	// Dir is the cache's folder; it is made if it is not there.
	Dir string
	// MaxBytes bounds the cache; 0 is DefaultMaxBytes.
	MaxBytes int64
	// CacheKey is what machine code depends on besides its component.
	CacheKey string
	// Binary is the path of the shim's binary, as exec takes it.
	Binary string
	// Start starts a child and returns how to wait for it, as the daemon does for all of its children.
	Start func(*exec.Cmd) (wait func() error, err error)
}

// Store is the node's cache. It is safe for concurrent use, by several processes too.
type Store struct {
	cfg Config
}

// Open opens the cache, and removes what died prepare processes and containers have left there.
func Open(cfg Config) (*Store, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	s := &Store{cfg}
	for _, dir := range []string{"", "apps", "components", "tmp", "locks"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return nil, fmt.Errorf("open cache of prepared apps: %w", err)
		}
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open cache of prepared apps: %w", err)
	}
	s.removeLeftovers()
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, elem...)...)
}

// Source is what an app comes from. At least one of the two is set.
type Source struct {
	// Image is the container's image.
	Image *Image
	// Rootfs is the container's root folder, open for reading, which may hold a spin.toml.
	Rootfs *os.File
}

// Image is an image in a content store.
type Image struct {
	MediaType, Digest string
	Size              int64
	// Open returns the blob of that digest. The error is fs.ErrNotExist if there is none.
	Open func(ctx context.Context, digest string) (io.ReadCloser, error)
}

// App is a prepared app, which stays on disk at least until Close, and for as long as anybody has Dir open.
type App struct {
	// Dir is the app's folder. Whoever inherits it can read the app, and keeps it.
	Dir *os.File
	// Resolve and Prepare say how long resolving and compiling took; both are next to nothing for an app that was there already.
	Resolve, Prepare time.Duration

	remove string // a folder to remove with the app
}

// Close ends the caller's use of the app.
func (a *App) Close() error {
	err := a.Dir.Close()
	if a.remove != "" {
		err = errors.Join(err, os.RemoveAll(a.remove))
	}
	return err
}

// Prepare returns the prepared app of src, preparing it unless the cache has it. The error is [ErrNotApp] if src holds no Spin app;
// any other is a sentence for the user: what is wrong with the app, or the node.
func (s *Store) Prepare(ctx context.Context, src Source) (*App, error) {
	start := time.Now()
	if src.Image != nil {
		if err := checkDigest(src.Image.Digest); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		key := s.key("app", src.Image.Digest)
		dir, err := s.openEntry("apps", key)
		if err == nil {
			return &App{Dir: dir, Resolve: time.Since(start)}, nil
		}
		unlock, err := s.lock(ctx, "app", key)
		if err != nil {
			return nil, err
		}
		defer unlock()
		// Only who holds the lock removes a damaged entry: without it the one that is damaged may have been replaced.
		if dir := s.openOrRemove(ctx, "apps", key); dir != nil { // prepared by another process meanwhile
			return &App{Dir: dir, Resolve: time.Since(start)}, nil
		}
	}
	return s.prepare(ctx, src, start)
}

// key returns the key of an entry that is made from the content of that digest.
func (s *Store) key(kind, digest string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s\n%s\n", kind, formatVersion, s.cfg.CacheKey, digest))
	return fmt.Sprintf("%x", sum)
}

// checkDigest accepts `sha256:` and 64 hex digits: a digest is part of keys and file names.
func checkDigest(d string) error {
	hex, ok := strings.CutPrefix(d, "sha256:")
	if !ok || !isHex(hex) {
		return fmt.Errorf("digest %.100q is not a SHA-256 digest", d)
	}
	return nil
}

func isHex(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

// prepare makes the app anew.
func (s *Store) prepare(ctx context.Context, src Source, start time.Time) (*App, error) {
	work, err := s.newWork()
	if err != nil {
		return nil, err
	}
	defer work.close()
	done, err := s.run(ctx, resolveJob(work, src))
	if err != nil {
		return nil, err
	}
	app := &App{Resolve: time.Since(start)}
	start = time.Now()
	files, err := work.check()
	if err != nil {
		return nil, fmt.Errorf("prepare app: %w", err)
	}
	if err := work.take(files); err != nil {
		return nil, err
	}
	for _, f := range files {
		hex, ok := componentHex(f.path)
		if !ok {
			continue
		}
		if err := work.checkDigest(f.path, hex); err != nil {
			return nil, fmt.Errorf("prepare app: %w", err)
		}
		if err := s.addCode(ctx, work, f.path, hex); err != nil {
			label := done.Labels[hex]
			if label == "" {
				label = "component sha256:" + hex
			}
			return nil, fmt.Errorf("%s: %w", handoff.Printable(label), err)
		}
	}
	if files, err = work.check(); err != nil { // with the code now
		return nil, err
	}
	if err := work.seal(files); err != nil {
		return nil, err
	}
	app.Prepare = time.Since(start)
	if src.Image == nil || done.Rootfs {
		// The root of a container is nobody else's: the app lives as long as its container.
		app.Dir, app.remove = work.keep()
		return app, nil
	}
	if app.Dir, err = s.install(ctx, work, "apps", s.key("app", src.Image.Digest)); err != nil {
		return nil, err
	}
	return app, nil
}

// componentHex returns the digest in the name of a component's file.
func componentHex(path string) (string, bool) {
	hex, ok := strings.CutPrefix(path, "components/")
	if !ok {
		return "", false
	}
	hex, ok = strings.CutSuffix(hex, ".wasm")
	return hex, ok && isHex(hex)
}

// addCode adds the machine code of the component at path to the app in work, compiling it unless the cache has it.
func (s *Store) addCode(ctx context.Context, work *work, path, hex string) error {
	key := s.key("component", "sha256:"+hex)
	unlock, err := s.lock(ctx, "component", key)
	if err != nil {
		return err
	}
	defer unlock()
	code := s.openOrRemove(ctx, "components", key)
	if code == nil {
		if code, err = s.compile(ctx, work, path, key); err != nil {
			return err
		}
	}
	defer code.Close()
	return work.link(s.path("components", key))
}

// compile makes the machine code of one component, in a process that sees nothing else.
func (s *Store) compile(ctx context.Context, app *work, path, key string) (*os.File, error) {
	wasm, err := os.Open(filepath.Join(app.out, path))
	if err != nil {
		return nil, err
	}
	defer wasm.Close()
	work, err := s.newWork()
	if err != nil {
		return nil, err
	}
	defer work.close()
	if _, err := s.run(ctx, job{request: handoff.Request{Step: handoff.StepCompile}, work: work, input: wasm}); err != nil {
		return nil, err
	}
	files, err := work.check()
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", path, err)
	}
	if err := work.take(files); err != nil {
		return nil, err
	}
	if err := work.seal(files); err != nil {
		return nil, err
	}
	return s.install(ctx, work, "components", key)
}

// openOrRemove opens an entry, or returns nil if there is none that can be used; a damaged one is removed.
//
// Preconditions: the caller holds the entry's lock.
func (s *Store) openOrRemove(ctx context.Context, kind, key string) *os.File {
	dir, err := s.openEntry(kind, key)
	if err == nil {
		return dir
	}
	if !errors.Is(err, errNoEntry) {
		log.G(ctx).WithError(err).WithField("entry", kind+"/"+key).Warn("cache of prepared apps: entry is damaged, preparing it again")
		if err := s.discard(s.path(kind, key)); err != nil {
			log.G(ctx).WithError(err).Warn("cache of prepared apps: remove damaged entry")
		}
	}
	return nil
}
