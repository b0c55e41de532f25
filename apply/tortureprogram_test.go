package apply

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// tortureC is a program whose threads do what is hard on a tool that patches it,
// and check all answers. Each kind of thread is one argument, a number behind it
// is how many there are. Those of tortureKinds stand still while they are told to
// park.
const tortureC = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define API __attribute__((noinline, noclone, noipa))
#define PAGE __attribute__((aligned(4096)))
/* CHECKS */
static volatile int one = 1;
volatile unsigned hooked; /* a bit for each thing that hooks say */
API int ten(void) { return 10; }
API PAGE int answer(int x) { return x + one; }
API PAGE int other(int x) { return x + ten(); }
#ifdef __aarch64__
int through(int (*f)(void)); __asm__(
	".text\n\t.balign 4096\n\t.globl through\n\t.type through, @function\nthrough:\n\t.cfi_startproc\n\t"
	"stp x29, x30, [sp, -32]!\n\t.cfi_def_cfa_offset 32\n\t.cfi_offset 29, -32\n\t.cfi_offset 30, -24\n\tstr x19, [sp, 16]\n\t.cfi_offset 19, -16\n\t"
	"blr x0\n\tmov w19, w0\n\tbl ten\n\tadd w0, w0, w19\n\tldr x19, [sp, 16]\n\tldp x29, x30, [sp], 32\n\t.cfi_def_cfa_offset 0\n\tret\n\t.cfi_endproc\n\t.size through, .-through\n");
#else
/* makes a call within the bytes that a jump takes */
int through(int (*f)(void)); __asm__(
	".text\n\t.balign 4096\n\t.globl through\n\t.type through, @function\nthrough:\n\t.cfi_startproc\n\t"
	"pushq %rbx\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset 3, -16\n\tcall *%rdi\n\tmovl %eax, %ebx\n\tcall ten\n\taddl %ebx, %eax\n\t"
	"popq %rbx\n\t.cfi_def_cfa_offset 8\n\tret\n\t.cfi_endproc\n\t.size through, .-through\n");
#endif
API int leaf(int x) { volatile int a[16]; int s = 0; for (int i = 0; i < 16; i++) a[i] = x + i; for (int i = 0; i < 16; i++) s += a[i]; return s; }
API int tail(int x) { return answer(x); }
API int depth(int n) { return n ? depth(n - 1) + one : 0; }
static pthread_mutex_t contended = PTHREAD_MUTEX_INITIALIZER;
static volatile long holders;
API int locked(int x) { pthread_mutex_lock(&contended); if (++holders != 1) die("holders", holders); holders--; pthread_mutex_unlock(&contended); return x + one; }
#ifdef PATCHED
API unsigned long more(const char *s) { return strlen(s); }
#endif

static volatile unsigned long rounds, asked, done[64];
static volatile int parked;
static int parks;
static void nap(long ns) { struct timespec t = {0, ns}; nanosleep(&t, 0); }
static void expect(const char *what, int v, int a, int b, int c) { if (v != a && v != b && v != c) die(what, v); }
static void ask(void) { expect("answer", answer(1), 2, 43, 44); }

static void together(void)
{
	unsigned long before = asked;
	int a = answer(1), o = other(1), b = answer(1);
	if (a != b || asked != before) return;
	if (!(a == 2 && o == 11 || a == 43 && o == 9 || a == 44 && o == 12)) die("mixed", a * 1000 + o);
	rounds++;
}

static void call_all(void)
{
	together();
	ask();
	expect("leaf", leaf(1), 136, 5, 5);
	expect("tail", tail(1), 2, 43, 44);
	expect("depth", depth(20), 20, 7, 7);
}

/* in a signal handler, on a stack of its own */
static int inner(void) { ask(); return 1; }
static volatile unsigned long handled;
static void handler(int s) { int e = errno; expect("through", through(inner), 11, 101, 201); handled++; errno = e; }

