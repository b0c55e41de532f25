package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs/testenv"
)

// watcherC is a parent that says so if it hears of anything but the end of its
// child.
const watcherC = `
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
static void heard(int s) { static const char bad[] = "BAD the parent got a SIGCHLD\n"; if (write(1, bad, sizeof bad - 1) < 0) _exit(3); }
int main(int argc, char **argv)
{
	struct sigaction a = { .sa_handler = heard };
	siginfo_t i;
	sigaction(SIGCHLD, &a, 0);
	pid_t p = fork();
	if (p == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); execv(argv[1], argv + 1); _exit(9); }
	for (;;) {
		i.si_pid = 0;
		if (waitid(P_ALL, 0, &i, WSTOPPED | WCONTINUED | WEXITED) && errno == EINTR) continue;
		printf("BAD the parent was told %d of %d\n", i.si_code, i.si_pid);
		fflush(stdout);
		_exit(3);
	}
}
`

// TestParentHearsNothing: the stops of a process are not told to its parent, by a
// signal or by waitid.
func TestParentHearsNothing(t *testing.T) {
	r := start(t, compileC(t, "watcher", watcherC), pie(t), "call", "sleep", "births", "futex")
	pid := onlyChild(t, r.pid)
	patch := patchFor(t, pie(t), "default", 1, "answer", "other")
	for range 20 {
		applyTo(t, pid, patch)
		r.expect("ask", newAnswer)
		revertAll(t, pid)
		r.expect("ask", oldAnswer)
	}
}

func onlyChild(t *testing.T, pid int) (child int) {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		_, err = fmt.Sscan(string(children), &child)
	}
	if err != nil {
		t.Fatal(err)
	}
	return child
}

// TestThousandsOfThreads: none of them is lost, or woken.
func TestThousandsOfThreads(t *testing.T) {
	n := 1000
	if testenv.Long() {
		n = 5000
	}
	r := start(t, pie(t), slices.Concat([]string{"call", "births"}, slices.Repeat([]string{"many"}, n))...)
	patch := patchFor(t, pie(t), "default", 1, "answer", "other")
	for range 3 {
		res := applyTo(t, r.pid, patch)
		r.expect("ask", newAnswer)
		back := revertAll(t, r.pid)
		r.expect("ask", oldAnswer)
		t.Logf("%d threads: stops of %v and %v", res.Stop.Threads, res.Stop.Total, back.Stop.Total)
		if res.Stop.Threads < n {
			t.Errorf("%d threads were stopped", res.Stop.Threads)
		}
	}
	if left := tasks(t, r.pid); left < n+3 {
		t.Errorf("%d threads are left", left)
	}
}

// TestLocks: threads that hold locks and wait for them inside of what changes get
// them, two hundred times.
func TestLocks(t *testing.T) {
	bin, _ := tortureProgram(t)
	r := start(t, bin, "locks4")
	patch := patchFor(t, bin, "default", 1, "locked", "leaf")
	o := Options{Wait: 20 * time.Second}
	for range 100 {
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, o); err != nil {
			t.Fatal(err)
		}
		r.expect("rest", "11 5 2 20 43")
		if _, err := Revert(context.Background(), r.pid, nil, o); err != nil {
			t.Fatal(err)
		}
		r.expect("rest", "11 136 2 20 2")
	}
}

// executesC executes itself over and over again, from its first thread or from
// another one.
const executesC = `
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int answer(int x) { return x + 1; }
static char **args;
static void again(void) { execv(args[0], args); printf("BAD exec\n"); _exit(3); }
static void *call(void *arg)
{
	struct timespec t = {0, 100000 * (1 + getpid() % 7)};
	for (int i = 0; i < 40; i++) { int v = answer(1); if (v != 2 && v != 43) { printf("BAD %d\n", v); fflush(stdout); _exit(3); } nanosleep(&t, 0); }
	if (arg) again();
	return 0;
}
int main(int argc, char **argv)
{
	pthread_t t;
	int turns = atoi(argv[1]);
	char next[20];
	if (turns == 0) { printf("ready\n"); fflush(stdout); }
	snprintf(next, sizeof next, "%d", turns + 1);
	args = argv;
	argv[1] = next;
	pthread_create(&t, 0, call, turns % 2 ? argv : 0);
	pthread_join(t, 0);
	again();
}
`

