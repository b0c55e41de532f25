package apply

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// programC is the target of most tests. Its threads do what their arguments
// say; commands on stdin are answered on stdout.
const programC = noMappingC + `
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>

#define API __attribute__((noinline, noclone, noipa))

/* with APART each is in a page of its own */
#ifdef APART
#define PAGE __attribute__((aligned(4096)))
static volatile int one = 1;
API int ten(void) { return 10; }
#else
#define PAGE
#define one 1
#define ten() 10
#endif
API PAGE int answer(int x) { return x + one; }
API PAGE int other(int x) { return x + ten(); }
#ifdef PATCHED
API unsigned long more(const char *s) { return strlen(s); }
#endif
API PAGE const char *text(void) { return "old"; }
API PAGE int last(int x) { return x; }
API void pause_a_little(long ns) { struct timespec t = {0, ns}; nanosleep(&t, 0); }
/* inside nine tenths of the time */
API int busy(int x) { pause_a_little(900000); return x + 1; }
/* never comes back */
API int forever(int x) { for (;;) pause_a_little(10000000); return x; }

volatile int ending;
static volatile int served, servings, inside;
/* a worker's loop: is left only to end */
API int serve(int x) { while (!ending) pause_a_little(500000); return x + 1; }

static void die(const char *what, long n) { printf("BAD %s %ld\n", what, n); fflush(stdout); _exit(3); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static volatile unsigned long calls, naps;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static volatile double longest_gap;

static const char *kept = "none";

static void wipe(void) { char b[4000]; memset(b, 0, sizeof b); __asm__ volatile("" : : "r"(b) : "memory"); }

/* takes all memory that is within reach of a jump */
static void fill(void)
{
	unsigned long here = (unsigned long)fill & ~4095ul, page = 4096, size = 1ul << 30, a;
	unsigned long lo = here > (1ul << 31) + page ? here - (1ul << 31) - page : 1 << 16, hi = here + (1ul << 31) + page;
	for (; size >= page; size >>= 1)
		for (a = lo & ~(size - 1); a < hi; a += size)
			mmap((void *)a, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

static void *run(void *arg)
{
	const char *kind = arg;
	if (!strcmp(kind, "many")) { pthread_mutex_lock(&mutex); for (;;) pthread_cond_wait(&cond, &mutex); }
	pthread_setname_np(pthread_self(), kind);
	if (!strcmp(kind, "call")) for (;;) { int v = answer(1); if (v != 2 && v != 43) die("answer", v); calls++; }
	if (!strcmp(kind, "busy")) for (;;) { busy(1); pause_a_little(100000); }
	if (!strcmp(kind, "forever")) forever(1);
	if (!strcmp(kind, "serve")) for (;;) { inside = 1; served = serve(1); inside = 0; servings++; while (ending) pause_a_little(100000); }
	if (!strcmp(kind, "sleep")) for (;;) {
		double a = now();
		struct timespec t = {0, 200000000};
		if (nanosleep(&t, 0)) die("nanosleep", errno);
		if (now() - a > 60) die("nanosleep started over, ms:", (now() - a) * 1e3);
	}
	if (!strcmp(kind, "sleep1s")) for (;;) { struct timespec t = {1, 0}; if (nanosleep(&t, 0)) die("nanosleep", errno); naps++; }
	if (!strcmp(kind, "read")) for (;;) { char c; int p[2]; pipe(p); if (read(p[0], &c, 1) < 0) die("read", errno); }
	if (!strcmp(kind, "epoll")) for (;;) { struct epoll_event e; if (epoll_wait(epoll_create1(0), &e, 1, 100000) < 0) die("epoll", errno); }
	if (!strcmp(kind, "futex")) { pthread_mutex_lock(&mutex); for (;;) pthread_cond_wait(&cond, &mutex); }
	if (!strcmp(kind, "births")) for (;;) {
		pthread_t t;
		if (!pthread_create(&t, 0, (void *(*)(void *))usleep, (void *)10)) pthread_join(t, 0);
	}
	if (!strcmp(kind, "vfork")) for (;;) { if (vfork() == 0) { usleep(400000); _exit(0); } pause_a_little(1000000); }
	if (!strcmp(kind, "clock")) for (double last = now();;) {
		double t = now(), gap = t - last;
		if (gap > longest_gap) longest_gap = gap;
		last = t;
	}
	return 0;
}

int main(int argc, char **argv)
{
	char line[100];
	for (int i = 1; i < argc; i++) {
		pthread_t t;
		pthread_attr_t a;
		pthread_attr_init(&a);
		pthread_attr_setstacksize(&a, 64 << 10);
		if (!strcmp(argv[i], "undumpable")) { prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); continue; }
		if (!strcmp(argv[i], "mdwe")) { if (prctl(65, 1, 0, 0, 0)) printf("no "); continue; }
		if (pthread_create(&t, &a, run, argv[i])) die("create", errno);
	}
	setvbuf(stdin, malloc(4096), _IOFBF, 4096);
	usleep(1000);
#ifdef FULL
	fill();
#endif
	printf("ready\n"); fflush(stdout);
#ifdef SANDBOX
	if (no_mapping(SECCOMP_FILTER_FLAG_TSYNC)) die("seccomp", errno);
#endif
	while (fgets(line, sizeof line, stdin)) {
		if (!strncmp(line, "ask", 3)) printf("%d %d %s\n", answer(1), other(1), text());
		if (!strncmp(line, "calls", 5)) printf("%lu\n", calls);
		if (!strncmp(line, "naps", 4)) printf("%lu\n", naps);
		if (!strcmp(line, "keep\n")) { kept = text(); printf("%s\n", kept); }
		if (!strcmp(line, "kept\n")) printf("%s\n", kept);
		if (!strcmp(line, "wipe\n")) { wipe(); printf("wiped\n"); }
		if (!strcmp(line, "end\n")) { while (!inside) pause_a_little(100000); int n = servings; ending = 1; while (servings == n) pause_a_little(100000); printf("%d\n", served); ending = 0; while (!inside) pause_a_little(100000); pause_a_little(2000000); }
		if (!strncmp(line, "gap", 3)) { printf("%.0f\n", longest_gap * 1e9); longest_gap = 0; }
		fflush(stdout);
	}
	return 0;
}
`