/* coroutines that are suspended inside of what changes */
static __thread ucontext_t home, routine;
static int yields(void) { swapcontext(&routine, &home); return 1; }
static void body(void) { expect("through", through(yields), 11, 101, 201); }
static void coroutine(long ns)
{
	char *stack = malloc(65536);
	getcontext(&routine);
	routine.uc_stack.ss_sp = stack; routine.uc_stack.ss_size = 65536; routine.uc_link = &home;
	makecontext(&routine, body, 0);
	swapcontext(&home, &routine);
	nap(ns);
	swapcontext(&home, &routine);
	memset(stack, 0, 65536);
	free(stack);
}

/* code without unwind data between what changes and what waits */
static int (*jit(void))(int (*)(void))
{
#ifdef __aarch64__
	/* stp x29, x30, [sp, -16]!; blr x0; ldp x29, x30, [sp], 16; ret */
	static const unsigned code[] = {0xa9bf7bfd, 0xd63f0000, 0xa8c17bfd, 0xd65f03c0};
#else
	/* sub $8, %rsp; call *%rdi; add $8, %rsp; ret */
	static const unsigned char code[] = {0x48, 0x83, 0xec, 0x08, 0xff, 0xd7, 0x48, 0x83, 0xc4, 0x08, 0xc3};
#endif
	void *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(p, code, sizeof code);
	__builtin___clear_cache(p, (char *)p + sizeof code);
	mprotect(p, 4096, PROT_READ | PROT_EXEC);
	return (int (*)(int (*)(void)))p;
}
static __thread int (*made)(int (*)(void));
static volatile long jit_nap = 100000, jitted;
static int waits(void) { ask(); jitted++; nap(jit_nap); return 1; }
static int by_jit(void) { return made(waits); }

static volatile long cleaned;
static void clean(void *arg) { cleaned++; }
static int cancellable(void) { nap(20000); return 1; }
static void *cancelled(void *arg)
{
	pthread_cleanup_push(clean, 0);
	for (;;) expect("through", through(cancellable), 11, 101, 201);
	pthread_cleanup_pop(0);
	return 0;
}
static void *born(void *arg) { call_all(); return 0; }
static const char *library, *self;

static void turn(const char *kind)
{
	pthread_t t;
	int status;
	if (!strcmp(kind, "calls")) { for (int i = 0; i < 1000; i++) call_all(); expect("through", through(inner), 11, 101, 201); }
	else if (!strcmp(kind, "signals")) for (int i = 0; i < 1000; i++) pthread_kill(pthread_self(), SIGUSR1);
	else if (!strcmp(kind, "coroutines")) coroutine(200000);
	else if (!strcmp(kind, "jit")) { made = jit(); expect("through", through(by_jit), 11, 101, 201); munmap((void *)made, 4096); nap(1000000); }
	else if (!strcmp(kind, "births")) { if (pthread_create(&t, 0, born, 0)) die("create", errno); pthread_join(t, 0); }
	else if (!strcmp(kind, "cancels")) {
		long before = cleaned;
		void *how;
		if (pthread_create(&t, 0, cancelled, 0)) die("create", errno);
		nap(300000);
		pthread_cancel(t);
		pthread_join(t, &how);
		if (how != PTHREAD_CANCELED) die("cancelled", (long)how);
		if (cleaned != before + 1) die("cleaned", cleaned - before);
	} else if (!strcmp(kind, "forks")) {
		pid_t p = fork();
		if (p < 0) die("fork", errno);
		if (p == 0) { ask(); expect("leaf", leaf(1), 136, 5, 5); _exit(0); }
		if (waitpid(p, &status, 0) != p || status) die("child", status);
		nap(2000000);
	} else if (!strcmp(kind, "vforks")) {
		pid_t p = vfork();
		if (p < 0) die("vfork", errno);
		if (p == 0) { execl(self, self, "ends", (char *)0); _exit(9); }
		if (waitpid(p, &status, 0) != p || status) die("executed child", status);
		nap(2000000);
	} else if (!strcmp(kind, "libraries")) {
		void *h = dlopen(library, RTLD_NOW);
		if (!h) { puts(dlerror()); die("dlopen", 0); }
		int (*plugged)(int) = (int (*)(int))dlsym(h, "plugged");
		for (int i = 0; i < 20; i++) { expect("plugged", plugged(1), 2, 55, 55); nap(500000); }
		dlclose(h);
	} else if (!strcmp(kind, "locks")) { for (int i = 0; i < 200; i++) expect("locked", locked(1), 2, 43, 43); nap(100000); }
	else die(kind, 0);
}