// TestExecMeanwhile: a process that executes another program at any moment is
// patched or gone, and that program runs.
func TestExecMeanwhile(t *testing.T) {
	bin := compileC(t, "executes", executesC, "-fPIE", "-pie")
	patch := patchFor(t, bin, "default", 1, "answer")
	r := start(t, bin, "0")
	turns := func() string {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(args)
	}
	outcomes := map[string]int{}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{})
		if err == nil {
			_, err = Revert(context.Background(), r.pid, nil, Options{})
		}
		var noFit *NoFitError
		switch {
		case err == nil:
			outcomes["done"]++
		case errors.Is(err, ErrGone), errors.Is(err, ErrNotApplied):
			outcomes["gone"]++
		case errors.As(err, &noFit): // it has only been loaded in part
			outcomes["not there yet"]++
		default:
			t.Error(err)
			outcomes["failed"]++
		}
	}
	t.Log(outcomes)
	before := turns()
	for end := time.Now().Add(10 * time.Second); turns() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not go on")
		}
	}
	if outcomes["done"] == 0 || outcomes["gone"] == 0 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// TestTwoLibraries: one is patched, then the other, and what is linked with
// -Bsymbolic calls its own new code.
func TestTwoLibraries(t *testing.T) {
	dir := t.TempDir()
	var libs []string
	for _, name := range []string{"one", "two"} {
		src := filepath.Join(dir, name+".c")
		code := strings.ReplaceAll(`static volatile int add = 1;
__attribute__((noipa)) int answer_NAME(int x) { return x + add; }
__attribute__((noipa)) int NAME(int x) { return 100 * answer_NAME(x); }`, "NAME", name)
		if err := os.WriteFile(src, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		lib := filepath.Join(dir, "lib"+name+".so")
		command(t, "gcc", "-O1", "-fPIC", "-falign-functions=16", "-c", "-o", lib+".o", src)
		for _, out := range []string{lib, lib + ".patched"} {
			command(t, "gcc", "-shared", "-Wl,--build-id", "-Wl,-soname,lib"+name+".so", "-Wl,-Bsymbolic", "-o", out, lib+".o")
		}
		fixes["answer_"+name] = constant("answer_"+name, 40+len(libs))
		libs = append(libs, lib)
	}
	main := filepath.Join(dir, "main.c")
	if err := os.WriteFile(main, []byte(`
#include <stdio.h>
int one(int), two(int);
int main(void) { char l[9]; puts("ready"); fflush(stdout); while (fgets(l, 9, stdin)) { printf("%d %d\n", one(1), two(1)); fflush(stdout); } return 0; }`), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "gcc", "-O1", "-o", main+".bin", main, libs[0], libs[1], "-Wl,-rpath,"+dir)
	r := start(t, main+".bin")
	r.expect("", "200 200")
	before := r.snapshot()
	one, two := patchFor(t, libs[0], "default", 1, "answer_one"), patchFor(t, libs[1], "default", 1, "answer_two")
	applyTo(t, r.pid, one)
	r.expect("", "4000 200")
	applyTo(t, r.pid, two)
	r.expect("", "4000 4100")
	if _, err := Revert(context.Background(), r.pid, []Selector{{BuildID: one.Target.BuildID}}, Options{}); err != nil {
		t.Fatal(err)
	}
	r.expect("", "200 4100")
	revertAll(t, r.pid)
	applyTo(t, r.pid, one, two) // in one stop
	r.expect("", "4000 4100")
	revertAll(t, r.pid)
	r.expect("", "200 200")
	before.same(t, r.snapshot())
}
