package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// hookedC is a program whose hooks write down that they were here: each appends a
// digit to seen. What they are to return, and how long they stay, it can be told.
const hookedC = `
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#define API __attribute__((noinline, noclone, noipa, aligned(64)))
volatile long seen, result[10], stay[10], stayed, where;
volatile int unlocked = 1;
static volatile int one = 1, ending;
API int answer(int x) { return x + one; }
API int busy(int x) { while (!ending) usleep(1000); return x; }
static volatile long handled, strange, known[3];
static void handle(int sig) { int e = errno; long me = syscall(SYS_gettid); handled++; if (me != known[0] && me != known[1]) strange++; errno = e; }
static void *run(void *kind) {
	if (!strcmp(kind, "signals")) {
		struct sigaction a = { .sa_handler = handle, .sa_flags = SA_RESTART };
		struct itimerval often = { {0, 500}, {0, 500} };
		known[0] = getpid(); known[1] = syscall(SYS_gettid);
		sigaction(SIGALRM, &a, 0);
		setitimer(ITIMER_REAL, &often, 0);
		for (;;) usleep(100);
	}
	if (!strcmp(kind, "busy")) busy(1);
	if (!strcmp(kind, "work")) for (;;) { int v = answer(1); if (v != 2 && v != 43 && v != 44 || errno) { printf("BAD %d\n", v); fflush(stdout); _exit(3); } }
	for (;;) if (poll(0, 0, 30) || errno) { printf("BAD poll\n"); fflush(stdout); _exit(3); }
}
/* what a thread is not let do any more: 0 nothing; 1 to sleep; 2 to make threads; 3 all but what it does itself and
   the thread of hooks needs */
static int filter(int which) {
	struct sock_filter none[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
#define CALLED(which) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, which, 0, 1)
	struct sock_filter sleeps[] = { CALLED(SYS_nanosleep), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), none[0] };
	struct sock_filter makes[] = { CALLED(SYS_clone), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM), none[0] };
#define LET(which) CALLED(which), none[0]
	struct sock_filter others[] = { LET(SYS_read), LET(SYS_write), LET(SYS_ppoll), LET(SYS_exit_group), LET(SYS_restart_syscall),
#ifdef SYS_poll
		LET(SYS_poll),
#endif
		LET(SYS_rt_sigprocmask), LET(SYS_nanosleep), LET(SYS_exit),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWUSER | CLONE_NEWNS, 1, 0), none[0],
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS) };
	struct sock_fprog all[] = { {1, none}, {sizeof sleeps / 8, sleeps}, {sizeof makes / 8, makes}, {sizeof others / 8, others} };
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) | prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all[which]);
}
static void wipe(void) { char b[4000]; memset(b, 0, sizeof b); __asm__ volatile("" : : "r"(b) : "memory"); }
int main(int argc, char **argv) {
	char line[100];
	int n; long v;
	for (int i = 1; i < argc; i++) { pthread_t t; pthread_create(&t, 0, run, argv[i]); }
	setvbuf(stdin, malloc(4096), _IOFBF, 4096);
	usleep(1000);
	errno = 0;
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		if (errno) printf("BAD errno %d\n", errno);
		if (!strcmp(line, "ask\n")) printf("%d\n", answer(1));
		if (!strcmp(line, "seen\n")) { printf("%ld\n", seen); seen = 0; }
		if (!strcmp(line, "handled\n")) { for (handled = 0; handled < 5;) ; printf("%d %ld\n", 1, strange); }
		if (!strcmp(line, "stayed\n")) printf("%ld\n", stayed);
		if (sscanf(line, "result %d %ld", &n, &v) == 2) { result[n] = v; printf("%ld\n", v); }
		if (sscanf(line, "stay %d %ld", &n, &v) == 2) { stay[n] = v; printf("%ld\n", v); }
		if (sscanf(line, "limit %d", &n) == 1) { struct rlimit l = {n, 1000}; setrlimit(RLIMIT_NPROC, &l); setuid(65432); printf("limited\n"); }
		if (sscanf(line, "filter %d", &n) == 1) printf("%d\n", filter(n));
		if (!strcmp(line, "forget\n")) { where = 0; printf("forgotten\n"); }
		if (!strcmp(line, "end\n")) { ending = 1; printf("ended\n"); }
		if (!strcmp(line, "wipe\n")) { wipe(); printf("wiped\n"); }
		fflush(stdout);
	}
	return 0;
}
`

