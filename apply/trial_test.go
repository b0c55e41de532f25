package apply

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// TestTrial: what nobody accepts is reverted when its time is over, by any run,
// and stays out until it is put in again.
func TestTrial(t *testing.T) {
	bin := compile(t, "pie", "-fPIE", "-pie")
	r := start(t, bin)
	patch := patchFor(t, bin, "default", 1, "answer", "other")
	id := patchID(patch)
	before := r.snapshot()
	put := func(trial time.Duration) {
		t.Helper()
		if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patch}, Options{Trial: trial}); err != nil {
			t.Fatal(err)
		}
		r.expect("ask", newAnswer)
	}
	expire := func(want error) {
		t.Helper()
		if _, err := Expire(t.Context(), r.pid, Options{}); !errors.Is(err, want) {
			t.Errorf("expire: %v: want %v", err, want)
		}
	}
	check := func(over, has, rejected bool) {
		t.Helper()
		p, err := Open(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if p.TrialOver() != over || p.Has(id) != has || p.Rejected(id) != rejected {
			t.Errorf("over %v, has %v, rejected %v: want %v, %v, %v", p.TrialOver(), p.Has(id), p.Rejected(id), over, has, rejected)
		}
	}
	put(time.Hour)
	check(false, true, false)
	expire(ErrNotApplied)
	if got, err := Accept(t.Context(), r.pid, []Selector{{Series: "other"}}, Options{}); !errors.Is(err, ErrNoTrial) {
		t.Errorf("another series: %v, %v", got, err)
	}
	if got, err := Accept(t.Context(), r.pid, nil, Options{}); err != nil || len(got) != 1 || !got[0].TrialEnds.IsZero() {
		t.Errorf("accept: %+v, %v", got, err)
	}
	if _, err := Accept(t.Context(), r.pid, nil, Options{}); !errors.Is(err, ErrNoTrial) {
		t.Errorf("accepted twice: %v", err)
	}
	revertAll(t, r.pid)
	check(false, false, false) // reverted by hand: a pull may put it in again
	put(time.Nanosecond)
	check(true, true, false)
	expire(nil)
	r.expect("ask", oldAnswer)
	check(false, false, true)
	if _, err := Revert(t.Context(), r.pid, nil, Options{}); !errors.Is(err, ErrNotApplied) {
		t.Errorf("revert: %v", err)
	}
	check(false, false, true) // no later run forgets it
	put(0)
	check(false, true, false)
	revertAll(t, r.pid)
	check(false, false, false)
	freeKept(t, r, "ask")
	before.same(t, r.snapshot())
}

// TestTrialOfLevel: what a level on trial replaced comes back at its end, with the
// values that its variables have by then.
func TestTrialOfLevel(t *testing.T) {
	bin := compile(t, "pie", "-fPIE", "-pie")
	r := start(t, bin, "sleep")
	before := r.snapshot()
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer30", "text"))
	r.expect("ask", "43 11 new")
	put := func(level specs.Level, trial time.Duration, names ...string) error {
		_, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", level, names...)}, Options{Trial: trial})
		return err
	}
	if err := put(2, time.Nanosecond, "answer31", "other"); err != nil {
		t.Fatal(err)
	}
	r.expect("ask", "43 9 old")
	wantInForce(t, r.pid, "default:2")
	// What is to come back is not free for others, nor is it freed by other runs.
	conflict := (*ConflictError)(nil)
	if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "another", 1, "text")}, Options{}); !errors.As(err, &conflict) {
		t.Errorf("a series that wants a function of level 1: %v", err)
	}
	applyTo(t, r.pid, patchFor(t, bin, "another", 1, "last"))
	if _, err := Revert(t.Context(), r.pid, []Selector{{Series: "another"}}, Options{}); err != nil {
		t.Fatal(err)
	}
	res, err := Expire(t.Context(), r.pid, Options{})
	if err != nil || len(res.Removed) != 1 || res.Removed[0].Level != 2 || len(res.Applied) != 1 || res.Applied[0].Level != 1 || res.Applied[0].State != "applied" {
		t.Fatalf("expire: %+v, %v", res, err)
	}
	wantInForce(t, r.pid, "default:1")
	wantValue(t, r, "count", 2)
	r.expect("ask", "43 11 new")
	wantValue(t, r, "count", 3)
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	if one, two := patchID(patchFor(t, bin, "default", 1, "text")), patchID(patchFor(t, bin, "default", 2, "text")); p.Rejected(one) || !p.Rejected(two) {
		t.Error("not level 2 is rejected, but level 1")
	}
	p.Close()

	// Accepted, it lets the lower level go.
	if err := put(3, time.Hour, "answer30"); err != nil {
		t.Fatal(err)
	}
	if err := put(4, time.Hour, "answer30"); !is[*TrialError](err) {
		t.Errorf("a trial in place of another: %v", err)
	}
	if _, err := Accept(t.Context(), r.pid, nil, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Expire(t.Context(), r.pid, Options{}); !errors.Is(err, ErrNotApplied) {
		t.Errorf("expire after it was accepted: %v", err)
	}
	wantInForce(t, r.pid, "default:3")
	wantValue(t, r, "count", 3)
	revertAll(t, r.pid)
	r.expect("ask", oldAnswer)
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// TestTrialIsReverted: who takes a level on trial out gets the original.
func TestTrialIsReverted(t *testing.T) {
	bin := compile(t, "pie", "-fPIE", "-pie")
	r := start(t, bin, "sleep")
	before := r.snapshot()
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer30"))
	if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 2, "answer30", "other")}, Options{Trial: time.Hour}); err != nil {
		t.Fatal(err)
	}
	res := revertAll(t, r.pid)
	if len(res.Removed) != 1 || len(res.Freed) != 1 || res.Freed[0].Level != 1 {
		t.Errorf("result: %+v", res)
	}
	r.expect("ask", oldAnswer)
	before.same(t, r.snapshot())
}

