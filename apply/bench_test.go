package apply

import (
	"encoding/binary"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs/arch"
)

// BenchmarkStop measures the stop of apply and of revert beside an empty stop
// of the same process, in turns, 300 times, or FOTHER_STOP_PAIRS times. One thread of the process spins on the clock,
// the others sleep, and some of them wake a thousand times a second. Medians and 99th
// percentiles, in microseconds; what the spinning thread saw is told as a share of the
// stop, and the stops as multiples of the empty one.
//
// PROTOCOL.md has the window's system calls, and why entries in twenty pages take
// longer than half an empty stop of one thread.
func BenchmarkStop(b *testing.B) {
	for _, c := range []stopBench{
		{threads: 1, functions: 1},
		{threads: 1, functions: 20}, {threads: 1, functions: 20, large: true}, {threads: 1, functions: 20, apart: true},
		{threads: 64, functions: 20}, {threads: 64, functions: 20, large: true}, {threads: 64, functions: 20, apart: true},
		{threads: 500, functions: 20}, {threads: 500, functions: 20, large: true},
		{threads: 500, functions: 20, wakers: 20},
	} {
		b.Run(c.String(), func(b *testing.B) { benchmarkStop(b, c) })
	}
}

func benchmarkStop(b *testing.B, c stopBench) {
	pairs := stopPairs(b)
	r, patch, gaps := c.start(b)
	// As the command does.
	signal.Ignore(syscall.SIGCHLD)
	defer signal.Notify(make(chan os.Signal, 1), syscall.SIGCHLD)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var empty, applying, reverting []time.Duration
	var gap []float64
	look := func(s *Stop) time.Duration {
		gap = append(gap, float64(longestGap(b, gaps, s))/float64(s.Total))
		return s.Total
	}
	for range pairs {
		empty = append(empty, emptyStop(b, r.pid))
		applying = append(applying, look(&applyTo(b, r.pid, patch).Stop))
		empty = append(empty, emptyStop(b, r.pid))
		reverting = append(reverting, look(&revertAll(b, r.pid).Stop))
		runtime.GC()
	}
	b.ReportMetric(0, "ns/op")
	middle := reportTimes(b, "empty", empty)
	b.ReportMetric(reportTimes(b, "apply", applying)/middle, "apply/empty")
	b.ReportMetric(reportTimes(b, "revert", reverting)/middle, "revert/empty")
	slices.Sort(gap)
	b.ReportMetric(gap[len(gap)/2], "gap/stop")
	b.ReportMetric(gap[len(gap)*99/100], "gap/stop-p99")
}

// reportTimes reports the median and the 99th percentile in microseconds, and
// returns the median.
func reportTimes(b *testing.B, name string, d []time.Duration) float64 {
	slices.Sort(d)
	middle := float64(d[len(d)/2]) / 1e3
	b.ReportMetric(middle, name+"-µs")
	b.ReportMetric(float64(d[len(d)*99/100])/1e3, name+"-p99-µs")
	return middle
}

// spOffset is where NT_PRSTATUS has the stack pointer.
var spOffset = map[*arch.Arch]int{arch.X86_64: 19 * 8, arch.AArch64: 31 * 8}

// emptyStop is a stop in which nothing is done but what every commit has to:
// threads seized ahead, interrupt, wait in order, registers, 2 KiB of each
// stack, resume. It shares no code with the commit.
func emptyStop(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	p, err := Open(pid)
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	sp := spOffset[p.objects[0].image.Arch]
	var took time.Duration
	call := func(req, tid, addr int, p unsafe.Pointer) error {
		if _, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), uintptr(addr), uintptr(p), 0, 0); e != 0 {
			return e
		}
		return nil
	}
	err = ptrace.Do(func() error {
		tids, err := ptrace.Threads(pid)
		if err != nil {
			return err
		}
		for _, tid := range tids {
			if err := call(unix.PTRACE_SEIZE, tid, 0, nil); err != nil {
				return err
			}
		}
		type regset [512]byte
		regs := make([]regset, len(tids))
		stacks := make([]byte, 2048*len(tids))
		local := make([]unix.Iovec, len(tids))
		remote := make([]unix.RemoteIovec, len(tids))
		begin := time.Now()
		for _, tid := range tids {
			if err := call(unix.PTRACE_INTERRUPT, tid, 0, nil); err != nil {
				return err
			}
		}
		for i, tid := range tids {
			if _, err := unix.Wait4(tid, nil, unix.WALL, nil); err != nil {
				return err
			}
			iov := unix.Iovec{Base: &regs[i][0], Len: uint64(len(regs[i]))}
			if err := call(unix.PTRACE_GETREGSET, tid, unix.NT_PRSTATUS, unsafe.Pointer(&iov)); err != nil {
				return err
			}
		}
		for i := range tids {
			local[i] = unix.Iovec{Base: &stacks[2048*i], Len: 2048}
			remote[i] = unix.RemoteIovec{Base: uintptr(binary.LittleEndian.Uint64(regs[i][sp:])), Len: 2048}
		}
		for i := 0; i < len(tids); i += 1024 {
			end := min(i+1024, len(tids))
			if _, err := unix.ProcessVMReadv(pid, local[i:end], remote[i:end], 0); err != nil {
				return err
			}
		}
		for _, tid := range tids {
			if err := call(unix.PTRACE_DETACH, tid, 0, nil); err != nil {
				return err
			}
		}
		took = time.Since(begin)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return took
}

// BenchmarkInfo reads a process as info does.
func BenchmarkInfo(b *testing.B) {
	r := start(b, compile(b, "pie", "-fPIE", "-pie"))
	for b.Loop() {
		p, err := Open(r.pid)
		if err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}

// BenchmarkMaps parses a large maps file.
func BenchmarkMaps(b *testing.B) {
	text := strings.Repeat("7f2912ce1000-7f2912d07000 r--p 00000000 fe:00 326269                     /usr/lib/x86_64-linux-gnu/libc.so.6\n", 10000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := parseMaps(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
