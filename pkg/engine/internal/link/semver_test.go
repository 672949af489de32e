package link

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	names := []string{"wasi:io/streams@0.2.3", "wasi:io/streams@0.2.12", "wasi:http/types@0.2.0-rc-2023-11-10", "a:b/c@1.4.0", "a:b/c@0.0.3", "plain"}
	for _, tt := range []struct{ name, want, got string }{
		{"an equal name wins over a newer one", "wasi:io/streams@0.2.3", "wasi:io/streams@0.2.3"},
		{"the newest serves an older patch level", "wasi:io/streams@0.2.0", "wasi:io/streams@0.2.12"},
		{"an older one serves a newer patch level", "wasi:io/streams@0.2.99", "wasi:io/streams@0.2.12"},
		{"another minor version of 0.x does not match", "wasi:io/streams@0.3.0", ""},
		{"a pre-release matches exactly", "wasi:http/types@0.2.0-rc-2023-11-10", "wasi:http/types@0.2.0-rc-2023-11-10"},
		{"a pre-release serves no release", "wasi:http/types@0.2.0", ""},
		{"a release serves no pre-release", "wasi:io/streams@0.2.0-rc-2023-11-10", ""},
		{"minor versions from 1.0 on are compatible", "a:b/c@1.0.0", "a:b/c@1.4.0"},
		{"0.0.x matches exactly", "a:b/c@0.0.4", ""},
		{"a name without version matches exactly", "plain", "plain"},
		{"a name without version serves no version", "plain@0.1.0", ""},
		{"a malformed version matches exactly only", "wasi:io/streams@0.2", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if i := Match(names, tt.want); i >= 0 {
				got = names[i]
			}
			require.Equal(t, tt.got, got, tt.want)
		})
	}
}