// TestTrialWithHooks: hooks of a level have run as for its end when another takes
// its place, so that it cannot come back.
func TestTrialWithHooks(t *testing.T) {
	for name, hooks := range map[string][2][]string{"the lower level": {{"2"}, nil}, "the new level": {nil, {"2"}}} {
		t.Run(name, func(t *testing.T) {
			r := start(t, hookedProgram(t))
			applyTo(t, r.pid, hookedPatch(t, 1, 42, hooks[0]...))
			before := r.snapshot()
			_, err := Apply(t.Context(), r.pid, []*kpack.Patch{hookedPatch(t, 2, 43, hooks[1]...)}, Options{Trial: time.Hour})
			if refused := (*TrialError)(nil); !errors.As(err, &refused) || refused.Replaced.Level != 1 || refused.Hint() == "" {
				t.Errorf("error %v", err)
			}
			before.same(t, r.snapshot())
		})
	}
}

// TestReturnHalfDone does by hand each number of the writes by which a level comes
// back at the end of a trial. It is the one in force or to come back, whatever is
// left, and the next run brings it to its end.
func TestReturnHalfDone(t *testing.T) {
	apart := compile(t, "apart", "-fPIE", "-pie", "-DAPART")
	for name, bin := range map[string]string{"one page": pie(t), "apart": apart} {
		t.Run(name, func(t *testing.T) {
			r := start(t, bin, "sleep")
			before := r.snapshot()
			seen := map[bool]int{}
			for n, writes := 0, 1; n <= writes; n++ {
				applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer", "text"))
				if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 2, "answer2", "other")}, Options{Trial: time.Nanosecond}); err != nil {
					t.Fatal(err)
				}
				var decided bool
				writes, decided = leaveDone(t, r.pid, n, func(p *Process) *transaction { return returning(t, p) })
				want, level := "2 9 old", "default:2"
				if decided {
					want, level = "43 11 new", "default:1"
				}
				seen[decided]++
				r.expect("ask", want)
				if _, err := Revert(t.Context(), r.pid, []Selector{{Series: "none"}}, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
					t.Fatal(err)
				}
				r.expect("ask", want)
				wantInForce(t, r.pid, level)
				if _, err := Expire(t.Context(), r.pid, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
					t.Fatal(err)
				}
				r.expect("ask", "43 11 new")
				wantInForce(t, r.pid, "default:1")
				// So that nothing is left of level 2, which was rejected.
				applyTo(t, r.pid, patchFor(t, bin, "default", 3, "answer"))
				revertAll(t, r.pid)
				r.expect("ask", oldAnswer)
				freeKept(t, r, "wipe")
				before.same(t, r.snapshot())
				if t.Failed() {
					t.Fatalf("after %d of %d writes", n, writes)
				}
			}
			if seen[false] < 2 || seen[true] < 2 {
				t.Errorf("level 2 %d times, level 1 %d times", seen[false], seen[true])
			}
		})
	}
}

// returning is the transaction of Expire for the one record whose trial is over.
func returning(t *testing.T, p *Process) *transaction {
	t.Helper()
	i := slices.IndexFunc(p.records, (*record).trialOver)
	if i < 0 || p.fallback(p.records[i]) == nil {
		t.Fatal("no level is to come back")
	}
	r := p.records[i]
	if err := p.setTrial(r, trialFailed); err != nil {
		t.Fatal(err)
	}
	tr := exchange([]*record{p.fallback(r)}, []*record{r})
	tr.returning = tr.ins
	return tr
}

// TestTrialHalfOver: what a run that was killed has left is finished by the next.
func TestTrialHalfOver(t *testing.T) {
	bin := compile(t, "pie", "-fPIE", "-pie")
	r := start(t, bin)
	patch := patchFor(t, bin, "default", 1, "answer")
	if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patch}, Options{Trial: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	// It had written that the trial is over.
	w, err := open(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	err = w.setTrial(w.records[0], trialFailed)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Accept(t.Context(), r.pid, nil, Options{}); !errors.Is(err, ErrNoTrial) {
		t.Errorf("accepted when it was over: %v", err)
	}
	if _, err := Expire(t.Context(), r.pid, Options{}); err != nil {
		t.Error(err)
	}
	r.expect("ask", oldAnswer)
}
