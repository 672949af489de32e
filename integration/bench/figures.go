package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figures are all that was measured.
type figures struct {
	Machine string     `json:"machine"`
	Starts  []*started `json:"starts"`
	Memory  []*memory  `json:"memory"`
	Loads   []*loads   `json:"loads"`
}

// sample are measurements of the same thing.
type sample struct{ sorted []float64 }

func (s *sample) add(f float64) {
	i, _ := slices.BinarySearch(s.sorted, f)
	s.sorted = slices.Insert(s.sorted, i, f)
}

func (s *sample) median() float64 {
	if len(s.sorted) == 0 {
		return 0
	}
	return s.sorted[len(s.sorted)/2]
}

// MarshalJSON writes the median, the extremes, and how many there are.
func (s *sample) MarshalJSON() ([]byte, error) {
	if len(s.sorted) == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(map[string]float64{
		"median": s.median(), "min": s.sorted[0], "max": s.sorted[len(s.sorted)-1], "n": float64(len(s.sorted)),
	})
}

// spread are the least, the median and the largest.
func (s *sample) spread() string {
	if len(s.sorted) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f/%.0f/%.0f", s.sorted[0], s.median(), s.sorted[len(s.sorted)-1])
}

func millis(d time.Duration) float64 { return d.Seconds() * 1e3 }

func (f *figures) printStarts(w io.Writer) {
	fmt.Fprintln(w, "`ctr run` to the first answer, ms, least/median/largest; phases of the shim in warm starts, ms")
	var base float64
	for _, s := range f.Starts {
		if s.App == linux {
			base = s.Warm.median()
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "app\tfirst on the node\twarm\twarm, × runc\t%s\t\n", strings.Join(phaseNames, "\t"))
	for _, s := range f.Starts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t", s.App, s.Cold.spread(), s.Warm.spread(), s.Warm.median()/base)
		for _, phase := range phaseNames {
			if ms, ok := s.Phases[phase]; ok {
				fmt.Fprintf(t, "%.1f", ms)
			}
			fmt.Fprint(t, "\t")
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	fmt.Fprintln(w)
}

func (f *figures) printMemory(w io.Writer, pods int) {
	fmt.Fprintln(w, "PSS after one request, MB: all processes of a pod, and the app's process alone")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "app\tprocesses\tone pod\tapp alone\teach of %[1]d pods\tapp alone, of %[1]d\t\n", pods)
	for _, m := range f.Memory {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", m.App, m.Procs, m.One, m.OneApp, m.Many, m.ManyApp)
	}
	t.Flush()
	fmt.Fprintln(w)
}

func (f *figures) printLoads(w io.Writer) {
	fmt.Fprintln(w, "load over connections that are kept, the next request when one is answered; medians")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "app\tconnections\trequests/s\tCPU/request, µs\tp50, ms\tp99, ms\t")
	for _, l := range f.Loads {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.2f\t%.2f\t\n", l.App, l.Connections, l.Rate.median(), l.CPU.median(), l.P50.median(), l.P99.median())
	}
	t.Flush()
}
