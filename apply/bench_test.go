package apply

import (
	"encoding/binary"
	"fmt"
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
// of the same process, in turns. One thread spins on the clock, the others
// sleep. Medians and 99th percentiles, in microseconds.
func BenchmarkStop(b *testing.B) {
	for _, n := range []int{1, 64, 500} {
		b.Run(fmt.Sprintf("threads=%d", n), func(b *testing.B) { benchmarkStop(b, n) })
	}
}

func benchmarkStop(b *testing.B, n int) {
	bin := compile(b, "pie", "-fPIE", "-pie")
	kinds := []string{}
	for range n - 1 { // and the main thread, which waits for a command
		kinds = append(kinds, "futex")
	}
	if n > 1 {
		kinds[0] = "clock"
	}
	r := start(b, bin, kinds...)
	patch := patchFor(b, bin, "default", 1, "answer", "other")
	// As the command does.
	signal.Ignore(syscall.SIGCHLD)
	defer signal.Notify(make(chan os.Signal, 1), syscall.SIGCHLD)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var empty, applying, reverting, wall []time.Duration
	for b.Loop() {
		empty = append(empty, emptyStop(b, r.pid))
		begin := time.Now()
		res := applyTo(b, r.pid, patch)
		wall = append(wall, time.Since(begin))
		applying = append(applying, res.Stop.Total)
		reverting = append(reverting, revertAll(b, r.pid).Stop.Total)
		runtime.GC()
	}
	report := func(name string, d []time.Duration) {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2])/1e3, name+"-µs")
		b.ReportMetric(float64(d[len(d)*99/100])/1e3, name+"-p99-µs")
	}
	b.ReportMetric(0, "ns/op")
	report("empty", empty)
	report("apply", applying)
	report("revert", reverting)
	report("wall", wall)
	b.ReportMetric(float64(applying[len(applying)/2])/float64(empty[len(empty)/2]), "apply/empty")
	b.ReportMetric(float64(reverting[len(reverting)/2])/float64(empty[len(empty)/2]), "revert/empty")
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
