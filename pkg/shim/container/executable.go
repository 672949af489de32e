package container

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runsProgram says whether the container's command is a program in its root, so that it is a Linux container. Links are followed
// as within the container. What has neither the head of a binary nor that of a script does not count: files of an app that come
// from file systems without modes all look executable.
func runsProgram(root *os.File, p *specs.Process) bool {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return false
	}
	name := p.Args[0]
	if path.IsAbs(name) {
		return isProgram(root, name)
	}
	if strings.Contains(name, "/") {
		return isProgram(root, path.Join("/", p.Cwd, name))
	}
	for _, v := range p.Env {
		if dirs, ok := strings.CutPrefix(v, "PATH="); ok {
			for dir := range strings.SplitSeq(dirs, ":") {
				if path.IsAbs(dir) && isProgram(root, path.Join(dir, name)) {
					return true
				}
			}
		}
	}
	return false
}

func isProgram(root *os.File, name string) bool {
	// Opening a device does something, so the file is looked at first.
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(root.Fd()), name, &how)
	if err != nil {
		return false
	}
	at := os.NewFile(uintptr(fd), name)
	defer at.Close()
	info, err := at.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return false
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 4)
	n, _ := io.ReadFull(f, head)
	return bytes.HasPrefix(head[:n], []byte("\x7fELF")) || bytes.HasPrefix(head[:n], []byte("#!"))
}
