package keyvalue

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkOpen is what the first use of a store on a new volume takes.
func BenchmarkOpen(b *testing.B) {
	root := b.TempDir()
	for b.Loop() {
		dir, err := os.MkdirTemp(root, "")
		require.NoError(b, err)
		db, err := openDatabase(b.Context(), dir)
		require.NoError(b, err)
		require.NoError(b, db.close())
	}
}

// BenchmarkSet is the time for each value that is set and on the disk, which is that of $TMPDIR.
func BenchmarkSet(b *testing.B) {
	for _, bb := range []struct {
		name    string
		wal     bool
		clients int // for each processor
	}{
		{"journal", false, 0},
		{"log", true, 0},
		{"log with 64 clients", true, max(1, 64/runtime.GOMAXPROCS(0))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			name := &url.URL{Scheme: "file", Path: filepath.Join(b.TempDir(), fileName)}
			db, err := openURL(b.Context(), name, bb.wal, maxFileBytes)
			require.NoError(b, err)
			value := make([]byte, 100)
			if bb.clients == 0 {
				for i := 0; b.Loop(); i++ {
					require.NoError(b, db.set(b.Context(), "default", strconv.Itoa(i%1000), value))
				}
			} else {
				b.SetParallelism(bb.clients)
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						if err := db.set(b.Context(), "default", strconv.Itoa(i%1000), value); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			require.NoError(b, db.close())
		})
	}
}