/* as a service manager's sandbox has it: no memory becomes executable, or is both;
   who tries is killed */
static void sandbox(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pkey_mprotect, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 6),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 3, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_EXEC | PROT_WRITE),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_EXEC | PROT_WRITE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {sizeof f / sizeof *f, f};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p)) die("sandbox", errno);
	prctl(65, 1, 0, 0, 0); /* PR_SET_MDWE, which older kernels do not have */
}

struct worker { const char *kind; int number; };
static void *run(void *arg)
{
	struct worker *w = arg;
	stack_t s = { .ss_sp = malloc(65536), .ss_size = 65536 };
	pthread_setname_np(pthread_self(), w->kind);
	sigaltstack(&s, 0);
	check(w->kind);
	for (;;) {
		turn(w->kind);
		done[w->number]++;
		if (parked) { __sync_fetch_and_add(&parks, 1); while (parked) nap(1000000); __sync_fetch_and_sub(&parks, 1); }
	}
}

static void wipe(void) { char b[4000]; memset(b, 0, sizeof b); __asm__ volatile("" : : "r"(b) : "memory"); }

static char stack[65536];

int main(int argc, char **argv)
{
	static struct worker all[64];
	int n = 0;
	char line[100];
	pthread_t t;
	pthread_attr_t a;
	if (argc > 1 && !strcmp(argv[1], "ends")) return 0;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 128 << 10);
	self = argv[0]; library = getenv("LIBRARY");
	signal(SIGUSR1, handler);
	struct sigaction act = { .sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART };
	sigaction(SIGUSR1, &act, 0);
	pthread_mutex_lock(&timed);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "sandbox")) { sandbox(); continue; }
		char *digits = argv[i] + strcspn(argv[i], "0123456789");
		int count = *digits ? atoi(digits) : 1;
		*digits = 0;
		all[n] = (struct worker){argv[i], n};
		while (count--) if (pthread_create(&t, &a, run, &all[n])) die("create", errno);
		n++;
	}
	setvbuf(stdin, malloc(4096), _IOFBF, 4096);
	usleep(1000);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "all\n")) { asked++; printf("%d %d\n", answer(1), other(1)); }
		if (!strcmp(line, "rest\n")) printf("%d %d %d %d %d\n", through(inner), leaf(1), tail(1), depth(20), locked(1));
		if (!strcmp(line, "handled\n")) { for (unsigned long h = handled; handled < h + 1000; ) nap(1000000); printf("handled\n"); }
		static int (*caught)(int (*)(int (*)(void)));
		if (!strcmp(line, "load\n")) { void *h = dlopen(library, RTLD_NOW); if (!h) { puts(dlerror()); return 1; } caught = (int (*)(int (*)(int (*)(void))))dlsym(h, "caught"); printf("loaded\n"); }
		if (!strcmp(line, "catch\n")) printf("%d\n", caught(through));
		if (!strcmp(line, "hooked\n")) printf("%x\n", hooked);
		if (!strcmp(line, "cancel\n")) { turn("cancels"); printf("cancelled\n"); }
		if (!strcmp(line, "suspend\n")) {
			getcontext(&routine);
			routine.uc_stack.ss_sp = stack; routine.uc_stack.ss_size = sizeof stack; routine.uc_link = &home;
			makecontext(&routine, body, 0);
			swapcontext(&home, &routine);
			wipe();
			printf("suspended\n");
		}
		if (!strcmp(line, "resume\n")) { swapcontext(&home, &routine); memset(stack, 0, sizeof stack); memset(&routine, 0, sizeof routine); printf("resumed\n"); }
		if (!strcmp(line, "jitted\n")) { jit_nap = 999999999; for (long j = jitted; jitted == j; ) nap(1000000); jit_nap = 100000; printf("jitted\n"); }
		if (!strcmp(line, "done\n")) { for (int i = 0; i < n; i++) if (done[i]) printf("%s %lu  ", all[i].kind, done[i]); printf("rounds %lu\n", rounds); }
		int k;
		if (sscanf(line, "park %d", &k) == 1) { parked = 1; while (parks < k) nap(1000000); wipe(); printf("parked\n"); }
		if (!strcmp(line, "go\n")) { parked = 0; while (parks) nap(1000000); printf("gone on\n"); }
		if (!strcmp(line, "wipe\n")) { wipe(); printf("wiped\n"); }
		fflush(stdout);
	}
	return 0;
}
`

// pluginC is the library that is opened and closed all the while.
const pluginC = `static volatile int one = 1; __attribute__((noipa)) int plugged(int x) { return x + one; }`

// tortureKinds are the threads that can be parked.
var tortureKinds = []string{"calls", "signals", "coroutines", "jit", "births", "cancels", "forks", "vforks", "libraries", "locks2"}

func init() {
	fixes["answer60"], fixes["answer61"] = constant("answer", 43), constant("answer", 44)
	fixes["other60"], fixes["other61"] = constant("other", 9), constant("other", 12)
	fixes["leaf"], fixes["depth"], fixes["locked"] = constant("leaf", 5), constant("depth", 7), constant("locked", 43)
	fixes["tail3"] = constant("tail", 43) + hooking(3)
	fixes["plugged"] = constant("plugged", 55)
	fixes["through60"], fixes["through61"] = throughAs("100"), throughAs("200")
}

// throughAs is a body of through that adds something else.
func throughAs(n string) string {
	return replacement("through", body(`
	pushq %rbx
	.cfi_adjust_cfa_offset 8
	.cfi_offset rbx, -16
	call *%rdi
	addl $`+n+`, %eax
	popq %rbx
	.cfi_adjust_cfa_offset -8
	ret
