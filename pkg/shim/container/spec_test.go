package container

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"
)

func TestWorkerSpec(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want, err string }{
		{
			name: "only the command changes",
			in: `{"ociVersion":"1.3.0","process":{"terminal":true,"user":{"uid":65534,"additionalGids":[1]},"args":["/"],
				"env":["A=b","GOMAXPROCS=9"],"cwd":"/d","capabilities":{"bounding":["CAP_KILL"]},"noNewPrivileges":true,"oomScoreAdj":100},
				"root":{"path":"rootfs","readonly":true},"mounts":[{"destination":"/.spin","type":"bind","source":"/v"}],
				"linux":{"cgroupsPath":"/p/c","namespaces":[{"type":"pid"},{"type":"network","path":"/n"}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}`,
			want: `{"ociVersion":"1.3.0","process":{"terminal":true,"user":{"uid":65534,"additionalGids":[1]},"args":["/proc/self/fd/3","worker"],
				"env":["A=b","GOMAXPROCS=9"],"cwd":"/d","capabilities":{"bounding":["CAP_KILL"]},"noNewPrivileges":true,"oomScoreAdj":100},
				"root":{"path":"rootfs","readonly":true},"mounts":[{"destination":"/.spin","type":"bind","source":"/v"}],
				"linux":{"cgroupsPath":"/p/c","namespaces":[{"type":"pid"},{"type":"network","path":"/n"}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}`,
		},
		{
			name: "keys of a later specification stay",
			in:   `{"process":{"later":{"x":1e400},"args":null},"alsoLater":[18446744073709551616]}`,
			want: `{"process":{"later":{"x":1e400},"args":["/proc/self/fd/3","worker"]},"alsoLater":[18446744073709551616]}`,
		},
		{name: "no JSON", in: `{`, err: "decode OCI spec"},
		{name: "no process", in: `{}`, err: "decode OCI spec: process"},
		{name: "process of another kind", in: `{"process":[]}`, err: "decode OCI spec: process"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := workerSpec([]byte(c.in))
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, compact(t, c.want), compact(t, string(got)))
		})
	}
}

// compact orders keys and drops space, and leaves numbers as they are.
func compact(t *testing.T, text string) string {
	t.Helper()
	var m map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(text), &m))
	var p map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(m["process"], &p))
	var err error
	m["process"], err = json.Marshal(p)
	require.NoError(t, err)
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return string(b)
}

func TestReadSpec(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, err string }{
		{name: "whole", in: `{"process":{"args":["/"]},"root":{"path":"rootfs"},"linux":{}}`},
		{name: "no process", in: `{"root":{"path":"rootfs"},"linux":{}}`, err: "has no process"},
		{name: "no root", in: `{"process":{},"linux":{}}`, err: "no root"},
		{name: "for another system", in: `{"process":{},"root":{}}`, err: "no linux section"},
		{name: "no JSON", in: `<`, err: "decode OCI spec"},
		{name: "absent", err: "read OCI spec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bundle := t.TempDir()
			if c.in != "" {
				require.NoError(t, os.WriteFile(filepath.Join(bundle, "config.json"), []byte(c.in), 0o600))
			}
			s, b, err := readSpec(bundle)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"/"}, s.Process.Args)
			require.Equal(t, c.in, string(b))
		})
	}
}

func TestRootPath(t *testing.T) {
	t.Parallel()
	require.Equal(t, "/b/rootfs", rootPath("/b", &specs.Spec{Root: &specs.Root{Path: "rootfs"}}))
	require.Equal(t, "/r", rootPath("/b", &specs.Spec{Root: &specs.Root{Path: "/r"}}))
}

func TestHasPrivatePID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		namespaces []specs.LinuxNamespace
		want       bool
	}{
		{"of its own", []specs.LinuxNamespace{{Type: specs.PIDNamespace}}, true},
		{"of its pod", []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"}}, false},
		{"of the node", []specs.LinuxNamespace{{Type: specs.MountNamespace}}, false},
	} {
		require.Equal(t, c.want, hasPrivatePID(&specs.Spec{Linux: &specs.Linux{Namespaces: c.namespaces}}), c.name)
	}
}

func TestHostID(t *testing.T) {
	t.Parallel()
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 10}, {ContainerID: 10, HostID: 5, Size: 1}}
	for _, c := range []struct {
		name string
		id   uint32
		maps []specs.LinuxIDMapping
		want int
	}{
		{"no user namespace", 7, nil, 7},
		{"first of a mapping", 0, maps, 100000},
		{"last of a mapping", 9, maps, 100009},
		{"another mapping", 10, maps, 5},
		{"unmapped", 11, maps, 11},
	} {
		require.Equal(t, c.want, hostID(c.id, c.maps), c.name)
	}
}
