package shim

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// runcOptions is the runtime options that containerd writes for a runtime with `BinaryName = "crun"`: an Any of type
// containerd.runc.v1.Options.
const runcOptions = "0a1a" + "636f6e7461696e6572642e72756e632e76312e4f7074696f6e73" + "1206" + "2a046372756e"

func fromHex(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	require.NoError(t, err)
	return b
}

func TestParseParams(t *testing.T) {
	t.Parallel()
	flags := command{namespace: "k8s.io", id: "app", address: "/run/containerd/containerd.sock", binary: "/usr/bin/containerd"}
	env := func(name string) string {
		return map[string]string{"TTRPC_ADDRESS": "/run/containerd/containerd.sock.ttrpc"}[name]
	}
	modernParams := "0a03" + "617070" + // instance_id
		"1206" + "6b38732e696f" + // namespace
		"18fcffffffffffffffff01" + // log_level -4
		"2205" + "322e342e32" + // containerd_version
		"2a02" + "2f74" + "3202" + "2f67" + // addresses
		"3a02" + "2f62" // binary
	fromFlags := bootapi.BootstrapParams{
		InstanceID: "app", Namespace: "k8s.io", ContainerdGrpcAddress: "/run/containerd/containerd.sock",
		ContainerdTtrpcAddress: "/run/containerd/containerd.sock.ttrpc", ContainerdBinary: "/usr/bin/containerd",
	}
	for _, c := range []struct {
		name    string
		input   string
		want    dialect
		options bool
		err     string
	}{
		{name: "2.4 sends parameters", input: modernParams, want: modern},
		{name: "1.7 without options sends nothing", want: legacy},
		{name: "2.2 sends runtime options", input: runcOptions, want: legacy, options: true},
		{name: "what decodes as parameters of another container is options", input: "0a03" + "62616e", want: legacy, options: true},
		{name: "other bytes", input: "ffff", want: legacy, err: "neither bootstrap parameters nor runtime options"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, d, err := parseParams(fromHex(t, c.input), flags, env)
			require.Equal(t, c.want, d)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			if d == modern {
				require.Equal(t, bootapi.LogLevel_LOG_LEVEL_DEBUG, p.LogLevel)
				require.Equal(t, "2.4.2", p.ContainerdVersion)
				return
			}
			require.Equal(t, c.options, len(p.Extensions) == 1)
			p.Extensions = nil
			require.True(t, proto.Equal(&fromFlags, p), "%v", p)
		})
	}
}

func FuzzParseParams(f *testing.F) {
	for _, digits := range []string{"", runcOptions, "0a0361707012066b38732e696f", "ffff"} {
		b, err := hex.DecodeString(digits)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		p, _, err := parseParams(input, command{namespace: "k8s.io", id: "app"}, func(string) string { return "" })
		if err == nil && (p.InstanceID != "app" || p.Namespace != "k8s.io") {
			t.Fatalf("parameters of another container: %v", p)
		}
	})
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	b, err := legacy.answer("unix:///run/containerd/s/0123")
	require.NoError(t, err)
	// 1.7 refuses a version above 2.
	require.Equal(t, `{"version":2,"address":"unix:///run/containerd/s/0123","protocol":"ttrpc"}`, string(b))

	b, err = modern.answer("unix:///s")
	require.NoError(t, err)
	require.Equal(t, fromHex(t, "0803"+"1209"+hex.EncodeToString([]byte("unix:///s"))+"1a05"+hex.EncodeToString([]byte("ttrpc"))), b)
}

func TestGroupOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, config, want, err string }{
		{name: "container of a pod", config: `{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}`, want: "pod"},
		{name: "container outside of pods", config: `{"annotations":{"a":"b"}}`, want: "app"},
		{name: "no annotations", config: `{}`, want: "app"},
		{name: "no OCI spec", want: "app"},
		{name: "not JSON", config: `{"annotations":`, err: "decode OCI spec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := filepath.Join(t.TempDir(), "config.json")
			if c.config != "" {
				require.NoError(t, os.WriteFile(config, []byte(c.config), 0o600))
			}
			got, err := groupOf(config, "app")
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	address := "unix://" + filepath.Join(t.TempDir(), "s")
	first, err := listen(address)
	require.NoError(t, err)
	require.NotNil(t, first)
	first.SetUnlinkOnClose(false)

	second, err := listen(address)
	require.NoError(t, err)
	require.Nil(t, second, "a daemon listens there")

	require.NoError(t, first.Close())
	third, err := listen(address)
	require.NoError(t, err)
	require.NotNil(t, third, "a dead daemon's socket is replaced")
	require.NoError(t, third.Close())
	_, err = net.Dial("unix", strings.TrimPrefix(address, "unix://"))
	require.True(t, errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED), "%v", err)
}

func TestParseCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args string
		want command
		err  string
	}{
		{
			name: "start as 2.4 does", args: "-namespace k8s.io -address /c.sock -id app start",
			want: command{namespace: "k8s.io", address: "/c.sock", id: "app", verb: "start"},
		},
		{
			name: "start as 1.7 does", args: "-namespace k8s.io -address /c.sock -publish-binary /containerd -id app -debug start",
			want: command{namespace: "k8s.io", address: "/c.sock", binary: "/containerd", id: "app", debug: true, verb: "start"},
		},
		{
			name: "delete", args: "-namespace k8s.io -address /c.sock -publish-binary /containerd -id app -bundle /b delete",
			want: command{namespace: "k8s.io", address: "/c.sock", binary: "/containerd", id: "app", bundle: "/b", verb: "delete"},
		},
		{name: "version", args: "-v", want: command{version: true}},
		{name: "info", args: "-info", want: command{info: true}},
		{name: "unknown flag", args: "-serve", err: "not defined: -serve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseCommand(strings.Fields(c.args))
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}
