package apply

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs/testenv"
)

// TestCoroutineInside: a coroutine that comes back to bytes that the jump takes is
// waited for, though no thread runs on its stack.
func TestCoroutineInside(t *testing.T) {
	bin, _ := tortureProgram(t)
	r := start(t, bin, "sleep")
	patch := patchFor(t, bin, "default", 1, "through60", "answer60")
	r.expect("suspend", "suspended")
	before := r.snapshot()
	for range 3 {
		_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 50 * time.Millisecond})
		busy := (*BusyError)(nil)
		if !errors.As(err, &busy) || busy.Threads[0].TID != 0 || busy.Threads[0].Function != "through" || !strings.Contains(err.Error(), "coroutine") {
			t.Errorf("error: %v", err)
		}
	}
	before.same(t, r.snapshot())
	r.expect("resume", "resumed")
	applyTo(t, r.pid, patch)
	r.expect("rest", "101 136 43 20 2")

	// One that is suspended in the new code keeps that in memory.
	r.expect("suspend", "suspended")
	if res := revertAll(t, r.pid); len(res.Kept) != 1 {
		t.Errorf("result: %+v", res)
	}
	r.expect("rest", "11 136 2 20 2")
	r.expect("resume", "resumed")
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestJITFrame: code without unwind data between a function that changes and what
// waits hides nothing.
func TestJITFrame(t *testing.T) {
	bin, _ := tortureProgram(t)
	r := start(t, bin, "jit", "calls")
	patch := patchFor(t, bin, "default", 1, "through60")
	r.expect("jitted", "jitted")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 50 * time.Millisecond})
	busy := (*BusyError)(nil)
	if !errors.As(err, &busy) || busy.Threads[0].Name != "jit" || busy.Threads[0].Function != "through" {
		t.Errorf("error: %v", err)
	}
	for range 5 {
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
		r.expect("rest", "101 136 2 20 2")
		if _, err := Revert(context.Background(), r.pid, nil, Options{Wait: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSignalFrames: functions that a signal handler calls, on a stack of its own,
// a thousand times and more.
func TestSignalFrames(t *testing.T) {
	bin, _ := tortureProgram(t)
	r := start(t, bin, "signals2")
	patch := tortureLevel(t, bin, 1)
	for range 3 {
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
		r.expect("handled", "handled")
		r.expect("rest", "101 136 43 20 2")
		if _, err := Revert(context.Background(), r.pid, nil, Options{Wait: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
		r.expect("handled", "handled")
		r.expect("rest", "11 136 2 20 2")
	}
}

// clockC has a thread that asks the vDSO for the time, inside of what changes, and
// is in the vDSO itself most of the time.
const clockC = `
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static volatile int leave;
__attribute__((noinline, noclone, noipa)) int answer(int x) { struct timespec t; while (x && !leave) clock_gettime(CLOCK_MONOTONIC, &t); return x + 1; }
static void *clocks(void *a) { answer(1); for (;;) pause(); return a; }
int main(void)
{
	char line[100];
	pthread_t t;
	if (pthread_create(&t, 0, clocks, 0)) return 1;
	usleep(10000);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) { leave |= line[0] == 'l'; printf("%d\n", answer(0)); fflush(stdout); }
	return 0;
}
`

// TestVDSOFrame: a thread in the vDSO is inside of who called that.
func TestVDSOFrame(t *testing.T) {
	bin := compileC(t, "clock", clockC, "-fPIE", "-pie")
	patch := patchFor(t, bin, "default", 1, "answer")
	r := startCommand(t, exec.Command(bin))
	if there := timesInVDSO(t, r.pid, 50); there < 10 {
		testenv.Skip(t, "clock_gettime is not in the vDSO")
	}
	before := r.snapshot()
	for range 50 {
		_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: -1})
		if busy := (*BusyError)(nil); !errors.As(err, &busy) || busy.Threads[0].Function != "answer" || busy.Threads[0].TID == r.pid {
			t.Fatalf("%v", err)
		}
	}
	before.same(t, r.snapshot())
	r.expect("leave", "1")
	applyTo(t, r.pid, patch)
	r.expect("ask", "43")
	revertAll(t, r.pid)
	r.expect("ask", "1")
}

// timesInVDSO stops the last thread of a process n times, and counts how often it was
// in the vDSO.
func timesInVDSO(t *testing.T, pid, n int) (there int) {
	t.Helper()
	maps, err := readMaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	tids, err := ptrace.Threads(pid)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		err := ptrace.Do(func() error {
			g, err := ptrace.Seize(pid, ptrace.Options{Only: tids[len(tids)-1:]})
			if err != nil {
				return err
			}
			defer g.Detach()
			if err := g.Stop(); err != nil {
				return err
			}
			if m := mappingAt(maps, g.Threads()[0].Regs.PC()); m != nil && m.Path == vdso {
				there++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d times in the vDSO", there, n)
	return there
}
