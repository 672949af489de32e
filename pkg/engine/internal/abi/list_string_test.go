package abi_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/abi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binaryencoding"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// listString lowers a list<string> as a function's result, again and again at the same place of a guest's memory.
type listString struct {
	strings   []string
	signature *abi.Signature
	options   *abi.Options
	reset     func() error
	lowerer   abi.Lowerer
	core      [1]uint64
}

const (
	listStringResult = 8    // where the result goes
	listStringHeap   = 1024 // where realloc begins
)

func newListString(t testing.TB) *listString {
	t.Helper()
	var m binaryencoding.Module
	m.Memory("memory", 1)
	m.Realloc(listStringHeap) // its global is the first
	m.Func("reset", nil, nil, nil, binaryencoding.I32Const(listStringHeap), binaryencoding.GlobalSet(0))
	ctx := t.Context()
	r := wazero.NewRuntime(ctx)
	guest, err := r.Instantiate(ctx, m.Bytes())
	require.NoError(t, err)
	var layouts abi.Layouts
	signature, err := layouts.Signature(&component.Func{
		Result: &component.Type{Kind: component.KindList, Elem: &component.Type{Kind: component.KindString}},
	})
	require.NoError(t, err)
	reset := guest.ExportedFunction("reset")
	return &listString{
		strings:   []string{"accept", "accept-encoding", "cache-control", "content-length", "content-type", "cookie", "host", "user-agent"},
		signature: signature,
		options: &abi.Options{
			Encoding: component.UTF8, Memory: guest.Memory(), Realloc: guest.ExportedFunction("cabi_realloc"),
			Instance: new(abi.Instance), Context: ctx,
		},
		reset: func() error { return reset.CallWithStack(ctx, nil) },
	}
}

func (l *listString) lower() error {
	if err := l.reset(); err != nil {
		return err
	}
	w := &l.lowerer
	w.LowerResult(l.signature, l.options, l.core[:], listStringResult)
	w.PutList(len(l.strings))
	for _, s := range l.strings {
		w.PutString(s)
	}
	if !w.Done() {
		panic("BUG: not all was put")
	}
	return nil
}

// requireLowered checks what is in the guest's memory.
func (l *listString) requireLowered(t testing.TB) {
	t.Helper()
	var r abi.Lifter
	r.LiftResult(l.signature, l.options, []uint64{listStringResult})
	got := make([]string, r.List())
	for i := range got {
		got[i] = r.String()
	}
	require.Equal(t, l.strings, got)
}

func TestLowerListStringAllocatesNothing(t *testing.T) {
	l := newListString(t)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := l.lower(); err != nil {
			t.Error(err)
		}
	}))
	l.requireLowered(t)
}

// BenchmarkLowerListString lowers the names of a request's headers: an allocation of the guest's for each, and one for the list.
func BenchmarkLowerListString(b *testing.B) {
	l := newListString(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.lower(); err != nil {
			b.Fatal(err)
		}
	}
	l.requireLowered(b)
}
