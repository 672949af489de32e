package wasi

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryFunctionOfTheWITHasAHostFunction(t *testing.T) {
	t.Parallel()
	for _, i := range new(Host).interfaces() {
		var want []string
		for _, f := range i.Type.Funcs {
			want = append(want, f.Name)
		}
		slices.Sort(want)
		require.Equal(t, want, slices.Sorted(maps.Keys(i.Funcs)), i.Type.Name)
	}
}
