package core

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRewriteImportsBoundsTables(t *testing.T) {
	t.Parallel()
	module := func(table ...byte) []byte {
		body := append([]byte{1, funcref}, table...)
		return append([]byte(preamble), append([]byte{sectionTable, byte(len(body))}, body...)...)
	}
	tenMillion := []byte{0x80, 0xad, 0xe2, 0x04}
	for _, tt := range []struct {
		name      string
		in, wants []byte
	}{
		{"a table without maximum gets one", []byte{0, 3}, append([]byte{1, 3}, tenMillion...)},
		{"a small maximum stays", []byte{1, 3, 5}, []byte{1, 3, 5}},
		{"a huge maximum shrinks", []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}, append([]byte{1, 0}, tenMillion...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, err := RewriteImports(module(tt.in...), nil)
			require.NoError(t, err)
			require.Equal(t, module(tt.wants...), out)
		})
	}
}
