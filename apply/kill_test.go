package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// TestToolIsKilled kills a tool that applies and reverts in a loop, at random
// moments. The target lives on, and the next run clears up.
func TestToolIsKilled(t *testing.T) {
	for _, kinds := range [][]string{nil, {"call", "sleep", "read", "futex", "call"}} {
		t.Run(strings.Join(kinds, "+"), func(t *testing.T) {
			r := start(t, pie(t), kinds...)
			before := r.snapshot()
			killAtRandom(t, r, 25, patchFor(t, pie(t), "default", 1, "answer", "other"))
			before.same(t, r.snapshot())
		})
	}
}

// TestToolIsKilledWithUnwinder does it to a process whose unwinder is told of
// the frames.
func TestToolIsKilledWithUnwinder(t *testing.T) {
	r := start(t, unwinding(t), "call", "sleep")
	before := r.snapshot()
	killAtRandom(t, r, 25, patchFor(t, unwinding(t), "default", 1, "answer", "other"))
	if c := chainOf(t, r.pid); len(c.order) != 0 {
		t.Errorf("%d finders are left", len(c.order))
	}
	before.same(t, r.snapshot())
}

// TestToolIsKilledBetweenLevels: a loop whose calls go on in what was replaced
// is among what changes.
func TestToolIsKilledBetweenLevels(t *testing.T) {
	r := start(t, pie(t), "serve", "call")
	before := r.snapshot()
	killAtRandom(t, r, 15, serveAs(t, 1, "serve", "answer"), serveAs(t, 2, "serve2", "other"), serveAs(t, 3, "serve"))
	if got := r.ask("end"); got != "2" && got != "43" && got != "44" {
		t.Errorf("the loop's answer is %s", got)
	}
	r.expect("end", "2")
	freeKept(t, r, "wipe", "end")
	before.same(t, r.snapshot())
}

