package apply

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// matrixC is the target of the kill matrix. Its functions are in pages of their
// own, and their first instructions depend on where they are. Each kind of thread
// checks something all the while, and ends the program if it is not so.
const matrixC = `
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((noinline, noclone, noipa, aligned(4096)))
volatile unsigned hooked; /* a bit for each thing that a level's hooks say */
static volatile int one __attribute__((used)) = 1, two __attribute__((used)) = 2;
API int ten(void) { return 10; }
API int answer(int x) { return x + one; }
API int other(int x) { return x + ten(); }
#ifdef __aarch64__
/* its first two instructions, which a jump takes, are in two pages */
#define SPLIT(name, value) int name(int); __asm__( \
	".text\n\t.balign 4096\n\t.skip 4092\n\t.globl " #name "\n\t.type " #name ", @function\n" #name ":\n\t.cfi_startproc\n\t" \
	"hint 25\n\t.cfi_negate_ra_state\n\tstp x29, x30, [sp, -16]!\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset 29, -16\n\t.cfi_offset 30, -8\n\t" \
	"adrp x0, " #value "\n\tldr w0, [x0, :lo12:" #value "]\n\t" \
	"ldp x29, x30, [sp], 16\n\t.cfi_def_cfa_offset 0\n\thint 29\n\t.cfi_negate_ra_state\n\tret\n\t.cfi_endproc\n\t.size " #name ", .-" #name "\n")
/* its loop begins inside of what a jump at the entry takes */
#define LOOPING(name) int name(int x); __asm__( \
	".text\n\t.balign 4096\n\t.globl " #name "\n\t.type " #name ", @function\n" #name ":\n\t.cfi_startproc\n\t" \
	"hint 25\n1:\tsubs w0, w0, 1\n\tb.pl 1b\n\tmov w0, 5\n\thint 29\n\tret\n\t.cfi_endproc\n\t.size " #name ", .-" #name "\n");
#else
/* begins in one page and goes on in the next */
#define SPLIT(name, value) int name(int); __asm__( \
	".text\n\t.balign 4096\n\t.skip 4094\n\t.globl " #name "\n\t.type " #name ", @function\n" #name ":\n\t.cfi_startproc\n\t" \
	"pushq %rbp\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset 6, -16\n\tmovq %rsp, %rbp\n\tmovl " #value "(%rip), %eax\n\t" \
	"popq %rbp\n\t.cfi_def_cfa_offset 8\n\tret\n\t.cfi_endproc\n\t.size " #name ", .-" #name "\n")
/* its loop begins inside of what a jump at the entry takes */
#define LOOPING(name) int name(int x); __asm__( \
	".text\n\t.balign 4096\n\t.globl " #name "\n\t.type " #name ", @function\n" #name ":\n\t.cfi_startproc\n\t" \
	"pushq $5\n1:\tdecl %edi\n\tjns 1b\n\tpopq %rax\n\tret\n\t.cfi_endproc\n\t.size " #name ", .-" #name "\n");
#endif
SPLIT(first, one);
SPLIT(second, two);
LOOPING(looping)
LOOPING(circling)
API int last(void) { return 0; }
#ifdef PATCHED
API unsigned long more(const char *s) { return strlen(s); }
#endif

/* CHECKS */
static volatile unsigned long rounds, asked;

/* all functions are of one version, unless the version changed meanwhile: once,
   which a and b tell, or there and back, for someone asks in between */
static void together(void)
{
	unsigned long before = asked;
	int a = answer(1), o = other(1), f = first(1), s = second(1), b = answer(1);
	if (a != b || asked != before) return;
	if (!(a == 2 && o == 11 && f == 1 && s == 2 || a == 43 && o == 9 && f == 7 && s == 2 || a == 44 && o == 12 && f == 1 && s == 8))
		die("mixed", a * 1000000 + o * 10000 + f * 100 + s);
	rounds++;
}

static void *run(void *arg)
{
	const char *kind = arg;
	pthread_setname_np(pthread_self(), kind);
	if (!strcmp(kind, "together")) for (;;) together();
	check(kind);
	die(kind, 0);
	return 0;
}

static void wipe(void) { char b[4000]; memset(b, 0, sizeof b); __asm__ volatile("" : : "r"(b) : "memory"); }

int main(int argc, char **argv)
{
	char line[100];
	int alone = argc == 2 && !strcmp(argv[1], "alone");
	pthread_mutex_lock(&timed);
	for (int i = 1; i < argc && !alone; i++) {
		pthread_t t;
		if (pthread_create(&t, 0, run, argv[i])) die("create", errno);
	}
	setvbuf(stdin, malloc(4096), _IOFBF, 4096);
	usleep(1000);
	printf("ready\n"); fflush(stdout);
	for (;;) {
		struct pollfd p = {0, POLLIN, 0};
		while (alone && poll(&p, 1, 0) == 0) { for (int i = 0; i < 1000; i++) together(); vectors(10000); }
		if (!fgets(line, sizeof line, stdin)) return 0;
		if (!strcmp(line, "all\n")) { asked++; printf("%d %d %d %d\n", answer(1), other(1), first(1), second(1)); }
		if (!strcmp(line, "loops\n")) printf("%d %d %d\n", answer(1), looping(3), circling(3));
		if (!strcmp(line, "hooked\n")) printf("%x\n", hooked);
		if (!strcmp(line, "rounds\n")) printf("%lu\n", rounds);
		if (!strcmp(line, "wipe\n")) { wipe(); printf("wiped\n"); }
		fflush(stdout);
	}
}
`

