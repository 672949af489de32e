package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binary"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
)

// FuzzLink feeds hostile components to everything before their core modules are compiled.
func FuzzLink(f *testing.F) {
	shared := os.Getenv("SHARED")
	if shared == "" {
		shared = "../../../shared"
	}
	for _, pattern := range []string{"guests/built/c-*.wasm", "guests/built/rust-*.wasm", "spectest/component-model/*.wasm"} {
		files, _ := filepath.Glob(filepath.Join(shared, pattern))
		for i, file := range files {
			if wasm, err := os.ReadFile(file); err == nil && i%8 == 0 {
				f.Add(wasm)
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
			if _, err := link.Link(c, nil); err == nil && len(p.Imports) > 0 {
				t.Log("linked without a host: its imports are types only")
			}
		}
	})
}
