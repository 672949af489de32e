package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolation is the environment variable that says which stage of Isolate a process is.
const isolation = "SPIN_NODE_ISOLATION"

// Isolated reports whether this process runs inside Isolate: its process ids, mounts, network and /run are its own.
func Isolated() bool { return os.Getenv(isolation) == "inside" }

// Isolate runs inside in a copy of this process with process, mount and network namespaces of its own, and returns the exit code of
// that. Whatever a test leaves behind, even when it is killed, is gone with the namespaces: processes, mounts, bridges, firewall
// rules. There is no network but the loopback interface and what inside makes. Needs root.
func Isolate(inside func() int) int {
	switch os.Getenv(isolation) {
	case "inside":
		return inside()
	case "init":
		code, err := initProcess()
		if err != nil {
			fmt.Fprintln(os.Stderr, "isolate:", err)
			return 1
		}
		return code
	}
	cmd := again("init")
	// The init process must not outlive this one, and the kernel ends all others with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	outlive()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "isolate:", err)
		return 1
	}
	return 0
}

// outlive keeps an interrupt from the terminal, which goes to the whole process group, from ending this process before the one that
// it waits for. (A signal that is ignored, not caught, would be ignored by that one too.)
func outlive() { signal.Notify(make(chan os.Signal, 1), syscall.SIGINT) }

func again(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), isolation+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// initProcess is process 1 of the namespaces: it makes them fit to live in, starts the process that was asked for, and reaps orphans
// until that ends.
func initProcess() (int, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, dir string }{{"proc", "/proc"}, {"tmpfs", "/run"}} {
		if err := unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := loopbackUp(); err != nil {
		return 0, fmt.Errorf("set lo up: %w", err)
	}
	outlive()
	cmd := again("inside")
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid == cmd.Process.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == cmd.Process.Pid && status.Signaled():
			return 0, fmt.Errorf("ended by signal %s", status.Signal())
		}
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