// hooksC is a fix as the compiler and package differ make it: hooks 1 to 4 are
// those of the four points, 5 is another before the apply, 6 another after the
// revert. Each writes to errno's place and to the stack, to see that nobody minds.
const hooksC = `
struct fother_hook { int (*run)(void); unsigned point, milliseconds, order, reserved; };
#define IN __attribute__((section(".kpatch.text"), used, noinline))
#define HOOK(digit, point, limit) \
	IN int hook##digit(void) __asm__("hook" #digit ".kpatch"); \
	IN int hook##digit(void) { return common(digit); } \
	static const struct fother_hook declared##digit __attribute__((used, aligned(8), section(".kpatch.hooks"))) = { hook##digit, point, limit, digit, 0 };
extern volatile long seen, result[10], stay[10], stayed, where;
extern int *__errno_location(void);
/* Always inline: the child of the vfork has its parent's stack. */
#ifdef __aarch64__
#define CALL(nr, a, b) ({ register long n_ __asm__("x8") = (long)(nr), a_ __asm__("x0") = (long)(a), b_ __asm__("x1") = (long)(b), c_ __asm__("x2") = 0; \
	__asm__ volatile("svc 0" : "+r"(a_) : "r"(n_), "r"(b_), "r"(c_) : "memory"); a_; })
#define REST "yield"
#define ILLEGAL "udf 0"
enum { CLONE = 220, NAP = 101, END = 93 };
#else
#define REST "pause"
#define ILLEGAL "ud2"
enum { CLONE = 56, NAP = 35, END = 60 };
#define CALL(nr, a, b) ({ long r_; __asm__ volatile("syscall" : "=a"(r_) : "a"((long)(nr)), "D"((long)(a)), "S"((long)(b)), "d"(0L) : "rcx", "r11", "memory"); r_; })
#endif
/* Sleeps like the parent of a vfork, which no tracer can stop, until it is told. */
IN static long asleep(volatile long *told) {
	volatile long nap[2];
	nap[0] = 0, nap[1] = 1000000;
	stayed++;
	if (CALL(CLONE, 0x4100, 0) == 0) { while (*told == -4) CALL(NAP, nap, 0); for (;;) CALL(END, 0, 0); }
	return 0;
}
IN static int common(int digit) {
	volatile char frame[32768];
	frame[0] = frame[32767] = 1;
	seen = seen * 10 + digit;
	*__errno_location() = 77;
	if (result[0]) where = (long)__builtin_return_address(0);
	long turns = stay[digit];
	if (turns == -4) turns = asleep(&stay[digit]);
	if (turns == -1) *(volatile int *)8 = 1;
	if (turns == -2) __asm__ volatile(ILLEGAL);
	for (long i = 0; turns < 0 || i < turns * 100000; i++) { stayed++; __asm__ volatile(REST); }
	return (int)result[digit];
}
IN int renewed(int) __asm__("answer.kpatch");
IN int renewed(int x) { return x + %d; }
%s
`