`, aarch64Frame+"\tblr x0\n\tadd w0, w0, #"+n+aarch64Back))
}

// tortureLevel returns the patch of a level.
func tortureLevel(t testing.TB, bin string, level specs.Level) *kpack.Patch {
	t.Helper()
	functions := map[specs.Level][]string{1: {"answer60", "other60", "through60"}, 2: {"answer61", "other61", "through61"}}
	return patchFor(t, bin, "default", level, functions[level]...)
}

// tortureProgram returns the program and its library, of which the program's
// environment has to tell.
func tortureProgram(t testing.TB) (bin, library string) {
	t.Helper()
	bin = compileC(t, "torture", checked(tortureC), "-fPIE", "-pie", "-foptimize-sibling-calls", "-ldl")
	library = filepath.Join(workdir, "plugin.so")
	if _, done := compiled.LoadOrStore(library, true); !done {
		source := strings.TrimSuffix(library, ".so") + ".c"
		if err := os.WriteFile(source, []byte(pluginC), 0o644); err != nil {
			t.Fatal(err)
		}
		command(t, "gcc", "-O1", "-fPIC", "-falign-functions=16", "-c", "-o", library+".o", source)
		for _, name := range []string{library, library + ".patched"} {
			command(t, "gcc", "-shared", "-Wl,--build-id", "-o", name, library+".o")
		}
	}
	t.Setenv("LIBRARY", library)
	return bin, library
}
