package ptrace

import (
	"testing"
	"time"
)

// TestReusedIDs: a thread that has the id of one that has ended meanwhile is one of
// the group. The kernel gives ids anew where many threads come and go.
func TestReusedIDs(t *testing.T) {
	const ids, wanted = 20_000, 5
	pid := start(t, "spin", "births").Process.Pid
	err := Do(func() error {
		g, err := Seize(pid, Options{})
		if err != nil {
			return err
		}
		defer g.Detach()
		tids, err := Threads(pid)
		if err != nil {
			return err
		}
		most := tids[len(tids)-1]
		for tid := most + 1; tid < most+ids; tid++ { // as if they had been its
			if g.find(tid) == nil {
				g.add(&Thread{TID: tid, gone: true})
			}
		}
		seen := map[int]bool{}
		for end := time.Now().Add(time.Minute); len(seen) < wanted; {
			if err := g.Stop(); err != nil {
				return err
			}
			tids, err := Threads(pid)
			if err != nil {
				return err
			}
			for _, tid := range tids {
				if dead(pid, tid) {
					continue
				}
				if th := g.find(tid); th == nil || !th.Stopped() {
					t.Errorf("thread %d of %d is not held", tid, len(tids))
				}
				if tid > most {
					seen[tid] = true
				}
			}
			if t.Failed() || time.Now().After(end) {
				t.Errorf("%d threads were born", len(seen))
				return nil
			}
			if err := g.Resume(); err != nil {
				return err
			}
			if err := g.Serve(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
