package compiler

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// BenchmarkCapture builds a project of 16 units plainly and under capture, in
// turn, and reports the times and their ratio.
func BenchmarkCapture(b *testing.B) {
	testenv.Needs(b, "gcc", "make")
	dir := b.TempDir()
	files := map[string]string{}
	var objects []string
	for i := range 16 {
		files[fmt.Sprintf("u%d.c", i)] = benchUnit(i)
		objects = append(objects, fmt.Sprintf("u%d.o", i))
	}
	files["main.c"] = "int u0_0(int);\nint main(int argc, char **argv) { return u0_0(argc); }\n"
	files["Makefile"] = "prog: main.o " + strings.Join(objects, " ") + "\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -O2 -g -c $<\nclean:\n\trm -f *.o prog\n"
	tree(b, dir, files)
	var without, with, cpuWithout, cpuWith time.Duration
	for b.Loop() {
		plain(b, dir, "make clean")
		start, cpu := time.Now(), childCPU(b)
		plain(b, dir, "make -j2 prog")
		without, cpuWithout = without+time.Since(start), cpuWithout+childCPU(b)-cpu
		plain(b, dir, "make clean")
		store := filepath.Join(b.TempDir(), "store")
		start, cpu = time.Now(), childCPU(b)
		capture(b, dir, store, specs.StageOriginal, nil, "make -j2 prog")
		with, cpuWith = with+time.Since(start), cpuWith+childCPU(b)-cpu
		os.RemoveAll(store)
	}
	n := float64(b.N) * float64(time.Second)
	b.ReportMetric(float64(without)/n, "s-plain/op")
	b.ReportMetric(float64(with)/n, "s-captured/op")
	b.ReportMetric(float64(with)/float64(without), "captured/plain")
	// Processor time is the figure to trust on a busy machine.
	b.ReportMetric(float64(cpuWith)/float64(cpuWithout), "captured/plain-cpu")
}

// childCPU returns the processor time of all children that have ended.
func childCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchUnit returns a unit that takes gcc about as long as a common one of a
// network server.
func benchUnit(n int) string {
	var s strings.Builder
	s.WriteString("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <sys/socket.h>\n#include <netdb.h>\n")
	for i := range 25 {
		fmt.Fprintf(&s, `int u%d_%d(int x)
{
	char b[64] = "text %d %d";
	for (int i = 0; i < x; i++)
		if (b[i %% 64] == 'x' || strchr(b, i))
			x += snprintf(b, sizeof b, "%%d of %%d", i, x);
	switch (x %% 7) {
	case 0: return puts(b);
	case 1: return atoi(b) * x;
	case 2: return (int)strlen(b);
	case 3: abort();
	case 4: return memcmp(b, "abc", 3);
	default: return x * %d;
	}
}
`, n, i, n, i, i)
	}
	return s.String()
}
