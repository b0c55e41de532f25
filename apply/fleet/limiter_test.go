package fleet

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/specs/testenv"
)

// closer counts how often it is closed.
type closer struct{ n *atomic.Int32 }

func (c closer) Close() { c.n.Add(1) }

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter()
		l.owner = func(pid int) (int, error) { return pid / 100, nil }
		var closed atomic.Int32
		never := make(chan struct{})
		b := Bound{time.Second, time.Second}
		stuck := func(context.Context) (closer, error) { <-never; return closer{&closed}, nil }
		slow := func(ctx context.Context) (closer, error) { <-ctx.Done(); return closer{}, ctx.Err() }
		well := func(context.Context) (closer, error) { return closer{&closed}, nil }

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Do(ctx, l, 100, b, stuck); !errors.Is(err, context.Canceled) || errors.Is(err, ErrSilent) {
			t.Errorf("interrupted: %v", err)
		}
		for i := range MaxSilent {
			f := stuck
			if i%2 == 0 {
				f = slow
			}
			if _, err := Do(t.Context(), l, 100+i, b, f); !errors.Is(err, ErrSilent) {
				t.Errorf("process %d: %v", 100+i, err)
			}
		}
		if _, err := Do(t.Context(), l, 199, b, well); !errors.Is(err, ErrLeftOut) || l.LeftOut() != 1 {
			t.Errorf("%v, %d left out", err, l.LeftOut())
		}
		for range MaxSilent + 1 { // root's are not left out
			if _, err := Do(t.Context(), l, 1, b, slow); !errors.Is(err, ErrSilent) {
				t.Errorf("root's: %v", err)
			}
		}
		if v, err := Do(t.Context(), l, 200, b, well); err != nil || v.n != &closed || closed.Load() != 0 {
			t.Errorf("another's: %v, %d closed", err, closed.Load())
		}
		close(never)
		synctest.Wait()
		if got, want := int(closed.Load()), 1+MaxSilent/2; got != want {
			t.Errorf("%d late results closed: want %d", got, want)
		}
	})
}

// TestReuse: goroutines that wait for more work do it as new ones would, and end when
// there is none for some time.
func TestReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, sum := NewLimiter(), 0
		l.Reuse()
		for i := range 100 {
			v, err := Do(t.Context(), l, 7, Bound{Limit: time.Second}, func(context.Context) (int, error) { return i, nil })
			if err != nil {
				t.Error(err)
			}
			sum += v
			synctest.Wait() // until the goroutine waits
		}
		if sum != 4950 {
			t.Errorf("what was returned adds up to %d", sum)
		}
		never := make(chan struct{})
		if _, err := Do(t.Context(), l, 7, Bound{Limit: time.Second}, func(context.Context) (int, error) { <-never; return 0, nil }); !errors.Is(err, ErrSilent) {
			t.Error(err)
		}
		if v, err := Do(t.Context(), l, 7, Bound{Limit: time.Second}, func(context.Context) (int, error) { return 1, nil }); v != 1 || err != nil {
			t.Errorf("beside one that is stuck: %d, %v", v, err)
		}
		close(never)
		time.Sleep(2 * idleTime) // or the test does not end
	})
}

// TestOwnerIsAskedLate: users are told apart once a process was silent, and one that
// has ended by then gets away with that once.
func TestOwnerIsAskedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, asked := NewLimiter(), 0
		l.owner = func(int) (int, error) { asked++; return 0, apply.ErrGone }
		b := Bound{time.Second, time.Second}
		calls := 0
		slow := func(ctx context.Context) (closer, error) { calls++; <-ctx.Done(); return closer{}, ctx.Err() }
		well := func(context.Context) (closer, error) { calls++; return closer{}, nil }
		if _, err := Do(t.Context(), l, 7, b, well); err != nil || asked != 0 {
			t.Errorf("%v, asked %d times", err, asked)
		}
		if _, err := Do(t.Context(), l, 7, b, slow); !errors.Is(err, ErrSilent) || asked != 1 {
			t.Errorf("%v, asked %d times", err, asked)
		}
		if _, err := Do(t.Context(), l, 7, b, slow); !errors.Is(err, apply.ErrGone) || asked != 2 || calls != 2 {
			t.Errorf("%v, asked %d times, called %d times", err, asked, calls)
		}
	})
}

// TestOwner has a process that is not dumpable, whose folder in /proc is
// root's.
func TestOwner(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Skip(t, "only root can become another user")
	}
	pid, line := start(t, `
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void) {
	puts(setuid(65534) || prctl(PR_SET_DUMPABLE, 0) ? "no" : "ready");
	fflush(stdout); pause(); return 0;
}`)
	if line != "ready" {
		t.Fatal(line)
	}
	if uid, err := owner(pid); uid != 65534 || err != nil {
		t.Errorf("user %d, %v: want 65534", uid, err)
	}
	if _, err := owner(1 << 22); !errors.Is(err, apply.ErrGone) {
		t.Errorf("no such process: %v", err)
	}
}
