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

func checksum(name string) (uint32, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli)) // one table for all, made by the first
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
	if !isAt(dir, dir.Name()) { // removed between open and lock
		_ = dir.Close()
		return nil, errNoEntry
	}
	if err := verify(dir.Name()); err != nil {
		_ = dir.Close()
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

// discard takes an entry out of the cache. Whoever has it open keeps its files: they are removed when nobody does, at the latest when
// the next daemon starts.
func (s *Store) discard(place string) error {
	to, err := os.MkdirTemp(s.path("tmp"), "discarded-")
	if err != nil {
		return err
	}
	out := filepath.Join(to, workOut)
	if err := os.Rename(place, out); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.RemoveAll(to))
	}
	if inUse(out) {
		return nil
	}
	return os.RemoveAll(to)
}

// cached is an entry with the files that it holds.
type cached struct {
	place string
	used  time.Time
	files []uint64 // inodes
}

// contents are the entries of the cache. Prepared apps share files with the entries of their components.
type contents struct {
	entries []cached
	links   map[uint64]int   // by inode: how many entries hold the file
	sizes   map[uint64]int64 // by inode
	total   int64
}

func (s *Store) contents() (contents, error) {
	c := contents{links: map[uint64]int{}, sizes: map[uint64]int64{}}
	for _, kind := range []string{"apps", "components"} {
		dirs, err := os.ReadDir(s.path(kind))
		if err != nil {
			return c, err
		}
		for _, d := range dirs {
			c.add(s.path(kind, d.Name()))
		}
	}
	slices.SortFunc(c.entries, func(a, b cached) int { return a.used.Compare(b.used) })
	return c, nil
}

func (c *contents) add(place string) {
	e := cached{place: place}
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(place, sumsName), &st) == nil {
		e.used = time.Unix(st.Mtim.Unix())
	}
	files, _ := readSums(filepath.Join(place, sumsName)) // one without a list holds nothing that is known, and is the first to go
	for _, f := range files {
		if unix.Lstat(filepath.Join(place, f.path), &st) != nil {
			continue
		}
		e.files = append(e.files, st.Ino)
		if c.links[st.Ino]++; c.links[st.Ino] == 1 {
			c.sizes[st.Ino] = st.Size
			c.total += st.Size
		}
	}
	c.entries = append(c.entries, e)
}

// frees says how many bytes go with an entry.
func (c *contents) frees(e cached) (n int64) {
	for _, ino := range e.files {
		if c.links[ino] == 1 {
			n += c.sizes[ino]
		}
	}
	return n
}

func (c *contents) remove(e cached) {
	c.total -= c.frees(e)
	for _, ino := range e.files {
		c.links[ino]--
	}
}

// evict removes entries that nobody uses, least recently used first, until the cache is within its bound.
func (s *Store) evict(ctx context.Context) {
	c, err := s.contents()
	if err != nil {
		log.G(ctx).WithError(err).Warn("cache of prepared apps: list entries")
		return
	}
	for progress := true; progress && c.total > s.cfg.MaxBytes; {
		progress = false // an app that goes makes room with its components' entries, which were passed over before
		c.entries = slices.DeleteFunc(c.entries, func(e cached) bool {
			if c.total <= s.cfg.MaxBytes || len(e.files) > 0 && c.frees(e) == 0 || !s.evictEntry(ctx, e.place) {
				return false
			}
			c.remove(e)
			progress = true
			return true
		})
	}
}

// evictEntry removes an entry unless it is in use.
func (s *Store) evictEntry(ctx context.Context, place string) bool {
	dir, err := os.Open(place)
	if err != nil {
		return false
	}
	defer dir.Close()
	if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !isAt(dir, place) {
		return false
	}
	// The lock must not look like a use of the entry.
	if err := errors.Join(unix.Flock(int(dir.Fd()), unix.LOCK_UN), s.discard(place)); err != nil {
		log.G(ctx).WithError(err).WithField("entry", place).Warn("cache of prepared apps: remove entry")
		return false
	}
	return true
}

// isAt says whether the open folder is still the one of that path.
func isAt(dir *os.File, place string) bool {
	open, err := dir.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(place)
	return err == nil && os.SameFile(open, there)
}
