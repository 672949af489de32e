package outbound

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/x509roots/fallback/bundle"
	"golang.org/x/sys/unix"
)

// certificates returns n certificates of authorities as PEM, and all of them.
func certificates(t *testing.T, n int) (out [][]byte) {
	t.Helper()
	for root := range bundle.Roots() {
		if root.Constraint == nil && len(out) < n {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	require.Len(t, out, n)
	return out
}

func TestReadRoots(t *testing.T) {
	t.Parallel()
	pems := certificates(t, 4)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Mkdir(path("certs"), 0o700))
	require.NoError(t, os.Mkdir(path("certs/folder"), 0o700))
	require.NoError(t, os.Mkdir(path("other"), 0o700))
	require.NoError(t, os.Mkdir(path("empty"), 0o700))
	for name, content := range map[string][]byte{
		"bundle.pem": append(pems[0][:len(pems[0]):len(pems[0])], pems[1]...), "none.pem": []byte("# none\n"),
		"certs/2.pem": pems[2], "certs/readme": []byte("text without an end of line"), "other/3.pem": pems[3],
	} {
		require.NoError(t, os.WriteFile(path(name), content, 0o600))
	}
	require.NoError(t, os.Symlink("2.pem", path("certs/0a1b2c3d.0")))
	require.NoError(t, os.Symlink(path("missing"), path("certs/dangling")))
	require.NoError(t, unix.Mkfifo(path("certs/fifo"), 0o600))
	require.NoError(t, unix.Mkfifo(path("fifo"), 0o600))
	f, err := os.OpenFile(path("huge"), os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(maxRootsBytes+1))
	require.NoError(t, f.Close())

	pool := func(numbers ...int) *x509.CertPool {
		p := x509.NewCertPool()
		for _, n := range numbers {
			require.True(t, p.AppendCertsFromPEM(pems[n]))
		}
		return p
	}
	mozilla := x509.NewCertPool()
	addMozilla(mozilla)
	for _, tt := range []struct {
		name           string
		env            map[string]string
		files, folders []string
		want           *x509.CertPool
		err            string
	}{
		{name: "an empty system trusts what Mozilla trusts", files: []string{path("missing")}, folders: []string{path("missing"), path("empty")}, want: mozilla},
		{name: "the first bundle counts", files: []string{path("missing"), path("bundle.pem"), path("other/3.pem")}, folders: []string{path("certs")}, want: pool(0, 1)},
		{name: "what is no bundle is passed over", files: []string{path("none.pem"), path("fifo"), path("huge"), path("certs"), path("other/3.pem")}, want: pool(3)},
		{name: "folders without a bundle", files: []string{path("missing")}, folders: []string{path("missing"), path("certs"), path("other")}, want: pool(2, 3)},
		{name: "a file of the environment", env: map[string]string{"SSL_CERT_FILE": path("other/3.pem")}, files: []string{path("bundle.pem")}, folders: []string{path("certs")}, want: pool(3)},
		{name: "folders of the environment", env: map[string]string{"SSL_CERT_DIR": path("certs") + ":" + path("other")}, files: []string{path("bundle.pem")}, want: pool(2, 3)},
		{name: "both", env: map[string]string{"SSL_CERT_FILE": path("bundle.pem"), "SSL_CERT_DIR": path("certs")}, want: pool(0, 1, 2)},
		{name: "an empty name is none", env: map[string]string{"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}, files: []string{path("bundle.pem")}, want: pool(0, 1)},
		{name: "a missing file is an error", env: map[string]string{"SSL_CERT_FILE": path("missing")}, files: []string{path("bundle.pem")}, err: "SSL_CERT_FILE: open " + path("missing") + ": no such file or directory"},
		{name: "a missing folder is an error", env: map[string]string{"SSL_CERT_DIR": path("missing")}, err: "SSL_CERT_DIR: open " + path("missing") + ": no such file or directory"},
		{name: "a file without certificates is an error", env: map[string]string{"SSL_CERT_FILE": path("none.pem")}, err: "SSL_CERT_FILE, SSL_CERT_DIR: no certificates"},
		{name: "a FIFO is an error", env: map[string]string{"SSL_CERT_FILE": path("fifo")}, err: "SSL_CERT_FILE: " + path("fifo") + " is not a regular file"},
		{name: "a huge file is an error", env: map[string]string{"SSL_CERT_FILE": path("huge")}, err: "SSL_CERT_FILE: " + path("huge") + ": more than 8388608 bytes of certificates"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			roots, err := readRoots(func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }, tt.files, tt.folders)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.True(t, tt.want.Equal(roots()))
			require.True(t, tt.want.Equal(roots()))
		})
	}
}

// BenchmarkRoots tells reading certificates, which each start pays, from parsing them, which the first TLS connection does.
func BenchmarkRoots(b *testing.B) {
	var all []byte
	for root := range bundle.Roots() {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})...)
	}
	file := filepath.Join(b.TempDir(), "bundle.pem")
	require.NoError(b, os.WriteFile(file, all, 0o600))
	none := func(string) (string, bool) { return "", false }
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			_, err := readRoots(none, []string{file}, nil)
			require.NoError(b, err)
		}
	})
	b.Run("read and parse", func(b *testing.B) {
		for b.Loop() {
			parse, err := readRoots(none, []string{file}, nil)
			require.NoError(b, err)
			parse()
		}
	})
	b.Run("built in", func(b *testing.B) {
		for b.Loop() {
			addMozilla(x509.NewCertPool())
		}
	})
}
