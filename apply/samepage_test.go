package apply

import (
	"slices"
	"strings"
	"testing"
)

// samePageC has functions in one page, of which every other one can have no gate, and
// one in a page of its own.
const samePageC = `
#include <stdio.h>
#include <string.h>
static volatile int one __attribute__((used)) = 1;
#define FUNCTION(name, code) int name(int x); __asm__(".text\n\t" code "\n\t.size " #name ", .-" #name "\n")
#define BEGIN(align, name) ".balign " #align "\n\t.globl " #name "\n\t.type " #name ", @function\n" #name ":\n\t.cfi_startproc\n\t"
#define END "\n\t.cfi_endproc"
#ifdef __aarch64__
#define PLAIN "adrp x8, one\n\tldr w8, [x8, :lo12:one]\n\tadd w0, w0, w8\n\tret"
#define LOOPING "hint 25\n1:\tsubs w0, w0, 1\n\tb.pl 1b\n\tmov w0, 5\n\thint 29\n\tret"
#else
#define PLAIN "movl one(%rip), %eax\n\taddl %edi, %eax\n\tret"
#define LOOPING "pushq $5\n1:\tdecl %edi\n\tjns 1b\n\tpopq %rax\n\tret"
#endif
FUNCTION(samea, BEGIN(4096, samea) PLAIN END);
FUNCTION(sameb, BEGIN(16, sameb) LOOPING END);
FUNCTION(samec, BEGIN(16, samec) PLAIN END);
FUNCTION(samed, BEGIN(16, samed) LOOPING END);
FUNCTION(samee, BEGIN(16, samee) PLAIN END);
FUNCTION(apart, BEGIN(4096, apart) PLAIN END);

int main(void)
{
	char l[20];
	setvbuf(stdin, 0, _IONBF, 0);
	for (printf("ready\n");; printf("%d %d %d %d %d %d\n", samea(1), sameb(1), samec(1), samed(1), samee(1), apart(1))) {
		fflush(stdout);
		if (!fgets(l, sizeof l, stdin)) return 0;
	}
}
`

// What it answers before and after its patch.
const samePageOld, samePageNew = "2 5 2 5 2 2", "90 91 92 93 94 95"

var samePageFunctions = []string{"samea", "sameb", "samec", "samed", "samee", "apart"}

func init() {
	for i, f := range samePageFunctions {
		fixes[f] = constant(f, 90+i)
	}
}

// TestSamePage: what decides and what is gated are in one page, between each other: a
// write of one leaves the other as it is.
func TestSamePage(t *testing.T) {
	bin := compileC(t, "samepage", samePageC, "-fPIE", "-pie")
	for _, some := range [][]string{samePageFunctions, {"samea", "sameb", "samec", "apart"}, {"sameb", "samec", "samed", "apart"}} {
		t.Run(strings.Join(some, " "), func(t *testing.T) {
			r := start(t, bin)
			pure := r.snapshot()
			want := strings.Fields(samePageOld)
			for i, f := range samePageFunctions {
				if slices.Contains(some, f) {
					want[i] = strings.Fields(samePageNew)[i]
				}
			}
			applyTo(t, r.pid, patchFor(t, bin, "default", 1, some...))
			r.expect("all", strings.Join(want, " "))
			revertAll(t, r.pid)
			r.expect("all", samePageOld)
			pure.same(t, r.snapshot())
		})
	}
}
