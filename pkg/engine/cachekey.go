package engine

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/cpu"
)

// cacheVersion counts changes of this package that make other machine code of the same component: how core
// modules are rewritten, and which features they are compiled with.
const cacheVersion = 1

const wazeroModule = "github.com/tetratelabs/wazero"

// CacheKey names everything but the component itself that its machine code depends on: the version of this
// package and of wazero, the architecture, and the features of the CPU. Code made under another key must not be
// used.
func CacheKey() string {
	// wazero's own key covers the same features (internal/platform/cpuid_amd64.go); one that it had more would
	// cost a compilation at load, not a wrong answer.
	return fmt.Sprintf("engine%d-wazero%s-%s-%s-%t%t%t%t", cacheVersion, WazeroVersion(), runtime.GOOS, runtime.GOARCH,
		cpu.X86.HasSSE41, cpu.X86.HasBMI1, cpu.X86.HasBMI2, cpu.X86.HasPOPCNT)
}

// WazeroVersion returns the version of wazero in this binary, "v1.12.0", or "unknown" in a build without module
// information.
func WazeroVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, d := range info.Deps {
		if d.Path == wazeroModule {
			return d.Version
		}
	}
	return "unknown"
}