// fixes is patch assembly as package differ makes it.
var fixes = map[string]string{
	"answer": replacement("answer", body(`
	movl $43, %eax
	ret
`, "\tmov w0, 43\n\tret\n")),
	"answer2": replacement("answer", body(`
	movl $2, %eax
	addl $1, uses.kpatch(%rip)
	ret
`, aarch64Change("uses.kpatch", "w3", "add w3, w3, 1")+"\tmov w0, 2\n\tret\n")) + variable("bss", "uses", ".zero 4"),
	// They count their calls in a variable of their own.
	"answer30": replacement("answer", body(`
	lock incl count.kpatch(%rip)
	movl $43, %eax
	ret
`, aarch64Change("count.kpatch", "w3", "add w3, w3, 1")+"\tmov w0, 43\n\tret\n")) + variable("bss", "count", ".zero 4"),
	"answer31": replacement("answer", body(`
	lock incl more.kpatch(%rip)
	lock addl $1, count.kpatch(%rip)
	movl $43, %eax
	ret
`, aarch64Change("more.kpatch", "w3", "add w3, w3, 1")+aarch64Change("count.kpatch", "w3", "add w3, w3, 1")+"\tmov w0, 43\n\tret\n")) + variable("data", "more", ".long 100") + variable("bss", "count", ".zero 4"),
	"answer32": replacement("answer", body(`
	lock incq count.kpatch(%rip)
	movl $43, %eax
	ret
`, aarch64Change("count.kpatch", "x3", "add x3, x3, 1")+"\tmov w0, 43\n\tret\n")) + variable("bss", "count", ".zero 8"),
	// They reach their variables from one place, as code with section anchors does.
	"answer33": anchored(""),
	"answer34": anchored("") + variable("bss", "third", ".zero 4"),
	"answer35": anchored(variable("bss", "third", ".zero 4")),
	// It answers what a variable leads to.
	"text2": replacement("text", body(`
	movq mode.kpatch(%rip), %rax
	ret
`, "\tadrp x0, mode.kpatch\n\tldr x0, [x0, :lo12:mode.kpatch]\n\tret\n")) + variable("data", "mode", ".quad .Lm") + `
	.section .kpatch.rodata,"a",@progbits
.Lm:	.string "mode"
`,
	"other": replacement("other", body(`
	pushq %rax
	.cfi_adjust_cfa_offset 8
	leaq .Ls(%rip), %rdi
	call strlen@PLT
	popq %rdx
	.cfi_adjust_cfa_offset -8
	ret
`, aarch64Frame+"\tadrp x0, .Ls\n\tadd x0, x0, :lo12:.Ls\n\tbl strlen\n"+aarch64Back)) + `
	.section .kpatch.rodata,"a",@progbits
.Ls:	.string "123456789"
`,
	"text": replacement("text", body(`
	leaq .Lt(%rip), %rax
	ret
`, "\tadrp x0, .Lt\n\tadd x0, x0, :lo12:.Lt\n\tret\n")) + `
	.section .kpatch.rodata,"a",@progbits
.Lt:	.string "new"
`,
	"last": replacement("last", body("\tmovl %edi, %eax\n\tret\n", "\tmov w0, w0\n\tret\n")),
	"busy": replacement("busy", "\tret\n"),
	// It stays in pause_a_little.
	"busy3": replacement("busy", body(`
	pushq %rbx
	.cfi_adjust_cfa_offset 8
	.cfi_offset rbx, -16
1:	movq $1000000000, %rdi
	call pause_a_little
	jmp 1b
`, aarch64Frame+"1:\tmov x0, 0xca00\n\tmovk x0, 0x3b9a, lsl 16\n\tbl pause_a_little\n\tb 1b\n")),
	"serve":   serving(43),
	"serve2":  serving(44),
	"forever": replacement("forever", "\tret\n"),
}

