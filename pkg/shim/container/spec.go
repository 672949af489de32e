package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
)

const (
	configName = "config.json"
	// typeAnnotation says what a container of a pod is; CRI sets it.
	typeAnnotation = "io.kubernetes.cri.container-type"
	typeSandbox    = "sandbox"
)

// readSpec reads a bundle's OCI spec, and its bytes.
func readSpec(bundle string) (*specs.Spec, []byte, error) {
	b, err := os.ReadFile(filepath.Join(bundle, configName))
	if err != nil {
		return nil, nil, fmt.Errorf("read OCI spec: %w", err)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, nil, fmt.Errorf("decode OCI spec: %w", err)
	}
	if s.Process == nil || s.Root == nil || s.Linux == nil {
		return nil, nil, fmt.Errorf("OCI spec has no process, no root or no linux section")
	}
	return &s, b, nil
}

// workerSpec is an OCI spec whose process is the worker. All else stays as it is, what this version of the specification does not
// know included.
func workerSpec(config []byte) ([]byte, error) {
	var spec, process map[string]json.RawMessage
	if err := json.Unmarshal(config, &spec); err != nil {
		return nil, fmt.Errorf("decode OCI spec: %w", err)
	}
	if err := json.Unmarshal(spec["process"], &process); err != nil {
		return nil, fmt.Errorf("decode OCI spec: process: %w", err)
	}
	var err error
	if process["args"], err = json.Marshal([]string{fmt.Sprintf("/proc/self/fd/%d", handoff.FdBinary), "worker"}); err != nil {
		return nil, err
	}
	if spec["process"], err = json.Marshal(process); err != nil {
		return nil, err
	}
	return json.Marshal(spec)
}

// rootPath is the path of the container's root on the node.
func rootPath(bundle string, s *specs.Spec) string {
	if filepath.IsAbs(s.Root.Path) {
		return s.Root.Path
	}
	return filepath.Join(bundle, s.Root.Path)
}

// hasPrivatePID says whether the container has a process namespace of its own.
func hasPrivatePID(s *specs.Spec) bool {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// hostID is the node's id for an id in the container's user namespace, if it has one. An id without a mapping stays: nobody in the
// container has it.
func hostID(id uint32, mappings []specs.LinuxIDMapping) int {
	for _, m := range mappings {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + (id - m.ContainerID))
		}
	}
	return int(id)
}

// mountRoot mounts the container's root at target.
func mountRoot(mounts []mount.Mount, target string) error {
	if err := os.Mkdir(target, 0o711); err != nil && !os.IsExist(err) {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := mount.All(mounts, target); err != nil {
		_ = mount.UnmountMounts(mounts, target, 0)
		return fmt.Errorf("mount root: %w", err)
	}
	return nil
}
