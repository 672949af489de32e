package oci

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/spinkube/containerd-shim-spin-go/pkg/oci/lockedapp"
)

// Blobs gives access to content by its digest. Nothing is trusted: whoever reads a blob compares it with its digest.
type Blobs interface {
	// Open returns the blob, positioned at its start; the caller closes it. The error is fs.ErrNotExist if there is no
	// such blob.
	Open(ctx context.Context, d digest.Digest) (*os.File, error)
}

// descriptor is what is read of an OCI descriptor.
// See https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// blob reads content that must be of a certain size and digest. It says so when that is not the case, instead of io.EOF.
type blob struct {
	ctx  context.Context // of the call that reads
	file *os.File
	want descriptor
	left int64
	hash hash.Hash
}

func openBlob(ctx context.Context, src Blobs, want descriptor) (*blob, error) {
	if err := lockedapp.ValidateDigest(want.Digest); err != nil {
		return nil, err
	}
	file, err := src.Open(ctx, want.Digest)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", want.Digest, err)
	}
	return &blob{ctx: ctx, file: file, want: want, left: want.Size, hash: sha256.New()}, nil
}

func (b *blob) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.file.Read(p)
	b.hash.Write(p[:n])
	b.left -= int64(n)
	switch {
	case b.left < 0, err == io.EOF && b.left > 0:
		return 0, fmt.Errorf("blob %s is not of the %d bytes that its descriptor says", b.want.Digest, b.want.Size)
	case err == io.EOF:
		if got := digest.NewDigest(digest.SHA256, b.hash); got != b.want.Digest {
			return 0, fmt.Errorf("blob %s is damaged: its digest is %s", b.want.Digest, got)
		}
	}
	return n, err
}

func (b *blob) Close() error {
	return b.file.Close()
}

// readDocument reads a blob that is held in memory whole.
func readDocument(ctx context.Context, src Blobs, d descriptor) ([]byte, error) {
	if d.Size < 0 || d.Size > lockedapp.MaxSize {
		return nil, fmt.Errorf("document %.100s of %d bytes, at most %d are read", d.Digest, d.Size, lockedapp.MaxSize)
	}
	b, err := openBlob(ctx, src, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}

// capped reads at most that many bytes, then fails.
type capped struct {
	r    io.Reader
	most int64
	n    int64 // bytes read
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.n > c.most {
		return 0, fmt.Errorf("more than %d bytes", c.most)
	}
	return n, err
}
