package apply

import (
	"errors"
	"slices"
	"testing"

	"github.com/fother/fother/apply/internal/ptrace"
)

// TestAgentsAreFew: of very many threads some are asked to make calls, and the first
// one is not among them; of few all are.
func TestAgentsAreFew(t *testing.T) {
	for _, c := range []struct{ threads, want int }{{1, 1}, {4, 4}, {100, maxAgents}} {
		r := start(t, pie(t), slices.Repeat([]string{"sleep"}, c.threads-1)...)
		p, err := Open(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		var asked []int
		done, err := p.tryThreads(func(tid int) (bool, error) {
			asked = append(asked, tid)
			return false, ptrace.ErrUnsuitable
		})
		slices.Sort(asked)
		if done || !errors.Is(err, ptrace.ErrUnsuitable) || len(slices.Compact(asked)) != c.want || slices.Contains(asked, r.pid) != (c.want == c.threads) {
			t.Errorf("of %d threads %v were asked: %v", c.threads, asked, err)
		}
	}
}

// TestStackOfNewThread: whose stack it was when mappings were read is known by the
// thread, not by its id, which another one may have since: of that one they are
// read anew.
func TestStackOfNewThread(t *testing.T) {
	r := start(t, pie(t), "sleep", "read")
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = ptrace.Do(func() error {
		g, err := ptrace.Seize(r.pid, ptrace.Options{})
		if err != nil {
			return err
		}
		defer g.Detach()
		in := newInspector(p, nil)
		if err := in.know(g.Threads()); err != nil {
			return err
		}
		if err := g.Stop(); err != nil {
			return err
		}
		if n := len(g.Threads()); n != 3 {
			t.Errorf("%d threads", n)
		}
		for _, th := range g.Threads() {
			reused := *th
			for _, c := range []struct {
				thread *ptrace.Thread
				anew   bool
			}{{th, false}, {&reused, true}} {
				in.fresh = false
				stack, err := in.stack(c.thread)
				if err != nil || in.fresh != c.anew || !stack.Contains(th.Regs.SP()) {
					t.Errorf("thread %d, a new one %v: stack %v, read anew %v, %v", th.TID, c.anew, stack, in.fresh, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestPhasesOfStop: the parts of a stop are all of it.
func TestPhasesOfStop(t *testing.T) {
	for _, kinds := range [][]string{nil, {"sleep", "call", "read"}, slices.Repeat([]string{"sleep"}, parkFrom)} {
		r := start(t, pie(t), kinds...)
		patch := patchFor(t, pie(t), "default", 1, "answer")
		for _, s := range []Stop{applyTo(t, r.pid, patch).Stop, revertAll(t, r.pid).Stop} {
			if sum := s.Interrupt + s.Inspect + s.Write + s.Resume; sum != s.Total || min(s.Interrupt, s.Inspect, s.Write, s.Resume, s.Seize) <= 0 {
				t.Errorf("%d threads: the parts are %v: %+v", len(kinds)+1, sum, s)
			}
			if s.Tries < 1 || s.Total > s.Longest || s.Longest > s.Sum || s.Threads != len(kinds)+1 || s.Parked > s.Threads {
				t.Errorf("%d threads: %+v", len(kinds)+1, s)
			}
		}
	}
}
