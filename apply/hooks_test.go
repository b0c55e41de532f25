package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
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
#include <signal.h>
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
		if (!strcmp(line, "filter\n")) {
			struct sock_filter f[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
			struct sock_fprog p = {1, f};
			printf("%d\n", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) | prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p));
		}
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
#define CALL(nr, a, b) ({ long r_; __asm__ volatile("syscall" : "=a"(r_) : "a"((long)(nr)), "D"((long)(a)), "S"((long)(b)), "d"(0L) : "rcx", "r11", "memory"); r_; })
/* Sleeps like the parent of a vfork, which no tracer can stop, until it is told. */
IN static long asleep(volatile long *told) {
	volatile long nap[2];
	nap[0] = 0, nap[1] = 1000000;
	stayed++;
	if (CALL(56, 0x4100, 0) == 0) { while (*told == -4) CALL(35, nap, 0); for (;;) CALL(60, 0, 0); }
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
	if (turns == -2) __builtin_trap();
	for (long i = 0; turns < 0 || i < turns * 100000; i++) { stayed++; __asm__ volatile("pause"); }
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

// TestHookToolKilled kills the tool while a hook runs. The hook comes to its end
// without it, and the next run sees what was done.
func TestHookToolKilled(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	file := encoded(t, patch)
	for _, c := range []struct {
		name    string
		hook    int
		applied bool
		// left is what was seen when the next run, which reverts all, has ended.
		left string
	}{
		{"pre_apply", 1, false, "14"},
		{"post_apply", 2, false, "1234"},
		{"pre_revert", 3, true, "3234"},
		{"post_revert", 4, true, "34"},
	} {
		for _, slow := range []string{"20", "-3"} { // the second never ends by itself
			t.Run(c.name+" "+slow, func(t *testing.T) {
				r := start(t, hookedProgram(t), "work", "poll")
				before, threads := r.snapshot(), tasks(t, r.pid)
				args := toolEnv("quiet", r.pid, file)
				if c.applied {
					applyTo(t, r.pid, patch)
					r.ask("seen")
					args = toolEnv("quiet", r.pid, "")
				}
				r.ask(fmt.Sprintf("stay %d %s", c.hook, slow))
				killWhileStaying(t, r, args)
				if slow != "-3" {
					for end := time.Now().Add(10 * time.Second); tasks(t, r.pid) != threads; time.Sleep(time.Millisecond) {
						if time.Now().After(end) {
							t.Fatal("the hook does not end")
						}
					}
				}
				r.ask(fmt.Sprintf("stay %d 0", c.hook)) // the next time
				_, err := Revert(context.Background(), r.pid, nil, Options{})
				if err != nil && !errors.Is(err, ErrNotApplied) {
					t.Fatal(err)
				}
				r.expect("seen", c.left)
				r.expect("ask", "2")
				freeKept(t, r, "wipe")
				if n := tasks(t, r.pid); n != threads {
					t.Errorf("%d threads, and %d before", n, threads)
				}
				before.same(t, r.snapshot())
			})
		}
	}
}

// killWhileStaying starts a tool and kills it when a hook of its stays.
func killWhileStaying(t *testing.T, r *running, env []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	was := r.ask("stayed")
	tool := exec.Command(exe)
	tool.Env = append(os.Environ(), env...)
	if err := tool.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); r.ask("stayed") == was; {
		if time.Now().After(end) {
			t.Fatal("no hook stays")
		}
	}
	if err := tool.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := tool.Wait(); err == nil {
		t.Fatal("the tool had ended before")
	}
}

