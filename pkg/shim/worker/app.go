package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/keyvalue"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/outbound"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/factor/variables"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasi"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/wasihttp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
	"github.com/spinkube/containerd-shim-spin-go/pkg/trigger"
	triggerhttp "github.com/spinkube/containerd-shim-spin-go/pkg/trigger/http"
)

// Config says what to run, and where.
type Config struct {
	// Dir is the prepared app's folder.
	Dir string
	// CodeDir is the folder of machine code.
	CodeDir string
	// StateDir is where the app keeps its state; "" keeps it in memory.
	StateDir string
	// Listen is the address of the HTTP trigger.
	Listen string
	// LookupEnv finds the environment variables that the app's variables come from, as [os.LookupEnv] does.
	LookupEnv func(string) (string, bool)
	// Retain are the ids of the components to run; empty is all.
	Retain []string
	// Stdout and Stderr are the guests'.
	Stdout, Stderr io.Writer
	Log            *slog.Logger
}

// App is a loaded app: linked, and ready to listen.
type App struct {
	locked   *lockedapp.App
	engine   *engine.Engine
	triggers []trigger.Trigger
	http     *triggerhttp.Server
	closers  []io.Closer
}

// Load loads the app that cfg describes. The error is a sentence that begins with the app and, where one is to blame, the component.
func Load(ctx context.Context, cfg Config) (*App, error) {
	locked, err := readApp(cfg)
	if err != nil {
		return nil, err
	}
	a := &App{locked: locked}
	if err := a.load(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("app %.100q: %w", locked.Metadata.Name, err), a.Close(ctx))
	}
	return a, nil
}

func readApp(cfg Config) (*lockedapp.App, error) {
	b, err := os.ReadFile(filepath.Join(cfg.Dir, handoff.AppFile))
	if err != nil {
		return nil, fmt.Errorf("read prepared app: %w", err)
	}
	locked, err := lockedapp.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read prepared app: %w", err)
	}
	if err := retain(locked, cfg.Retain); err != nil {
		return nil, fmt.Errorf("app %.100q: %w", locked.Metadata.Name, err)
	}
	return locked, nil
}

// retain leaves the components of these ids in the app, and the triggers that call them.
func retain(app *lockedapp.App, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		if app.Component(id) == nil {
			return fmt.Errorf("specified component %.100q not found in application", id)
		}
	}
	app.Components = slices.DeleteFunc(app.Components, func(c lockedapp.Component) bool { return !slices.Contains(ids, c.ID) })
	app.Triggers = slices.DeleteFunc(app.Triggers, func(t lockedapp.Trigger) bool {
		id, err := t.ComponentID()
		return err != nil || !slices.Contains(ids, id)
	})
	return nil
}

func (a *App) load(ctx context.Context, cfg Config) error {
	for _, t := range a.locked.Triggers {
		if t.Type != "http" {
			return fmt.Errorf("trigger %.100q: triggers of type %.100q are not supported yet", t.ID, t.Type)
		}
	}
	if len(a.locked.Triggers) == 0 {
		return errors.New("no triggers")
	}
	var err error
	if a.engine, err = engine.New(ctx, engine.Config{CacheDir: cfg.CodeDir}); err != nil {
		return err
	}
	host, err := a.newHost(cfg)
	if err != nil {
		return err
	}
	compiled := map[string]*engine.Component{}
	components := map[string]triggerhttp.Component{}
	for i := range a.locked.Components {
		c := &a.locked.Components[i]
		loaded, err := a.loadComponent(ctx, cfg, host, compiled, c)
		if err != nil {
			return fmt.Errorf("component %.100q: %w", c.ID, err)
		}
		components[c.ID] = loaded
	}
	a.http, err = triggerhttp.New(triggerhttp.Config{Listen: cfg.Listen, App: a.locked, Components: components, Log: cfg.Log})
	if err != nil {
		return err
	}
	a.triggers = []trigger.Trigger{a.http}
	return nil
}

// host is what all components of the app share.
type host struct {
	factors  []factor.Factor
	outbound *outbound.Outbound
}

