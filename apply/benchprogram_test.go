package apply

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/kpack"
)

// benchC has twenty functions, which nobody calls. Its first thread spins on the
// clock and notes in a file, which it has mapped, when it did not run: a counter, and
// then begin and end of each gap of more than a microsecond, in nanoseconds of
// CLOCK_MONOTONIC. The others sleep for good, or wake a thousand times a second.
const benchC = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifdef APART
#define PAGE __attribute__((aligned(4096)))
#else
#define PAGE
#endif
#define F(name) __attribute__((noinline, noclone, noipa)) PAGE int name(int x) { return x + one; }
static volatile int one = 1;
FUNCTIONS
#ifdef LARGE
__asm__(".text\n.skip 33554432, 0x90\n");
char data[32 << 20] = {1};
#endif

enum { SLOTS = 4096 };
static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }
static void *sleeper(void *a) { for (;;) pause(); }
static void *waker(void *a) { for (;;) { struct timespec t = {0, 1000000}; nanosleep(&t, 0); } }

int main(int argc, char **argv)
{
	int fd = open(argv[1], O_RDWR), sleepers = atoi(argv[2]), wakers = atoi(argv[3]);
	volatile long *gaps = mmap(0, 8 + SLOTS * 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (int i = 0; i < sleepers + wakers; i++) {
		pthread_t t;
		if (pthread_create(&t, &small, i < sleepers ? sleeper : waker, 0)) return 1;
	}
	printf("ready\n");
	fflush(stdout);
	for (long last = now();;) {
		long t = now();
		if (t - last > 1000) {
			long n = gaps[0] % SLOTS;
			gaps[1 + 2 * n] = last;
			gaps[2 + 2 * n] = t;
			gaps[0]++;
		}
		last = t;
	}
}
`

// benchSlots is the number of gaps in the file.
const benchSlots = 4096

// benchFunctions are fa to ft.
func benchFunctions() (names []string) {
	for c := 'a'; c <= 't'; c++ {
		names = append(names, fmt.Sprintf("f%c", c))
	}
	return names
}

// stopBench is a process to be stopped, and a patch for it.
type stopBench struct {
	threads, wakers, functions int
	apart, large               bool
}

func (c stopBench) String() string {
	s := fmt.Sprintf("threads=%d/functions=%d", c.threads, c.functions)
	if c.wakers > 0 {
		s += fmt.Sprintf("/wakers=%d", c.wakers)
	}
	if c.apart {
		s += "/apart"
	}
	if c.large {
		s += "/large"
	}
	return s
}

// start returns the running process, the patch, and the gaps' file.
func (c stopBench) start(b *testing.B) (r *running, patch *kpack.Patch, gaps []byte) {
	b.Helper()
	name, flags := "bench", []string{"-fPIE", "-pie"}
	if c.apart {
		name, flags = name+"apart", append(flags, "-DAPART")
	}
	if c.large {
		name, flags = name+"large", append(flags, "-DLARGE")
	}
	bodies := ""
	for i, f := range benchFunctions() {
		bodies += "F(" + f + ")\n"
		fixes[f] = replacement(f, fmt.Sprintf(body("\tmovl $%d, %%eax\n\tret\n", "\tmov w0, %d\n\tret\n"), i))
	}
	fixes["fa1"] = fixes["fa"] + "\n\t.section .kpatch.rodata,\"a\",@progbits\n\t.zero 4194304\n"
	bin := compileC(b, name, strings.Replace(benchC, "FUNCTIONS", bodies, 1), flags...)
	names := benchFunctions()[:c.functions]
	if c.large {
		names[0] = "fa1"
	}
	patch = patchFor(b, bin, "default", 1, names...)
	file := filepath.Join(b.TempDir(), "gaps")
	if err := os.WriteFile(file, make([]byte, 8+16*benchSlots), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if gaps, err = unix.Mmap(int(f.Fd()), 0, 8+16*benchSlots, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Munmap(gaps) })
	r = startCommand(b, exec.Command(bin, file, fmt.Sprint(c.threads-1-c.wakers), fmt.Sprint(c.wakers)))
	time.Sleep(20 * time.Millisecond) // until all sleep
	return r, patch, gaps
}

// longestGap returns the longest time that the spinning thread did not run, of
// those that overlap a stop.
func longestGap(b *testing.B, gaps []byte, s *Stop) (longest time.Duration) {
	b.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		b.Fatal(err)
	}
	lo := now.Nano() - int64(time.Since(s.began))
	hi := lo + int64(s.Total)
	word := func(i int) int64 { return int64(binary.LittleEndian.Uint64(gaps[8*i:])) }
	for i := range benchSlots {
		if begin, end := word(1+2*i), word(2+2*i); begin < hi && end > lo {
			longest = max(longest, time.Duration(end-begin))
		}
	}
	return longest
}

// stopPairs is how often BenchmarkStop applies and reverts: FOTHER_STOP_PAIRS
// times, for machines on which 300 take too long.
func stopPairs(b *testing.B) int {
	b.Helper()
	s := os.Getenv("FOTHER_STOP_PAIRS")
	if s == "" {
		return 300
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		b.Fatalf("FOTHER_STOP_PAIRS=%s: it is to be a number above 0", s)
	}
	return n
}
