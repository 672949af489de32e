package wasi

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// maxRandomBytes bounds the bytes of one call, which the host holds besides the guest until they are
// copied. Programs ask for seeds and keys, or fill a buffer.
const maxRandomBytes = 16 << 20

// randomBytes is get-random-bytes and get-insecure-random-bytes: the secure ones cost no more.
func randomBytes(c *engine.Call) error {
	n := c.U64()
	if n > maxRandomBytes {
		return &engine.Trap{Msg: "more random bytes at once than maxRandomBytes, 16 MiB"}
	}
	b := make([]byte, n)
	rand.Read(b) // never fails
	c.PutBytes(b)
	return nil
}

// randomU64 is get-random-u64 and get-insecure-random-u64.
func randomU64(c *engine.Call) error {
	c.PutU64(secureU64())
	return nil
}

func insecureSeed(c *engine.Call) error {
	c.PutU64(secureU64())
	c.PutU64(secureU64())
	return nil
}

func secureU64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
