package spectest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/binary"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/link"
	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/spectest"
)

var update = flag.Bool("update", false, "rewrite testdata/nyi.txt with the commands that fail")

// nyiFile lists the commands that are not yet implemented: a script's name and line numbers in each line.
// A command that is listed and passes is an error, so that the list says what is missing, exactly.
const nyiFile = "testdata/nyi.txt"

// nyiList maps script names to line numbers.
type nyiList map[string][]int

func readNYI(t *testing.T) nyiList {
	b, err := os.ReadFile(nyiFile)
	require.NoError(t, err)
	list := nyiList{}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		for _, f := range fields[1:] {
			n, err := strconv.Atoi(f)
			require.NoError(t, err, line)
			list[fields[0]] = append(list[fields[0]], n)
		}
	}
	return list
}

func (l nyiList) write(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Commands of the suite that fail today: a script's name and the lines of its commands.\n" +
		"# `go test ./pkg/engine/internal/spectest -update` rewrites this file.\n")
	for _, name := range slices.Sorted(maps.Keys(l)) {
		b.WriteString(name)
		slices.Sort(l[name])
		for _, n := range slices.Compact(l[name]) {
			fmt.Fprintf(&b, " %d", n)
		}
		b.WriteString("\n")
	}
	require.NoError(t, os.WriteFile(nyiFile, []byte(b.String()), 0o644))
}

// tally counts commands by outcome. It is safe for concurrent use.
type tally struct {
	mu          sync.Mutex
	passed, nyi map[string]int // guarded by mu; by the command's type
	failing     nyiList        // guarded by mu
}

func (c *tally) add(script string, cmd spectest.Command, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.passed[cmd.Type]++
		return
	}
	c.nyi[cmd.Type]++
	c.failing[script] = append(c.failing[script], cmd.Line)
}

// TestSuite runs the suite in $SPECTEST_DIR, with a subtest for each command. Commands that other
// tools' text formats are about are left out.
func TestSuite(t *testing.T) {
	t.Parallel()
	dir := spectest.Dir(t)
	listed := readNYI(t)
	e, err := engine.New(t.Context(), engine.Config{})
	require.NoError(t, err)
	counts := &tally{passed: map[string]int{}, nyi: map[string]int{}, failing: nyiList{}}
	t.Run("scripts", func(t *testing.T) {
		for _, s := range spectest.Scripts(t, dir) {
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				runScript(t, e, dir, s, listed[s.Name], counts)
			})
		}
	})
	require.NoError(t, e.Close(context.Background()))
	for _, typ := range slices.Sorted(maps.Keys(counts.passed)) {
		t.Logf("%-22s %4d of %4d pass", typ, counts.passed[typ], counts.passed[typ]+counts.nyi[typ])
	}
	if *update {
		counts.failing.write(t)
	}
}

func runScript(t *testing.T, e *engine.Engine, dir string, s spectest.Script, nyi []int, counts *tally) {
	r := &runner{engine: e, dir: dir, definitions: map[string]*definition{}, instances: map[string]*instance{}}
	defer r.close()
	for _, cmd := range s.Commands {
		if cmd.ModuleType == "text" {
			continue
		}
		t.Run("line:"+strconv.Itoa(cmd.Line), func(t *testing.T) {
			err := r.run(t.Context(), cmd)
			counts.add(s.Name, cmd, err)
			switch isListed := slices.Contains(nyi, cmd.Line); {
			case *update:
			case err != nil && !isListed:
				t.Errorf("%s: %v", cmd.Type, err)
			case err != nil:
				t.Logf("fails, as it is listed: %s: %v", cmd.Type, err)
			case isListed:
				t.Errorf("%s passes: take it out of %s", cmd.Type, nyiFile)
			}
		})
	}
}

// runner is the state of one script.
type runner struct {
	engine      *engine.Engine
	dir         string
	definitions map[string]*definition // "" is the last one
	instances   map[string]*instance   // "" is the last one
	open        []*engine.Instance
}

// definition is a component that was compiled and linked.
type definition struct {
	pre  *engine.InstancePre
	plan *link.Plan
}

type instance struct {
	*definition
	*engine.Instance
}

func (r *runner) close() {
	for _, i := range r.open {
		_ = i.Close()
	}
}

// run executes one command. It returns an error if the command does not end as it should.
func (r *runner) run(ctx context.Context, cmd spectest.Command) error {
	switch cmd.Type {
	case "module":
		if err := r.define(ctx, cmd); err != nil {
			return err
		}
		return r.instantiate(ctx, cmd.Name, cmd.Name)
	case "module_definition":
		return r.define(ctx, cmd)
	case "module_instance":
		return r.instantiate(ctx, cmd.Instance, cmd.Module)
	case "action":
		_, _, err := r.call(cmd.Action)
		return err
	case "assert_return":
		result, t, err := r.call(cmd.Action)
		if err != nil {
			return err
		}
		return wantResult(t, result, cmd.Expected)
	case "assert_trap":
		_, _, err := r.call(cmd.Action)
		return wantTrap(err, cmd.Text)
	case "assert_malformed", "assert_invalid":
		_, err := r.compile(ctx, cmd.Filename)
		return wantRefusal(err)
	case "assert_uninstantiable":
		if err := r.define(ctx, cmd); err != nil {
			return err
		}
		return wantTrap(r.instantiate(ctx, cmd.Name, cmd.Name), cmd.Text)
	}
	return fmt.Errorf("command %q is not supported", cmd.Type)
}

