package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// The worker's open files, as runc hands them in (--preserve-fds).
const (
	// FdBinary is the shim's binary; the worker's process is /proc/self/fd/3.
	FdBinary = 3 + iota
	// FdApp is the folder of the prepared app.
	FdApp
	// FdReport is where the worker says that it listens, or why not.
	FdReport
	// FdState is the folder where the app keeps its state.
	FdState
	// FdLog is where the worker logs: standard output and error are the guest's.
	FdLog
	fdEnd
)

// WorkerFiles is the number of the worker's open files after standard input, output and error.
const WorkerFiles = fdEnd - FdBinary

// maxReport bounds a report, in bytes: one sentence and some numbers.
const maxReport = 64 << 10

// Report is what a worker says once: that it listens, or the reason why it does not.
type Report struct {
	// Error is a sentence, or "" if the worker listens.
	Error string `json:"error,omitempty"`
	// Load and Listen say how long the worker loaded the app and bound its listeners.
	Load   time.Duration `json:"load"`
	Listen time.Duration `json:"listen"`
	// Warnings are what a person should know although the worker listens.
	Warnings []string `json:"warnings,omitempty"`
}

// ErrNoReport says that a worker ended without a word.
var ErrNoReport = errors.New("the worker ended before it was ready")

// ReadReport reads the report of a worker; it blocks until it is there or the worker has closed its end.
func ReadReport(r io.Reader) (Report, error) {
	var report Report
	b, err := io.ReadAll(io.LimitReader(r, maxReport+1))
	switch {
	case err != nil:
		return report, fmt.Errorf("read the worker's report: %w", err)
	case len(b) == 0:
		return report, ErrNoReport
	case len(b) > maxReport:
		return report, fmt.Errorf("the worker's report has more than %d bytes", maxReport)
	}
	if err := json.Unmarshal(b, &report); err != nil {
		return report, fmt.Errorf("decode the worker's report: %w", err)
	}
	report.Error = Printable(report.Error)
	for i := range report.Warnings {
		report.Warnings[i] = Printable(report.Warnings[i])
	}
	return report, nil
}

// Write writes the report to w.
func (r Report) Write(w io.Writer) error {
	if most := maxReport / 8; len(r.Error) > most { // JSON makes six bytes of some; an error is a sentence
		r.Error = strings.ToValidUTF8(r.Error[:most], "")
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
