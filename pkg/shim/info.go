package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"runtime/debug"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/task"
)

// version is the shim's; the linker sets it.
var version = "unknown"

const wazeroPath = "github.com/tetratelabs/wazero"

// versionText is what -v prints.
func versionText(program string) []byte {
	wazero, revision := buildVersions()
	return fmt.Appendf(nil, "%s:\n  Version:  %s\n  Revision: %s\n  wazero:   %s\n  Go:       %s\n",
		program, version, revision, wazero, runtime.Version())
}

// buildVersions reads what the Go command noted in the binary.
func buildVersions() (wazero, revision string) {
	wazero, revision = "unknown", "unknown"
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return wazero, revision
	}
	for _, d := range b.Deps {
		if d.Path == wazeroPath {
			wazero = d.Version
		}
	}
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return wazero, revision
}

// info is a RuntimeInfo for the runtime options on stdin, which may be empty.
func info(ctx context.Context, name string, stdin io.Reader) ([]byte, error) {
	input, err := io.ReadAll(io.LimitReader(stdin, maxParams))
	if err != nil {
		return nil, fmt.Errorf("read runtime options: %w", err)
	}
	wazero, revision := buildVersions()
	i := &types.RuntimeInfo{
		Name:        name,
		Version:     &types.RuntimeVersion{Version: version, Revision: revision},
		Annotations: map[string]string{wazeroPath: wazero, "go": runtime.Version()},
	}
	command := runc.DefaultCommand
	if len(input) > 0 {
		i.Options = &anypb.Any{}
		if err := proto.Unmarshal(input, i.Options); err != nil {
			return nil, fmt.Errorf("decode runtime options: %w", err)
		}
		opts, err := task.DecodeOptions(i.Options)
		if err != nil {
			return nil, err
		}
		if opts.BinaryName != "" {
			command = opts.BinaryName
		}
	}
	if i.Features, err = runcFeatures(ctx, command); err != nil {
		return nil, err
	}
	return proto.Marshal(i)
}

// runcFeatures asks runc what it can do. One that is too old to be asked has none.
func runcFeatures(ctx context.Context, command string) (*anypb.Any, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return nil, fmt.Errorf("find runc: %w", err)
	}
	out, err := exec.CommandContext(ctx, path, "features").Output()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		log.G(ctx).WithError(err).Debug("info: ask runc for its features")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f features.Features
	if err := json.Unmarshal(out, &f); err != nil {
		return nil, fmt.Errorf("decode features of runc: %w", err)
	}
	return typeurl.MarshalAnyToProto(&f)
}