// TestHookNeverLetGo: a thread that was created, and whose tool died before it
// began, runs nothing, and the next run ends it.
func TestHookNeverLetGo(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	r := start(t, hookedProgram(t), "work")
	before, threads := r.snapshot(), tasks(t, r.pid)
	p, err := open(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := makePlan(p, []*kpack.Patch{patch}, Options{})
	if err == nil {
		_, err = p.stageAll(plan.steps)
	}
	if err == nil {
		_, _, err = p.createHookThread(plan.steps[0].record, kpack.PreApply)
	}
	p.Close()
	if err != nil {
		t.Fatal(err)
	}
	if n := tasks(t, r.pid); n != threads+1 {
		t.Errorf("%d threads, and %d before", n, threads)
	}
	applyTo(t, r.pid, patch)
	r.expect("seen", "12") // nothing was done, and nothing is undone
	revertAll(t, r.pid)
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestHooksElsewhere: a process in a namespace of its own knows its threads by
// other numbers than the tool.
func TestHooksElsewhere(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	testenv.Needs(t, "unshare")
	bin := hookedProgram(t)
	// The outer process stays outside, and is not the one with the program.
	r := start(t, "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", bin, "work")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.pid, r.pid))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(children), &pid); err != nil {
		t.Fatal(err)
	}
	threads := tasks(t, pid)
	r.ask("stay 1 -3")
	var veto *HookError
	if _, err := Apply(context.Background(), pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &veto) || veto.Why != "took longer than 1s" {
		t.Error(err)
	}
	r.ask("stay 1 0")
	r.expect("seen", "14")
	applyTo(t, pid, patch)
	r.expect("seen", "12")
	revertAll(t, pid)
	r.expect("seen", "34")
	if n := tasks(t, pid); n != threads {
		t.Errorf("%d threads, and %d before", n, threads)
	}
}

// TestHooksFiltered: where a filter may end the process for what the thread of
// the hooks does, there are none.
func TestHooksFiltered(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "2")
	r := start(t, hookedProgram(t))
	r.expect("filter", "0")
	before := r.snapshot()
	var filtered *FilteredError
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &filtered) || filtered.Hint() == "" {
		t.Error(err)
	}
	before.same(t, r.snapshot())
}

// TestHooksFilteredLater: a filter that came after the patch keeps neither a
// newer level out nor the patch in.
func TestHooksFilteredLater(t *testing.T) {
	one, two := hookedPatch(t, 1, 42, "1", "2", "3", "4"), hookedPatch(t, 2, 43)
	for _, c := range []struct {
		name   string
		change func(r *running) *Result
		answer string
	}{
		{"revert", func(r *running) *Result { return revertAll(t, r.pid) }, "2"},
		{"a newer level", func(r *running) *Result { return applyTo(t, r.pid, two) }, "44"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, hookedProgram(t))
			before := r.snapshot()
			applyTo(t, r.pid, one)
			r.expect("seen", "12")
			r.expect("filter", "0")
			res := c.change(r)
			r.expect("ask", c.answer)
			r.expect("seen", "0")
			if len(res.Hooks) != 2 || res.Hooks[0].Point != kpack.PreRevert || res.Hooks[0].Cause != HookFiltered || res.Hooks[1].Cause != HookFiltered {
				t.Errorf("hooks: %+v", res.Hooks)
			}
			if c.answer != "2" {
				revertAll(t, r.pid)
			}
			freeKept(t, r, "wipe")
			before.same(t, r.snapshot())
		})
	}
}

