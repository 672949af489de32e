package wasi

import (
	"errors"
	"io/fs"
	"syscall"
)

// errorCode is a case of wasi:filesystem/types.error-code, by its number there.
type errorCode int

// The error codes, in the order of the WIT.
const (
	codeAccess errorCode = iota
	codeWouldBlock
	codeAlready
	codeBadDescriptor
	codeBusy
	codeDeadlock
	codeQuota
	codeExist
	codeFileTooLarge
	codeIllegalByteSequence
	codeInProgress
	codeInterrupted
	codeInvalid
	codeIO
	codeIsDirectory
	codeLoop
	codeTooManyLinks
	codeMessageSize
	codeNameTooLong
	codeNoDevice
	codeNoEntry
	codeNoLock
	codeInsufficientMemory
	codeInsufficientSpace
	codeNotDirectory
	codeNotEmpty
	codeNotRecoverable
	codeUnsupported
	codeNoTTY
	codeNoSuchDevice
	codeOverflow
	codeNotPermitted
	codePipe
	codeReadOnly
	codeInvalidSeek
	codeTextFileBusy
	codeCrossDevice
)

// errorCodeOf returns the code of an error of package os. One without an errno is that of a path that
// leaves its [os.Root].
func errorCodeOf(err error) errorCode {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		if errors.Is(err, fs.ErrClosed) {
			return codeBadDescriptor
		}
		return codeNotPermitted
	}
	switch errno {
	case syscall.EACCES:
		return codeAccess
	case syscall.EAGAIN:
		return codeWouldBlock
	case syscall.EALREADY:
		return codeAlready
	case syscall.EBADF:
		return codeBadDescriptor
	case syscall.EBUSY:
		return codeBusy
	case syscall.EDEADLK:
		return codeDeadlock
	case syscall.EDQUOT:
		return codeQuota
	case syscall.EEXIST:
		return codeExist
	case syscall.EFBIG:
		return codeFileTooLarge
	case syscall.EILSEQ:
		return codeIllegalByteSequence
	case syscall.EINPROGRESS:
		return codeInProgress
	case syscall.EINTR:
		return codeInterrupted
	case syscall.EINVAL:
		return codeInvalid
	case syscall.EISDIR:
		return codeIsDirectory
	case syscall.ELOOP:
		return codeLoop
	case syscall.EMLINK:
		return codeTooManyLinks
	case syscall.EMSGSIZE:
		return codeMessageSize
	case syscall.ENAMETOOLONG:
		return codeNameTooLong
	case syscall.ENODEV:
		return codeNoDevice
	case syscall.ENOENT:
		return codeNoEntry
	case syscall.ENOLCK:
		return codeNoLock
	case syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE: // WASI has no code for too many open files
		return codeInsufficientMemory
	case syscall.ENOSPC:
		return codeInsufficientSpace
	case syscall.ENOTDIR:
		return codeNotDirectory
	case syscall.ENOTEMPTY:
		return codeNotEmpty
	case syscall.ENOTRECOVERABLE:
		return codeNotRecoverable
	case syscall.ENOTSUP, syscall.ENOSYS:
		return codeUnsupported
	case syscall.ENOTTY:
		return codeNoTTY
	case syscall.ENXIO:
		return codeNoSuchDevice
	case syscall.EOVERFLOW:
		return codeOverflow
	case syscall.EPERM:
		return codeNotPermitted
	case syscall.EPIPE:
		return codePipe
	case syscall.EROFS:
		return codeReadOnly
	case syscall.ESPIPE:
		return codeInvalidSeek
	case syscall.ETXTBSY:
		return codeTextFileBusy
	case syscall.EXDEV:
		return codeCrossDevice
	}
	return codeIO
}
