package oci

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
)

// maxEntries is the most entries of one archive: its files, and a folder for each.
const maxEntries = 2 * maxAssets

// bundle reads a tar+gzip archive of static files, and writes those that are wanted to all places where they are wanted;
// these are then wanted no more. A file is known by its digest: under which name the archive has it does not matter, but an
// archive with names or entries that no tool of Spin's writes is refused.
func (o *output) bundle(r io.Reader, wanted map[digest.Digest][]target) error {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	limited := &capped{r: unzipped, most: maxTotalBytes}
	archive := tar.NewReader(limited)
	for entries := 0; ; entries++ {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if entries == maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		if err := o.entry(header, archive, wanted); err != nil {
			return fmt.Errorf("entry %.200q: %w", header.Name, err)
		}
	}
	// The checksums of gzip and of the blob are compared at their end, which lies behind the end of the archive.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

func (o *output) entry(header *tar.Header, content io.Reader, wanted map[digest.Digest][]target) error {
	name := strings.TrimSuffix(strings.TrimPrefix(header.Name, "./"), "/")
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeDir:
		if header.Name == "./" || header.Name == "." {
			return nil
		}
		return checkPath(name)
	case tar.TypeReg:
		if err := checkPath(name); err != nil {
			return err
		}
	default:
		return errors.New("neither a file nor a folder")
	}
	got, err := o.receive(content, maxTotalBytes)
	if err != nil {
		return err
	}
	targets := wanted[got]
	if len(targets) == 0 {
		return o.root.Remove(incoming)
	}
	delete(wanted, got)
	if err := o.place(targets[0]); err != nil {
		return fmt.Errorf("%s: %w", targets[0], err)
	}
	for _, to := range targets[1:] {
		if err := o.copy(targets[0], to); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	return nil
}
