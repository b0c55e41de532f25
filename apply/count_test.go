package apply

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// countedProgram answers when it is asked, and tells how many nanoseconds a
// call takes.
const countedProgram = `
#include <stdio.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
volatile int one = 1;
#ifdef PATCHED
#define ANSWER 43
#else
#define ANSWER (x + one)
#endif
__attribute__((noipa)) int answer(int x) { return ANSWER; }
__attribute__((noipa)) unsigned long other(unsigned long a, double b, unsigned long c, unsigned long d, unsigned long e, unsigned long f, unsigned long g)
{ return a + (unsigned long)b + c + d + e + f + g + 1; }
static void *many(void *arg) { for (int i = 0; i < 100000; i++) answer(i); return arg; }
int main(void) {
	char l[16];
	printf("ready\n"); fflush(stdout);
	while (fgets(l, sizeof l, stdin)) {
		if (!strcmp(l, "ask\n")) printf("%d %lu\n", answer(1), other(1, 2.0, 3, 4, 5, 6, 7));
		if (!strcmp(l, "many\n")) {
			pthread_t t[4];
			for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, many, 0);
			for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
			printf("done\n");
		}
		if (!strcmp(l, "loop\n")) { many(0); printf("done\n"); }
		if (!strcmp(l, "time\n")) {
			struct timespec a, b;
			clock_gettime(CLOCK_MONOTONIC, &a);
			for (int i = 0; i < 10000000; i++) answer(i);
			clock_gettime(CLOCK_MONOTONIC, &b);
			printf("%.3f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / 1e7);
		}
		fflush(stdout);
	}
	return 0;
}
`

// countedOther is a body of other, whose arguments lie in registers of both
// kinds.
const countedOther = `
	cvttsd2siq %xmm0, %rax
	addq %rdi, %rax
	addq %rsi, %rax
	addq %rdx, %rax
	addq %rcx, %rax
	addq %r8, %rax
	addq %r9, %rax
	addq $100, %rax
	ret
`

const countedOtherAArch64 = `
	fcvtzs x9, d0
	add x0, x0, x9
	add x0, x0, x1
	add x0, x0, x2
	add x0, x0, x3
	add x0, x0, x4
	add x0, x0, x5
	add x0, x0, 100
	ret
`

func counted(t testing.TB, level specs.Level, names ...string) (*running, *kpack.Patch) {
	t.Helper()
	bin := compileC(t, "counted", countedProgram, "-fPIE", "-pie")
	return start(t, bin), patchFor(t, bin, "default", level, names...)
}

func hitsOf(t testing.TB, pid int) []uint64 {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	all := p.Applied()
	if len(all) != 1 {
		t.Fatalf("applied: %+v", all)
	}
	return all[0].Hits
}

// TestCount: each call by way of the old entry is counted, and nothing else
// changes.
func TestCount(t *testing.T) {
	fixes["other7"] = replacement("other", body(countedOther, countedOtherAArch64))
	r, patch := counted(t, 1, "answer", "other7")
	r.expect("many", "done") // the C library keeps the threads' stacks
	before := r.snapshot()
	expect := func(want ...uint64) {
		t.Helper()
		if got := hitsOf(t, r.pid); !slices.Equal(got, want) {
			t.Errorf("hits %v: want %v", got, want)
		}
	}
	r.expect("ask", "2 29")
	if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patch}, Options{Count: true}); err != nil {
		t.Fatal(err)
	}
	expect(0, 0)
	r.expect("ask", "43 128")
	expect(1, 1)
	r.expect("loop", "done")
	expect(100001, 1)
	r.expect("many", "done") // at once: some calls may be missing
	if got := hitsOf(t, r.pid); got[0] <= 100001 || got[0] > 500001 || got[1] != 1 {
		t.Errorf("hits %v", got)
	}
	revertAll(t, r.pid)
	r.expect("ask", "2 29")
	before.same(t, r.snapshot())
	applyTo(t, r.pid, patch)
	if got := hitsOf(t, r.pid); got != nil {
		t.Errorf("hits %v that nobody asked for", got)
	}
	revertAll(t, r.pid)
}

// BenchmarkCount measures a call in a loop: of the original, of a patched
// function, and of one whose calls are counted, in nanoseconds.
func BenchmarkCount(b *testing.B) {
	r, patch := counted(b, 1, "answer")
	var took [3][]float64
	measure := func(i int) {
		v, err := strconv.ParseFloat(strings.TrimSpace(r.ask("time")), 64)
		if err != nil {
			b.Fatal(err)
		}
		took[i] = append(took[i], v)
	}
	for b.Loop() {
		measure(0)
		for i, count := range []bool{false, true} {
			if _, err := Apply(b.Context(), r.pid, []*kpack.Patch{patch}, Options{Count: count}); err != nil {
				b.Fatal(err)
			}
			measure(i + 1)
			revertAll(b, r.pid)
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"original", "patched", "counted"} {
		slices.Sort(took[i])
		b.ReportMetric(took[i][len(took[i])/2], fmt.Sprintf("%s-ns/call", name))
	}
}
