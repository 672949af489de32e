package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, last string
		ok             bool
	}{
		{"no test ran is an error", ``, "0 passed, 0 failed, 0 skipped", false},
		{
			"passed and skipped tests are counted",
			`{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: needs root\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Elapsed":1}`,
			"1 passed, 0 failed, 1 skipped", true,
		},
		{
			"a failed test counts once, not its package again",
			`{"Action":"output","Package":"p","Test":"TestA","Output":"boom\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			"0 passed, 1 failed, 0 skipped", false,
		},
		{
			"a package that is not built fails the run",
			`{"Action":"pass","Package":"q","Test":"TestA"}
{"Action":"build-output","ImportPath":"p [p.test]","Output":"syntax error\n"}
{"Action":"build-fail","ImportPath":"p [p.test]"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			"1 passed, 1 failed, 0 skipped", false,
		},
		{
			"a package that dies after a test failed elsewhere fails the run too",
			`{"Action":"fail","Package":"q","Test":"TestA"}
{"Action":"fail","Package":"q"}
{"Action":"output","Package":"p","Output":"panic: at start\n"}
{"Action":"fail","Package":"p"}`,
			"0 passed, 2 failed, 0 skipped", false,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := run(strings.NewReader(tt.in), &out)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; last != tt.last || (err == nil) != tt.ok {
				t.Errorf("last line %q, error %v; want %q, ok %v\n%s", last, err, tt.last, tt.ok, out.String())
			}
		})
	}
}