// TestHooksWithoutThread: a process that can have no more threads takes no patch
// whose hooks have to be asked, and lets go of one that it has.
func TestHooksWithoutThread(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "4")
	if os.Geteuid() != 0 {
		testenv.Skip(t, "only root can become the user whose limit is reached")
	}
	r := start(t, hookedProgram(t))
	r.ask("limit 1")
	before := r.snapshot()
	var veto *HookError
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &veto) || !strings.Contains(err.Error(), "could not create a thread") {
		t.Error(err)
	}
	r.expect("seen", "0")
	before.same(t, r.snapshot())
	r.ask("limit 1000")
	applyTo(t, r.pid, patch)
	r.expect("seen", "12")
	r.ask("limit 1")
	if res := revertAll(t, r.pid); len(res.Hooks) != 1 || !strings.Contains(res.Hooks[0].Why, "could not create a thread") {
		t.Errorf("hooks of the revert: %+v", res.Hooks)
	}
	r.expect("ask", "2")
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestHooksAndSignals: signals of the process are not for the thread of the hooks,
// and the thread that creates it has its own mask again.
func TestHooksAndSignals(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	r := start(t, hookedProgram(t), "signals")
	before := r.snapshot()
	for _, hook := range []int{1, 2, 3, 4} {
		r.ask(fmt.Sprintf("stay %d 10", hook))
	}
	for range 5 {
		applyTo(t, r.pid, patch)
		r.expect("seen", "12")
		revertAll(t, r.pid)
		r.expect("seen", "34")
		r.expect("handled", "1 0")
		tids, err := ptrace.Threads(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, tid := range tids {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", r.pid, tid))
			if err != nil || !strings.Contains(string(status), "SigBlk:\t0000000000000000\n") && !strings.Contains(string(status), "SigBlk:\t0000000000002000\n") {
				t.Errorf("thread %d: %v\n%s", tid, err, status) // a handler has SIGALRM blocked
			}
		}
	}
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestHookCannotBeEnded: while the thread of a hook is asleep where nobody can
// stop it, what it needs is neither used anew nor freed, whoever comes. Once it can be
// ended a later run finishes what is left.
func TestHookCannotBeEnded(t *testing.T) {
	for _, c := range []struct {
		hooks []string
		seen  string
	}{{[]string{"1"}, "1"}, {[]string{"1", "4"}, "14"}} {
		t.Run(strings.Join(c.hooks, " "), func(t *testing.T) {
			patch := hookedPatch(t, 1, 42, c.hooks...)
			r := start(t, hookedProgram(t), "work")
			before, threads := r.snapshot(), tasks(t, r.pid)
			r.ask("stay 1 -4")
			stuck := (*StuckError)(nil)
			if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &stuck) {
				t.Errorf("the first run: %v", err)
			}
			if n := tasks(t, r.pid); n != threads+1 {
				t.Errorf("%d threads, and %d before: the thread does not sleep", n, threads)
			}
			setDone(t, r.pid, 1) // as it is just before its end
			if _, err := Revert(context.Background(), r.pid, nil, Options{}); !errors.As(err, &stuck) {
				t.Errorf("a run that sees it as done: %v", err)
			}
			setDone(t, r.pid, 0)
			r.expect("ask", "2")
			r.ask("stay 1 0")
			if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
				t.Errorf("the last run: %v", err)
			}
			r.expect("seen", c.seen)
			r.expect("ask", "2")
			freeKept(t, r, "wipe")
			if n := tasks(t, r.pid); n != threads {
				t.Errorf("%d threads, and %d before", n, threads)
			}
			before.same(t, r.snapshot())
		})
	}
}

// setDone writes the word of a process's only record that says that its hooks
// are done.
func setDone(t *testing.T, pid int, done byte) {
	t.Helper()
	p, err := open(pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if len(p.records) != 1 {
		t.Fatalf("%d records", len(p.records))
	}
	r := p.records[0]
	if tid, err := p.hookThread(r); err != nil || tid == 0 {
		t.Errorf("thread %d, %v", tid, err)
	}
	if err := p.mem.Write(r.Hooks.Control+kpack.HookDone, []byte{done, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
}

// TestHookPublishes: memory to which a hook has given the program a pointer is
// kept though the patch never came in, until the pointer is gone.
func TestHookPublishes(t *testing.T) {
	for _, hooks := range [][]string{{"1"}, {"1", "4"}} {
		patch := hookedPatch(t, 1, 42, hooks...)
		r := start(t, hookedProgram(t), "work")
		before := r.snapshot()
		r.ask("result 0 1")
		r.ask("result 1 7")
		kept := func(when string, want int) {
			t.Helper()
			p, err := Open(r.pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if n := len(p.records); n != want {
				t.Errorf("%s: %d records, want %d", when, n, want)
			}
		}
		var veto *HookError
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &veto) {
			t.Errorf("the apply: %v", err)
		}
		kept("after the veto", 1)
		if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
			t.Errorf("the revert: %v", err)
		}
		kept("after a revert", 1)
		r.ask("forget")
		if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
			t.Errorf("the last revert: %v", err)
		}
		r.expect("ask", "2")
		before.same(t, r.snapshot())
	}
}

// TestHookHints: what the user is told to do fits what has happened.
func TestHookHints(t *testing.T) {
	for _, c := range []struct {
		point kpack.HookPoint
		cause HookCause
		want  string
	}{
		{kpack.PreApply, HookReturned, "keep the patch away from processes"},
		{kpack.PreRevert, HookReturned, "keep the patch in processes"},
		{kpack.PreApply, HookLate, "less busy"},
		{kpack.PreApply, HookCrashed, "has a fault"},
		{kpack.PreRevert, HookEnded, "has a fault"},
		{kpack.PreApply, HookInterrupted, "to its end"},
		{kpack.PreRevert, HookNoThread, "reached a limit"},
	} {
		e := &HookError{HookRun{Point: c.point, Cause: c.cause}}
		if !strings.Contains(e.Hint(), c.want) {
			t.Errorf("%v, %s: %q, want %q", c.point, c.cause, e.Hint(), c.want)
		}
	}
}
