// Package sandbox takes away from a process what it does not need any more, before it handles foreign bytes: [Prepare] for the
// process that parses and compiles them, [Worker] for the one that runs them.
//
// What a process is left with is a system call filter (filter.go, allow lists in syscalls.go) without a way to execute, trace,
// mount, load, or make processes; no capability, and no way to gain one. Both functions act on all threads of the process.
// See "Why an allow list of system calls, and no Landlock?" in RATIONALE.md.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
)

// mostKillable is the score of what the kernel kills first when the node lacks memory.
const mostKillable = "1000"

// Limits of a prepare process, which bound what it can use up if it is broken.
const (
	prepareFileSize = 4 << 30 // bytes of one file
	prepareFiles    = 256     // open files
	prepareCPU      = 600     // seconds of all cores together
	prepareData     = 4 << 30 // bytes of memory; compiling the largest guests known takes a tenth
)

// Prepare makes root the root folder of the process, drops all rights and installs the filter. Open files stay. With readAll the process
// may read whatever can be reached from its open folders, whoever owns it: a container's root has files that only its root may read.
// A process that is not root's gets the limits and the filter alone.
func Prepare(root *os.File, readAll bool) error {
	// It inherits the daemon's score, which keeps the kernel from killing that; this is the one to kill before others. Anyone may raise it.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(mostKillable), 0); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		var keep uint64
		if readAll {
			keep = 1 << unix.CAP_DAC_READ_SEARCH
		}
		if err := leave(root, keep); err != nil {
			return err
		}
	}
	for resource, most := range map[int]uint64{
		unix.RLIMIT_FSIZE: prepareFileSize, unix.RLIMIT_NOFILE: prepareFiles, unix.RLIMIT_CPU: prepareCPU, unix.RLIMIT_DATA: prepareData,
		unix.RLIMIT_CORE: 0,
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
	return install(prepareCalls(os.Getpid()))
}

// leave leaves root's user and the node's files behind, and all capabilities but keep.
func leave(root *os.File, keep uint64) error {
	if err := root.Chdir(); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	if err := dropBounding(); err != nil {
		return err
	}
	if _, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0); errno != 0 {
		return os.NewSyscallError("prctl(PR_SET_KEEPCAPS)", errno)
	}
	// The functions of package syscall set all threads.
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(handoff.Nobody, handoff.Nobody, handoff.Nobody); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(handoff.Nobody, handoff.Nobody, handoff.Nobody); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	return setCapabilities(keep)
}

// Worker drops all capabilities and installs the filter, in a process that has loaded its app and listens. It returns an error for
// each part that the kernel refuses; the others are in force.
func Worker() error {
	return errors.Join(dropBounding(), setCapabilities(0), install(workerCalls(os.Getpid())))
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
