package oci

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaxComponent is the most bytes of one component: Python guests have 40 MB, compositions several of them.
const MaxComponent = 256 << 20

// What one app may bring onto a node. Each is far above any app seen; together they bound what a hostile image costs.
const (
	maxTotalBytes = 2 << 30 // bytes received for one app: what an archive bomb can write
	maxAssets     = 1 << 16 // static files of one app
	maxPath       = 4095    // bytes of a path: Linux's PATH_MAX
	maxDepth      = 64      // folders inside each other: a file is reached step by step from the top
)

// incoming is the file that holds bytes until they are known to be good.
const incoming = "incoming"

// output is the folder that an app is resolved into: components/<hex of the digest>.wasm and assets/<component id>/<path>.
// What it holds after an error is of no use.
type output struct {
	root   *os.Root
	wasm   map[digest.Digest]bool // what components/ holds
	assets int
	left   int64 // bytes that may still be received
}

// target is a place among the assets.
type target struct{ component, path string }

func (t target) String() string { return path.Join("assets", t.component, t.path) }

func newOutput(root *os.Root) (*output, error) {
	if err := root.Mkdir("components", 0o755); err != nil {
		return nil, err
	}
	return &output{root: root, wasm: make(map[digest.Digest]bool), left: maxTotalBytes}, nil
}

// receive writes r to the incoming file and returns the digest of what it has written.
func (o *output) receive(r io.Reader, most int64) (digest.Digest, error) {
	f, err := o.root.OpenFile(incoming, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, hash), &capped{r: r, most: min(most, o.left)})
	o.left -= n
	return digest.NewDigest(digest.SHA256, hash), errors.Join(err, f.Close())
}

// component writes a component, whose digest is want unless want is empty, and returns its digest.
func (o *output) component(r io.Reader, want digest.Digest) (digest.Digest, error) {
	var preamble [8]byte
	n, err := io.ReadFull(r, preamble[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	got, err := o.receive(io.MultiReader(bytes.NewReader(preamble[:n]), r), MaxComponent)
	if err != nil {
		return "", err
	}
	if want != "" && got != want {
		return "", fmt.Errorf("its digest is %s, not %s", got, want)
	}
	if err := checkPreamble(preamble[:n]); err != nil {
		return "", err
	}
	o.wasm[got] = true
	return got, o.root.Rename(incoming, path.Join("components", got.Encoded()+".wasm"))
}

// checkPreamble accepts a component and no other kind of WebAssembly.
// See https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md#component-definitions.
func checkPreamble(b []byte) error {
	const magic, component, module = "\x00asm", "\x0d\x00\x01\x00", "\x01\x00\x00\x00"
	switch string(b) {
	case magic + component:
		return nil
	case magic + module:
		return errors.New("source is a core module, which is not supported yet: make a component of it with " +
			"`wasm-tools component new`, or push the app with Spin 3.2 or newer, which does so")
	}
	if version, ok := strings.CutPrefix(string(b), magic); ok {
		return fmt.Errorf("source is WebAssembly of an unknown version (% x)", version)
	}
	return fmt.Errorf("source is not WebAssembly (it starts with % x)", b)
}

// asset writes a file, whose digest is want unless want is empty.
func (o *output) asset(to target, r io.Reader, want digest.Digest) error {
	got, err := o.receive(r, maxTotalBytes)
	if err != nil {
		return err
	}
	if want != "" && got != want {
		return fmt.Errorf("its digest is %s, not %s", got, want)
	}
	return o.place(to)
}

// place makes the incoming file an asset.
func (o *output) place(to target) error {
	if o.assets++; o.assets > maxAssets {
		return fmt.Errorf("more than %d files", maxAssets)
	}
	name := to.String()
	if _, err := o.root.Lstat(name); err == nil {
		return errors.New("path is there twice")
	}
	if err := o.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	return o.root.Rename(incoming, name)
}

// copy writes an asset once more.
func (o *output) copy(from, to target) error {
	f, err := o.root.Open(from.String())
	if err != nil {
		return err
	}
	defer f.Close()
	return o.asset(to, f, "")
}

// checkPath accepts a path of a static file: relative, without dots, and of one meaning whatever the guest's idea of paths.
func checkPath(name string) error {
	if len(name) > maxPath || strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("path of %d bytes and %d folders, at most %d and %d are supported", len(name), strings.Count(name, "/"), maxPath, maxDepth)
	}
	if name == "." || !fs.ValidPath(name) || strings.ContainsAny(name, "\x00\\") {
		return fmt.Errorf("path %.200q is not a plain relative path", name)
	}
	return nil
}
