package abi

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine/internal/component"
)

// utf16Tag marks the length of a latin1+utf16 string that is UTF-16 (UTF16_TAG).
const utf16Tag = 1 << 31

// stringRange returns the bytes of the string of the given number of code units, and how they are
// encoded: [component.Latin1OrUTF16] stands for Latin-1 then (load_string_from_range).
func (l *Lifter) stringRange(ptr, units uint32) ([]byte, component.StringEncoding) {
	enc, align, size := l.opts.Encoding, uint32(1), uint64(units)
	switch enc {
	case component.UTF16:
		align, size = 2, 2*uint64(units)
	case component.Latin1OrUTF16:
		align = 2
		if units&utf16Tag != 0 {
			enc, size = component.UTF16, 2*uint64(units^utf16Tag)
		}
	}
	trapIf(size > maxStringBytes, "string is too long")
	l.check(ptr, uint32(size), align)
	return l.mem[ptr : uint64(ptr)+size], enc
}

func decodeUTF16(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i += 2 {
		r := rune(binary.LittleEndian.Uint16(b[i:]))
		if utf16.IsSurrogate(r) {
			var low rune
			if i += 2; i < len(b) {
				low = rune(binary.LittleEndian.Uint16(b[i:]))
			}
			r = utf16.DecodeRune(r, low)
			trapIf(r == utf8.RuneError, "invalid utf-16")
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

func decodeLatin1(b []byte) string {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		out = utf8.AppendRune(out, rune(c))
	}
	return string(out)
}

// storeString writes s, which is valid UTF-8, into newly allocated guest memory and returns what names
// it there (store_string_into_range).
func (w *Lowerer) storeString(s string) (ptr, units uint32) {
	trapIf(len(s) > maxStringBytes, "string is too long")
	switch w.opts.Encoding {
	case component.UTF8:
		if len(s) == 0 {
			return w.alloc(1, 0), 0
		}
		ptr = w.alloc(1, uint32(len(s)))
		copy(w.mem[ptr:], s)
		return ptr, uint32(len(s))
	case component.Latin1OrUTF16:
		if n, ok := latin1Len(s); ok {
			ptr = w.alloc(2, n)
			for _, r := range s {
				w.mem[ptr+units] = byte(r)
				units++
			}
			return ptr, units
		}
		ptr, units = w.storeUTF16(s)
		return ptr, units | utf16Tag
	default:
		return w.storeUTF16(s)
	}
}

func (w *Lowerer) storeUTF16(s string) (ptr, units uint32) {
	var n uint32
	for _, r := range s {
		n += uint32(utf16.RuneLen(r))
	}
	trapIf(2*uint64(n) > maxStringBytes, "string is too long")
	ptr = w.alloc(2, 2*n)
	at := ptr
	for _, r := range s {
		if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
			binary.LittleEndian.PutUint16(w.mem[at:], uint16(r1))
			binary.LittleEndian.PutUint16(w.mem[at+2:], uint16(r2))
			at += 4
		} else {
			binary.LittleEndian.PutUint16(w.mem[at:], uint16(r))
			at += 2
		}
	}
	return ptr, n
}

// latin1Len returns the number of runes of s if all of them are Latin-1.
func latin1Len(s string) (n uint32, ok bool) {
	for _, r := range s {
		if r > 0xff {
			return 0, false
		}
		n++
	}
	return n, true
}
