package apply

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs/testenv"
)

func TestUnderSeccomp(t *testing.T) {
	bin := compile(t, "sandbox", "-fPIE", "-pie", "-DSANDBOX")
	r := start(t, bin, "call")
	patch := patchFor(t, bin, "default", 1, "answer")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{})
	if errors.Is(err, ErrSeccomp) {
		testenv.Skip(t, "the tests may not suspend a seccomp filter")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.expect("ask", "43 11 old")
	revertAll(t, r.pid)
	r.expect("ask", oldAnswer)
}

// noMappingC is the beginning of programs that end when they map memory: the calling
// thread has a seccomp filter from then on, or all have (SECCOMP_FILTER_FLAG_TSYNC).
const noMappingC = `
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static __attribute__((unused)) long no_mapping(unsigned flags)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {4, f};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p);
}
`

// workerC is a program whose first thread can hardly ever be stopped, and whose other
// one has a seccomp filter that ends the process for any new mapping.
const workerC = noMappingC + `
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((noinline, noipa)) int answer(int x) { return x + 1; }
static void *work(void *a)
{
	char line[100];
	setvbuf(stdin, malloc(4096), _IOFBF, 4096);
	puts("ready"); fflush(stdout);
	if (no_mapping(0)) exit(9);
	while (fgets(line, sizeof line, stdin)) { printf("%d\n", answer(1)); fflush(stdout); }
	exit(0);
}
int main(void) { pthread_t t; pthread_create(&t, 0, work, 0); for (;;) { if (vfork() == 0) { usleep(400000); _exit(0); } usleep(1000); } }
`

// TestFilterOfAnother: the filter that counts is that of the thread that maps memory,
// not the first thread's.
func TestFilterOfAnother(t *testing.T) {
	bin := compileC(t, "worker", workerC, "-fPIE", "-pie")
	r := start(t, bin)
	r.expect("ask", "2")
	before := r.snapshot()
	o := Options{Wait: 20 * time.Second}
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 1, "answer")}, o)
	if errors.Is(err, ErrSeccomp) {
		before.same(t, r.snapshot())
		testenv.Skip(t, "the tests may not suspend a seccomp filter")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.expect("ask", "43")
	if _, err := Revert(context.Background(), r.pid, nil, o); err != nil {
		t.Fatal(err)
	}
	r.expect("ask", "2")
	before.same(t, r.snapshot())
}

// TestHooksUnderFilter: hooks run where the filters of a thread let theirs be, by
// whichever thread that is.
func TestHooksUnderFilter(t *testing.T) {
	mayReadFilters(t)
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	for _, c := range []struct {
		name, filters string
		others        []string // threads without them
	}{
		{"of which one lets all", "0", nil},
		{"of which one lets what is needed, and ends the process for the rest", "0 3", nil},
		{"of the first thread alone", "1 2", []string{"work", "poll"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, hookedProgram(t), c.others...)
			for f := range strings.FieldsSeq(c.filters) {
				r.expect("filter "+f, "0")
			}
			before, threads := r.snapshot(), tasks(t, r.pid)
			if _, err := Prepare(t.Context(), r.pid, []*kpack.Patch{patch}); err != nil {
				t.Error(err)
			}
			for range 3 {
				applyTo(t, r.pid, patch)
				r.expect("seen", "12")
				r.expect("ask", "43")
				revertAll(t, r.pid)
				r.expect("seen", "34")
				r.expect("ask", "2")
			}
			if n := tasks(t, r.pid); n != threads {
				t.Errorf("%d threads, and %d before", n, threads)
			}
			freeKept(t, r, "wipe")
			before.same(t, r.snapshot())
		})
	}
}

// TestFilterReadIsHeld: the time for which a thread stands still so that its filters
// are read is told.
func TestFilterReadIsHeld(t *testing.T) {
	mayReadFilters(t)
	patch := hookedPatch(t, 1, 42, "2")
	for _, filtered := range []bool{false, true} {
		r := start(t, hookedProgram(t))
		if filtered {
			r.expect("filter 0", "0")
		}
		p, err := Open(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		plan, err := makePlan(p, []*kpack.Patch{patch}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if held, err := p.mayHook(t.Context(), plan); err != nil || (held > 0) != filtered {
			t.Errorf("with a filter %v: held for %v, %v", filtered, held, err)
		}
	}
}

// mayReadFilters skips a test where the tool is not let read seccomp filters.
func mayReadFilters(t *testing.T) {
	t.Helper()
	r := start(t, hookedProgram(t))
	r.expect("filter 0", "0")
	_, err := ptrace.Permitted(r.pid, r.pid, hookCalls)
	if denied := (*ptrace.DeniedError)(nil); errors.As(err, &denied) && denied.Call == "" {
		testenv.Skip(t, "the tests may not read seccomp filters")
	}
}

// TestHooksFiltered: where the filters of all threads stand in the way of the thread
// of the hooks, a patch that has some is refused, by the name of the call.
func TestHooksFiltered(t *testing.T) {
	mayReadFilters(t)
	patch := hookedPatch(t, 1, 42, "2")
	for filter, call := range map[string]string{"1": "nanosleep", "2": "clone"} {
		r := start(t, hookedProgram(t))
		r.expect("filter "+filter, "0")
		r.expect("filter 0", "0")
		before := r.snapshot()
		for _, do := range []func() error{
			func() error {
				_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{})
				return err
			},
			func() error { _, err := Prepare(context.Background(), r.pid, []*kpack.Patch{patch}); return err },
		} {
			var filtered *FilteredError
			if err := do(); !errors.As(err, &filtered) || filtered.Hint() == "" || filtered.Denied.Call != call || !strings.Contains(err.Error(), call) {
				t.Error(err)
			}
		}
		before.same(t, r.snapshot())
		r.expect("ask", "2")
	}
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
			r.expect("filter 1", "0")
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