func killAtRandom(t *testing.T, r *running, rounds int, patches ...*kpack.Patch) {
	t.Helper()
	var files []string
	for i, p := range patches {
		data, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(t.TempDir(), fmt.Sprint(i, ".kpatch")))
		if err := os.WriteFile(files[i], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Log("seed", seed)
	span := toolTime(t, r, files[0])
	cleared, removed := 0, 0
	for range rounds {
		cmd := child(t, "loop", r.pid, strings.Join(files, string(filepath.ListSeparator)), nil)
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(span + time.Duration(random.Int64N(int64(span))))
		cmd.Process.Kill()
		cmd.Wait()
		if out.Len() > 0 {
			t.Fatal(out.String())
		}
		r.ask("ask") // it answers, whatever
		res, err := Revert(context.Background(), r.pid, nil, Options{Wait: 10 * time.Second})
		if err != nil && !errors.Is(err, ErrNotApplied) {
			t.Fatal(err)
		}
		if res != nil && len(res.Recovered) > 0 {
			cleared++
		}
		if res != nil && len(res.Removed) > 0 {
			removed++
		}
		r.expect("ask", oldAnswer)
	}
	t.Logf("of %d times a patch was there %d times, and half done %d times", rounds, removed, cleared)
}

// toolTime is about how long a tool takes to begin and to apply a patch.
func toolTime(t *testing.T, r *running, patch string) time.Duration {
	t.Helper()
	begin := time.Now()
	if out, err := child(t, "quiet", r.pid, patch, nil).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := time.Since(begin)
	revertAll(t, r.pid)
	freeKept(t, r, "wipe")
	return max(took, 30*time.Millisecond)
}

// steps are the writes of a commit, in order. A tool that is killed leaves the
// first n of them.
func steps(p *Process, t *transaction) (all []func()) {
	do := func(f func() error) {
		all = append(all, func() {
			if err := f(); err != nil {
				panic(err)
			}
		})
	}
	lead := t.leader()
	for _, r := range t.ins {
		do(func() error { return p.setState(r, committing, lead.Base) })
	}
	for _, r := range t.outs {
		do(func() error { return p.setState(r, leaving, lead.Base) })
	}
	gated, deciding := t.parts(p.page)
	each := func(side func(*change) []byte) {
		for i := range gated {
			do(func() error { return p.mem.Write(gated[i].addr, side(&gated[i])) })
		}
	}
	each(jump)
	if len(deciding) > 0 {
		do(func() error { return p.entries(deciding).store(after) })
	} else {
		do(func() error { return p.openGates(lead) })
	}
	each(after)
	for _, r := range slices.DeleteFunc(slices.Concat(t.ins, t.outs), func(r *record) bool { return r == lead }) {
		do(func() error { return p.setState(r, t.final(r), lead.Base) })
	}
	do(func() error { return p.setState(lead, t.final(lead), lead.Base) })
	return all
}

// leave stages patches, or with none reverts all, and does the first n writes
// of the commit. It returns how many there are, and whether the last one that was
// done decides.
func leave(t *testing.T, pid, n int, patches ...*kpack.Patch) (writes int, decided bool) {
	t.Helper()
	return leaveDone(t, pid, n, func(p *Process) *transaction {
		if len(patches) == 0 {
			tr := &transaction{}
			for _, r := range p.records {
				tr.remove(r)
			}
			return tr
		}
		plan, err := makePlan(p, patches, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.stageAll(t.Context(), plan.steps); err != nil {
			t.Fatal(err)
		}
		return plan.transaction()
	})
}

// leaveDone is leave for any transaction.
func leaveDone(t *testing.T, pid, n int, begin func(*Process) *transaction) (writes int, decided bool) {
	t.Helper()
	p, err := open(pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	tr := begin(p)
	if err := p.prepareGates(tr); err != nil {
		t.Fatal(err)
	}
	all := steps(p, tr)
	for _, f := range all[:min(n, len(all))] {
		f()
	}
	for _, c := range tr.changes {
		b, err := p.mem.Read(c.addr, len(c.after))
		if err != nil {
			t.Fatal(err)
		}
		decided = decided || bytes.Equal(b, c.after)
	}
	return len(all), decided || tr.leader().open
}

// TestStarvedAgent: that threads get no processor is no reason to give up, another one is.
func TestStarvedAgent(t *testing.T) {
	r := start(t, pie(t))
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for state, want := range map[string]int{"R": 3, "D": 1} {
		tries := 0
		err := p.untilOneServes(t.Context(), func(tid int) (bool, error) {
			if tries++; tries < 3 {
				return false, &StuckError{TID: tid, State: state}
			}
			return true, nil
		})
		if tries != want || (err == nil) != (state == "R") {
			t.Errorf("state %s: %d tries, error %v", state, tries, err)
		}
	}
	tries := 0
	_ = p.untilOneServes(t.Context(), func(tid int) (bool, error) {
		tries++
		return true, &StuckError{TID: tid, State: "R"} // while it made calls
	})
	if tries != 1 {
		t.Errorf("what was done in part was done %d times", tries)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tries = 0
	err = p.untilOneServes(ctx, func(tid int) (bool, error) {
		if tries++; tries == 2 {
			cancel()
		}
		return false, &StuckError{TID: tid, State: "R"}
	})
	if stuck := (*StuckError)(nil); tries != 2 || !errors.Is(err, context.Canceled) || !errors.As(err, &stuck) {
		t.Errorf("broken off in the second of %d tries: %v", tries, err)
	}
	tries = 0
	_ = p.untilOneServes(ctx, func(tid int) (bool, error) { tries++; return false, &StuckError{TID: tid, State: "R"} })
	if tries != 1 {
		t.Errorf("to clear up each thread was tried %d times", tries)
	}
}

// TestClearing: a run that was broken off has some time to clear up, and one that was
// not has all it needs.
func TestClearing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, done := clearing(ctx, 10*time.Millisecond)
	defer done()
	if _, limited := c.Deadline(); limited || c.Err() != nil {
		t.Error("its time is limited from the beginning")
	}
	cancel()
	select {
	case <-c.Done():
	case <-time.After(time.Minute):
		t.Error("it has time for ever")
	}
	c, done = clearing(ctx, time.Hour)
	if c.Err() != nil {
		t.Error("it has no time")
	}
	done()
	if c.Err() == nil {
		t.Error("it goes on after its use")
	}
}

// TestLateMapping: a killed run's call is made only when the next one has looked at the
// process.
func TestLateMapping(t *testing.T) {
	r := start(t, pie(t))
	before := r.snapshot()
	p, err := open(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	lo := p.objects[0].image.Range.Lo - 16*specs.Addr(p.page)
	intent := specs.Range[specs.Addr]{Lo: lo, Hi: lo + 2*specs.Addr(p.page)}
	_, err = p.withAgent(t.Context(), intent, func(a *ptrace.Agent) error {
		_, err := a.Syscall(unix.SYS_MMAP, uint64(lo), p.page, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uint64(0), 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.clear(t.Context(), []ptrace.Leftover{{Intent: intent}}); err != nil {
		t.Fatal(err)
	}
	before.same(t, r.snapshot())
}

// TestHalfDone does by hand each number of the writes that a tool does inside a
// commit, which is too short to be killed at random there. Whatever is left, the
// functions are all old or all new, and the next run brings it to its end.
func TestHalfDone(t *testing.T) {
	apart := compile(t, "apart", "-fPIE", "-pie", "-DAPART")
	for _, c := range []struct {
		name, bin string
		one, two  []string
		ask       string
		answers   [3]string
	}{
		{"one page", pie(t), []string{"answer", "other"}, []string{"answer2", "text"}, "ask", [3]string{oldAnswer, newAnswer, "2 11 new"}},
		{"apart", apart, []string{"answer", "other"}, []string{"answer2", "text"}, "ask", [3]string{oldAnswer, newAnswer, "2 11 new"}},
		{"one without a gate", matrixProgram(t), []string{"answer", "looping"}, []string{"answer3", "looping2", "second"}, "loops",
			[3]string{"2 5 5", "43 6 5", "44 7 5"}},
	} {
		one, two := patchFor(t, c.bin, "default", 1, c.one...), patchFor(t, c.bin, "default", 2, c.two...)
		for _, way := range []struct {
			name     string
			from, to int
			before   []*kpack.Patch
			change   []*kpack.Patch
		}{
			{"apply", 0, 1, nil, []*kpack.Patch{one}},
			{"replace", 1, 2, []*kpack.Patch{one}, []*kpack.Patch{two}},
			{"revert", 1, 0, []*kpack.Patch{one}, nil},
		} {
			t.Run(way.name+", "+c.name, func(t *testing.T) {
				r := start(t, c.bin, "sleep") // nobody runs what is written without a stop
				before := r.snapshot()
				seen := map[bool]int{}
				for n, writes := 0, 1; n <= writes; n++ {
					for _, p := range way.before {
						applyTo(t, r.pid, p)
					}
					var decided bool
					writes, decided = leave(t, r.pid, n, way.change...)
					want := c.answers[way.from]
					if decided {
						want = c.answers[way.to]
					}
					seen[decided]++
					bringToEnd(t, r, c.ask, want, c.answers[0])
					before.same(t, r.snapshot())
					if t.Failed() {
						t.Fatalf("after %d of %d writes", n, writes)
					}
				}
				if seen[false] < 2 || seen[true] < 2 {
					t.Errorf("old %d times, new %d times", seen[false], seen[true])
				}
			})
		}
	}
}

// bringToEnd checks that a run finishes or undoes what was left, that the answer
// stays, and that a revert then leaves nothing.
func bringToEnd(t *testing.T, r *running, ask, want, old string) {
	t.Helper()
	r.expect(ask, want)
	for _, s := range [][]Selector{{{Series: "none"}}, nil} {
		if _, err := Revert(context.Background(), r.pid, s, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
			t.Fatal(err)
		}
		if s == nil {
			want = old
		}
		r.expect(ask, want)
		inForce(t, r.pid)
		r.ask("wipe")
	}
	freeKept(t, r, "wipe")
}
