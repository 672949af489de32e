package core

import (
	"fmt"
	"unicode/utf8"
)

// FormatError says where bytes are not a core module that this engine takes.
type FormatError struct {
	// Offset is the byte offset in the module.
	Offset int
	// Section is the kind of section that holds the offset, or "" outside of any.
	Section string
	// Msg says what is wrong.
	Msg string
}

// Error returns offset, section and message.
func (e *FormatError) Error() string {
	if e.Section == "" {
		return fmt.Sprintf("at %#x: %s", e.Offset, e.Msg)
	}
	return fmt.Sprintf("at %#x (%s section): %s", e.Offset, e.Section, e.Msg)
}

// reader reads buf from pos up to end, where end is that of the current section. The first error sticks:
// it moves pos to end, and every later read returns zero.
type reader struct {
	buf      []byte
	pos, end int
	section  string
	err      *FormatError
}

// fail records the first error.
func (r *reader) fail(offset int, format string, args ...any) {
	if r.err == nil {
		r.err = &FormatError{Offset: offset, Section: r.section, Msg: fmt.Sprintf(format, args...)}
	}
	r.pos = r.end
}

func (r *reader) byte() byte {
	if r.pos >= r.end {
		r.fail(r.pos, "unexpected end")
		return 0
	}
	b := r.buf[r.pos]
	r.pos++
	return b
}

// u32 reads an unsigned LEB128 number of at most five bytes.
func (r *reader) u32() uint32 {
	start := r.pos
	var v uint32
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if shift == 28 && b > 0x0f {
			r.fail(start, "number is not a u32")
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

// skipSigned skips a signed LEB128 number of at most so many bytes.
func (r *reader) skipSigned(maxLen int) {
	start := r.pos
	for r.byte() >= 0x80 {
		if r.pos-start >= maxLen {
			r.fail(start, "number has more than %d bytes", maxLen)
		}
	}
}

// maxItems bounds each vector but those of bytes. It is the limit that browsers have for the functions,
// types, imports and exports of a module; wazero needs up to some 100 bytes for each.
const maxItems = 1_000_000

// count reads the length of a vector, each of whose elements has at least one byte.
func (r *reader) count() int {
	start := r.pos
	n := r.size()
	if n > maxItems {
		r.fail(start, "a vector has %d elements, the limit is %d", n, maxItems)
		return 0
	}
	return n
}

// size reads a number of bytes, or of elements that have at least one byte each.
func (r *reader) size() int {
	start := r.pos
	n := r.u32()
	if left := r.end - r.pos; int64(n) > int64(left) {
		r.fail(start, "unexpected end: length %d, %d bytes are left", n, left)
		return 0
	}
	return int(n)
}

// vec reads a vector.
func vec[T any](r *reader, elem func() T) []T {
	n := r.count()
	if n == 0 {
		return nil
	}
	out := make([]T, 0, n)
	for len(out) < n && r.err == nil {
		out = append(out, elem())
	}
	return out
}

// each reads a vector for what elem does with it.
func (r *reader) each(elem func()) {
	for range r.count() {
		if elem(); r.err != nil {
			return
		}
	}
}

// bytes reads n bytes, which alias the module.
func (r *reader) bytes(n int) []byte {
	if n > r.end-r.pos {
		r.fail(r.pos, "unexpected end: %d bytes wanted, %d are left", n, r.end-r.pos)
		return nil
	}
	b := r.buf[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return b
}

// blob reads a length and as many bytes.
func (r *reader) blob() []byte { return r.bytes(r.size()) }

func (r *reader) name() string {
	start := r.pos
	b := r.blob()
	if !utf8.Valid(b) {
		r.fail(start, "name is not UTF-8")
		return ""
	}
	return string(b)
}

// within runs f on the next n bytes, all of which it must read.
func (r *reader) within(n int, f func()) {
	end := r.end
	if n > end-r.pos {
		r.fail(r.pos, "unexpected end: %d bytes wanted, %d are left", n, end-r.pos)
		return
	}
	r.end = r.pos + n
	f()
	if r.err == nil && r.pos != r.end {
		r.fail(r.pos, "%d bytes left over", r.end-r.pos)
	}
	r.end = end
	if r.err != nil {
		r.pos = end
	}
}
