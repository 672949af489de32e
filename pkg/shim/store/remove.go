package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// removeBatch is how many entries of a folder are read at once.
const removeBatch = 1024

// RemoveTree removes a folder that foreign code has filled, if it is there. It holds two open files however deep the folder is, where
// os.RemoveAll holds one for each level: folders in folders cost who makes them next to nothing, and no limit bounds them.
func RemoveTree(name string) error {
	if err := removeTree(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func removeTree(name string) error {
	root, err := openFolder(unix.AT_FDCWD, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return gone(unix.Unlink(name))
	}
	if err != nil {
		return gone(err)
	}
	defer root.Close()
	t := tree{root: root}
	if err := t.empty(root, t.removeFolder); err != nil {
		return err
	}
	return gone(unix.Rmdir(name))
}

// tree is a folder that is being removed: what is in the folders in it moves up, until there is nothing below them.
type tree struct {
	root  *os.File
	moved int
}

// empty removes the files in dir, and calls folder for each folder in it, until nothing is left.
func (t *tree) empty(dir *os.File, folder func(dir *os.File, name string) error) error {
	for {
		// The entries of a folder that changes are read from its beginning again.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		entries, err := dir.ReadDir(removeBatch)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(entries) == 0 {
			return nil
		}
		for _, e := range entries {
			if e.IsDir() {
				err = folder(dir, e.Name())
			} else {
				err = unix.Unlinkat(int(dir.Fd()), e.Name(), 0)
			}
			if gone(err) != nil {
				return err
			}
		}
	}
}

// removeFolder removes a folder in the root.
func (t *tree) removeFolder(_ *os.File, name string) error {
	root := int(t.root.Fd())
	if err := unix.Unlinkat(root, name, unix.AT_REMOVEDIR); !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	dir, err := openFolder(root, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := t.empty(dir, t.moveUp); err != nil {
		return err
	}
	return unix.Unlinkat(root, name, unix.AT_REMOVEDIR)
}

// moveUp moves a folder into the root, under a name that nothing there has but perhaps an empty folder.
func (t *tree) moveUp(dir *os.File, name string) error {
	for {
		t.moved++
		err := unix.Renameat(int(dir.Fd()), name, int(t.root.Fd()), strconv.Itoa(t.moved))
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
}

func openFolder(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// gone is err unless it says that another process was faster.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
