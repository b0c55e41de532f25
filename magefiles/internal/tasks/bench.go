package tasks

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// Bench runs the benchmarks of packages, all if none is named, one package after
// the other, and prints a table for each benchmark.
func Bench(ctx context.Context, out io.Writer, packages ...string) error {
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	args := append([]string{"test", "-run", "^$", "-bench", ".", "-benchmem", "-p", "1", "-timeout", "2h"}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = os.Stderr
	lines, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	printBenchmarks(out, lines)
	return cmd.Wait()
}

// benchRow is one line of go test -bench: the case of a benchmark, and its
// metrics by unit.
type benchRow struct {
	name    string
	metrics map[string]string
}

// benchTable is a benchmark with all its cases. units are in the order of their
// appearance.
type benchTable struct {
	pkg, name string
	units     []string
	rows      []benchRow
}

// benchName splits "BenchmarkStop/threads=64-2" into the benchmark and its case.
var benchName = regexp.MustCompile(`^Benchmark([^/\s]+?)(?:/(\S+?))?(?:-\d+)?$`)

// printBenchmarks reads what go test -bench prints. What is neither a figure nor
// a heading is printed as it is.
func printBenchmarks(out io.Writer, r io.Reader) {
	var t benchTable
	pkg := ""
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) > 1 && f[0] == "pkg:" {
			pkg = f[1]
		}
		if len(f) == 0 || len(f) == 1 && strings.HasPrefix(f[0], "Benchmark") || f[0] == "PASS" || f[0] == "?" || slices.Contains([]string{"goos:", "goarch:", "pkg:", "cpu:"}, f[0]) {
			continue
		}
		m := benchName.FindStringSubmatch(f[0])
		if m == nil || len(f) < 4 {
			t.print(out)
			t = benchTable{}
			fmt.Fprintln(out, s.Text())
			continue
		}
		if t.name != m[1] || t.pkg != pkg {
			t.print(out)
			t = benchTable{pkg: pkg, name: m[1]}
		}
		t.add(m[2], f[2:])
	}
	t.print(out)
	_, _ = io.Copy(io.Discard, r) // of a line that is too long
}

// add takes in pairs of a figure and its unit.
func (t *benchTable) add(name string, pairs []string) {
	row := benchRow{name, make(map[string]string)}
	for ; len(pairs) >= 2; pairs = pairs[2:] {
		unit := pairs[1]
		row.metrics[unit] = pairs[0]
		if !slices.Contains(t.units, unit) {
			t.units = append(t.units, unit)
		}
	}
	t.rows = append(t.rows, row)
}

// percentile is the mark of a unit that is the 99th percentile of another one.
const percentile = "-p99"

// print prints the table. A percentile stands behind its median.
func (t *benchTable) print(out io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	units := slices.DeleteFunc(slices.Clone(t.units), func(u string) bool {
		_, ok := t.median(u)
		return ok || !slices.Contains(t.units, "ns/op") && (u == "B/op" || u == "allocs/op")
	})
	fmt.Fprintf(out, "\n%s: %s\n", t.pkg, t.name)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for _, u := range units {
		if slices.ContainsFunc(t.units, func(p string) bool { m, ok := t.median(p); return ok && m == u }) {
			u += " (p99)"
		}
		fmt.Fprintf(w, "%s\t", u)
	}
	fmt.Fprintln(w)
	for _, r := range t.rows {
		for _, u := range units {
			cell := r.metrics[u]
			for p, v := range r.metrics {
				if m, ok := t.median(p); ok && m == u {
					cell += " (" + v + ")"
				}
			}
			fmt.Fprintf(w, "%s\t", cell)
		}
		fmt.Fprintf(w, "  %s\n", r.name)
	}
	w.Flush()
}

// median returns the unit of which another one is the percentile.
func (t *benchTable) median(unit string) (string, bool) {
	m := strings.Replace(unit, percentile, "", 1)
	return m, m != unit && slices.Contains(t.units, m)
}