// matrixAnswers are those to "all", by level, 0 being the original.
var matrixAnswers = []string{"2 11 1 2", "43 9 7 2", "44 12 1 8"}

// constant is a body of a function that returns a number.
func constant(name string, n int) string {
	return fmt.Sprintf(`
	.section .kpatch.text,"ax",@progbits
	.globl %[1]s.kpatch
	.type %[1]s.kpatch, @function
%[1]s.kpatch:
	.cfi_startproc
	%[2]s
	ret
	.cfi_endproc
	.size %[1]s.kpatch, .-%[1]s.kpatch
`, name, fmt.Sprintf(body("movl $%d, %%eax", "mov w0, %d"), n))
}

// hooking is the hooks of a level. After its apply bits LEVEL and 8+LEVEL of
// the program's hooked are set, and after its revert none.
func hooking(level int) string {
	asm := "\t.section .kpatch.text,\"ax\",@progbits\n"
	declared := "\t.section .kpatch.hooks,\"aw\",@progbits\n"
	in, begun, leaving := uint32(1)<<level, uint32(1)<<(8+level), uint32(1)<<(16+level)
	for i, h := range []struct {
		set, clear uint32
	}{{begun, 0}, {in, leaving}, {leaving, 0}, {0, in | begun | leaving}} {
		name := fmt.Sprintf("hook%d_%d.kpatch", level, i+1)
		asm += fmt.Sprintf("\t.type %[1]s, @function\n%[1]s:\n\t.cfi_startproc\n%[2]s\tret\n\t.cfi_endproc\n\t.size %[1]s, .-%[1]s\n", name, setting(h.set, h.clear))
		declared += fmt.Sprintf("\t.quad %s\n\t.long %d, 30000, %d, 0\n", name, i+1, i)
	}
	return asm + declared
}

// setting is code that sets and clears bits of the program's hooked, and returns 0.
func setting(set, clear uint32) string {
	mask := func(m uint32) string {
		return fmt.Sprintf("\tmov w2, %#x\n\tmovk w2, %#x, lsl 16\n", m&0xffff, m>>16)
	}
	return body(fmt.Sprintf("\tlock orl $%#x, hooked(%%rip)\n\tlock andl $%#x, hooked(%%rip)\n\txorl %%eax, %%eax\n", set, ^clear),
		mask(set)+aarch64Change("hooked", "w3", "orr w3, w3, w2")+mask(^clear)+aarch64Change("hooked", "w3", "and w3, w3, w2")+"\tmov w0, 0\n")
}

// hookedAfter is the program's hooked after the apply of a level, or after a
// revert.
func hookedAfter(level int) string {
	if level == 0 {
		return "0"
	}
	return fmt.Sprintf("%x", 1<<level|1<<(8+level))
}

func init() {
	// The second level goes on with a variable of the first, and has one of its own.
	kept := variable("bss", "kept", ".zero 8")
	fixes["answer4"], fixes["answer5"] = constant("answer", 43)+hooking(1)+kept, constant("answer", 44)+hooking(2)+kept+variable("data", "added", ".quad kept.kpatch")
	fixes["first"], fixes["second"] = constant("first", 7), constant("second", 8)
	// Not that of the other tests, whose argument to strlen stays below the stack
	// pointers of threads that do nothing else.
	fixes["other2"] = constant("other", 9)
	fixes["looping"], fixes["looping2"], fixes["circling"] = constant("looping", 6), constant("looping", 7), constant("circling", 8)
	fixes["answer3"], fixes["other3"] = constant("answer", 44), constant("other", 12)
}

func matrixProgram(t testing.TB) string {
	t.Helper()
	return compileC(t, "matrix", checked(matrixC), "-fPIE", "-pie")
}

// matrixPatch returns the patch of a level. The second has new bodies for two
// functions of the first, not any more the third, and another one. Both have
// hooks of all kinds, and one variable in common.
func matrixPatch(t testing.TB, level specs.Level) *kpack.Patch {
	t.Helper()
	functions := map[specs.Level][]string{1: {"answer4", "other2", "first"}, 2: {"answer5", "other3", "second"}}
	return patchFor(t, matrixProgram(t), "default", level, functions[level]...)
}

// encoded writes a patch to a file.
func encoded(t testing.TB, p *kpack.Patch) string {
	t.Helper()
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.kpatch", p.Meta.Level))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// toolEnv makes the test binary a tool that works on process pid.
func toolEnv(what string, pid int, patch string) []string {
	return []string{"APPLY_TEST_CHILD=" + what, fmt.Sprint("APPLY_TEST_PID=", pid), "APPLY_TEST_PATCH=" + patch}
}
