package engine_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
)

func TestCompileTakesEveryComponentOfWASI02(t *testing.T) {
	guests := spectest.Guests(t)
	e, err := engine.New(t.Context(), engine.Config{CacheDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close(t.Context())) })
	for name, wasm := range guests {
		t.Run(name, func(t *testing.T) {
			c, err := e.Compile(t.Context(), wasm)
			switch {
			case strings.Contains(name, "core") || strings.Contains(name, "wagi"):
				require.ErrorContains(t, err, "core module")
			case strings.Contains(name, "p3"):
				require.ErrorContains(t, err, "not supported")
			default:
				require.NoError(t, err)
				require.NoError(t, c.CacheFault())
			}
		})
	}
}
