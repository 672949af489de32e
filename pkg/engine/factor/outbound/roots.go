package outbound

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
	"golang.org/x/sys/unix"
)

// maxRootsBytes bounds the certificates that are read. The bundles of the distributions have 200 to 500 kB.
const maxRootsBytes = 8 << 20

// Where distributions keep the certificates that they trust: the first file that exists counts, else all files in
// the folders, as in Go and OpenSSL.
var (
	bundleFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
	}
	bundleFolders = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

// readRoots reads the certificates to trust, and returns a function that parses them when it is first called.
// Files that the environment names must be there: an app that is to trust less than the world must not trust more
// because of a typing error.
func readRoots(lookupEnv func(string) (string, bool), files, folders []string) (func() *x509.CertPool, error) {
	var pem []byte
	file, _ := lookupEnv("SSL_CERT_FILE")
	list, _ := lookupEnv("SSL_CERT_DIR")
	var err error
	switch {
	case file != "" || list != "":
		if file != "" {
			if pem, err = appendFile(pem, file); err != nil {
				return nil, fmt.Errorf("SSL_CERT_FILE: %w", err)
			}
		}
		for _, folder := range filepath.SplitList(list) {
			if pem, err = appendFolder(pem, folder); err != nil {
				return nil, fmt.Errorf("SSL_CERT_DIR: %w", err)
			}
		}
		if !hasCertificate(pem) {
			return nil, errors.New("SSL_CERT_FILE, SSL_CERT_DIR: no certificates")
		}
	default:
		pem = systemRoots(files, folders)
	}
	return sync.OnceValue(func() *x509.CertPool {
		pool := x509.NewCertPool()
		if hasCertificate(pem) {
			pool.AppendCertsFromPEM(pem)
		} else {
			addMozilla(pool)
		}
		pem = nil
		return pool
	}), nil
}

// systemRoots reads what the system trusts, as far as it can be read; it may be nothing.
func systemRoots(files, folders []string) []byte {
	for _, file := range files {
		if pem, err := appendFile(nil, file); err == nil && hasCertificate(pem) {
			return pem
		}
	}
	var pem []byte
	for _, folder := range folders {
		pem, _ = appendFolder(pem, folder)
	}
	return pem
}

// appendFile appends the content of a file to pem.
func appendFile(pem []byte, name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO does not block
	if err != nil {
		return pem, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return pem, err
	}
	if !info.Mode().IsRegular() {
		return pem, fmt.Errorf("%s is not a regular file", name)
	}
	room := int(min(info.Size(), maxRootsBytes)) + bytes.MinRead
	content := bytes.NewBuffer(slices.Grow(pem, room))
	if _, err := content.ReadFrom(io.LimitReader(f, maxRootsBytes+1)); err != nil {
		return pem, err
	}
	if content.Len() > maxRootsBytes {
		return pem, fmt.Errorf("%s: more than %d bytes of certificates", name, maxRootsBytes)
	}
	return append(content.Bytes(), '\n'), nil
}

// appendFolder appends the content of the files in a folder to pem. Files are often there twice, under their name
// and as a link with the hash of their subject for a name: links within the folder are left out.
func appendFolder(pem []byte, folder string) ([]byte, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return pem, err
	}
	for _, e := range entries {
		name := filepath.Join(folder, e.Name())
		if e.Type()&fs.ModeSymlink != 0 {
			if target, err := os.Readlink(name); err == nil && !strings.Contains(target, "/") {
				continue
			}
		}
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if pem, err = appendFile(pem, name); err != nil {
			return pem, err
		}
	}
	return pem, nil
}

func hasCertificate(pem []byte) bool {
	return bytes.Contains(pem, []byte("-----BEGIN CERTIFICATE-----"))
}

// addMozilla adds the authorities that Mozilla trusts, within what it trusts them for.
func addMozilla(pool *x509.CertPool) {
	for root := range bundle.Roots() {
		c, err := x509.ParseCertificate(root.Certificate)
		switch {
		case err != nil:
			panic("BUG: built-in certificate: " + err.Error())
		case root.Constraint != nil:
			pool.AddCertWithConstraint(c, root.Constraint)
		default:
			pool.AddCert(c)
		}
	}
}