// replacement is the new code of a function, in the frame that package differ
// gives it.
func replacement(function, body string) string {
	return strings.NewReplacer("NAME", function, "BODY", body).Replace(`
	.section .kpatch.text,"ax",@progbits
	.globl NAME.kpatch
	.type NAME.kpatch, @function
NAME.kpatch:
	.cfi_startproc
BODY	.cfi_endproc
	.size NAME.kpatch, .-NAME.kpatch
`)
}

// variable is a static variable of the new code, in the section and with the
// symbol that package differ gives it.
func variable(section, name, value string) string {
	return strings.NewReplacer("NAME", name, "SECTION", section, "BITS", map[string]string{"data": "progbits", "bss": "nobits"}[section], "VALUE", value).Replace(`
	.section .kpatch.SECTION,"aw",@BITS
	.globl NAME.kpatch
	.internal NAME.kpatch
	.type NAME.kpatch, @object
	.balign 8
NAME.kpatch: VALUE
	.size NAME.kpatch, .-NAME.kpatch
`)
}

// anchored counts in two variables that it reaches from the place of the section.
func anchored(before string) string {
	return "\t.section .kpatch.bss,\"aw\",@nobits\n.Lanchor:\n" + variable("bss", "one", ".zero 4") + before + variable("bss", "two", ".zero 4") +
		"\t.equ .Ltwo, two.kpatch - .Lanchor\n" + replacement("answer", body(`
	leaq .Lanchor(%rip), %rcx
	lock incl (%rcx)
	lock addl $2, .Ltwo(%rcx)
	movl $43, %eax
	ret
`, "\tadrp x1, .Lanchor\n\tadd x1, x1, :lo12:.Lanchor\n\tldr w2, [x1]\n\tadd w2, w2, 1\n\tstr w2, [x1]\n"+
		"\tldr w2, [x1, .Ltwo]\n\tadd w2, w2, 2\n\tstr w2, [x1, .Ltwo]\n\tmov w0, 43\n\tret\n"))
}

