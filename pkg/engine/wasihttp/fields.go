package wasihttp

import (
	"net/http"
	"slices"
	"strings"

	"github.com/spinkube/containerd-shim-spin-go/pkg/engine"
)

// fields is the representation of [Fields]. Names keep the case in which the guest wrote them; those of
// messages from the network are in lower case, since net/http does not keep theirs.
type fields struct {
	s         *state
	entries   []field // what is in it does not change: clipped copies share it
	size      int     // of the entries
	immutable bool
}

type field struct{ name, value string }

func (f field) size() int { return len(f.name) + len(f.value) + fieldOverhead }

// headerError is a case of WIT's variant header-error.
type headerError int

const (
	invalidSyntax headerError = iota
	forbidden
	immutable
	noError headerError = -1
)

// newFields returns fields of the entries, and counts them as held.
func newFields(s *state, entries []field, immutable bool) (*fields, error) {
	f := &fields{s: s, immutable: immutable}
	if err := s.hold(resourceOverhead); err != nil {
		return nil, err
	}
	if immutable { // the message that they are of is bounded elsewhere
		f.entries = entries
		return f, nil
	}
	if err := f.replace(entries); err != nil {
		f.drop()
		return nil, err
	}
	return f, nil
}

// replace makes entries the content of f. The error is a trap.
func (f *fields) replace(entries []field) error {
	size := 0
	for _, e := range entries {
		size += e.size()
	}
	if size > maxFieldBytes || len(entries) > maxFields {
		return &engine.Trap{Msg: "fields are larger than maxFieldBytes or maxFields"}
	}
	if err := f.s.hold(size - f.size); err != nil {
		return err
	}
	f.entries, f.size = entries, size
	return nil
}

func (f *fields) drop() { f.s.release(resourceOverhead + f.size) }

// values returns the values of a name.
func (f *fields) values(name string) (out []string) {
	for _, e := range f.entries {
		if strings.EqualFold(e.name, name) {
			out = append(out, e.value)
		}
	}
	return out
}

// without returns a copy of the entries that lacks name.
func (f *fields) without(name string) []field {
	return slices.DeleteFunc(slices.Clone(f.entries), func(e field) bool { return strings.EqualFold(e.name, name) })
}

// header returns the entries as net/http has them.
func (f *fields) header() http.Header {
	h := make(http.Header, len(f.entries)+1)
	for _, e := range f.entries {
		h.Add(e.name, e.value)
	}
	return h
}

