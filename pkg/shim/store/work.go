package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
)

// What one prepare process may leave behind. Package oci has limits of its own; these hold even if it is broken.
const (
	maxFiles    = 1<<16 + 4096
	maxTotal    = 6 << 30 // bytes
	maxPathLen  = 4095
	maxDirDepth = 80
)

// workOut is the folder in a work folder that becomes an entry.
const workOut = "out"

// work is a folder in which an entry is made. While it is open, no other process removes it.
type work struct {
	dir  string // holds out
	lock *os.File
	out  string // what a prepare process writes to, and the entry in the end
}

func (s *Store) newWork() (*work, error) {
	// A daemon that starts looks for folders that nobody has locked: it must not find this one before it is.
	guard, err := s.openSweepLock()
	if err != nil {
		return nil, err
	}
	defer guard.Close()
	if err := flock(guard, unix.LOCK_SH); err != nil {
		return nil, fmt.Errorf("prepare in cache of prepared apps: %w", err)
	}
	dir, err := os.MkdirTemp(s.path("tmp"), "work-")
	if err != nil {
		return nil, fmt.Errorf("prepare in cache of prepared apps: %w", err)
	}
	w := &work{dir: dir, out: filepath.Join(dir, workOut)}
	if w.lock, err = os.Open(dir); err == nil {
		if err = unix.Flock(int(w.lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
			if err = os.Mkdir(w.out, 0o700); err == nil && os.Geteuid() == 0 {
				err = os.Chown(w.out, handoff.Nobody, handoff.Nobody)
			}
		}
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("prepare in cache of prepared apps: %w", err)
	}
	return w, nil
}

// close removes the folder with what is left in it.
func (w *work) close() {
	if w.dir != "" {
		_ = RemoveTree(w.dir)
	}
	if w.lock != nil {
		_ = w.lock.Close()
	}
}

// keep hands the folder to the caller, who removes it: the open entry and the path to remove. The lock lives on in the open file.
func (w *work) keep() (dir *os.File, remove string) {
	dir, err := os.Open(w.out)
	if err != nil { // it was checked a moment ago, and only root can enter
		panic("BUG: " + err.Error())
	}
	_ = unix.Flock(int(dir.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	remove, w.dir = w.dir, ""
	return dir, remove
}

func (s *Store) openSweepLock() (*os.File, error) {
	f, err := os.OpenFile(s.path("locks", "tmp"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock cache of prepared apps: %w", err)
	}
	return f, nil
}

// removeLeftovers removes the folders of processes that are dead, unless somebody is just making or removing one.
func (s *Store) removeLeftovers() {
	guard, err := s.openSweepLock()
	if err != nil {
		return
	}
	defer guard.Close()
	if unix.Flock(int(guard.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	dirs, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return
	}
	for _, d := range dirs {
		place := s.path("tmp", d.Name())
		if !inUse(place) && !inUse(filepath.Join(place, workOut)) {
			_ = RemoveTree(place)
		}
	}
}

// inUse says whether somebody holds a lock on the folder.
func inUse(place string) bool {
	dir, err := os.Open(place)
	if err != nil {
		return false
	}
	defer dir.Close()
	return unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// check lists what a prepare process left in the folder, and refuses whatever is not a plain file or folder of the names that a
// prepared app has. The process is dead, so that nothing changes meanwhile.
func (w *work) check() ([]file, error) {
	var files []file
	var total int64
	err := filepath.WalkDir(w.out, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.out, name)
		if err != nil || rel == "." {
			return err
		}
		if len(rel) > maxPathLen || strings.Count(rel, "/") > maxDirDepth {
			return errors.New("output has a path that is too long")
		}
		if d.IsDir() {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return fmt.Errorf("output has %.200q, which is not a plain file", rel)
		}
		if st.Nlink > 1 && !strings.HasPrefix(rel, "code/") { // code is linked to that of the component, by the daemon
			return fmt.Errorf("output has %.200q, which is a link to another file", rel)
		}
		if !expected(rel) {
			return fmt.Errorf("output has an unexpected file %.200q", rel)
		}
		if total += st.Size; total > maxTotal {
			return fmt.Errorf("output has more than %d bytes", int64(maxTotal))
		}
		if files = append(files, file{path: rel, size: st.Size}); len(files) > maxFiles {
			return fmt.Errorf("output has more than %d files", maxFiles)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = errors.New("output is empty")
	}
	return files, err
}

// expected says whether a prepared app, or a component's code, has a file of this name.
func expected(rel string) bool {
	if rel == "app.json" || strings.HasPrefix(rel, "assets/") {
		return true
	}
	if _, ok := componentHex(rel); ok {
		return true
	}
	return strings.HasPrefix(rel, "code/") && strings.Count(rel, "/") <= 2
}

// checkDigest says whether the component at path has the digest that its name says. Its machine code will be used for that digest in
// every app of the node.
func (w *work) checkDigest(path, hex string) error {
	f, err := os.Open(filepath.Join(w.out, path))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != hex {
		return fmt.Errorf("output has %s, whose digest is sha256:%s", path, got)
	}
	return nil
}

// take makes root the owner of everything in the folder, with the modes that workers need, once its maker is dead.
func (w *work) take(files []file) error {
	dirs := map[string]bool{w.out: true}
	for _, f := range files {
		name := filepath.Join(w.out, f.path)
		if err := own(name, 0o644); err != nil {
			return fmt.Errorf("take over prepared files: %w", err)
		}
		for dir := path.Dir(f.path); dir != "." && !dirs[filepath.Join(w.out, dir)]; dir = path.Dir(dir) {
			dirs[filepath.Join(w.out, dir)] = true
		}
	}
	for dir := range dirs {
		if err := own(dir, 0o755); err != nil {
			return fmt.Errorf("take over prepared files: %w", err)
		}
	}
	return nil
}

func own(name string, mode os.FileMode) error {
	if err := os.Lchown(name, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// seal makes the folder an entry: its files are on disk, and listed with their checksums.
func (w *work) seal(files []file) error {
	for i := range files {
		if !checked(files[i].path) {
			continue
		}
		var err error
		if files[i].sum, err = checksum(filepath.Join(w.out, files[i].path)); err != nil {
			return fmt.Errorf("seal prepared app: %w", err)
		}
	}
	err := writeSums(filepath.Join(w.out, sumsName), files)
	if err == nil {
		err = w.sync(files)
	}
	if err != nil {
		return fmt.Errorf("seal prepared app: %w", err)
	}
	return nil
}

// sync brings the files, and the folders that hold them, to the disk: after a crash an entry is whole or not there.
func (w *work) sync(files []file) error {
	dirs := map[string]bool{w.out: true}
	for _, f := range files {
		name := filepath.Join(w.out, f.path)
		if err := syncPath(name); err != nil {
			return err
		}
		for dir := filepath.Dir(name); !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	for dir := range dirs {
		if err := syncPath(dir); err != nil {
			return err
		}
	}
	return syncPath(filepath.Join(w.out, sumsName))
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// link adds the code of the component entry to the app in the folder. Entries of one cache are on one file system.
func (w *work) link(entry string) error {
	files, err := readSums(filepath.Join(entry, sumsName))
	if err != nil {
		return err
	}
	for _, f := range files {
		to := filepath.Join(w.out, f.path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Link(filepath.Join(entry, f.path), to); err != nil && !errors.Is(err, fs.ErrExist) {
			return err // one that exists is of another component with the same core module
		}
	}
	return nil
}