// hookedPatch returns a patch of hookedC for a level, in which answer adds
// something, and with some of the hooks.
func hookedPatch(t testing.TB, level specs.Level, adds int, hooks ...string) *kpack.Patch {
	t.Helper()
	var all []string
	for _, h := range hooks {
		all = append(all, map[string]string{
			"1": "HOOK(1, 1, 1000)", "2": "HOOK(2, 2, 1000)", "3": "HOOK(3, 3, 1000)", "4": "HOOK(4, 4, 1000)", "5": "HOOK(5, 1, 1000)", "6": "HOOK(6, 4, 1000)",
		}[h])
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "fix.c")
	if err := os.WriteFile(source, fmt.Appendf(nil, hooksC, adds, strings.Join(all, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "gcc", "-O1", "-w", "-fPIE", "-S", "-o", source+".s", source)
	text, err := os.ReadFile(source + ".s")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("answer%d", 100+level)
	fixes[name] = string(text)
	return patchFor(t, hookedProgram(t), "default", level, name)
}

func hookedProgram(t testing.TB) string {
	t.Helper()
	return compileC(t, "hooked", hookedC, "-fPIE", "-pie")
}

func tasks(t testing.TB, pid int) int {
	t.Helper()
	tids, err := ptrace.Threads(pid)
	if err != nil {
		t.Fatal(err)
	}
	return len(tids)
}

// TestHooks: all hooks run once, in their order, in a thread that is gone
// afterwards, and nothing else of the program is other than without them.
func TestHooks(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4", "5", "6")
	for _, kinds := range [][]string{nil, {"work", "poll", "poll"}} {
		r := start(t, hookedProgram(t), kinds...)
		before, threads := r.snapshot(), tasks(t, r.pid)
		for range 3 {
			res := applyTo(t, r.pid, patch)
			r.expect("ask", "43")
			r.expect("seen", "152")
			if len(res.Hooks) != 2 || res.Hooks[0].Point != kpack.PreApply || strings.Join(res.Hooks[0].Functions, " ") != "hook1 hook5" || res.Hooks[1].Why != "" {
				t.Errorf("hooks of the apply: %+v", res.Hooks)
			}
			if a := res.Applied[0]; len(a.Hooks) != 6 || a.Hooks[5].Function != "hook4" || a.Hooks[5].Limit != time.Second {
				t.Errorf("hooks of the patch: %+v", a.Hooks)
			}
			res = revertAll(t, r.pid)
			r.expect("ask", "2")
			r.expect("seen", "364")
			if len(res.Hooks) != 2 || len(res.Kept) > 0 && kinds == nil {
				t.Errorf("result of the revert: %+v", res)
			}
			freeKept(t, r, "wipe")
			if n := tasks(t, r.pid); n != threads {
				t.Errorf("%d threads, and %d before", n, threads)
			}
		}
		before.same(t, r.snapshot())
	}
}

// TestHookVeto: a hook that says no, takes too long or crashes before the switch
// leaves everything as it was, and the hooks that undo run.
func TestHookVeto(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4", "5", "6")
	for _, c := range []struct {
		name, tell, untell, why string
		cause                   HookCause
	}{
		{"no", "result %d 7", "result %d 0", "returned 7", HookReturned},
		{"slow", "stay %d -3", "stay %d 0", "took longer than 1s", HookLate},
		{"crash", "stay %d -1", "stay %d 0", "crashed: SIGSEGV", HookCrashed},
		{"trap", "stay %d -2", "stay %d 0", "crashed: SIGILL", HookCrashed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, hookedProgram(t), "work", "poll")
			before, threads := r.snapshot(), tasks(t, r.pid)
			veto := func(hook int, err error) {
				t.Helper()
				var h *HookError
				if !errors.As(err, &h) || h.Why != c.why || h.Cause != c.cause || h.Failed != fmt.Sprint("hook", hook) {
					t.Errorf("hook %d: %v", hook, err)
				}
				if n := tasks(t, r.pid); n != threads {
					t.Errorf("%d threads, and %d before", n, threads)
				}
			}
			for _, hook := range []int{1, 5} {
				r.ask(fmt.Sprintf(c.tell, hook))
				_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{})
				veto(hook, err)
				r.ask(fmt.Sprintf(c.untell, hook))
				r.expect("ask", "2")
				r.expect("seen", map[int]string{1: "164", 5: "1564"}[hook])
				before.same(t, r.snapshot())
			}
			applyTo(t, r.pid, patch)
			r.expect("seen", "152")
			applied := r.snapshot()
			r.ask(fmt.Sprintf(c.tell, 3))
			_, err := Revert(context.Background(), r.pid, nil, Options{})
			veto(3, err)
			r.ask(fmt.Sprintf(c.untell, 3))
			r.expect("ask", "43")
			r.expect("seen", "32")
			applied.same(t, r.snapshot())
			// What comes after the switch cannot be kept from having happened.
			r.ask(fmt.Sprintf(c.tell, 6))
			res := revertAll(t, r.pid)
			r.ask(fmt.Sprintf(c.untell, 6))
			if last := res.Hooks[len(res.Hooks)-1]; last.Why != c.why || last.Failed != "hook6" {
				t.Errorf("hooks of the revert: %+v", res.Hooks)
			}
			r.expect("ask", "2")
			freeKept(t, r, "wipe")
			before.same(t, r.snapshot())
		})
	}
}

// TestHooksBusy: if the switch cannot be made, what the hooks before it did is
// undone by those that are for it.
func TestHooksBusy(t *testing.T) {
	fixes["busy100"] = constant("busy", 5)
	hookedPatch(t, 1, 42, "1", "2", "3", "4") // makes answer101
	patch := patchFor(t, hookedProgram(t), "default", 1, "answer101", "busy100")
	r := start(t, hookedProgram(t), "busy")
	before := r.snapshot()
	var busy *BusyError
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 50 * time.Millisecond})
	if !errors.As(err, &busy) {
		t.Fatal(err)
	}
	r.expect("seen", "14")
	r.expect("ask", "2")
	before.same(t, r.snapshot())
	r.ask("end")
	applyTo(t, r.pid, patch)
	r.expect("seen", "12")
}

// TestHooksLevels: a newer level's hooks and those of the one that goes both run.
func TestHooksLevels(t *testing.T) {
	one, two := hookedPatch(t, 1, 42, "1", "2", "3", "4"), hookedPatch(t, 2, 43, "5", "6")
	r := start(t, hookedProgram(t), "work")
	before := r.snapshot()
	applyTo(t, r.pid, one)
	r.expect("seen", "12")
	r.ask("result 5 1")
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{two}, Options{}); err == nil {
		t.Error("no veto")
	}
	r.ask("result 5 0")
	r.expect("seen", "3526") // the older stays: its hook after the apply, then that of the newer after a revert
	r.expect("ask", "43")
	applyTo(t, r.pid, two)
	r.expect("seen", "354")
	r.expect("ask", "44")
	revertAll(t, r.pid)
	r.expect("seen", "6")
	r.expect("ask", "2")
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}
