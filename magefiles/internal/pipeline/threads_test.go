package pipeline

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/specs"
)

// threadsMain asks four threads that stay and one that is new for each line of
// its input. With DLOPEN it opens the library when the threads run.
const threadsMain = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void touch(int n);
long answer(int n);
static void (*do_touch)(int);
static long (*do_answer)(int);
enum { N = 4 };
static sem_t go[N], done[N];
static int request;
static long result[N + 1];
__attribute__((noinline)) static void scrub(void) {
	char area[16384];
	memset(area, 0, sizeof area);
	__asm__ volatile("" : : "r"(area) : "memory");
}
__attribute__((noinline)) static void one(long i) {
	do_touch(request * (i + 1));
	result[i] = do_answer(i);
}
static void *fresh(void *arg) { one((long)arg); return 0; }
static void *stays(void *arg) {
	long i = (long)arg;
	for (;;) {
		sem_wait(&go[i]);
		one(i);
		scrub();
		sem_post(&done[i]);
	}
}
int main(void) {
	char line[64];
	pthread_t t;
#ifdef ERRNO
	errno = 0; // so that libc.a gives what the fix needs
#endif
	for (long i = 0; i < N; i++) {
		sem_init(&go[i], 0, 0);
		sem_init(&done[i], 0, 0);
		pthread_create(&t, 0, stays, (void *)i);
	}
#ifdef DLOPEN
	void *lib = dlopen("libunit.so", RTLD_NOW);
	if (!lib) { puts(dlerror()); return 1; }
	do_touch = (void (*)(int))dlsym(lib, "touch");
	do_answer = (long (*)(int))dlsym(lib, "answer");
#else
	do_touch = touch;
	do_answer = answer;
#endif
	while (fgets(line, sizeof line, stdin)) {
		request = atoi(line);
		for (int i = 0; i < N; i++) {
			sem_post(&go[i]);
			sem_wait(&done[i]);
		}
		pthread_create(&t, 0, fresh, (void *)(long)N);
		pthread_join(t, 0);
		for (int i = 0; i <= N; i++) printf("%ld ", result[i]);
		puts("");
		fflush(stdout);
	}
	return 0;
}
`

// threadsUnit has variables of each thread: initialised and not, of the unit,
// of one function, of all, and of another file.
const threadsUnit = `
#include <errno.h>
#include <unistd.h>
__thread int global = 3;
__thread int unused[5] __attribute__((aligned(64))) = {1, 2};
static __thread long mine;
static __thread long started = 77;
#ifdef ALONE
static __thread int other = 5;
#else
extern __thread int other;
#endif
#ifdef IMPORTS
extern __thread int another;
#endif
#pragma GCC visibility push(default)
void touch(int n) {
	global += n;
	mine += 2 * n + unused[1];
	started++;
	other += n;
}
long answer(int n) {
	static __thread int calls;
	calls++;
	return n + calls;
}
`

const threadsFix = `long answer(int n) {
	static __thread int calls;
	long sum = 0;
	calls++;
	if (close(-1) == 0 || errno != EBADF) return -1;
	for (int i = 0; i < 2; i++) sum += unused[i];
#ifdef IMPORTS
	sum += another;
#endif
	return ((((sum * 100 + n) * 100 + calls) * 100 + mine) * 1000 + started) * 1000 + other * 10 + global;
}
`

const threadsStub = "void touch(int n) { }\nlong answer(int n) { return 0; }\n"

// Commands that build the program in its shapes; %s are the compiler's flags.
// ld orders some strings of an executable by what is in the libraries, so it
// gets one that both builds have alike.
const (
	oneFile = "cc -Wl,--build-id %s -o case main.c unit.c other.c -pthread"
	library = "cc -Wl,--build-id -shared -fPIC -o libother.so other.c && cc -Wl,--build-id -shared %s -o libunit.so unit.c -L. -lother -Wl,-rpath,'$ORIGIN' && "
	linked  = library + "cc -Wl,--build-id -shared -fPIC -Wl,-soname,libunit.so -o libstub.so stub.c && " +
		"cc -Wl,--build-id -O1 -o case main.c -L. -lstub -lother -Wl,-rpath,'$ORIGIN' -pthread"
	opened = library + "cc -Wl,--build-id -O1 -DDLOPEN -o case main.c -Wl,-rpath,'$ORIGIN' -ldl -pthread"
)

// TestThreadLocal patches a function that uses variables of each thread, in
// every access model. All threads go on with the values that they had, and
// threads that begin later have their own.
func TestThreadLocal(t *testing.T) {
	for _, c := range []struct{ name, build, flags string }{
		{"executable", oneFile, "-O0"},
		{"executable", oneFile, "-O2 -g"},
		{"executable", oneFile, "-O2 -fno-pie -no-pie"},
		{"executable", oneFile, "-O2 -static -DERRNO"},
		{"executable", oneFile, "-O2 -static-pie -DERRNO"},
		{"executable", oneFile, "-O2 -fPIC"},
		{"executable", oneFile, "-O0 -fPIC -fno-plt"},
		{"executable", oneFile, "-O2 -fPIC -mtls-dialect=gnu2"},
		{"executable", oneFile, "-O2 -fPIC -ftls-model=initial-exec"},
		{"executable", oneFile, "-O2 -fPIC -static -DERRNO"},
		{"library", linked, "-O0 -fPIC"},
		{"library", linked, "-O2 -fPIC -DIMPORTS"},
		{"library", linked, "-O2 -fPIC -fno-plt -Wl,-Bsymbolic"},
		{"library", linked, "-O2 -fPIC -ftls-model=local-dynamic -fvisibility=hidden -DALONE"},
		{"library", linked, "-O2 -fPIC -ftls-model=initial-exec -DIMPORTS"},
		{"library", linked, "-O2 -fPIC -mtls-dialect=gnu2 -DIMPORTS"},
		{"opened library", opened, "-O2 -fPIC -DIMPORTS"},
		{"opened library", opened, "-O0 -fPIC"},
		{"opened library", opened, "-O2 -fPIC -ftls-model=initial-exec"},
		{"opened library", opened, "-O2 -fPIC -mtls-dialect=gnu2"},
	} {
		t.Run(c.name+" "+c.flags, func(t *testing.T) {
			t.Parallel()
			f, err := makeThreads(t, fmt.Sprintf(c.build, c.flags), threadsUnit, threadsFix)
			if err != nil {
				t.Fatal(err)
			}
			checkThreads(t, f)
		})
	}
}

// makeThreads runs the pipeline on the program, whose unit.c has fix in the
// place of its last function.
func makeThreads(t *testing.T, build, unit, fix string) (Folder, error) {
	dir := t.TempDir()
	head, _, _ := strings.Cut(unit, "long answer")
	for name, text := range map[string]string{
		"a/main.c": threadsMain, "a/other.c": "__thread int other = 5, another = 6, far = 7;\n", "a/unit.c": unit,
		"a/stub.c": threadsStub, "b/stub.c": threadsStub, "b/main.c": threadsMain, "b/other.c": "__thread int other = 5, another = 6, far = 7;\n", "b/unit.c": head + fix,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	diff := exec.Command("diff", "-ur", "a", "b")
	diff.Dir = dir
	patch, _ := diff.Output() // its exit status says that they differ
	if err := os.WriteFile(filepath.Join(dir, "fix.patch"), patch, 0o644); err != nil {
		t.Fatal(err)
	}
	s := specs.Spec{
		Name: "case", Dir: filepath.Join(dir, "a"), Patches: []string{filepath.Join(dir, "fix.patch")},
		Build: []string{build}, Series: specs.DefaultSeries, Level: 1,
	}
	o := Options{Work: filepath.Join(dir, "work"), Shim: bin.cc}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	err := Build(ctx, s, o)
	if err == nil {
		_, err = Diff(ctx, s, o)
	}
	if err == nil {
		_, err = Pack(ctx, s, o)
	}
	if err == nil {
		err = Step(ctx, s, o, "verify")
	}
	return FolderOf(s, o), err
}

// checkThreads asks the original and the patched build, and a process that is
// patched and reverted between the questions. The fix leaves alone what the
// threads count, so that the answers are those of the build whose code runs.
func checkThreads(t *testing.T, f Folder) {
	original, patched := ask(t, filepath.Join(f.Original(), "case")), ask(t, filepath.Join(f.Patched(), "case"))
	p := ask(t, filepath.Join(f.Original(), "case"))
	n := 0
	three := func(state string, of int) {
		for range 3 {
			n++
			request := fmt.Sprint(n)
			want := []string{original.answer(request), patched.answer(request)}
			if want[0] == want[1] {
				t.Errorf("the builds both answer %q", want[0])
			}
			if got := p.answer(request); got != want[of] {
				t.Errorf("%s: %s is answered by %q, want %q", state, request, got, want[of])
			}
		}
	}
	three("before", 0)
	fother(t, 0, "patch", "-p", p.pid(), f.Patches())
	three("patched", 1)
	fother(t, 0, "unpatch", "-p", p.pid())
	three("reverted", 0)
	fother(t, 0, "patch", "-p", p.pid(), f.Patches())
	three("patched again", 1)
	fother(t, 0, "unpatch", "-p", p.pid())
}

// TestThreadLocalRefused: what running threads have no place for is refused by
// name, when the patch is made or for the process.
func TestThreadLocalRefused(t *testing.T) {
	fixed := "extern __thread int far __attribute__((tls_model(\"initial-exec\")));\nlong answer(int n) { return n + far; }\n"
	far := strings.Replace(threadsUnit, "extern __thread int other", "extern __thread int far, other", 1)
	for _, c := range []struct{ name, build, fix, want string }{
		{"new variable", oneFile, "static __thread int more; long answer(int n) { return n + ++more; }\n", "more: a new thread-local variable"},
		{"new in a library", linked, "long answer(int n) { static __thread int more; return n + ++more; }\n", "a new thread-local variable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := makeThreads(t, fmt.Sprintf(c.build, "-O1 -fPIC"), far, c.fix)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("elsewhere in each thread", func(t *testing.T) {
		f, err := makeThreads(t, fmt.Sprintf(opened, "-O1 -fPIC"), far, fixed)
		if err != nil {
			t.Fatal(err)
		}
		p := ask(t, filepath.Join(f.Original(), "case"))
		p.answer("1")
		before := memory(t, p.pid())
		out := fother(t, 1, "patch", "-p", p.pid(), f.Patches())
		if !strings.Contains(out, `symbol "far"`) || !strings.Contains(out, "each thread has elsewhere") {
			t.Errorf("the refusal is\n%s", out)
		}
		sameMemory(t, before, memory(t, p.pid()))
		p.answer("2")
	})
}
