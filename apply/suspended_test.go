package apply

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
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
