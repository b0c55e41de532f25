package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/fother/fother/apply"
)

// spent is what a run of the command took.
type spent struct{ wall, cpu time.Duration }

// timed runs a command and returns what it wrote, and its time with start and end
// of the process.
func timed(b *testing.B, path string, args ...string) (out []byte, took spent) {
	b.Helper()
	cmd := exec.Command(path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	took.wall = time.Since(begin)
	if err != nil && cmd.ProcessState.ExitCode() != exitNothing {
		b.Fatalf("%v: %v\n%s", args, err, stderr.Bytes())
	}
	took.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return stdout.Bytes(), took
}

// peakOf runs a command and returns its peak memory in MB. The kernel adds to what
// it tells of a child what the parent had, so the child is stopped at its end and
// asked.
func peakOf(b *testing.B, path string, args ...string) (peak float64) {
	b.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the tracee belongs to it
		var err error
		peak, err = tracedPeak(path, args)
		done <- err
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return peak
}

func tracedPeak(path string, args []string) (peak float64, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	p, err := os.StartProcess(path, append([]string{path}, args...), &os.ProcAttr{Files: []*os.File{null, null, null}, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return 0, err
	}
	defer p.Release()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(p.Pid, &ws, 0, nil); err != nil {
		return 0, err
	}
	if err := syscall.PtraceSetOptions(p.Pid, syscall.PTRACE_O_TRACEEXIT); err != nil {
		return 0, err
	}
	for sig := 0; ; {
		if err := syscall.PtraceCont(p.Pid, sig); err != nil {
			return 0, err
		}
		if _, err := syscall.Wait4(p.Pid, &ws, 0, nil); err != nil {
			return 0, err
		}
		switch {
		case !ws.Stopped():
			return peak, nil
		case int(ws)>>8 == int(syscall.SIGTRAP)|syscall.PTRACE_EVENT_EXIT<<8:
			sig = 0
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
			if err != nil {
				return 0, err
			}
			_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
			var kilobytes float64
			if _, err := fmt.Sscan(string(rest), &kilobytes); err != nil {
				return 0, err
			}
			peak = kilobytes * 1024 / 1e6
		default:
			sig = int(ws.StopSignal())
		}
	}
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
// the command that does nothing is told beside it, and one of the whole program,
// which reads registries.
func BenchmarkPatchOne(b *testing.B) {
	const rounds = 100
	fother, prog := splitTool(b), fixture(b)
	file := filepath.Join(b.TempDir(), "p.kpatch")
	write(b, file, prog.patch(b, "default", 1))
	pid := fmt.Sprint(startSleepers(b, prog.bin, 1)[0])
	times := map[string][]time.Duration{}
	step := func(name string, args ...string) {
		out, took := timed(b, fother, args...)
		times[name] = append(times[name], took.wall)
		var told []struct{ Result *apply.Result }
		if json.Unmarshal(out, &told) == nil && len(told) == 1 && told[0].Result != nil {
			times[name+"-stop"] = append(times[name+"-stop"], told[0].Result.Stop.Total)
		}
	}
	patch, unpatch := []string{"patch", "--json", "-p", pid, file}, []string{"unpatch", "--json", "-p", pid}
	for range rounds {
		step("start", "-h")
		_, whole := timed(b, filepath.Join(filepath.Dir(fother), wholeName), "-h")
		times["whole-start"] = append(times["whole-start"], whole.wall)
		step("patch", patch...)
		step("unpatch", unpatch...)
	}
	b.ReportMetric(0, "ns/op")
	for _, name := range []string{"start", "whole-start", "patch", "unpatch"} {
		middle(b, name, times[name], time.Millisecond, "ms")
	}
	b.ReportMetric(peakOf(b, fother, "-h"), "start-peak-MB")
	b.ReportMetric(peakOf(b, fother, patch...), "patch-peak-MB")
	b.ReportMetric(peakOf(b, fother, unpatch...), "unpatch-peak-MB")
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
// by info and by a patch that fits none, in turns with a bare read of the same
// processes' maps files. The command's time is told with the start of its process, and as
// a multiple of the bare read without it: by the clock, and by the processors' time,
// on which a busy machine has no influence.
func BenchmarkAll(b *testing.B) {
	fother, prog := splitTool(b), fixture(b)
	file := filepath.Join(b.TempDir(), "p.kpatch")
	write(b, file, foreign(b, prog.patch(b, "default", 1), "00112233445566778899aabbccddeeff00112233"))
	for _, more := range []int{0, 100, 300} {
		b.Run(fmt.Sprintf("more=%d", more), func(b *testing.B) {
			startSleepers(b, prog.bin, more)
			benchmarkAll(b, map[string][]string{"start": {fother, "-h"}, "info": {fother, "info", "-p", "all"}, "patch": {fother, "patch", "-p", "all", file}})
		})
	}
}

func benchmarkAll(b *testing.B, commands map[string][]string) {
	const rounds = 20
	wall, cpu := map[string][]time.Duration{}, map[string][]time.Duration{}
	processes := 0
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range rounds {
		begin, used := time.Now(), threadTime(b)
		processes = readAllMaps(b)
		wall["maps"], cpu["maps"] = append(wall["maps"], time.Since(begin)), append(cpu["maps"], threadTime(b)-used)
		for name, c := range commands {
			_, took := timed(b, c[0], c[1:]...)
			wall[name], cpu[name] = append(wall[name], took.wall), append(cpu[name], took.cpu)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(processes), "processes")
	m, c := map[string]float64{}, map[string]float64{}
	for _, name := range []string{"maps", "start", "info", "patch"} {
		m[name] = middle(b, name, wall[name], time.Millisecond, "ms")
		c[name] = middle(b, name+"-cpu", cpu[name], time.Millisecond, "ms")
	}
	for _, name := range []string{"info", "patch"} {
		b.ReportMetric((m[name]-m["start"])/m["maps"], name+"/maps")
		b.ReportMetric((c[name]-c["start"])/c["maps"], name+"/maps-cpu")
		b.ReportMetric(peakOf(b, commands[name][0], commands[name][1:]...), name+"-peak-MB")
	}
}

// threadTime is the processor's time of the calling thread.
func threadTime(b *testing.B) time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
