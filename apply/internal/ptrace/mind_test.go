package ptrace

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFiltered: only what is known to have no filter counts as such.
func TestFiltered(t *testing.T) {
	for _, c := range []struct {
		name, status string
		err          error
		want         bool
	}{
		{"none", "Name:\ta\nSeccomp:\t0\nSeccomp_filters:\t0\n", nil, false},
		{"a filter", "Seccomp:\t2\n", nil, true},
		{"strict", "Seccomp:\t1\n", nil, true},
		{"a kernel without", "Name:\ta\n", nil, false},
		{"no number", "Seccomp:\tx\n", nil, true},
		{"nothing", "", nil, true},
		{"unreadable", "", unix.EMFILE, true},
		{"an ended thread", "", os.ErrNotExist, false},
		{"an ending thread", "", unix.ESRCH, false},
	} {
		if got := filtered([]byte(c.status), c.err); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if !Filtered(1 << 30) { // no pid is as high
		t.Error("what has no threads to look at has no filter")
	}
}

// TestInnermost: a thread is found by its own id, with any guess, and what is
// none is not.
func TestInnermost(t *testing.T) {
	pid := os.Getpid()
	for _, guess := range []int{0, pid, 1 << 30} {
		if tid, err := Innermost(pid, pid, guess); tid != pid || err != nil {
			t.Errorf("guess %d: thread %d, %v", guess, tid, err)
		}
		tid, err := Innermost(pid, 1<<30, guess)
		if errors.Is(err, ErrUnsettled) {
			continue // the runtime has made a thread each time
		}
		if tid != 0 || err != nil {
			t.Errorf("guess %d: thread %d that is none, %v", guess, tid, err)
		}
	}
}

// TestDo: each call has a thread of its own, which ends. The process's first one
// would not, and what it traces would stay traced.
func TestDo(t *testing.T) {
	var all []int
	for range 300 {
		err := Do(func() error {
			all = append(all, unix.Gettid())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(all, unix.Getpid()) {
		t.Error("the first thread of the process was taken")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		now, err := Threads(unix.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		left := slices.DeleteFunc(now, func(tid int) bool { return !slices.Contains(all, tid) })
		if len(left) == 0 {
			return
		} else if time.Now().After(end) {
			t.Fatalf("threads %v have not ended", left)
		}
	}
}

// TestSeizeAfterOneself: a thread of the tool that holds the process, and ends, is
// waited for.
func TestSeizeAfterOneself(t *testing.T) {
	pid := start(t, "sleep").Process.Pid
	seized, another := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- Do(func() error {
			_, err := Seize(pid, Options{})
			close(seized)
			<-another
			time.Sleep(20 * time.Millisecond)
			return err
		})
	}()
	<-seized
	err := Do(func() error {
		close(another)
		g, err := Seize(pid, Options{})
		if err == nil {
			g.Detach()
		}
		return err
	})
	if e := <-first; e != nil || err != nil {
		t.Errorf("seized once: %v; again, with the first to end soon: %v", e, err)
	}
}
