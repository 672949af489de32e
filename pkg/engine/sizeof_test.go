package engine

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/handle"
)

// TestSizes notices when what is made for each request, handle or type grows, on machines of 64 bits.
func TestSizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ  reflect.Type
		want uintptr
		each string
	}{
		{reflect.TypeFor[Instance](), 184, "request"},
		{reflect.TypeFor[abi.Instance](), 64, "component instance of a request"},
		{reflect.TypeFor[abi.Options](), 96, "canonical options of a request"},
		{reflect.TypeFor[Call](), 232, "nested call of a request"},
		{reflect.TypeFor[handle.Handle](), 48, "handle"},
		{reflect.TypeFor[component.Type](), 120, "type of a component"},
	} {
		require.Equal(t, c.want, c.typ.Size(), "%s, made for each %s", c.typ, c.each)
	}
}
