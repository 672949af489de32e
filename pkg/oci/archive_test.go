package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
)

func testOutput(t testing.TB) *output {
	o, err := newOutput(openRoot(t, t.TempDir()))
	require.NoError(t, err)
	return o
}

func TestBundleWritesWhatIsWanted(t *testing.T) {
	t.Parallel()
	o := testOutput(t)
	one, two := digest.FromString("one"), digest.FromString("two")
	wanted := map[digest.Digest][]target{one: {{"c", "a/1"}, {"d", "1"}}, two: {{"c", "2"}}}
	archive := tarball(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./"}, tar.Header{Typeflag: tar.TypeDir, Name: "sub/"},
		file("sub/one", "one"), file("./other", "other"), file("copy of one", "one"))
	require.NoError(t, o.bundle(strings.NewReader(archive), wanted))
	require.Equal(t, map[digest.Digest][]target{two: {{"c", "2"}}}, wanted)
	require.Equal(t, map[string]string{"assets/c/a/1": "one", "assets/d/1": "one"}, contents(t, o.root))
}

func TestBundleRefuses(t *testing.T) {
	t.Parallel()
	entry := func(kind byte, name, link string) string {
		return tarball(t, tar.Header{Typeflag: kind, Name: name, Linkname: link})
	}
	whole := tarball(t, file("a", "content"))
	for _, c := range []struct{ name, archive, err string }{
		{"symbolic link", entry(tar.TypeSymlink, "a", "/etc"), `entry "a": neither a file nor a folder`},
		{"hard link", entry(tar.TypeLink, "a", "b"), `entry "a": neither a file nor a folder`},
		{"device", entry(tar.TypeBlock, "a", ""), `entry "a": neither a file nor a folder`},
		{"pipe", entry(tar.TypeFifo, "a", ""), `entry "a": neither a file nor a folder`},
		{"path that climbs", tarball(t, file("../a", "")), `entry "../a": path "../a" is not a plain relative path`},
		{"path that climbs behind a dot", tarball(t, file("./../a", "")), `entry "./../a": path "../a" is not a plain relative path`},
		{"absolute path", tarball(t, file("/etc/a", "")), `entry "/etc/a": path "/etc/a" is not a plain relative path`},
		{"absolute folder", entry(tar.TypeDir, "/", ""), `entry "/": path "" is not a plain relative path`},
		{"folder that climbs", entry(tar.TypeDir, "a/../..", ""), `entry "a/../..": path "a/../.." is not a plain relative path`},
		{"no path", tarball(t, file("", "")), `entry "": path "" is not a plain relative path`},
		{"path with backslashes", tarball(t, file(`..\a`, "")), `entry "..\\a": path "..\\a" is not a plain relative path`},
		{"no gzip", "tar", "unexpected EOF"},
		{"cut in the middle", whole[:len(whole)/2], "unexpected EOF"},
		{"checksum that is missing", whole[:len(whole)-8], "unexpected EOF"},
		{"checksum that is wrong", whole[:len(whole)-8] + "00000000", "gzip: invalid checksum"},
		{"more behind the end", whole + "more", "unexpected EOF"},
		{"no tar", zip(t, strings.NewReader(strings.Repeat("x", 512))), "archive/tar: invalid tar header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := testOutput(t)
			err := o.bundle(strings.NewReader(c.archive), map[digest.Digest][]target{})
			require.EqualError(t, err, c.err)
			for name := range contents(t, o.root) {
				require.Equal(t, incoming, name)
			}
		})
	}
}

func zip(t testing.TB, r io.Reader) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.Copy(z, r)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.String()
}

func TestBundleIsBounded(t *testing.T) {
	t.Parallel()
	bomb := tarball(t, file("a", strings.Repeat("0", 1<<20)))
	sparse := zip(t, strings.NewReader(sparseTar(1<<40)))
	var many []tar.Header
	for range maxEntries + 1 {
		many = append(many, tar.Header{Typeflag: tar.TypeDir, Name: "a"})
	}

	o := testOutput(t)
	o.left = 1 << 16
	require.EqualError(t, o.bundle(strings.NewReader(bomb), nil), `entry "a": more than 65536 bytes`)
	o = testOutput(t)
	o.left = 1 << 16
	require.EqualError(t, o.bundle(strings.NewReader(sparse), nil), `entry "a": more than 65536 bytes`)
	require.EqualError(t, testOutput(t).bundle(strings.NewReader(tarball(t, many...)), nil), "more than 131072 entries")

	o = testOutput(t)
	o.assets = maxAssets
	wanted := map[digest.Digest][]target{digest.FromString("x"): {{"c", "a"}}}
	require.EqualError(t, o.bundle(strings.NewReader(tarball(t, file("a", "x"))), wanted), `entry "a": assets/c/a: more than 65536 files`)
}

// sparseTar is an archive of one file that consists of a hole of that size.
func sparseTar(size int) string {
	record := func(key, value string) string {
		n := len(key) + len(value) + 3
		length := func(n int) string { return string([]byte{byte('0' + n/10), byte('0' + n%10)}) }
		return length(n+2) + " " + key + "=" + value + "\n"
	}
	pax := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "a") +
		record("GNU.sparse.realsize", itoa(size))
	data := "1\n" + itoa(size) + "\n0\n" // one fragment of no bytes at the end
	return ustar("x", 'x', pax) + ustar("a", '0', data+strings.Repeat("\x00", 512-len(data))) + strings.Repeat("\x00", 1024)
}

func itoa(n int) string {
	if n < 10 {
		return string([]byte{byte('0' + n)})
	}
	return itoa(n/10) + itoa(n%10)
}

// ustar is one entry of a tar archive, header and content.
func ustar(name string, kind byte, content string) string {
	header := make([]byte, 512)
	copy(header, name)
	copy(header[100:], "0000644\x000000000\x000000000\x00")
	octal := []byte("00000000000\x00")
	for i, n := 10, len(content); n > 0; i, n = i-1, n/8 {
		octal[i] = byte('0' + n%8)
	}
	copy(header[124:], octal)
	copy(header[136:], "00000000000\x00        ")
	header[156] = kind
	copy(header[257:], "ustar\x0000")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	sumText := []byte("000000\x00 ")
	for i := 5; sum > 0; i, sum = i-1, sum/8 {
		sumText[i] = byte('0' + sum%8)
	}
	copy(header[148:], sumText)
	padding := (512 - len(content)%512) % 512
	return string(header) + content + strings.Repeat("\x00", padding)
}

func FuzzArchive(f *testing.F) {
	unzip := func(archive string) []byte {
		z, err := gzip.NewReader(strings.NewReader(archive))
		require.NoError(f, err)
		data, err := io.ReadAll(z)
		require.NoError(f, err)
		return data
	}
	f.Add(unzip(tarball(f, file("a", "one"), file("sub/b", "two"), tar.Header{Typeflag: tar.TypeDir, Name: "sub/"})))
	f.Add(unzip(tarball(f, file("../a", "one"), tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/"})))
	f.Add([]byte(sparseTar(1 << 20)))
	f.Fuzz(func(t *testing.T, archive []byte) {
		o := testOutput(t)
		o.left = 1 << 20
		wanted := map[digest.Digest][]target{digest.FromString("one"): {{"c", "a/1"}, {"c", "1"}}}
		_ = o.bundle(bytes.NewReader([]byte(zip(t, bytes.NewReader(archive)))), wanted)
		for name, content := range contents(t, o.root) {
			require.True(t, name == incoming || (name == "assets/c/a/1" || name == "assets/c/1") && content == "one", "%s: %q", name, content)
		}
	})
}