func (a *App) newHost(cfg Config) (*host, error) {
	vars, err := variables.New(a.locked, cfg.LookupEnv)
	if err != nil {
		return nil, err
	}
	stores, err := keyvalue.New(a.locked, keyvalue.Config{Dir: cfg.StateDir})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, stores, vars)
	out, err := outbound.New(a.locked, vars, outbound.Config{Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, out)
	return &host{factors: []factor.Factor{vars, stores}, outbound: out}, nil
}

// loadComponent compiles c, or finds its code, and links it with the host.
func (a *App) loadComponent(ctx context.Context, cfg Config, h *host, compiled map[string]*engine.Component, c *lockedapp.Component) (triggerhttp.Component, error) {
	var none triggerhttp.Component
	hex := c.Source.Digest.Encoded()
	component := compiled[hex]
	if component == nil {
		wasm, err := mapFile(filepath.Join(cfg.Dir, handoff.ComponentFile(hex)))
		if err != nil {
			return none, err
		}
		if component, err = a.engine.Compile(ctx, wasm); err != nil {
			return none, err
		}
		if fault := component.CacheFault(); fault != nil {
			cfg.Log.Warn("machine code was compiled at start: the prepared one cannot be used", "component", c.ID, "err", fault)
		}
		compiled[hex] = component
	}
	files, err := a.openAssets(cfg, c.ID)
	if err != nil {
		return none, err
	}
	client, err := h.outbound.Client(c)
	if err != nil {
		return none, err
	}
	l := a.engine.NewLinker()
	wasi.Add(l, wasi.Config{Env: c.Env, Stdout: cfg.Stdout, Stderr: cfg.Stderr, Files: files})
	proxies := wasihttp.Add(l, wasihttp.Config{Client: client})
	for _, f := range h.factors {
		if err := f.Link(l, c); err != nil {
			return none, err
		}
	}
	pre, err := l.Link(component)
	if err != nil {
		return none, fmt.Errorf("link: %w", err)
	}
	proxy, err := proxies.Proxy(pre)
	if err != nil {
		return none, err
	}
	return triggerhttp.Component{Pre: pre, Proxy: proxy}, nil
}

// openAssets opens the folder of the component's files, which is nil if it has none.
func (a *App) openAssets(cfg Config, id string) (*os.Root, error) {
	root, err := os.OpenRoot(filepath.Join(cfg.Dir, handoff.AssetsDir, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open files: %w", err)
	}
	a.closers = append(a.closers, root)
	return root, nil
}

// mapFile maps a file, so that all workers share its pages. It stays mapped until the process ends.
func mapFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	return b, nil
}

// Run listens, calls ready, and serves until ctx ends and what was accepted is answered. An error means that a trigger cannot listen,
// or has ended by itself.
func (a *App) Run(ctx context.Context, ready func()) error {
	if err := trigger.Run(ctx, a.triggers, ready); err != nil {
		return fmt.Errorf("app %.100q: %w", a.locked.Metadata.Name, err)
	}
	return nil
}

// Triggers returns the app's triggers, those that are left of them.
func (a *App) Triggers() []lockedapp.Trigger { return a.locked.Triggers }

// Name returns the app's name.
func (a *App) Name() string { return a.locked.Metadata.Name }

// Addr returns the address that the HTTP trigger listens on, once [App.Run] has called ready.
func (a *App) Addr() string { return a.http.Addr().String() }

// Close frees what Load acquired, after Run has returned.
func (a *App) Close(ctx context.Context) error {
	var errs []error
	for _, c := range a.closers {
		errs = append(errs, c.Close())
	}
	if a.engine != nil {
		errs = append(errs, a.engine.Close(ctx))
	}
	return errors.Join(errs...)
}

// WithEnvironment returns the configuration with what an app takes from an environment: its variables and the components to run.
func (c Config) WithEnvironment(lookup func(string) (string, bool)) Config {
	c.LookupEnv = variablesFrom(lookup)
	list, _ := lookup(retainVar)
	c.Retain = strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	return c
}

// variablesFrom returns how the app's variables are found in an environment: variable x is SPIN_VARIABLE_X or, as people give it to
// a container, X.
func variablesFrom(lookup func(string) (string, bool)) func(string) (string, bool) {
	return func(name string) (string, bool) {
		if value, ok := lookup(name); ok {
			return value, true
		}
		if bare, ok := strings.CutPrefix(name, "SPIN_VARIABLE_"); ok {
			return lookup(bare)
		}
		return "", false
	}
}
