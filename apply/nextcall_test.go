package apply

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// serveAs is a patch of serve, which a thread never leaves, and whose calls
// that are under way may end in the old code.
func serveAs(t *testing.T, level specs.Level, names ...string) *kpack.Patch {
	t.Helper()
	p := patchWith(t, pie(t), kpack.Meta{
		Name: "serve", Series: "default", Level: level,
		Consistency: specs.Consistency{NextCall: []string{"serve"}, Reason: "a worker's loop"},
	}, names...)
	for _, f := range p.Functions {
		if f.NextCall != (f.Name == "serve") {
			t.Fatalf("function %s: next call: %v", f.Name, f.NextCall)
		}
	}
	return p
}

// freeKept reverts until nothing is kept any more, and in between has the
// process overwrite what lies on its stacks.
func freeKept(t *testing.T, r *running, commands ...string) {
	t.Helper()
	for range 50 {
		res, err := Revert(context.Background(), r.pid, nil, Options{})
		if errors.Is(err, ErrNotApplied) && len(res.Kept) == 0 {
			return
		}
		if err != nil && !errors.Is(err, ErrNotApplied) {
			t.Fatal(err)
		}
		for _, c := range commands {
			r.ask(c)
		}
	}
	t.Error("memory is kept for ever")
}

func TestNextCall(t *testing.T) {
	r := start(t, pie(t), "serve", "call")
	r.expect("end", "2")
	before := r.snapshot()
	strict := patchFor(t, pie(t), "default", 1, "serve", "answer")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{strict}, Options{Wait: 100 * time.Millisecond})
	busy := (*BusyError)(nil)
	if !errors.As(err, &busy) || len(busy.Threads) != 1 || busy.Threads[0].Function != "serve" || busy.Threads[0].Name != "serve" {
		t.Fatalf("strict: %v", err)
	}
	before.same(t, r.snapshot())

	res := applyTo(t, r.pid, serveAs(t, 1, "serve", "answer"))
	if len(res.Applied) != 1 {
		t.Errorf("result: %+v", res)
	}
	r.expect("ask", "43 11 old")
	r.expect("end", "2") // the old call ends in the old code
	r.expect("end", "43")

	// Now the thread is in the new code, which goes; its memory has to stay.
	res, err = Revert(context.Background(), r.pid, nil, Options{})
	if err != nil || len(res.Removed) != 1 || len(res.Kept) != 1 {
		t.Fatalf("revert: %+v, %v", res, err)
	}
	r.expect("ask", oldAnswer)
	// Nobody frees it while the thread is there.
	for range 3 {
		if res, err := Revert(context.Background(), r.pid, nil, Options{}); !errors.Is(err, ErrNotApplied) || len(res.Kept) != 1 {
			t.Fatalf("a second revert: %+v, %v", res, err)
		}
	}
	applyTo(t, r.pid, patchFor(t, pie(t), "other", 1, "other"))
	revertAll(t, r.pid)
	r.expect("end", "43") // it ends where it was
	r.expect("end", "2")
	freeKept(t, r, "wipe", "end")
	r.expect("end", "2")
	before.same(t, r.snapshot())
}

// TestNextCallOfALevel: a loop can get a newer level though a thread is in the
// older one's.
func TestNextCallOfALevel(t *testing.T) {
	r := start(t, pie(t), "serve")
	before := r.snapshot()
	applyTo(t, r.pid, serveAs(t, 1, "serve", "answer"))
	r.expect("end", "2")

	// A level that is strict has to wait for ever.
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 2, "serve2")}, Options{Wait: -1})
	busy := (*BusyError)(nil)
	if !errors.As(err, &busy) || busy.Threads[0].Name != "serve" {
		t.Fatalf("strict: %v", err)
	}
	r.expect("ask", "43 11 old") // the older one is in place

	res := applyTo(t, r.pid, serveAs(t, 3, "serve2"))
	if len(res.Applied) != 1 || res.Applied[0].Level != 3 || len(res.Kept) != 1 || res.Kept[0].Level != 1 {
		t.Errorf("result: %+v", res)
	}
	r.expect("ask", oldAnswer) // level 3 does not change answer
	r.expect("end", "43")
	r.expect("end", "44")
	if res, err = Revert(context.Background(), r.pid, nil, Options{}); err != nil || len(res.Removed) != 1 {
		t.Fatalf("revert: %+v, %v", res, err)
	}
	r.expect("end", "44")
	r.expect("end", "2")
	freeKept(t, r, "wipe", "end")
	before.same(t, r.snapshot())
}
