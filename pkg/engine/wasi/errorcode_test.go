package wasi

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestErrorCodeOf(t *testing.T) {
	t.Parallel()
	for errno, name := range map[syscall.Errno]string{
		syscall.EACCES:          "access",
		syscall.EAGAIN:          "would-block",
		syscall.EALREADY:        "already",
		syscall.EBADF:           "bad-descriptor",
		syscall.EBUSY:           "busy",
		syscall.EDEADLK:         "deadlock",
		syscall.EDQUOT:          "quota",
		syscall.EEXIST:          "exist",
		syscall.EFBIG:           "file-too-large",
		syscall.EILSEQ:          "illegal-byte-sequence",
		syscall.EINPROGRESS:     "in-progress",
		syscall.EINTR:           "interrupted",
		syscall.EINVAL:          "invalid",
		syscall.EIO:             "io",
		syscall.EISDIR:          "is-directory",
		syscall.ELOOP:           "loop",
		syscall.EMLINK:          "too-many-links",
		syscall.EMSGSIZE:        "message-size",
		syscall.ENAMETOOLONG:    "name-too-long",
		syscall.ENODEV:          "no-device",
		syscall.ENOENT:          "no-entry",
		syscall.ENOLCK:          "no-lock",
		syscall.ENOMEM:          "insufficient-memory",
		syscall.EMFILE:          "insufficient-memory",
		syscall.ENOSPC:          "insufficient-space",
		syscall.ENOTDIR:         "not-directory",
		syscall.ENOTEMPTY:       "not-empty",
		syscall.ENOTRECOVERABLE: "not-recoverable",
		syscall.ENOTSUP:         "unsupported",
		syscall.ENOTTY:          "no-tty",
		syscall.ENXIO:           "no-such-device",
		syscall.EOVERFLOW:       "overflow",
		syscall.EPERM:           "not-permitted",
		syscall.EPIPE:           "pipe",
		syscall.EROFS:           "read-only",
		syscall.ESPIPE:          "invalid-seek",
		syscall.ETXTBSY:         "text-file-busy",
		syscall.EXDEV:           "cross-device",
		syscall.ECHILD:          "io",
	} {
		err := &fs.PathError{Op: "open", Path: "x", Err: errno}
		require.Equal(t, name, filesystemTypesErrorCode.Cases[errorCodeOf(err)].Name, errno)
	}
	require.Equal(t, codeNotPermitted, errorCodeOf(errors.New("path escapes from parent")))
}

func TestNumbersAreThoseOfTheWIT(t *testing.T) {
	t.Parallel()
	for number, name := range map[int]string{
		typeUnknown:         "unknown",
		typeBlockDevice:     "block-device",
		typeCharacterDevice: "character-device",
		typeDirectory:       "directory",
		typeFIFO:            "fifo",
		typeSymbolicLink:    "symbolic-link",
		typeRegularFile:     "regular-file",
		typeSocket:          "socket",
	} {
		require.Equal(t, name, filesystemTypesDescriptorType.Cases[number].Name)
	}
	bit := func(labels []string, name string) (flag uint32) {
		for i, l := range labels {
			if l == name {
				flag = 1 << i
			}
		}
		return flag
	}
	require.EqualValues(t, pathFollow, bit(filesystemTypesPathFlags.Labels, "symlink-follow"))
	require.EqualValues(t, openCreate, bit(filesystemTypesOpenFlags.Labels, "create"))
	require.EqualValues(t, openDirectory, bit(filesystemTypesOpenFlags.Labels, "directory"))
	require.EqualValues(t, openTruncate, bit(filesystemTypesOpenFlags.Labels, "truncate"))
	require.EqualValues(t, descriptorRead, bit(filesystemTypesDescriptorFlags.Labels, "read"))
	require.EqualValues(t, descriptorWrite, bit(filesystemTypesDescriptorFlags.Labels, "write"))
	require.Equal(t, "last-operation-failed", ioStreamsStreamError.Cases[0].Name)
	require.Equal(t, "closed", ioStreamsStreamError.Cases[1].Name)
}
