// Program containerd-shim-spin-v2 of the tests: the shim as it is, but its prepare and worker processes fall into the hands of an
// attacker at the moment when they have entered their sandbox. The attacker tries to get out, and writes what it could do as one line.
// The tests build it over the shim's own main package.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim"
)

const (
	// nodeFile holds the path of the node's folder, for prepare; nodeVar is the environment variable with it, for the worker.
	nodeFile = "/run/hostile-node"
	nodeVar  = "HOSTILE_NODE"
	// attackVar says what a worker does: break out, confuse the daemon, or leave it much to clean up.
	attackVar = "HOSTILE_ATTACK"
)

// Open files that the processes are born with.
const (
	prepareSocket = 3
	prepareOutput = 4
	prepareInput  = 5
	workerBinary  = 3
	workerApp     = 4
	workerReport  = 5
	workerState   = 6
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "prepare":
			takePrepare()
		case "worker":
			takeWorker()
		}
	}
	shim.Main("io.containerd.spin.v2")
}

// takePrepare keeps the daemon's messages from the process, so that it waits in its sandbox, and attacks there.
func takePrepare() {
	node, err := os.ReadFile(nodeFile)
	if err != nil {
		return // an honest prepare
	}
	silent, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err == nil {
		_, err = unix.Dup(prepareSocket) // the daemon must not see it closed
	}
	if err == nil {
		err = unix.Dup3(silent[0], prepareSocket, 0)
	}
	if err != nil {
		panic(err)
	}
	go func() {
		awaitFilter()
		var a attack
		a.leave(prepareOutput, string(node))
		a.leave(prepareInput, string(node))
		a.calls()
		for _, family := range []int{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET} {
			a.try(fmt.Sprintf("open a socket of family %d", family), func() error { return closed(unix.Socket(family, unix.SOCK_STREAM, 0)) })
		}
		a.try("see /proc", func() error { return exists("/proc/self") })
		a.try("see the node's users", func() error { return exists("/etc/passwd") })
		a.try("see the node's folder", func() error { return exists(string(node)) })
		a.try("write into the container's root", func() error {
			return closed(unix.Openat(prepareInput, "hostile", unix.O_CREAT|unix.O_WRONLY, 0o666))
		})
		if unix.Getuid() == 0 || unix.Getgid() == 0 {
			a.breaches = append(a.breaches, "is root")
		}
		fmt.Fprintln(os.Stderr, a.verdict())
		os.Exit(9)
	}()
}

// takeWorker attacks once the worker serves.
func takeWorker() {
	node := os.Getenv(nodeVar)
	switch os.Getenv(attackVar) {
	case "report":
		_, _ = os.NewFile(workerReport, "report").WriteString(strings.Repeat("{", 1<<20))
		os.Exit(0)
	case "silence":
		_ = unix.Close(workerReport)
		select {}
	case "nest":
		go func() {
			awaitFilter()
			fmt.Println(nest())
		}()
		return
	case "":
		return
	}
	go func() {
		awaitFilter()
		var a attack
		for fd := range 64 {
			a.leave(fd, node)
		}
		a.calls()
		for _, family := range []int{unix.AF_NETLINK, unix.AF_PACKET} {
			a.try(fmt.Sprintf("open a socket of family %d", family), func() error { return closed(unix.Socket(family, unix.SOCK_RAW, 0)) })
		}
		// While it runs it cannot be written anyway: what counts is that it never can.
		for _, name := range []string{"/proc/self/exe", fmt.Sprintf("/proc/self/fd/%d", workerBinary)} {
			a.try("write to the shim's binary by "+name, func() error {
				var fs unix.Statfs_t
				if err := unix.Statfs(name, &fs); err != nil {
					return err
				}
				if fs.Flags&unix.ST_RDONLY != 0 {
					return unix.EROFS
				}
				return nil
			})
		}
		a.try("open the prepared app for writing", func() error { return closed(unix.Openat(workerApp, "app.json", unix.O_WRONLY, 0)) })
		a.try("change the prepared app's modes", func() error { return unix.Fchmodat(workerApp, "app.json", 0o666, 0) })
		a.try("add to the prepared app", func() error { return unix.Mkdirat(workerApp, "hostile", 0o777) })
		a.try("remove from the prepared app", func() error { return unix.Unlinkat(workerApp, "sums", 0) })
		fmt.Println(a.verdict())
	}()
}

// nest makes folders in folders where the app keeps its state: more than the test's daemon may have open files, and than a path has room for.
func nest() string {
	const depth = 3000
	if err := unix.Fchdir(workerState); err != nil {
		return err.Error()
	}
	for range depth {
		if err := unix.Mkdirat(unix.AT_FDCWD, "d", 0o777); err != nil {
			return err.Error()
		}
		fd, err := unix.Open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err.Error()
		}
		if err := unix.Fchdir(fd); err != nil {
			return err.Error()
		}
		_ = unix.Close(fd)
	}
	return "hostile: nested"
}

