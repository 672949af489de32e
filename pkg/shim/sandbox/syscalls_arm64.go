package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// archCalls are the calls that only arm64 names so.
var archCalls = []uintptr{unix.SYS_FSTATAT, unix.SYS_PSELECT6}
