package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// childVar says which sandbox a child of the tests enters before it tries what must fail.
const childVar = "SANDBOX_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := os.Getenv(childVar); child != "" {
		os.Exit(try(child))
	}
	os.Exit(m.Run())
}

// try enters the sandbox and prints what it could do that it should not, and the other way round.
func try(child string) int {
	var err error
	var root *os.File
	file, openErr := os.Open(os.Getenv("SANDBOX_TEST_FILE"))
	score, scoreErr := os.Open("/proc/self/oom_score_adj")
	if child == "prepare" {
		if root, err = os.Open(os.Getenv("SANDBOX_TEST_ROOT")); err == nil {
			err = Prepare(root, true)
		}
	} else {
		err = Worker()
	}
	if err = errors.Join(err, openErr, scoreErr); err != nil {
		fmt.Println("enter:", err)
		return 1
	}
	forbidden := map[string]func() error{
		"execute":       func() error { return exec.Command("/proc/self/exe").Run() },
		"fork":          func() error { _, err := os.StartProcess("/bin/true", nil, &os.ProcAttr{}); return err },
		"trace":         func() error { return unix.PtraceAttach(1) },
		"mount":         func() error { return unix.Mount("none", "/", "tmpfs", 0, "") },
		"unshare":       func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"gain user 0":   func() error { _, _, e := unix.RawSyscall(unix.SYS_SETUID, 0, 0, 0); return errnoOr(e) },
		"kill":          func() error { return unix.Kill(os.Getppid(), 0) },
		"open netlink":  func() error { _, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0); return err },
		"change root":   func() error { return unix.Chroot("/") },
		"make a device": func() error { return unix.Mknod("d", unix.S_IFCHR, 0) },
		"read keys":     func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err },
		"load bpf":      func() error { _, _, e := unix.RawSyscall(unix.SYS_BPF, 0, 0, 0); return errnoOr(e) },
		"get caps back": func() error {
			return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0)
		},
	}
	if child == "prepare" {
		forbidden["use the network"] = func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err }
		if b, err := io.ReadAll(score); err != nil || strings.TrimSpace(string(b)) != mostKillable {
			fmt.Printf("score for lack of memory: %s %v\n", b, err)
		}
		if os.Geteuid() != os.Getuid() || os.Getuid() == 0 {
			fmt.Println("still user 0")
		}
		if b, err := readBelow(root, "secret"); err != nil || string(b) != "secret" {
			fmt.Println("read a file of root's:", err)
		}
		forbidden["write a file of root's"] = func() error { _, err := openBelow(root, "secret", unix.O_WRONLY); return err }
		forbidden["see the node's files"] = func() error { _, err := os.Stat("/etc/passwd"); return err }
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Println("listen:", err)
			return 1
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			fmt.Println("connect:", err)
			return 1
		}
		_, _ = c.Close(), l.Close()
	}
	for what, f := range forbidden {
		if f() == nil {
			fmt.Println("could", what)
		}
	}
	b := make([]byte, 4)
	if _, err := file.Read(b); err != nil {
		fmt.Println("read an open file:", err)
	}
	done := make(chan struct{}) // a new thread
	go func() { runtime.LockOSThread(); close(done) }()
	<-done
	runtime.GC()
	return 0
}

func openBelow(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func readBelow(dir *os.File, name string) ([]byte, error) {
	f, err := openBelow(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func errnoOr(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func TestNothingIsLeftInTheSandbox(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root")
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == unix.ENOTSUP {
		t.Skip("SKIPPED: built with cgo, which the shim never is: run with CGO_ENABLED=0")
	}
	for _, child := range []string{"prepare", "worker"} {
		t.Run(child, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			file := filepath.Join(root, "file")
			require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(root, "secret"), []byte("secret"), 0o600))
			cmd := exec.Command(os.Args[0])
			cmd.Env = []string{childVar + "=" + child, "SANDBOX_TEST_ROOT=" + root, "SANDBOX_TEST_FILE=" + file}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			require.Empty(t, strings.TrimSpace(string(out)))
		})
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	vm, err := bpf.NewVM(program(workerCalls(7)))
	require.NoError(t, err)
	verdict := func(arch uint32, call uintptr, arg uint32) uint32 {
		data := make([]byte, 64)
		// The VM loads in network order, the kernel in its own: write what the kernel would read.
		binary.BigEndian.PutUint32(data[offsetNr:], uint32(call))
		binary.BigEndian.PutUint32(data[offsetArch:], arch)
		binary.BigEndian.PutUint32(data[offsetArgs:], arg)
		got, err := vm.Run(data)
		require.NoError(t, err)
		return uint32(got)
	}
	require.Equal(t, uint32(allow), verdict(auditArch, unix.SYS_READ, 0))
	require.Equal(t, eperm, verdict(auditArch, unix.SYS_EXECVE, 0))
	require.Equal(t, enosys, verdict(auditArch, unix.SYS_CLONE3, 0))
	require.Equal(t, uint32(allow), verdict(auditArch, unix.SYS_CLONE, unix.CLONE_THREAD|unix.CLONE_VM|unix.CLONE_FS))
	require.Equal(t, eperm, verdict(auditArch, unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_VFORK), "a process")
	require.Equal(t, uint32(allow), verdict(auditArch, unix.SYS_SOCKET, unix.AF_INET6))
	require.Equal(t, eperm, verdict(auditArch, unix.SYS_SOCKET, unix.AF_UNIX))
	require.Equal(t, uint32(allow), verdict(auditArch, unix.SYS_TGKILL, 7))
	require.Equal(t, eperm, verdict(auditArch, unix.SYS_TGKILL, 8))
	require.Equal(t, eperm, verdict(auditArch, unix.SYS_SOCKET, unix.AF_PACKET))
	require.Equal(t, uint32(kill), verdict(unix.AUDIT_ARCH_I386, unix.SYS_READ, 0), "another architecture's calls")
}
