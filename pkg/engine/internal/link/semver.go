package link

import (
	"strconv"
	"strings"
)

// version is a semantic version as far as matching needs it: pre is what follows the three numbers.
type version struct {
	numbers [3]uint64
	pre     string
}

// splitVersion splits `wasi:io/streams@0.2.0` into its parts. ok is false if there is no well-formed version.
func splitVersion(name string) (base string, v version, ok bool) {
	base, text, ok := strings.Cut(name, "@")
	if !ok {
		return name, v, false
	}
	if i := strings.IndexAny(text, "-+"); i >= 0 {
		text, v.pre = text[:i], text[i:]
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return name, v, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return name, v, false
		}
		v.numbers[i] = n
	}
	return base, v, true
}

// track returns what versions must have in common to be compatible: the leftmost number that is not 0 and all
// before it.
func (v version) track() [3]uint64 {
	t := v.numbers
	switch {
	case t[0] != 0:
		t[1], t[2] = 0, 0
	case t[1] != 0:
		t[2] = 0
	}
	return t
}

func (v version) less(w version) bool {
	for i := range v.numbers {
		if v.numbers[i] != w.numbers[i] {
			return v.numbers[i] < w.numbers[i]
		}
	}
	return false
}

// Match returns which of names serves want, or -1: the equal one; else, if want's version is a release, the
// newest release on the same track, older or newer than want. Pre-releases match exactly only.
// The rule is wasmtime's: a host may be older than the interface that a guest was built with, as long as it has
// what the guest uses.
func Match(names []string, want string) int {
	best, bestVersion := -1, version{}
	base, v, ok := splitVersion(want)
	for i, name := range names {
		if name == want {
			return i
		}
		b, w, released := splitVersion(name)
		if !ok || !released || v.pre != "" || w.pre != "" || b != base || w.track() != v.track() {
			continue
		}
		if best < 0 || bestVersion.less(w) {
			best, bestVersion = i, w
		}
	}
	return best
}
