package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/shim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/task"
)

// dialect is how containerd and the shim speak when the shim starts.
type dialect int

const (
	// modern, of containerd 2.3 and later: protobuf on standard input and output. The command line says less of the same.
	modern dialect = iota
	// legacy, of those before: the command line and the environment, runtime options on standard input, and JSON as the answer.
	legacy
)

const (
	// maxParams bounds what containerd sends, in bytes.
	maxParams = 10 << 20
	// Protocol versions are those of the task service. A legacy containerd gets the older one: 1.7 refuses more, and nothing tells
	// 1.7 from 2.2.
	modernVersion, legacyVersion = 3, 2

	ttrpcVar = "TTRPC_ADDRESS"
	// podAnnotation names the sandbox of a container's pod; CRI sets it. All containers of a pod have one daemon.
	podAnnotation = "io.kubernetes.cri.sandbox-id"
	// addressName is a file in the bundle with the address of the daemon. Not "address": containerd's service for Linux containers
	// would remove that socket at its own end, when another daemon may have it.
	addressName = "daemon-address"
	// listenerFd is the daemon's socket in the daemon.
	listenerFd = 3
)

// parseParams decodes what containerd sends to start a shim, in either dialect.
func parseParams(input []byte, c command, getenv func(string) string) (*bootapi.BootstrapParams, dialect, error) {
	var p bootapi.BootstrapParams
	// Runtime options of the legacy dialect may decode as parameters, but not with this id in this namespace.
	if len(input) > 0 && proto.Unmarshal(input, &p) == nil && p.InstanceID == c.id && p.Namespace == c.namespace {
		return &p, modern, nil
	}
	p = bootapi.BootstrapParams{
		InstanceID: c.id, Namespace: c.namespace, ContainerdGrpcAddress: c.address, ContainerdTtrpcAddress: getenv(ttrpcVar),
		ContainerdBinary: c.binary,
	}
	if c.debug {
		p.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	if len(input) > 0 {
		var options anypb.Any
		if err := proto.Unmarshal(input, &options); err != nil {
			return nil, legacy, fmt.Errorf("standard input has neither bootstrap parameters nor runtime options: %w", err)
		}
		if err := p.AddExtension(&options); err != nil {
			return nil, legacy, err
		}
	}
	return &p, legacy, nil
}

// answer encodes where the daemon listens.
func (d dialect) answer(address string) ([]byte, error) {
	if d == modern {
		return proto.Marshal(&bootapi.BootstrapResult{Version: modernVersion, Address: address, Protocol: "ttrpc"})
	}
	return json.Marshal(struct {
		Version  int    `json:"version"`
		Address  string `json:"address"`
		Protocol string `json:"protocol"`
	}{legacyVersion, address, "ttrpc"})
}

// start leaves a daemon behind for the container whose bundle is the working directory, unless its pod has one, and returns the answer
// for containerd.
func start(ctx context.Context, c command, stdin io.Reader) ([]byte, error) {
	input, err := io.ReadAll(io.LimitReader(stdin, maxParams))
	if err != nil {
		return nil, fmt.Errorf("read bootstrap parameters: %w", err)
	}
	p, dialect, err := parseParams(input, c, os.Getenv)
	if err != nil {
		return nil, err
	}
	group, err := groupOf("config.json", p.InstanceID)
	if err != nil {
		return nil, err
	}
	dir := p.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	address, err := shim.CreateSocketAddress(ctx, dir, p.ContainerdGrpcAddress, group, false)
	if err != nil {
		return nil, err
	}
	socket, err := listen(address)
	if err != nil {
		return nil, err
	}
	if socket != nil {
		socket.SetUnlinkOnClose(false)
		defer socket.Close()
		if err := startDaemon(p, socket); err != nil {
			return nil, errors.Join(err, shim.RemoveSocket(address))
		}
	}
	if err := os.WriteFile(addressName, []byte(address), 0o600); err != nil {
		return nil, err
	}
	return dialect.answer(address)
}

// groupOf is the id whose daemon a container gets: its pod's, or its own. A pod sandbox without a container has no OCI spec.
func groupOf(config, id string) (string, error) {
	b, err := os.ReadFile(config)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	if err != nil {
		return "", err
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return "", fmt.Errorf("decode OCI spec: %w", err)
	}
	if pod := spec.Annotations[podAnnotation]; pod != "" {
		return pod, nil
	}
	return id, nil
}

// listen binds a daemon's socket, or returns nil if a daemon has it already.
func listen(address string) (*net.UnixListener, error) {
	socket, err := shim.NewSocket(address)
	if err == nil || !shim.SocketEaddrinuse(err) {
		return socket, err
	}
	if shim.CanConnect(address) {
		return nil, nil
	}
	// One that died, and that containerd has not cleaned up behind.
	if err := shim.RemoveSocket(address); err != nil {
		return nil, err
	}
	return shim.NewSocket(address)
}

// startDaemon starts the daemon with its socket.
func startDaemon(p *bootapi.BootstrapParams, socket *net.UnixListener) (err error) {
	f, err := socket.File()
	if err != nil {
		return err
	}
	defer f.Close()
	// This very file, should its name stand for another version by now.
	cmd := exec.Command("/proc/self/exe", "-namespace", p.Namespace, "-id", p.InstanceID, "-address", p.ContainerdGrpcAddress)
	cmd.Args[0] = os.Args[0]
	if p.LogLevel <= bootapi.LogLevel_LOG_LEVEL_DEBUG {
		cmd.Args = append(cmd.Args, "-debug")
	}
	cmd.Args = append(cmd.Args, "daemon")
	cmd.Env = append(os.Environ(), ttrpcVar+"="+p.ContainerdTtrpcAddress)
	cmd.ExtraFiles = []*os.File{f} // listenerFd
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	defer func() {
		if err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	if err := joinCgroup(p, cmd.Process.Pid); err != nil {
		return err
	}
	if err := shim.AdjustOOMScore(cmd.Process.Pid); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	return nil
}

// joinCgroup moves the daemon into the cgroup of the runtime options, if they have one.
func joinCgroup(p *bootapi.BootstrapParams, pid int) error {
	for _, e := range p.Extensions {
		if !task.HasOptions(e.GetValue()) {
			continue
		}
		opts, err := task.DecodeOptions(e.GetValue())
		if err != nil {
			return err
		}
		if opts.ShimCgroup == "" {
			continue
		}
		if err := addToCgroup(opts.ShimCgroup, pid); err != nil {
			return fmt.Errorf("join cgroup %s: %w", opts.ShimCgroup, err)
		}
	}
	return nil
}

func addToCgroup(path string, pid int) error {
	if cgroups.Mode() == cgroups.Unified {
		g, err := cgroup2.Load(path)
		if err != nil {
			return err
		}
		return g.AddProc(uint64(pid))
	}
	g, err := cgroup1.Load(cgroup1.StaticPath(path))
	if err != nil {
		return err
	}
	return g.AddProc(uint64(pid))
}
