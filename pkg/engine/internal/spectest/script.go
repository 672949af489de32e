package spectest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Dir is the folder of the suite: $SPECTEST_DIR, by default the component model's in the shared folder.
func Dir(tb testing.TB) string {
	tb.Helper()
	if dir := os.Getenv("SPECTEST_DIR"); dir != "" {
		return present(tb, dir)
	}
	return Shared(tb, "spectest", "component-model")
}

// Script is one .wast file of a suite.
type Script struct {
	// Name is the script's path without its ending, with dots for slashes: `values.strings`.
	Name     string    `json:"-"`
	Source   string    `json:"source_filename"`
	Commands []Command `json:"commands"`
}

// Command is one command of a script. Which fields are used follows from Type.
type Command struct {
	// Type is one of module, module_definition, module_instance, action, assert_return, assert_trap,
	// assert_invalid, assert_malformed, assert_unlinkable, assert_uninstantiable.
	Type string `json:"type"`
	Line int    `json:"line"`
	// Name of the module that the command defines, or "".
	Name string `json:"name"`
	// Filename of a module's binary; of its text if ModuleType is "text".
	Filename   string `json:"filename"`
	ModuleType string `json:"module_type"`
	// Instance and Module of a module_instance: the instance's name and that of its definition, or "" for
	// the last one.
	Instance string  `json:"instance"`
	Module   string  `json:"module"`
	Action   Action  `json:"action"`
	Expected []Value `json:"expected"`
	// Text says why the command must fail, in the words of other engines.
	Text string `json:"text"`
}

// Action is a call: of function Field of the instance named Module, or of the last one.
type Action struct {
	Type   string  `json:"type"`
	Module string  `json:"module"`
	Field  string  `json:"field"`
	Args   []Value `json:"args"`
}

// Value is a value of the component model. Its form follows from Type.
type Value struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value"`
}

// Scripts reads the scripts of a folder.
func Scripts(tb testing.TB, dir string) []Script {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	require.NoError(tb, err)
	require.NotEmpty(tb, paths, dir)
	scripts := make([]Script, len(paths))
	for i, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(tb, err)
		require.NoError(tb, json.Unmarshal(b, &scripts[i]), p)
		scripts[i].Name = strings.TrimSuffix(filepath.Base(p), ".json")
	}
	return scripts
}
