// Package prepare is the short-lived process that reads foreign bytes for the daemon. It gets an image, a container's root or a
// component, and an empty folder, and turns the one into the other: the step resolve makes app.json, components and assets, the step
// compile machine code. Before it reads the first of these bytes it gives up all that it could do harm with (package sandbox), so that whoever breaks
// into it holds one image's content and an empty folder.
package prepare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/internal/handoff"
	"github.com/spinkube/containerd-shim-spin-go/pkg/shim/sandbox"
)

// CacheKey is what machine code made by this binary depends on besides its component.
func CacheKey() string { return engine.CacheKey() }

// Main is the process's main function; it returns the exit code. The reason of a failure goes to the daemon as a message, and to
// standard error where there is no way to send one.
func Main() int {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func run() error {
	conn, err := handoff.OpenConn(os.NewFile(handoff.FdSocket, "daemon"))
	if err != nil {
		return fmt.Errorf("open the daemon's socket: %w", err)
	}
	defer conn.Close()
	output := os.NewFile(handoff.FdOutput, "output")
	// Both are opened while /proc can be seen.
	out, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", handoff.FdOutput))
	if err != nil {
		return fmt.Errorf("open output folder: %w", err)
	}
	rootfs, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", handoff.FdInput))
	if err != nil {
		rootfs = nil // it is a component's file, or there is no input
	}
	if err := sandbox.Prepare(output, rootfs != nil); err != nil {
		return fmt.Errorf("enter sandbox: %w", err)
	}
	var request handoff.Request
	if _, err := conn.Receive(&request); err != nil {
		return fmt.Errorf("receive request: %w", err)
	}
	done := handoff.Ask{Done: true}
	switch request.Step {
	case handoff.StepResolve:
		done.Rootfs, done.Labels, err = resolve(conn, request, rootfs, out)
	case handoff.StepCompile:
		err = compileFile(os.NewFile(handoff.FdInput, "component"), handoff.CodeDir)
	default:
		err = fmt.Errorf("unknown step %q", request.Step)
	}
	if err != nil {
		done.Error, done.NotApp = err.Error(), errors.Is(err, oci.ErrNotApp)
		if most := 8 << 10; len(done.Error) > most {
			done.Error = done.Error[:most]
		}
	}
	return conn.Send(done, nil)
}

// resolve makes the app's folder, without code. fromRootfs says that the app was in rootfs.
func resolve(conn *handoff.Conn, request handoff.Request, rootfs, out *os.Root) (fromRootfs bool, labels map[string]string, err error) {
	ctx := context.Background() // the daemon ends the process
	var app *lockedapp.App
	err = oci.ErrNotApp
	if d := request.Image; d != nil {
		desc := ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: d.Size}
		app, err = oci.Resolve(ctx, blobs{conn}, desc, out)
	}
	if errors.Is(err, oci.ErrNotApp) && request.Rootfs && rootfs != nil {
		fromRootfs = true
		app, err = oci.ResolveManifest(ctx, rootfs, out)
	}
	if err == nil {
		err = writeApp(app, out)
	}
	if err != nil {
		return fromRootfs, nil, err
	}
	return fromRootfs, componentLabels(app), nil
}

// writeApp writes app.json.
func writeApp(app *lockedapp.App, out *os.Root) error {
	b, err := app.Encode()
	if err != nil {
		return fmt.Errorf("encode app: %w", err)
	}
	return out.WriteFile(handoff.AppFile, b, 0o644)
}

// maxLabels bounds the labels that are sent, so that they fit into a message.
const maxLabels = 100

// componentLabels says what to call each component in messages, by the hex digits of its digest.
func componentLabels(app *lockedapp.App) map[string]string {
	labels := map[string]string{}
	for _, c := range app.Components[:min(len(app.Components), maxLabels)] {
		labels[c.Source.Digest.Encoded()] = fmt.Sprintf("app %.100q: component %.100q", app.Metadata.Name, c.ID)
	}
	return labels
}

// compileFile compiles the component in f.
func compileFile(f *os.File, codeDir string) error {
	wasm, err := io.ReadAll(io.LimitReader(f, oci.MaxComponent+1))
	if err != nil {
		return fmt.Errorf("read component: %w", err)
	}
	if len(wasm) > oci.MaxComponent {
		return fmt.Errorf("component has more than %d bytes", oci.MaxComponent)
	}
	return Compile(context.Background(), wasm, codeDir)
}

// Compile makes the machine code of a component in the folder codeDir, unless it is there.
func Compile(ctx context.Context, wasm []byte, codeDir string) error {
	e, err := engine.New(ctx, engine.Config{CacheDir: codeDir})
	if err != nil {
		return err
	}
	defer e.Close(ctx)
	c, err := e.Compile(ctx, wasm)
	if err != nil {
		return err
	}
	if fault := c.CacheFault(); fault != nil {
		return fmt.Errorf("store machine code: %w", fault)
	}
	return nil
}

// Folder does without a daemon, a content store and a sandbox what the process does in its two steps: for the folder of a developer,
// who trusts it. out is empty; machine code goes to codeDir.
func Folder(ctx context.Context, dir, out *os.Root, codeDir string) (*lockedapp.App, error) {
	app, err := oci.ResolveFolder(ctx, dir, out)
	if err == nil {
		err = writeApp(app, out)
	}
	if err != nil {
		return nil, err
	}
	for i := range app.Components {
		c := &app.Components[i]
		wasm, err := out.ReadFile(handoff.ComponentFile(c.Source.Digest.Encoded()))
		if err == nil {
			err = Compile(ctx, wasm, codeDir)
		}
		if err != nil {
			return nil, fmt.Errorf("app %.100q: component %.100q: %w", app.Metadata.Name, c.ID, err)
		}
	}
	return app, nil
}

// blobs asks the daemon for blobs.
type blobs struct{ conn *handoff.Conn }

// Open asks for a blob, which comes as a pipe.
func (b blobs) Open(_ context.Context, d digest.Digest) (*os.File, error) {
	if err := b.conn.Send(handoff.Ask{Blob: d.String()}, nil); err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	var answer handoff.Answer
	file, err := b.conn.Receive(&answer)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask the daemon: %w", err)
	case answer.NotExist:
		return nil, fmt.Errorf("%s: %w", strings.TrimSuffix(answer.Error, ": "+fs.ErrNotExist.Error()), fs.ErrNotExist)
	case answer.Error != "":
		return nil, errors.New(answer.Error)
	case file == nil:
		return nil, errors.New("the daemon's answer has no content")
	}
	return file, nil
}
