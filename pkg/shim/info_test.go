package shim

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// fakeRunc is a program that does what the script says instead of runc.
func fakeRunc(t *testing.T, script string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "runc")
	require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	return name
}

func TestInfo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, runc string
		features   *features.Features
		err        string
	}{
		{name: "runc says what it can do", runc: `echo '{"ociVersionMin":"1.0.0"}'`, features: &features.Features{OCIVersionMin: "1.0.0"}},
		{name: "runc is too old to be asked", runc: "exit 1"},
		{name: "runc says something else", runc: "echo what", err: "decode features of runc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			opts, err := typeurl.MarshalAnyToProto(&options.Options{BinaryName: fakeRunc(t, c.runc)})
			require.NoError(t, err)
			input, err := proto.Marshal(opts)
			require.NoError(t, err)
			b, err := info(t.Context(), "io.containerd.spin.v2", bytes.NewReader(input))
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			var got types.RuntimeInfo
			require.NoError(t, proto.Unmarshal(b, &got))
			require.Equal(t, "io.containerd.spin.v2", got.Name)
			require.Equal(t, runtime.Version(), got.Annotations["go"])
			require.Contains(t, got.Annotations, "github.com/tetratelabs/wazero")
			require.True(t, proto.Equal(opts, got.Options))
			if c.features == nil {
				require.Nil(t, got.Features)
				return
			}
			f, err := typeurl.UnmarshalAny(got.Features)
			require.NoError(t, err)
			require.Equal(t, c.features, f)
		})
	}
	t.Run("other bytes than options", func(t *testing.T) {
		t.Parallel()
		_, err := info(t.Context(), "x", strings.NewReader("\xff\xff"))
		require.ErrorContains(t, err, "decode runtime options")
	})
	t.Run("no runc", func(t *testing.T) {
		t.Parallel()
		_, err := runcFeatures(t.Context(), "/nonexistent/runc")
		require.ErrorContains(t, err, "find runc")
	})
}

func TestVersionText(t *testing.T) {
	t.Parallel()
	text := string(versionText("containerd-shim-spin-v2"))
	require.Contains(t, text, "containerd-shim-spin-v2:\n  Version:  ")
	require.Contains(t, text, runtime.Version())
}
