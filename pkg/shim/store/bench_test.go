package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkVerify is what each start of a JavaScript app pays for its checksums: 60 MB.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	require.NoError(b, os.Mkdir(filepath.Join(dir, "code"), 0o755))
	require.NoError(b, os.WriteFile(filepath.Join(dir, "code", "x"), make([]byte, 60<<20), 0o644))
	sum, err := checksum(filepath.Join(dir, "code", "x"))
	require.NoError(b, err)
	require.NoError(b, writeSums(filepath.Join(dir, sumsName), []file{{path: "code/x", size: 60 << 20, sum: sum}}))
	b.SetBytes(60 << 20)
	for b.Loop() {
		require.NoError(b, verify(dir))
	}
}
