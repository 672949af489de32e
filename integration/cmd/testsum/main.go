// Program testsum reads `go test -json` from standard input and writes what a person wants to see of it: a line per package, the
// output of what failed, the first skipped tests of a package with their reasons, and at the end "N passed, N failed, N skipped". It exits 1 if anything
// failed, was not built, or if no test ran.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// maxSkips is the most skipped tests of a package that are named: suites skip hundreds for one reason.
const maxSkips = 3

type summary struct {
	out                     io.Writer
	output                  map[string][]string // by package and test
	failedIn                map[string]bool     // packages with a failed test
	skippedIn               map[string]int      // skipped tests by package
	passed, failed, skipped int
	broken                  int // packages that failed outside a test: not built, panicked, timed out
}

func run(r io.Reader, w io.Writer) error {
	s := summary{out: w, output: map[string][]string{}, failedIn: map[string]bool{}, skippedIn: map[string]int{}}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(w, "%s", line) // the go command's own words
			} else {
				s.add(e)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", s.passed, s.failed+s.broken, s.skipped)
	switch {
	case s.failed+s.broken > 0:
		return fmt.Errorf("%d tests and %d packages failed", s.failed, s.broken)
	case s.passed == 0:
		return fmt.Errorf("no test ran")
	}
	return nil
}

func (s *summary) add(e event) {
	key := cmp.Or(e.Package, e.ImportPath) + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		s.output[key] = append(s.output[key], e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		s.addPackage(e, key)
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		s.skipped++
		if s.skippedIn[e.Package]++; s.skippedIn[e.Package] <= maxSkips {
			fmt.Fprintf(s.out, "skip  %s %s: %s\n", e.Package, e.Test, reason(s.output[key]))
		}
	case "fail":
		s.failed++
		s.failedIn[e.Package] = true
		s.print(key)
	}
	delete(s.output, key)
}

func (s *summary) addPackage(e event, key string) {
	if more := s.skippedIn[e.Package] - maxSkips; more > 0 {
		fmt.Fprintf(s.out, "skip  %s: %d more\n", e.Package, more)
	}
	switch {
	case e.Action == "skip": // no test files
	case e.Action == "pass":
		fmt.Fprintf(s.out, "ok    %s %.1fs\n", e.Package, e.Elapsed)
	default:
		if !s.failedIn[e.Package] {
			s.broken++
		}
		s.print(e.FailedBuild + " ")
		s.print(key)
		for k := range s.output { // tests that were running when the package died
			if strings.HasPrefix(k, e.Package+" ") {
				s.print(k)
			}
		}
		fmt.Fprintf(s.out, "FAIL  %s %.1fs\n", e.Package, e.Elapsed)
	}
	delete(s.output, key)
}

func (s *summary) print(key string) {
	for _, line := range s.output[key] {
		fmt.Fprint(s.out, line)
	}
	delete(s.output, key)
}

// reason is the message of a skipped test: the lines of its output that the test itself wrote.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}
