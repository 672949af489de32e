package wasihttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// maxInstantiateAllocs is how often Go's heap is used for an instance of c-hello and its end: most of it is wazero's, for each of
// three core modules. The race detector adds some.
const maxInstantiateAllocs = 88

func TestInstantiateAllocations(t *testing.T) {
	g := load(t, "c-hello", nil)
	got := testing.AllocsPerRun(100, func() { require.NoError(t, g.instantiate(t)) })
	require.LessOrEqual(t, got, float64(maxInstantiateAllocs))
}

func (g *guest) instantiate(t testing.TB) error {
	i, err := g.pre.Instantiate(t.Context())
	if err != nil {
		return err
	}
	return i.Close()
}

// BenchmarkInstantiate makes and closes instances, as each request does.
func BenchmarkInstantiate(b *testing.B) {
	for _, name := range []string{"c-hello", "rust-wasi-http", "go-raw", "js-hello"} {
		b.Run(name, func(b *testing.B) {
			g := load(b, name, nil)
			b.ReportAllocs()
			for b.Loop() {
				if err := g.instantiate(b); err != nil {
					b.Fatal(err)
				}
			}
			// What was made works.
			i, err := g.pre.Instantiate(b.Context())
			require.NoError(b, err)
			w := httptest.NewRecorder()
			require.NoError(b, g.proxy.Handle(i, w, httptest.NewRequest(http.MethodGet, "/", nil)))
			require.NoError(b, i.Close())
			require.Equal(b, http.StatusOK, w.Code)
		})
	}
}
