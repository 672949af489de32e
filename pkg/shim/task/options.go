package task

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/pelletier/go-toml/v2"
)

// maxOptions bounds a file of runtime options, in bytes: it has a dozen keys.
const maxOptions = 64 << 10

// DecodeOptions decodes the runtime options of a task: runc's, or generic ones that hold TOML or the path of a TOML file with the same
// keys, as in containerd's configuration. A key that is not known is an error. The result is never nil.
func DecodeOptions(a typeurl.Any) (*options.Options, error) {
	opts, err := decodeOptions(a)
	if err != nil {
		return nil, fmt.Errorf("runtime options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return opts, nil
}

func decodeOptions(a typeurl.Any) (*options.Options, error) {
	if a == nil || len(a.GetValue()) == 0 {
		return &options.Options{}, nil
	}
	v, err := typeurl.UnmarshalAny(a)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *options.Options:
		return v, nil
	case *runtimeoptions.Options:
		if v.ConfigPath == "" {
			return decodeTOML(string(v.ConfigBody))
		}
		body, err := readOptions(v.ConfigPath)
		if err != nil {
			return nil, err
		}
		opts, err := decodeTOML(body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.ConfigPath, err)
		}
		return opts, nil
	}
	return nil, fmt.Errorf("unknown type %s", a.GetTypeUrl())
}

func readOptions(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOptions+1))
	if err == nil && len(b) > maxOptions {
		err = fmt.Errorf("%s: more than %d bytes", path, maxOptions)
	}
	return string(b), err
}

// decodeTOML decodes the keys of runc's options that are for runc and the shim. Those for checkpoints of CRIU go along; the
// deprecated ones that make another process the shim do not.
func decodeTOML(body string) (*options.Options, error) {
	var keys struct {
		NoPivotRoot   bool
		NoNewKeyring  bool
		ShimCgroup    string
		IoUid         uint32
		IoGid         uint32
		BinaryName    string
		Root          string
		SystemdCgroup bool
		CriuImagePath string
		CriuWorkPath  string

		TypeUrl string // CRI's own, which it leaves where it is
	}
	if err := toml.NewDecoder(strings.NewReader(body)).DisallowUnknownFields().Decode(&keys); err != nil {
		return nil, decodeError(err)
	}
	return &options.Options{
		NoPivotRoot: keys.NoPivotRoot, NoNewKeyring: keys.NoNewKeyring, ShimCgroup: keys.ShimCgroup, IoUid: keys.IoUid, IoGid: keys.IoGid,
		BinaryName: keys.BinaryName, Root: keys.Root, SystemdCgroup: keys.SystemdCgroup,
		CriuImagePath: keys.CriuImagePath, CriuWorkPath: keys.CriuWorkPath,
	}, nil
}

// decodeError is an error of the TOML decoder with what it knows beyond its text.
func decodeError(err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var unknown []string
		for _, e := range strict.Errors {
			unknown = append(unknown, strings.Join(e.Key(), "."))
		}
		return fmt.Errorf("unknown key %s", strings.Join(unknown, ", "))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := bad.Position()
		return fmt.Errorf("line %d: %w", line, err)
	}
	return err
}

// HasOptions reports whether a message is one of those that [DecodeOptions] decodes.
func HasOptions(a typeurl.Any) bool {
	return typeurl.Is(a, (*options.Options)(nil)) || typeurl.Is(a, (*runtimeoptions.Options)(nil))
}
