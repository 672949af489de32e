package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestDecodeOptions(t *testing.T) {
	t.Parallel()
	file := func(body string) string {
		name := filepath.Join(t.TempDir(), "options.toml")
		require.NoError(t, os.WriteFile(name, []byte(body), 0o600))
		return name
	}
	for _, c := range []struct {
		name string
		in   proto.Message
		want *options.Options
		err  string
	}{
		{name: "none", want: &options.Options{}},
		{
			name: "runc's own", in: &options.Options{BinaryName: "crun", SystemdCgroup: true},
			want: &options.Options{BinaryName: "crun", SystemdCgroup: true},
		},
		{name: "runc's own, empty", in: &options.Options{}, want: &options.Options{}},
		{
			name: "TOML in the message",
			in: &runtimeoptions.Options{
				TypeUrl:    "runtimeoptions.v1.Options",
				ConfigBody: []byte("BinaryName = '/usr/sbin/runc'\nRoot = '/run/r'\nIoUid = 7\nNoPivotRoot = true\nShimCgroup = '/shims'\n"),
			},
			want: &options.Options{BinaryName: "/usr/sbin/runc", Root: "/run/r", IoUid: 7, NoPivotRoot: true, ShimCgroup: "/shims"},
		},
		{
			name: "the type that CRI leaves among the keys",
			in:   &runtimeoptions.Options{ConfigBody: []byte("TypeUrl = 'runtimeoptions.v1.Options'\nSystemdCgroup = true\n")},
			want: &options.Options{SystemdCgroup: true},
		},
		{
			name: "path of a TOML file", in: &runtimeoptions.Options{ConfigPath: file("SystemdCgroup = true\n")},
			want: &options.Options{SystemdCgroup: true},
		},
		{name: "file that is not there", in: &runtimeoptions.Options{ConfigPath: "/nonexistent/x.toml"}, err: "no such file"},
		{
			name: "file that has no end", in: &runtimeoptions.Options{ConfigPath: "/dev/zero"},
			err: "/dev/zero: more than 65536 bytes",
		},
		{
			name: "unknown keys", in: &runtimeoptions.Options{ConfigBody: []byte("BinaryNam = 'x'\n[a]\nb = 1\n")},
			err: "runtime options: unknown key BinaryNam, a",
		},
		{
			name: "unknown key in a file", in: &runtimeoptions.Options{ConfigPath: file("Sandbox = 1\n")},
			err: "options.toml: unknown key Sandbox",
		},
		{name: "no TOML", in: &runtimeoptions.Options{ConfigBody: []byte("\nRoot = \n")}, err: "line 2"},
		{name: "key of another type", in: &runtimeoptions.Options{ConfigBody: []byte("IoUid = 'root'\n")}, err: "line 1"},
		{name: "another message", in: &emptypb.Empty{}, err: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var in typeurl.Any
			if c.in != nil {
				a, err := typeurl.MarshalAnyToProto(c.in)
				require.NoError(t, err)
				in = a
			}
			got, err := DecodeOptions(in)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
				return
			}
			require.NoError(t, err)
			if c.want == nil {
				c.want = &options.Options{} // an empty message has nothing to say, whatever its type
			}
			require.True(t, proto.Equal(c.want, got), "%v", got)
		})
	}
}

func TestOptionsOfAnotherType(t *testing.T) {
	t.Parallel()
	_, err := DecodeOptions(&anypb.Any{TypeUrl: "types.googleapis.com/google.protobuf.StringValue", Value: []byte{0x0a, 0}})
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	_, err = DecodeOptions(&anypb.Any{TypeUrl: "nowhere/known", Value: []byte{1}})
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
}

func TestHasOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url  string
		want bool
	}{
		{"containerd.runc.v1.Options", true}, {"runtimeoptions.v1.Options", true}, {"google.protobuf.Empty", false}, {"", false},
	} {
		require.Equal(t, c.want, HasOptions(&anypb.Any{TypeUrl: c.url}), c.url)
	}
}

func FuzzDecodeTOML(f *testing.F) {
	f.Add("BinaryName = 'runc'\nIoUid = 1\n")
	f.Add("[a.b]\nc = 1")
	f.Add("Root =")
	f.Add(strings.Repeat("[", 1000))
	f.Fuzz(func(t *testing.T, body string) {
		if opts, err := decodeTOML(body); (opts == nil) == (err == nil) {
			t.Fatalf("options %v, error %v", opts, err)
		}
	})
}