// wantRefusal returns an error unless err refuses a component for being wrong. One that is refused because
// a construct is not supported may be right.
func wantRefusal(err error) error {
	switch {
	case err == nil:
		return errors.New("the component is accepted")
	case strings.Contains(err.Error(), "not supported"):
		return fmt.Errorf("refused for another reason: %w", err)
	}
	return nil
}

// wantTrap returns an error unless err is a trap for the reason that text gives.
func wantTrap(err error, text string) error {
	if err == nil {
		return errors.New("no trap")
	}
	trap, ok := errors.AsType[*engine.Trap](err)
	if !ok {
		return fmt.Errorf("not a trap: %w", err)
	}
	for _, words := range trapWords(text) {
		if strings.Contains(trap.Msg, words) {
			return nil
		}
	}
	return fmt.Errorf("trap %q, want %q", trap.Msg, text)
}

// trapWords returns what the engine may call the reason that the suite, in other engines' words, gives for a
// trap. Where those engines check the pointer that realloc returns later than this one, it has two names.
func trapWords(text string) []string {
	text = strings.TrimPrefix(text, "wasm trap: ")
	switch {
	case strings.Contains(text, "`unreachable`"):
		return []string{"unreachable"}
	case text == "invalid variant discriminant":
		return []string{"unexpected discriminant"}
	case text == "invalid `char` bit pattern":
		return []string{"char value not valid"}
	case text == "unaligned pointer":
		return []string{text, "realloc return: result not aligned"}
	case text == "list content out-of-bounds", text == "string content out-of-bounds", text == "string pointer/length out of bounds of memory":
		return []string{"pointer out of bounds of memory", "realloc return: beyond end of memory"}
	case text == "incomplete utf-8 byte sequence":
		return []string{"invalid utf-8"}
	case strings.HasPrefix(text, "handle index "):
		return []string{"used with the wrong type"}
	case strings.HasPrefix(text, "unknown handle index "):
		return []string{"unknown handle index"}
	}
	return []string{text}
}

func (r *runner) compile(ctx context.Context, file string) (*definition, error) {
	wasm, err := os.ReadFile(filepath.Join(r.dir, file))
	if err != nil {
		return nil, err
	}
	compiled, err := r.engine.Compile(ctx, wasm)
	if err != nil {
		return nil, err
	}
	d := &definition{}
	if d.pre, err = r.engine.NewLinker().Link(compiled); err != nil {
		// A definition may import what nobody offers, as long as it is not instantiated.
		return &definition{}, nil
	}
	decoded, err := binary.Decode(wasm)
	if err != nil {
		return nil, err
	}
	d.plan, err = link.Link(decoded, nil)
	return d, err
}

func (r *runner) define(ctx context.Context, cmd spectest.Command) error {
	delete(r.definitions, "")
	delete(r.instances, "")
	d, err := r.compile(ctx, cmd.Filename)
	if err != nil {
		return err
	}
	r.definitions[""], r.definitions[cmd.Name] = d, d
	return nil
}

func (r *runner) instantiate(ctx context.Context, name, of string) error {
	delete(r.instances, "")
	d := r.definitions[of]
	if d == nil || d.pre == nil {
		return fmt.Errorf("no component %q that links", of)
	}
	i, err := d.pre.Instantiate(ctx)
	if err != nil {
		return err
	}
	r.open = append(r.open, i)
	in := &instance{d, i}
	r.instances[""], r.instances[name] = in, in
	return nil
}

// call calls a function, and returns its result and its type.
func (r *runner) call(a spectest.Action) (result any, t *engine.Type, err error) {
	in := r.instances[a.Module]
	if in == nil {
		return nil, nil, fmt.Errorf("no instance %q", a.Module)
	}
	l := in.plan.Func("", a.Field)
	if l == nil {
		return nil, nil, fmt.Errorf("no function %q", a.Field)
	}
	f, err := in.pre.Func("", a.Field, funcType(l.Type))
	if err != nil {
		return nil, nil, err
	}
	args, err := parseAll(l.Type.Params, a.Args)
	if err != nil {
		return nil, nil, err
	}
	err = f.Call(in.Instance, func(c *engine.Call) {
		for i, v := range args {
			put(c, l.Type.Params[i].Type, v)
		}
	}, func(c *engine.Call) {
		if l.Type.Result != nil {
			result = lift(c, l.Type.Result)
		}
	})
	return result, l.Type.Result, err
}

// wantResult returns an error unless result, of type t, is what is expected.
func wantResult(t *engine.Type, result any, expected []spectest.Value) error {
	if (t == nil) != (len(expected) == 0) {
		return fmt.Errorf("result of type %s, want %d results", t, len(expected))
	}
	if t == nil {
		return nil
	}
	want, err := parse(t, expected[0])
	if err == nil && !reflect.DeepEqual(result, want) {
		err = fmt.Errorf("got %v, want %v of type %s", result, want, t)
	}
	return err
}

func funcType(f *component.Func) engine.FuncType {
	params := make([]engine.Param, len(f.Params))
	for i, p := range f.Params {
		params[i] = engine.Param(p)
	}
	return engine.FuncType{Async: f.Async, Params: params, Result: f.Result}
}
