// Package handoff is what the processes of the shim tell each other: the daemon and prepare (protocol.go), the daemon and the
// worker (worker.go). All of them are the same binary, so that nothing here has versions.
//
// What comes from prepare or a worker is hostile to the daemon: both handle foreign code. Messages are bounded in size and number,
// and what they say is checked.
package handoff

import "strings"

// maxPrintable bounds what a person is made to read, in bytes.
const maxPrintable = 2000

// Printable returns what another process said without what a terminal would act on, and cut where no person would read on.
func Printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxPrintable)], "?")
}
