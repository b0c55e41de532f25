package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/fother/fother/apply"
)

// benchTool builds the command as it is delivered.
func benchTool(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "fother")
	execute(b, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	return path
}

// timed runs a command and returns what it wrote, its time with start and end of the process, and
// its peak memory in bytes.
func timed(b *testing.B, path string, args ...string) (out []byte, wall time.Duration, peak int64) {
	b.Helper()
	cmd := exec.Command(path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	wall = time.Since(begin)
	if err != nil && cmd.ProcessState.ExitCode() != exitNothing {
		b.Fatalf("%v: %v\n%s", args, err, stderr.Bytes())
	}
	return stdout.Bytes(), wall, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
}

// middle reports the median and the 99th percentile, and returns the median.
func middle(b *testing.B, name string, d []time.Duration, unit time.Duration, unitName string) float64 {
	slices.Sort(d)
	m := float64(d[len(d)/2]) / float64(unit)
	b.ReportMetric(m, name+"-"+unitName)
	b.ReportMetric(float64(d[len(d)*99/100])/float64(unit), name+"-p99-"+unitName)
	return m
}

// BenchmarkPatchOne patches a process and reverts that, each by a process of the
// command: its time from start to end, its peak memory, and the stop. A start of
// the command that does nothing is told beside it.
func BenchmarkPatchOne(b *testing.B) {
	const rounds = 100
	fother, prog := benchTool(b), fixture(b)
	file := filepath.Join(b.TempDir(), "p.kpatch")
	write(b, file, prog.patch(b, "default", 1))
	pid := fmt.Sprint(startSleepers(b, prog.bin, 1)[0])
	times := map[string][]time.Duration{}
	peak := map[string]int64{}
	step := func(name string, args ...string) {
		out, wall, rss := timed(b, fother, args...)
		times[name], peak[name] = append(times[name], wall), max(peak[name], rss)
		var told []struct{ Result *apply.Result }
		if json.Unmarshal(out, &told) == nil && len(told) == 1 && told[0].Result != nil {
			times[name+"-stop"] = append(times[name+"-stop"], told[0].Result.Stop.Total)
		}
	}
	for range rounds {
		step("start", "-h")
		step("patch", "patch", "--json", "-p", pid, file)
		step("unpatch", "unpatch", "--json", "-p", pid)
	}
	b.ReportMetric(0, "ns/op")
	for _, name := range []string{"start", "patch", "unpatch"} {
		middle(b, name, times[name], time.Millisecond, "ms")
		b.ReportMetric(float64(peak[name])/1e6, name+"-peak-MB")
	}
	middle(b, "patch-stop", times["patch-stop"], time.Microsecond, "µs")
	middle(b, "unpatch-stop", times["unpatch-stop"], time.Microsecond, "µs")
}

// startSleepers starts a program n times.
func startSleepers(b *testing.B, bin string, n int) (pids []int) {
	b.Helper()
	for range n {
		cmd := exec.Command(bin)
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { in.Close(); cmd.Wait() })
		pids = append(pids, cmd.Process.Pid)
	}
	time.Sleep(50 * time.Millisecond) // until all wait
	return pids
}

// BenchmarkAll reads all processes of the machine, to which some are added,
// by info and by a patch that fits none, beside a bare read of the same
// processes' maps files in the same run, by a process that does nothing else: this test's binary is not
// that, so it is told without the start of a process, and the command's with and
// without.
func BenchmarkAll(b *testing.B) {
	fother, prog := benchTool(b), fixture(b)
	file := filepath.Join(b.TempDir(), "p.kpatch")
	write(b, file, foreign(b, prog.patch(b, "default", 1), "00112233445566778899aabbccddeeff00112233"))
	for _, more := range []int{0, 100, 300} {
		b.Run(fmt.Sprintf("more=%d", more), func(b *testing.B) {
			startSleepers(b, prog.bin, more)
			benchmarkAll(b, fother, file)
		})
	}
}

func benchmarkAll(b *testing.B, fother, file string) {
	const rounds = 20
	times := map[string][]time.Duration{}
	peak := map[string]int64{}
	processes := 0
	for range rounds {
		begin := time.Now()
		processes = readAllMaps(b)
		times["maps"] = append(times["maps"], time.Since(begin))
		for name, args := range map[string][]string{"start": {"-h"}, "info": {"info", "-p", "all"}, "patch": {"patch", "-p", "all", file}} {
			_, wall, rss := timed(b, fother, args...)
			times[name], peak[name] = append(times[name], wall), max(peak[name], rss)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(processes), "processes")
	bare, start := middle(b, "maps", times["maps"], time.Millisecond, "ms"), middle(b, "start", times["start"], time.Millisecond, "ms")
	for _, name := range []string{"info", "patch"} {
		m := middle(b, name, times[name], time.Millisecond, "ms")
		b.ReportMetric((m-start)/bare, name+"/maps")
		b.ReportMetric(float64(peak[name])/1e6, name+"-peak-MB")
	}
}

// readAllMaps reads the maps files of all processes, and returns how many have
// one.
func readAllMaps(b *testing.B) (n int) {
	b.Helper()
	pids, err := apply.Processes()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for _, pid := range pids {
		f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			continue
		}
		for {
			if _, err = f.Read(buf); err != nil {
				break
			}
		}
		f.Close()
		if err == io.EOF {
			n++
		}
	}
	return n
}
