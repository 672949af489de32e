package sandbox

import "golang.org/x/sys/unix"

// commonCalls are what Go's runtime and file access need.
func commonCalls() []uintptr {
	return append([]uintptr{
		// memory
		unix.SYS_BRK, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_MREMAP, unix.SYS_MUNMAP,
		// threads and time; clone is below
		unix.SYS_CLOCK_GETRES, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_FUTEX,
		unix.SYS_GETTIMEOFDAY, unix.SYS_NANOSLEEP, unix.SYS_RESTART_SYSCALL, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_YIELD,
		unix.SYS_SETITIMER, unix.SYS_SET_ROBUST_LIST, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_DELETE, unix.SYS_TIMER_SETTIME,
		// signals; tgkill is below
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		// what the process is
		unix.SYS_GETEGID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETRANDOM, unix.SYS_GETRUSAGE,
		unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_SYSINFO, unix.SYS_UNAME, unix.SYS_GETRLIMIT,
		// files
		unix.SYS_CLOSE, unix.SYS_COPY_FILE_RANGE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_FADVISE64,
		unix.SYS_FALLOCATE, unix.SYS_FCHDIR, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCNTL, unix.SYS_FDATASYNC, unix.SYS_FLOCK,
		unix.SYS_FSTAT, unix.SYS_FSTATFS, unix.SYS_FSYNC, unix.SYS_FTRUNCATE, unix.SYS_GETCWD, unix.SYS_GETDENTS64, unix.SYS_LSEEK,
		unix.SYS_MKDIRAT, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_PREAD64, unix.SYS_PREADV, unix.SYS_PWRITE64, unix.SYS_PWRITEV,
		unix.SYS_READ, unix.SYS_READLINKAT, unix.SYS_READV, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_STATFS, unix.SYS_STATX,
		unix.SYS_UNLINKAT, unix.SYS_UTIMENSAT, unix.SYS_WRITE, unix.SYS_WRITEV,
		// waiting
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL,
		// the sockets there are
		unix.SYS_GETPEERNAME, unix.SYS_GETSOCKNAME, unix.SYS_GETSOCKOPT, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_SENDMSG,
		unix.SYS_SENDTO, unix.SYS_SETSOCKOPT, unix.SYS_SHUTDOWN,
	}, archCalls...)
}

// networkCalls are what serving and calling over a network needs besides.
func networkCalls() []uintptr {
	return []uintptr{
		unix.SYS_ACCEPT4, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_SENDFILE, unix.SYS_SPLICE, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG,
	}
}

// conditional are the calls that are allowed for some arguments.
func conditional(pid int) []rule {
	return []rule{
		// signals to threads of this process, by which Go's scheduler interrupts them
		{unix.SYS_TGKILL, &condition{arg: 0, values: []uint32{uint32(pid)}}},
		// threads, but no processes and no namespaces
		{unix.SYS_CLONE, &condition{arg: 0, mask: unix.CLONE_THREAD | unix.CLONE_VM}},
		// reading limits; setting them needs a pointer, and lowering one's own does no harm
		{unix.SYS_PRLIMIT64, &condition{arg: 0, values: []uint32{0}}},
		// naming mappings, which Go does
		{unix.SYS_PRCTL, &condition{arg: 0, values: []uint32{unix.PR_SET_VMA, unix.PR_SET_NAME, unix.PR_GET_NO_NEW_PRIVS}}},
	}
}

func prepareCalls(pid int) []rule { return append(plain(commonCalls()), conditional(pid)...) }

func workerCalls(pid int) []rule {
	rules := append(plain(commonCalls()), plain(networkCalls())...)
	rules = append(rules, conditional(pid)...)
	// No netlink, packet or other exotic family: their code in the kernel is where its flaws are. Nor unix sockets: in the node's
	// network namespace the abstract ones of all its services can be reached.
	return append(rules, rule{unix.SYS_SOCKET, &condition{arg: 0, values: []uint32{unix.AF_INET, unix.AF_INET6}}})
}

func plain(calls []uintptr) []rule {
	out := make([]rule, len(calls))
	for i, c := range calls {
		out[i].call = c
	}
	return out
}
