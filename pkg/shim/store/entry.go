package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// sumsName is an entry's list of files: a line with checksum, size and path for each. It is the last file of an entry to be written.
const sumsName = "sums"

var errNoEntry = errors.New("no such entry")

// file is a file of an entry.
type file struct {
	path string // relative, with slashes
	size int64
	sum  uint32 // CRC-32C, of everything but assets; see checked
}

// checked says whether a file's checksum is compared at each open, and not only its size: assets may be large, and a flaw in them is
// no danger.
func checked(path string) bool { return !strings.HasPrefix(path, "assets/") }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(name string) (uint32, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, f, make([]byte, 128<<10))
	return h.Sum32(), err
}

// openEntry opens an entry, whose files are all as its list says, and keeps it from being removed while the file, or a duplicate of
// it in any process, is open. The error is errNoEntry if there is none.
func (s *Store) openEntry(kind, key string) (*os.File, error) {
	dir, err := os.Open(s.path(kind, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoEntry
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		_ = dir.Close()
		return nil, errNoEntry // it is being removed
	}
	if err := verify(dir.Name()); err != nil {
		_ = dir.Close()
		if _, gone := os.Lstat(s.path(kind, key)); errors.Is(gone, fs.ErrNotExist) {
			return nil, errNoEntry // removed between open and lock
		}
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir.Name(), sumsName), now, now) // it was used now
	return dir, nil
}

// verify compares an entry's files with its list.
func verify(dir string) error {
	files, err := readSums(filepath.Join(dir, sumsName))
	if err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(dir, f.path)
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() != f.size {
			return fmt.Errorf("%s: not a file of %d bytes", f.path, f.size)
		}
		if !checked(f.path) {
			continue
		}
		sum, err := checksum(name)
		if err != nil {
			return err
		}
		if sum != f.sum {
			return fmt.Errorf("%s: checksum is %08x, not %08x", f.path, sum, f.sum)
		}
	}
	return nil
}

func writeSums(name string, files []file) error {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "%08x %d %s\n", f.sum, f.size, strconv.Quote(f.path))
	}
	return os.WriteFile(name, []byte(b.String()), 0o644)
}

func readSums(name string) ([]file, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var files []file
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<10) // a path has at most 4,095 bytes, quoted at most four times as many
	for lines.Scan() {
		got, err := parseSum(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", sumsName, lines.Text(), err)
		}
		files = append(files, got)
	}
	if lines.Err() == nil && len(files) == 0 {
		return nil, fmt.Errorf("%s is empty", sumsName)
	}
	return files, lines.Err()
}

func parseSum(line string) (file, error) {
	parts := strings.SplitN(line, " ", 3)
	if len(parts) != 3 {
		return file{}, errors.New("not a checksum, a size and a path")
	}
	sum, err := strconv.ParseUint(parts[0], 16, 32)
	if err != nil {
		return file{}, err
	}
	size, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return file{}, err
	}
	path, err := strconv.Unquote(parts[2])
	if err == nil && !filepath.IsLocal(path) {
		err = errors.New("path leaves the entry")
	}
	return file{path: path, size: size, sum: uint32(sum)}, err
}

// lock keeps other processes, and other goroutines of this one, from preparing entries of that kind and key until unlock.
func (s *Store) lock(ctx context.Context, kind, key string) (unlock func(), err error) {
	// One file for many keys, so that they do not pile up. Who prepares an app locks components too, but never the other way round.
	f, err := os.OpenFile(s.path("locks", kind+"-"+key[:2]), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock cache of prepared apps: %w", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- flock(f, unix.LOCK_EX) }() // ends when the lock's holder is done, which has a deadline
	select {
	case err := <-locked:
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock cache of prepared apps: %w", err)
		}
		return func() { _ = f.Close() }, nil
	case <-ctx.Done():
		go func() {
			<-locked
			_ = f.Close()
		}()
		return nil, fmt.Errorf("wait for another process that prepares the same app: %w", context.Cause(ctx))
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// install moves what is in work to its place and opens it.
func (s *Store) install(ctx context.Context, w *work, kind, key string) (*os.File, error) {
	place := s.path(kind, key)
	if err := os.Rename(w.out, place); err != nil {
		return nil, fmt.Errorf("store in cache of prepared apps: %w", err)
	}
	if err := syncPath(s.path(kind)); err != nil {
		return nil, fmt.Errorf("store in cache of prepared apps: %w", err)
	}
	dir, err := s.openEntry(kind, key)
	if err != nil {
		return nil, fmt.Errorf("store in cache of prepared apps: %w", err)
	}
	s.evict(ctx)
	return dir, nil
}

// discard removes an entry that nobody must find any more. Processes that have it open keep its files.
func (s *Store) discard(place string) error {
	to, err := os.MkdirTemp(s.path("tmp"), "discarded-")
	if err != nil {
		return err
	}
	if err := os.Rename(place, filepath.Join(to, "entry")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.RemoveAll(to))
	}
	return os.RemoveAll(to)
}

// evict removes entries that nobody uses, least recently used first, until the cache is within its bound.
func (s *Store) evict(ctx context.Context) {
	type entry struct {
		place string
		size  int64
		used  time.Time
	}
	var entries []entry
	var total int64
	for _, kind := range []string{"apps", "components"} {
		dirs, err := os.ReadDir(s.path(kind))
		if err != nil {
			log.G(ctx).WithError(err).Warn("cache of prepared apps: list entries")
			return
		}
		for _, d := range dirs {
			e := entry{place: s.path(kind, d.Name())}
			if info, err := os.Stat(filepath.Join(e.place, sumsName)); err == nil {
				e.used = info.ModTime()
			}
			files, _ := readSums(filepath.Join(e.place, sumsName)) // one without a list is the first to go
			for _, f := range files {
				if kind == "components" || !strings.HasPrefix(f.path, "code/") { // code is the component's
					e.size += f.size
				}
			}
			total += e.size
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range entries {
		if total <= s.cfg.MaxBytes {
			return
		}
		if s.evictEntry(ctx, e.place) {
			total -= e.size
		}
	}
}

// evictEntry removes an entry unless it is in use.
func (s *Store) evictEntry(ctx context.Context, place string) bool {
	dir, err := os.Open(place)
	if err != nil {
		return false
	}
	defer dir.Close()
	if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	if err := s.discard(place); err != nil {
		log.G(ctx).WithError(err).WithField("entry", place).Warn("cache of prepared apps: remove entry")
		return false
	}
	return true
}
