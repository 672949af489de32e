package engine

import (
	"maps"
	"slices"
	"testing"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binary"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
)

// FuzzLink feeds hostile components to everything before their core modules are compiled.
func FuzzLink(f *testing.F) {
	const largest = 1 << 20 // seeds that a fuzzer can change to an effect
	for _, files := range []map[string][]byte{spectest.Guests(f), spectest.SuiteFiles(f)} {
		for i, name := range slices.Sorted(maps.Keys(files)) {
			if i%8 == 0 && len(files[name]) <= largest {
				f.Add(files[name])
			}
		}
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		c, err := binary.Decode(wasm)
		if err != nil {
			return
		}
		if p, err := link.Compile(c); err == nil {
			_ = p.String()
			_, _ = link.Link(c, nil)
		}
	})
}
