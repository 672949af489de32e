// Package sandbox takes away from a process what it does not need any more, before it handles foreign bytes: [Prepare] for the
// process that parses and compiles them, [Worker] for the one that runs them.
//
// What a process is left with is a system call filter (filter.go, allow lists in syscalls.go) without a way to execute, trace,
// mount, load, or make processes; no capability, and no way to gain one. Both functions act on all threads of the process.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Nobody is the user and group of a prepare process: the one that owns nothing.
const Nobody = 65534

// Limits of a prepare process, which bound what it can use up if it is broken.
const (
	prepareFileSize = 4 << 30 // bytes of one file
	prepareFiles    = 256     // open files
	prepareCPU      = 600     // seconds of all cores together
)

// Prepare makes root the root folder of the process, drops all rights and installs the filter. Open files stay. Only what root is
// allowed to do works; a process of another user gets the filter alone.
func Prepare(root *os.File) error {
	if os.Geteuid() == 0 {
		if err := leave(root); err != nil {
			return err
		}
	}
	for resource, most := range map[int]uint64{
		unix.RLIMIT_FSIZE: prepareFileSize, unix.RLIMIT_NOFILE: prepareFiles, unix.RLIMIT_CPU: prepareCPU, unix.RLIMIT_CORE: 0,
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			return os.NewSyscallError("getrlimit", err)
		}
		most = min(most, now.Max)
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return install(prepareCalls())
}

// leave leaves root's user and the node's files behind.
func leave(root *os.File) error {
	if err := root.Chdir(); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	if err := dropBounding(); err != nil {
		return err
	}
	// The functions of package syscall set all threads; a process that leaves user 0 loses its capabilities.
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(Nobody, Nobody, Nobody); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(Nobody, Nobody, Nobody); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	return nil
}

// Worker drops all capabilities and installs the filter, in a process that has loaded its app and listens. It returns an error for
// each part that the kernel refuses; the others are in force.
func Worker() error {
	return errors.Join(dropBounding(), dropCapabilities(), install(workerCalls()))
}

// dropBounding empties the bounding set, from which executables could get capabilities back.
func dropBounding() error {
	for capability := range uintptr(64) {
		_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability, 0)
		if errno == unix.EINVAL {
			return nil // beyond the last one that the kernel knows
		}
		if errno == unix.EPERM {
			return nil // without CAP_SETPCAP there is none to lose that matters: nothing can be executed
		}
		if errno != 0 {
			return os.NewSyscallError("prctl(PR_CAPBSET_DROP)", errno)
		}
	}
	return nil
}

// install installs a filter that allows calls, on all threads.
func install(calls []rule) error {
	program, err := assemble(calls)
	if err != nil {
		return fmt.Errorf("system call filter: %w", err)
	}
	return setFilter(program)
}
