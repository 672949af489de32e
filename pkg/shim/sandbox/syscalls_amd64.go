package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// archCalls are older calls that amd64 still has, and that libraries use.
var archCalls = []uintptr{
	unix.SYS_ACCESS, unix.SYS_ARCH_PRCTL, unix.SYS_DUP2, unix.SYS_EPOLL_WAIT, unix.SYS_GETDENTS, unix.SYS_LSTAT, unix.SYS_MKDIR,
	unix.SYS_NEWFSTATAT, unix.SYS_OPEN, unix.SYS_PIPE, unix.SYS_POLL, unix.SYS_READLINK, unix.SYS_RENAME, unix.SYS_RMDIR, unix.SYS_SELECT,
	unix.SYS_STAT, unix.SYS_TIME, unix.SYS_UNLINK,
}