// serving is a body of serve that stays until it is told to end.
func serving(answer int) string {
	return fmt.Sprintf(replacement("serve", body(`
	pushq %%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_offset rbx, -16
	jmp 2f
1:	movl $500000, %%edi
	call pause_a_little
2:	cmpl $0, ending(%%rip)
	je 1b
	movl $%d, %%eax
	popq %%rbx
	ret
`, aarch64Frame+"\tb 2f\n1:\tmov x0, 0xa120\n\tmovk x0, 0x7, lsl 16\n\tbl pause_a_little\n"+
		"2:\tadrp x0, ending\n\tldr w0, [x0, :lo12:ending]\n\tcbz w0, 1b\n\tmov w0, %d\n"+aarch64Back)), answer)
}

// workdir keeps what tests compile until all have run.
var workdir string

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv("APPLY_TEST_PARK")); err == nil { // also of all tests' tools
		parkFrom = n
	}
	if os.Getenv("APPLY_TEST_CHILD") != "" {
		os.Exit(childMain())
	}
	var err error
	if workdir, err = os.MkdirTemp("", "apply"); err != nil {
		panic(err)
	}
	os.Chmod(workdir, 0o755)
	code := m.Run()
	os.RemoveAll(workdir)
	os.Exit(code)
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	testenv.Needs(t, name)
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

var compiled sync.Map

// compile builds programC, once for each name and flags.
func compile(t testing.TB, name string, flags ...string) string {
	t.Helper()
	return compileC(t, name, programC, flags...)
}

func compileC(t testing.TB, name, program string, flags ...string) string {
	t.Helper()
	bin := filepath.Join(workdir, name)
	if _, done := compiled.LoadOrStore(name, true); done {
		return bin
	}
	src := bin + ".c"
	if err := os.WriteFile(src, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-O1", "-g0", "-pthread", "-Wl,--build-id", "-falign-functions=16"}, flags...)
	command(t, "gcc", append(args, "-c", "-o", bin+".o", src)...)
	command(t, "gcc", append(args, "-o", bin, bin+".o")...)
	command(t, "gcc", append(args, "-DPATCHED", "-o", bin+".patched", src)...)
	return bin
}

func openELF(t testing.TB, path string) *elfobj.File {
	t.Helper()
	f, err := elfobj.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// patchFor makes a patch of the named fixes for a compiled program. A fix is
// for the function whose name it begins with, without digits.
func patchFor(t testing.TB, bin string, series specs.Series, level specs.Level, names ...string) *kpack.Patch {
	t.Helper()
	return patchWith(t, bin, kpack.Meta{Name: strings.Join(names, "-"), Series: series, Level: level}, names...)
}

func patchWith(t testing.TB, bin string, meta kpack.Meta, names ...string) *kpack.Patch {
	t.Helper()
	in := kpack.BuildInput{
		Arch: testArch, Name: filepath.Base(bin), Original: openELF(t, bin), Patched: openELF(t, bin+".patched"),
		Meta: meta,
	}
	for _, n := range names {
		s := filepath.Join(t.TempDir(), n+".s")
		if err := os.WriteFile(s, []byte(fixes[n]), 0o644); err != nil {
			t.Fatal(err)
		}
		command(t, "as", "-o", s+".o", s)
		fn := strings.TrimRight(n, "0123456789")
		in.Units = append(in.Units, kpack.BuildUnit{
			Name: filepath.Base(bin) + ".c", Object: openELF(t, s+".o"), OriginalObject: openELF(t, bin+".o"),
			Functions: []kpack.BuildFunction{{Original: fn, Label: fn + ".kpatch", Reason: "test"}},
		})
	}
	p, err := kpack.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	data, err := p.Encode()
	if err == nil {
		p, err = kpack.Decode(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}
