package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// maxWalked is the most files and folders that are looked at for one app, whether they are wanted or not.
const maxWalked = 1 << 18

// stateFolder is where a host keeps the state of an app that it serves from a folder.
const stateFolder = ".spin"

// tree reads the folder of an app. Links are followed as long as they stay in it; only regular files are read.
type tree struct {
	ctx    context.Context // of the call that reads
	root   *os.Root
	walked int
}

// cleanPath accepts a path that stays below the folder it starts from.
func cleanPath(name string) (string, error) {
	if len(name) > maxPath {
		return "", fmt.Errorf("path of %d bytes, at most %d are supported", len(name), maxPath)
	}
	if !filepath.IsLocal(name) || strings.Contains(name, "\x00") {
		return "", fmt.Errorf("path %.200q leads out of the folder", name)
	}
	return path.Clean(name), nil
}

func (t *tree) open(name string) (*os.File, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	name, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	info, err := t.root.Stat(name) // before it is opened: that could wait for the other end of a pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%.200q is not a regular file", name)
	}
	return t.root.Open(name)
}

// read returns a document of at most that many bytes.
func (t *tree) read(name string, most int64) ([]byte, error) {
	f, err := t.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(&capped{r: f, most: most})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// walk calls visit for everything below dir, for a folder before what is in it; visit may return fs.SkipDir for one. The state
// that a host keeps in an app's folder is no part of the app.
func (t *tree) walk(dir string, depth int, visit func(name string, isDir bool) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%.200q: more than %d folders inside each other", dir, maxDepth)
	}
	f, err := t.root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(maxWalked - t.walked + 1)
	f.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if t.walked += len(entries); t.walked > maxWalked {
		return fmt.Errorf("%.200q: more than %d files and folders", dir, maxWalked)
	}
	for _, entry := range entries {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		name, isDir := path.Join(dir, entry.Name()), entry.IsDir()
		if name == stateFolder {
			continue
		}
		if entry.Type()&fs.ModeSymlink != 0 {
			info, err := t.root.Stat(name)
			isDir = err == nil && info.IsDir() // a link that leads nowhere or out is an error once it is opened
		}
		err := visit(name, isDir)
		if isDir && err == nil {
			err = t.walk(name, depth+1, visit)
		}
		if err != nil && !errors.Is(err, fs.SkipDir) {
			return err
		}
	}
	return nil
}

// mounts are static files: where the guest sees each, and its path in the folder.
type mounts map[string]string

func (m mounts) add(to, from string) error {
	if err := checkPath(to); err != nil {
		return err
	}
	if m[to] = from; len(m) > maxAssets {
		return fmt.Errorf("more than %d files", maxAssets)
	}
	return nil
}

// mount adds a file, or a folder with what is below it.
func (t *tree) mount(m mounts, to, from string) error {
	from, err := cleanPath(from)
	if err != nil {
		return err
	}
	if to, err = cleanPath(path.Join(".", to)); err != nil {
		return err
	}
	info, err := t.root.Stat(from)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return m.add(to, from)
	}
	return t.walk(from, 0, func(name string, isDir bool) error {
		if isDir {
			return nil
		}
		below, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		return m.add(path.Join(to, below), name)
	})
}

// isPattern reports whether a path, or a segment of one, is a pattern of Spin's.
func isPattern(name string) bool { return strings.ContainsAny(name, "*?[") }

// glob adds the files that match the pattern, each at the path that it has in the folder.
func (t *tree) glob(m mounts, pattern string) error {
	pattern, err := cleanPath(pattern)
	if err != nil {
		return err
	}
	segments := strings.Split(pattern, "/")
	base := path.Join(segments[:slices.IndexFunc(segments, isPattern)]...)
	if base == "" {
		base = "."
	}
	if info, err := t.root.Stat(base); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil // nothing matches
	}
	deep := strings.Contains(pattern, "**")
	// Braces and backslashes mean nothing to Spin.
	pattern = strings.NewReplacer(`\`, `\\`, `{`, `\{`, `}`, `\}`).Replace(pattern)
	if !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf("pattern %.200q is malformed", pattern)
	}
	return t.walk(base, 0, func(name string, isDir bool) error {
		if isDir {
			if !deep && strings.Count(name, "/")+1 >= len(segments) {
				return fs.SkipDir
			}
			return nil
		}
		if !doublestar.MatchUnvalidated(pattern, name) {
			return nil
		}
		return m.add(name, name)
	})
}

// write makes the files assets of the component.
func (t *tree) write(o *output, component string, m mounts) error {
	for _, to := range slices.Sorted(maps.Keys(m)) {
		f, err := t.open(m[to])
		if err != nil {
			return fmt.Errorf("file %.200q: %w", to, err)
		}
		err = o.asset(target{component, to}, f, "")
		f.Close()
		if err != nil {
			return fmt.Errorf("file %.200q: %w", to, err)
		}
	}
	return nil
}
