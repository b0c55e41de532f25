package apply

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
)

// parking has sleeping threads parked, however few there are, until the test ends.
func parking(t testing.TB) {
	old := parkFrom
	parkFrom = 1
	t.Cleanup(func() { parkFrom = old })
}

// TestSleepersAreParked: who sleeps has no part in the stop, and finds the new
// code when it wakes.
func TestSleepersAreParked(t *testing.T) {
	parking(t)
	r := start(t, pie(t), "call", "sleep1s", "read", "epoll", "futex")
	before := r.snapshot()
	patch := patchFor(t, pie(t), "default", 1, "answer", "other")
	most := 0
	for range 10 {
		most = max(most, applyTo(t, r.pid, patch).Stop.Parked)
		r.expect("ask", newAnswer)
		most = max(most, revertAll(t, r.pid).Stop.Parked)
		r.expect("ask", oldAnswer)
	}
	if most < 4 {
		t.Errorf("at most %d threads were parked", most)
	}
	before.same(t, r.snapshot())
}

// TestParkedInside: a thread that sleeps inside of what changes is named, and no
// thread is stopped to know it.
func TestParkedInside(t *testing.T) {
	parking(t)
	r := start(t, pie(t), "forever", "futex", "sleep1s")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "forever")}, Options{Wait: 100 * time.Millisecond})
	busy := (*BusyError)(nil)
	if !errors.As(err, &busy) || busy.Threads[0].Function != "forever" || busy.Threads[0].Name != "forever" {
		t.Fatalf("%v", err)
	}
	r.expect("ask", oldAnswer)
}