// entriesOf returns the entries of h that guests may see, names sorted, the values of each in order.
func entriesOf(h http.Header) []field {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	out := make([]field, 0, n)
	for name, values := range h {
		name = strings.ToLower(name)
		if isForbidden(name) {
			continue
		}
		for _, v := range values {
			out = append(out, field{name, v})
		}
	}
	slices.SortStableFunc(out, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return out
}

// isForbidden says whether a header, in lower case, belongs to the connection: guests neither see nor set
// it. The list is Spin's.
func isForbidden(name string) bool {
	switch name {
	case "connection", "host", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization",
		"proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// isToken says whether s is a token of RFC 9110, section 5.6.2: the name of a header, or a method.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}

func checkName(name string) headerError {
	switch {
	case !isToken(name):
		return invalidSyntax
	case isForbidden(strings.ToLower(name)):
		return forbidden
	}
	return noError
}

// validValue says whether a header may have the value: visible bytes, spaces, tabs, and what is not ASCII.
func validValue(v []byte) bool {
	return !slices.ContainsFunc(v, func(b byte) bool { return b < ' ' && b != '\t' || b == 0x7f })
}

// putHeaderError puts a result<…, header-error> that is an error.
func putHeaderError(c *engine.Call, e headerError) {
	c.PutErr()
	c.PutCase(int(e))
}

// putFields puts an own<fields> with the entries.
func (s *state) putFields(c *engine.Call, entries []field, immutable bool) error {
	f, err := newFields(s, entries, immutable)
	if err != nil {
		return err
	}
	c.PutOwn(f)
	return nil
}

func (h *Host) fieldsNew(c *engine.Call) error {
	return h.of(c).putFields(c, nil, false)
}

func (h *Host) fieldsFromList(c *engine.Call) error {
	n := c.List()
	if n > maxFields {
		return &engine.Trap{Msg: "fields.from-list of more than maxFields"}
	}
	entries := make([]field, n)
	size := 0
	for i := range entries {
		name, value := c.String(), c.Bytes()
		e := checkName(name)
		if e == noError && !validValue(value) {
			e = invalidSyntax
		}
		if e != noError {
			putHeaderError(c, e)
			return nil
		}
		if size += len(value); size > maxFieldBytes {
			return &engine.Trap{Msg: "fields.from-list of more than maxFieldBytes"}
		}
		entries[i] = field{name, string(value)}
	}
	f, err := newFields(h.of(c), entries, false)
	if err != nil {
		return err
	}
	c.PutOk()
	c.PutOwn(f)
	return nil
}

func fieldsGet(c *engine.Call) error {
	f := engine.Rep[*fields](c)
	values := f.values(c.String())
	c.PutList(len(values))
	for _, v := range values {
		c.PutBytes([]byte(v))
	}
	return nil
}

func fieldsHas(c *engine.Call) error {
	f := engine.Rep[*fields](c)
	name := c.String()
	c.PutBool(slices.ContainsFunc(f.entries, func(e field) bool { return strings.EqualFold(e.name, name) }))
	return nil
}

func fieldsSet(c *engine.Call) error {
	f := engine.Rep[*fields](c)
	name := c.String()
	if e := f.mayChange(name); e != noError {
		putHeaderError(c, e)
		return nil
	}
	entries := f.without(name)
	n := c.List()
	if len(entries)+n > maxFields {
		return &engine.Trap{Msg: "fields.set makes more than maxFields"}
	}
	size := 0
	for range n {
		value := c.Bytes()
		if !validValue(value) {
			putHeaderError(c, invalidSyntax)
			return nil
		}
		if size += len(value); size > maxFieldBytes {
			return &engine.Trap{Msg: "fields.set of more than maxFieldBytes"}
		}
		entries = append(entries, field{name, string(value)})
	}
	return f.change(c, entries)
}

func fieldsDelete(c *engine.Call) error {
	f := engine.Rep[*fields](c)
	name := c.String()
	if e := f.mayChange(name); e != noError {
		putHeaderError(c, e)
		return nil
	}
	return f.change(c, f.without(name))
}

func fieldsAppend(c *engine.Call) error {
	f := engine.Rep[*fields](c)
	name, value := c.String(), c.Bytes()
	e := f.mayChange(name)
	if e == noError && !validValue(value) {
		e = invalidSyntax
	}
	if e != noError {
		putHeaderError(c, e)
		return nil
	}
	if len(value) > maxFieldBytes {
		return &engine.Trap{Msg: "fields.append of more than maxFieldBytes"}
	}
	return f.change(c, append(f.entries, field{name, string(value)}))
}

// mayChange says whether the values of name may be changed.
func (f *fields) mayChange(name string) headerError {
	if e := checkName(name); e != noError {
		return e
	}
	if f.immutable {
		return immutable
	}
	return noError
}

// change makes entries the content of f and puts the result of it.
func (f *fields) change(c *engine.Call, entries []field) error {
	if err := f.replace(entries); err != nil {
		return err
	}
	c.PutOk()
	return nil
}

func fieldsEntries(c *engine.Call) error {
	f := engine.Rep[*fields](c)
	c.PutList(len(f.entries))
	for _, e := range f.entries {
		c.PutString(e.name)
		c.PutBytes([]byte(e.value))
	}
	return nil
}

func fieldsClone(c *engine.Call) error {
	f := engine.Rep[*fields](c)
	return f.s.putFields(c, slices.Clip(f.entries), false)
}
