package engine

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binary"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
)

var update = flag.Bool("update", false, "rewrite testdata/plans")

// TestPlans compares plans with testdata/plans: of a component with a shim and a fix-up module, and of a composition whose components
// call each other.
func TestPlans(t *testing.T) {
	t.Parallel()
	for _, guest := range []string{"c-hello", "rust-middleware-stream"} {
		t.Run(guest, func(t *testing.T) {
			t.Parallel()
			decoded, err := binary.Decode(spectest.Guest(t, guest))
			require.NoError(t, err)
			plan, err := link.Compile(decoded)
			require.NoError(t, err)
			golden := filepath.Join("testdata", "plans", guest+".txt")
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
				require.NoError(t, os.WriteFile(golden, []byte(plan.String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), plan.String())
		})
	}
}
