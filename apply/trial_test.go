package apply

import (
	"errors"
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

// TestTrialOfLevel: a trial is refused where its end could not bring back what
// was there, before anything is written.
func TestTrialOfLevel(t *testing.T) {
	bin := compile(t, "pie", "-fPIE", "-pie")
	r := start(t, bin)
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer"))
	before := r.snapshot()
	_, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 2, "answer2")}, Options{Trial: time.Hour})
	var refused *TrialError
	if !errors.As(err, &refused) || refused.Replaced.Level != 1 || refused.Hint() == "" {
		t.Errorf("error %v", err)
	}
	before.same(t, r.snapshot())
	if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "another", 1, "other")}, Options{Trial: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	r.expect("ask", newAnswer)
	res, err := Expire(t.Context(), r.pid, Options{})
	if err != nil || len(res.Removed) != 1 || res.Removed[0].Series != specs.Series("another") {
		t.Errorf("expire: %+v, %v", res, err)
	}
	r.expect("ask", "43 11 old")
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
