package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Nobody is the user and group that a prepare process becomes, and that its output folder belongs to: the one that owns nothing else.
const Nobody = 65534

// The open files of a prepare process.
const (
	// FdSocket is prepare's end of the socket on which it talks with the daemon.
	FdSocket = 3 + iota
	// FdOutput is the folder that prepare writes into, which is empty.
	FdOutput
	// FdInput is the container's root folder (Resolve) or the component's file (Compile), if there is one.
	FdInput
)

// Step is what a prepare process is asked to do.
type Step string

const (
	// StepResolve makes a folder of an image or a container's root: app.json, components, assets.
	StepResolve Step = "resolve"
	// StepCompile makes the machine code of one component.
	StepCompile Step = "compile"
)

// Request is the daemon's first message.
type Request struct {
	Step Step `json:"step"`
	// Image is the image to resolve, nil if there is none; Rootfs says that FdInput is the container's root folder.
	Image  *Descriptor `json:"image,omitempty"`
	Rootfs bool        `json:"rootfs,omitempty"`
}

// Descriptor names content: see https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md.
type Descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// Ask is a message of prepare: it wants a blob, or it is done.
type Ask struct {
	// Blob is the digest of the content that prepare wants to read; the answer is an [Answer].
	Blob string `json:"blob,omitempty"`
	// Done says that this is the last message. Error is then a sentence, or "" if the output is complete; NotApp that there is no
	// Spin app, which is an error too.
	Done   bool   `json:"done,omitempty"`
	Error  string `json:"error,omitempty"`
	NotApp bool   `json:"notApp,omitempty"`
	// Rootfs says that the app was in the container's root, and not in its image.
	Rootfs bool `json:"rootfs,omitempty"`
	// Labels say what to call the components in messages, by the hex digits of their digests.
	Labels map[string]string `json:"labels,omitempty"`
}

// Answer answers a wish for a blob. With no Error a file comes with it, from which the blob is read.
type Answer struct {
	Error string `json:"error,omitempty"`
	// NotExist says that there is no such blob.
	NotExist bool `json:"notExist,omitempty"`
}

// maxMessage bounds a message of the protocol, in bytes.
const maxMessage = 64 << 10

// Conn is one end of the socket between the daemon and prepare. It is used by one goroutine at a time.
type Conn struct {
	conn *net.UnixConn
	buf  []byte
}

// NewConn returns the two ends of a socket: the daemon's, and the file that becomes prepare's FdSocket, which the caller closes
// once the process has it.
func NewConn() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "prepare"), os.NewFile(uintptr(fds[1]), "daemon")
	c, err := OpenConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// OpenConn makes an end of a socket of f, which it closes.
func OpenConn(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("file %s is not a unix socket", f.Name())
	}
	return &Conn{conn: u}, nil
}

// Close closes the end.
func (c *Conn) Close() error { return c.conn.Close() }

// Send sends a message, with a file if file is not nil, which stays the caller's.
func (c *Conn) Send(message any, file *os.File) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("message of %d bytes, at most %d are sent", len(b), maxMessage)
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	_, _, err = c.conn.WriteMsgUnix(b, rights, nil)
	return err
}

// Receive receives a message into message, which is a pointer, and the file that came with it or nil. It returns io.EOF when the
// other end is closed.
func (c *Conn) Receive(message any) (*os.File, error) {
	if c.buf == nil {
		c.buf = make([]byte, maxMessage+1)
	}
	rights := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(c.buf, rights)
	if err != nil {
		return nil, err
	}
	file, err := oneFile(rights[:oobn])
	if err != nil {
		return nil, err
	}
	if n == 0 && oobn == 0 {
		return nil, io.EOF
	}
	if n > maxMessage || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("message of more than %d bytes", maxMessage)
	} else {
		err = decodeMessage(c.buf[:n], message)
	}
	if err != nil && file != nil {
		_ = file.Close()
		file = nil
	}
	return file, err
}

func decodeMessage(b []byte, message any) error {
	if err := json.Unmarshal(b, message); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

// maxFiles is how many files of one message are received, so that those beyond the first can be closed.
const maxFiles = 16

// oneFile returns the file in the control data of a message, if there is one.
func oneFile(b []byte) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(b)
	if err != nil {
		return nil, fmt.Errorf("control data of a message: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue // not files
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	if len(files) == 1 {
		return files[0], nil
	}
	for _, f := range files {
		_ = f.Close()
	}
	if len(files) > 1 {
		return nil, errors.New("message with more than one file")
	}
	return nil, nil
}