// awaitFilter returns when the system call filter is on, which does not allow to ask for it.
func awaitFilter() {
	for {
		if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || mode != 0 {
			return
		}
		runtime.Gosched()
	}
}

// attack is what an attacker could do that it should not be able to.
type attack struct{ breaches []string }

func (a *attack) try(what string, f func() error) {
	if f() == nil {
		a.breaches = append(a.breaches, what)
	}
}

func (a *attack) verdict() string {
	if len(a.breaches) == 0 {
		return "hostile: held"
	}
	slices.Sort(a.breaches)
	return "hostile: could " + strings.Join(a.breaches, ", ")
}

// up leads from any folder to the root of what it is in.
var up = strings.Repeat("../", 24)

// leave tries to get to the node from an open folder that is the node's.
func (a *attack) leave(fd int, node string) {
	try := func(what string, f func() error) { a.try(fmt.Sprintf("%s by file %d", what, fd), f) }
	try("leave the folder", func() error {
		var here, above unix.Stat_t
		if err := unix.Fstat(fd, &here); err != nil {
			return err
		}
		if err := unix.Fstatat(fd, "..", &above, 0); err != nil {
			return err
		}
		if here.Dev == above.Dev && here.Ino == above.Ino {
			return errors.New("the folder above is the folder itself")
		}
		return nil
	})
	try("read the node's users", func() error { return closed(unix.Openat(fd, up+"etc/passwd", unix.O_RDONLY, 0)) })
	try("read the node's passwords", func() error { return closed(unix.Openat(fd, up+"etc/shadow", unix.O_RDONLY, 0)) })
	try("see other apps in the cache", func() error { return closed(unix.Openat(fd, up+node+"/spin/apps", unix.O_RDONLY, 0)) })
	try("write into the cache", func() error {
		return closed(unix.Openat(fd, up+node+"/spin/components/hostile", unix.O_CREAT|unix.O_WRONLY, 0o666))
	})
	try("write to the shim's binary", func() error {
		return closed(unix.Openat(fd, up+node+"/bin/containerd-shim-spin-v2", unix.O_WRONLY, 0))
	})
	try("connect to containerd", func() error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := unix.Fchdir(fd); err != nil {
			return err
		}
		return unix.Connect(s, &unix.SockaddrUnix{Name: strings.Repeat("../", 12) + node + "/c.sock"})
	})
}

// calls tries system calls that have a use only for who wants to get out. The filter answers before the kernel looks at arguments.
func (a *attack) calls() {
	for name, call := range map[string]uintptr{
		"bpf": unix.SYS_BPF, "chroot": unix.SYS_CHROOT, "clone": unix.SYS_CLONE, "clone3": unix.SYS_CLONE3, "execve": unix.SYS_EXECVE,
		"execveat": unix.SYS_EXECVEAT, "fsopen": unix.SYS_FSOPEN, "init_module": unix.SYS_INIT_MODULE, "io_uring_setup": unix.SYS_IO_URING_SETUP,
		"keyctl": unix.SYS_KEYCTL, "kill": unix.SYS_KILL, "linkat": unix.SYS_LINKAT, "mknodat": unix.SYS_MKNODAT, "mount": unix.SYS_MOUNT,
		"move_mount": unix.SYS_MOVE_MOUNT, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "open_tree": unix.SYS_OPEN_TREE,
		"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "personality": unix.SYS_PERSONALITY, "pidfd_getfd": unix.SYS_PIDFD_GETFD,
		"pidfd_open": unix.SYS_PIDFD_OPEN, "pivot_root": unix.SYS_PIVOT_ROOT, "process_vm_readv": unix.SYS_PROCESS_VM_READV,
		"process_vm_writev": unix.SYS_PROCESS_VM_WRITEV, "ptrace": unix.SYS_PTRACE, "reboot": unix.SYS_REBOOT, "seccomp": unix.SYS_SECCOMP,
		"setgid": unix.SYS_SETGID, "setns": unix.SYS_SETNS, "setuid": unix.SYS_SETUID, "symlinkat": unix.SYS_SYMLINKAT,
		"umount2": unix.SYS_UMOUNT2, "unshare": unix.SYS_UNSHARE, "userfaultfd": unix.SYS_USERFAULTFD,
	} {
		_, _, errno := unix.RawSyscall(call, 0, 0, 0)
		if errno != unix.EPERM && errno != unix.ENOSYS {
			a.breaches = append(a.breaches, "call "+name)
		}
	}
}

// closed closes a file that could be opened.
func closed(fd int, err error) error {
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func exists(name string) error {
	_, err := os.Lstat(name)
	return err
}
