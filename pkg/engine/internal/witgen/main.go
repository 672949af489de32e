// Program witgen generates the Go tables of WIT interface types that host packages implement:
//
//	witgen PACKAGE
//
// writes types_gen.go of one package of [targets] into the working folder. It reads the WIT from
// $SHARED/wit, where SHARED is ../shared beside the module if it is not set. The phases are parse (WIT
// text → [iface]) and emit ([iface] → Go).
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
)

// target is a generated file.
type target struct {
	// dir is the package's folder below pkg/engine; its base is the package's name.
	dir string
	// interfaces are full names of WIT interfaces, in the order of the output. Resource types that they
	// define are exported variables of the package, which are written by hand.
	interfaces []string
}

// targets returns all generated files.
func targets() []target {
	return []target{
		{"wasi", []string{
			"wasi:cli/environment@0.2.12",
			"wasi:cli/exit@0.2.12",
			"wasi:cli/stdin@0.2.12",
			"wasi:cli/stdout@0.2.12",
			"wasi:cli/stderr@0.2.12",
			"wasi:cli/terminal-input@0.2.12",
			"wasi:cli/terminal-output@0.2.12",
			"wasi:cli/terminal-stdin@0.2.12",
			"wasi:cli/terminal-stdout@0.2.12",
			"wasi:cli/terminal-stderr@0.2.12",
			"wasi:clocks/monotonic-clock@0.2.12",
			"wasi:clocks/wall-clock@0.2.12",
			"wasi:filesystem/preopens@0.2.12",
			"wasi:filesystem/types@0.2.12",
			"wasi:io/error@0.2.12",
			"wasi:io/poll@0.2.12",
			"wasi:io/streams@0.2.12",
			"wasi:random/insecure@0.2.12",
			"wasi:random/insecure-seed@0.2.12",
			"wasi:random/random@0.2.12",
		}},
		{"wasihttp", []string{
			"wasi:http/incoming-handler@0.2.12",
			"wasi:http/outgoing-handler@0.2.12",
			"wasi:http/types@0.2.12",
		}},
		{"factor/keyvalue", []string{"fermyon:spin/key-value@2.0.0"}},
		{"factor/variables", []string{"fermyon:spin/variables@2.0.0"}},
	}
}

// sources returns the files of $SHARED/wit that hold each WIT package, as patterns.
func sources() map[string]string {
	return map[string]string{
		"wasi:cli@0.2.12":        "cli@0.2.12.wit",
		"wasi:clocks@0.2.12":     "clocks@0.2.12.wit",
		"wasi:filesystem@0.2.12": "filesystem@0.2.12.wit",
		"wasi:http@0.2.12":       "http@0.2.12.wit",
		"wasi:io@0.2.12":         "io@0.2.12.wit",
		"wasi:random@0.2.12":     "random@0.2.12.wit",
		"fermyon:spin@2.0.0":     "spin@2.0.0__*.wit",
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("witgen: ")
	if len(os.Args) != 2 {
		log.Fatal("usage: witgen PACKAGE")
	}
	dir, err := witDir()
	if err != nil {
		log.Fatal(err)
	}
	out, err := generate(dir, os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("types_gen.go", out, 0o644); err != nil {
		log.Fatal(err)
	}
}

// witDir returns the folder of the WIT.
func witDir() (string, error) {
	if shared := os.Getenv("SHARED"); shared != "" {
		return filepath.Join(shared, "wit"), nil
	}
	root, err := moduleRoot()
	return filepath.Join(root, "../shared/wit"), err
}

// moduleRoot returns the folder of go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working folder")
		}
		dir = parent
	}
}

// generate returns types_gen.go of the target in dir.
func generate(wit, dir string) ([]byte, error) {
	i := slices.IndexFunc(targets(), func(t target) bool { return t.dir == dir })
	if i < 0 {
		return nil, fmt.Errorf("no target %s", dir)
	}
	ifaces, err := load(wit)
	if err != nil {
		return nil, err
	}
	return emit(targets()[i], ifaces)
}

// load parses all sources and returns their interfaces by full name.
func load(wit string) (map[string]*iface, error) {
	out := map[string]*iface{}
	for pkg, pattern := range sources() {
		files, err := filepath.Glob(filepath.Join(wit, pattern))
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("no WIT of %s: no file %s in %s", pkg, pattern, wit)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			ifaces, err := parse(filepath.Base(file), string(src), pkg)
			if err != nil {
				return nil, err
			}
			for _, i := range ifaces {
				out[i.fullName()] = i
			}
		}
	}
	return out, nil
}
