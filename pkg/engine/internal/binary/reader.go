package binary

import (
	"fmt"
	"unicode/utf8"
)

// fail records the first error and makes every later read return zero.
func (d *decoder) fail(offset int, format string, args ...any) {
	if d.err == nil {
		d.err = &FormatError{Offset: offset, Section: d.section, Msg: fmt.Sprintf(format, args...)}
	}
	d.pos = d.end
}

func (d *decoder) byte() byte {
	if d.pos >= d.end {
		d.fail(d.pos, "unexpected end")
		return 0
	}
	b := d.buf[d.pos]
	d.pos++
	return b
}

// u32 reads an unsigned LEB128 number. Padding is allowed as long as the number has at most five bytes.
func (d *decoder) u32() uint32 {
	start := d.pos
	var v uint32
	for shift := 0; ; shift += 7 {
		b := d.byte()
		if shift == 28 && b > 0x0f {
			d.fail(start, "number is not a u32")
			return 0
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

// count reads the length of a vector, each of whose elements has at least one byte.
func (d *decoder) count() int {
	start := d.pos
	n := d.u32()
	if left := d.end - d.pos; int64(n) > int64(left) {
		d.fail(start, "unexpected end: a vector has %d elements, %d bytes are left", n, left)
		return 0
	}
	if d.elements += int(n); d.elements > maxElements {
		d.fail(start, "the vectors of the file have more than %d elements", maxElements)
		return 0
	}
	return int(n)
}

// vec decodes a vector.
func vec[T any](d *decoder, elem func() T) []T {
	n := d.count()
	if n == 0 {
		return nil
	}
	out := make([]T, 0, n)
	for len(out) < n && d.err == nil {
		out = append(out, elem())
	}
	return out
}

// optional decodes a T? of the grammar.
func optional[T any](d *decoder, elem func() T) (v T, ok bool) {
	start := d.pos
	switch b := d.byte(); b {
	case 0x00:
		return v, false
	case 0x01:
		return elem(), true
	default:
		d.fail(start, "%#x does not say whether an optional part follows, 0x0 or 0x1 does", b)
		return v, false
	}
}

// flag reads a byte that is 0 or 1.
func (d *decoder) flag(what string) bool {
	start := d.pos
	b := d.byte()
	if b > 1 {
		d.fail(start, "%#x is not a boolean for %s", b, what)
	}
	return b == 1
}

// zero reads a byte that must be zero.
func (d *decoder) zero(what string) {
	start := d.pos
	if b := d.byte(); b != 0 {
		d.fail(start, "%s must be 0x0, is %#x", what, b)
	}
}

// bytes reads n bytes, which alias the input.
func (d *decoder) bytes(n int) []byte {
	if n > d.end-d.pos {
		d.fail(d.pos, "unexpected end: %d bytes wanted, %d are left", n, d.end-d.pos)
		return nil
	}
	b := d.buf[d.pos : d.pos+n : d.pos+n]
	d.pos += n
	return b
}

// name reads a length and as many bytes of UTF-8.
func (d *decoder) name() string {
	start := d.pos
	n := d.u32()
	if n > maxNameLen {
		d.fail(start, "a name has %d bytes, the limit is %d", n, maxNameLen)
		return ""
	}
	b := d.bytes(int(n))
	if !utf8.Valid(b) {
		d.fail(start, "name is not UTF-8")
		return ""
	}
	return string(b)
}
