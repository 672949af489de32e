package engine

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// coreFeatures are what core modules may use: WebAssembly 2.0 with what toolchains emit beyond it. Exception
// handling stays off: wazero 1.12's compiled try_table corrupts locals.
const coreFeatures = api.CoreFeaturesV2 | experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesTailCall

// Config configures an [Engine].
type Config struct {
	// CacheDir is a folder of machine code, in wazero's format. What is compiled is looked up there, and stored
	// there if the folder can be written. "" keeps machine code in memory only. Whoever can write to the folder
	// decides what this process executes.
	CacheDir string
}

// Engine is the process's runtime for components. It is safe for concurrent use.
type Engine struct {
	// cached is the runtime with the cache folder; plain serves the components that it cannot: see compile.
	cached wazero.Runtime
	cache  wazero.CompilationCache // nil if there is no folder

	memories atomic.Int64 // the linear memories that have address space

	mu    sync.Mutex
	plain wazero.Runtime // guarded by mu; nil until it is needed
}

// New returns an engine.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	e := &Engine{}
	rc := runtimeConfig()
	if cfg.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(cfg.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open cache of machine code: %w", err)
		}
		e.cache, rc = cache, rc.WithCompilationCache(cache)
	}
	e.cached = wazero.NewRuntimeWithConfig(ctx, rc)
	return e, nil
}

func runtimeConfig() wazero.RuntimeConfig {
	return wazero.NewRuntimeConfig().WithCoreFeatures(coreFeatures).WithDebugInfoEnabled(false)
}

// Close frees the engine's machine code. No instance may be in use.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.plain != nil {
		_ = e.plain.Close(ctx)
	}
	err := e.cached.Close(ctx)
	if e.cache != nil {
		if closed := e.cache.Close(ctx); err == nil {
			err = closed
		}
	}
	return err
}

// uncached returns the runtime that has no cache folder.
func (e *Engine) uncached(ctx context.Context) wazero.Runtime {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.plain == nil {
		e.plain = wazero.NewRuntimeWithConfig(ctx, runtimeConfig())
	}
	return e.plain
}

// compile compiles core modules. Where the cache folder is damaged, foreign, full or cannot be written, the
// modules are compiled without it: fault then says what is wrong with it. All of a component's modules are of
// one runtime, since wazero numbers types by runtime.
func (e *Engine) compile(ctx context.Context, modules []coreModule) (r wazero.Runtime, compiled []wazero.CompiledModule, fault, err error) {
	ctx = experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	if compiled, err = compileAll(ctx, e.cached, modules); err == nil || e.cache == nil {
		return e.cached, compiled, nil, err
	}
	fault = err
	r = e.uncached(ctx)
	compiled, err = compileAll(ctx, r, modules)
	return r, compiled, fault, err
}

// coreModule is a core module to compile, and where it stands in the component.
type coreModule struct {
	bytes  []byte
	offset int
}

func compileAll(ctx context.Context, r wazero.Runtime, modules []coreModule) ([]wazero.CompiledModule, error) {
	out := make([]wazero.CompiledModule, 0, len(modules))
	for _, m := range modules {
		c, err := r.CompileModule(ctx, m.bytes)
		if err != nil {
			for _, c := range out {
				_ = c.Close(ctx)
			}
			return nil, fmt.Errorf("core module at 0x%x: %w", m.offset, err)
		}
		out = append(out, c)
	}
	return out, nil
}
