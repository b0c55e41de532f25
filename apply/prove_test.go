package apply

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/apply/internal/unwind"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// TestPatchInAHole: what lies in a hole between the segments of an object has tables of
// its own.
func TestPatchInAHole(t *testing.T) {
	object, patch := new(unwind.Object), new(unwind.Object)
	code := []tabled{
		{specs.Range[specs.Addr]{Lo: 0x10000, Hi: 0x40000}, object},
		{specs.Range[specs.Addr]{Lo: 0x22000, Hi: 0x23000}, patch},
	}
	sortTables(code)
	for at, want := range map[specs.Addr]*unwind.Object{0x10000: object, 0x21fff: object, 0x22000: patch, 0x22fff: patch, 0x23000: object, 0x40000: nil} {
		if findTable(code, at) != want {
			t.Errorf("%v: another table", at)
		}
	}
}

// TestWalkThroughPatch walks the stack of a thread that sleeps in patched code:
// its frames are known, so that a stale word of another function is no
// obstacle, and the patch cannot go.
func TestWalkThroughPatch(t *testing.T) {
	r := start(t, pie(t), "busy")
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "busy3")}, Options{Wait: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
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
		if err := g.Stop(); err != nil {
			return err
		}
		pr := newProver(p)
		patch, main := goingZones(p.records[0], nextCall)[0], zone{Range: specs.Range[specs.Addr]{Lo: 1, Hi: 2}}
		stale := &hit{&main, 1}
		for _, th := range g.Threads() {
			if h := pr.inside(newInspector(p, []zone{main}), th, stale); h != nil {
				t.Errorf("thread %d: its stack is not known", th.TID)
			}
			inside := pr.inside(newInspector(p, []zone{patch}), th, stale) != nil
			if busy := ptrace.Comm(r.pid, th.TID) == "busy"; inside != busy {
				t.Errorf("thread %d: inside the patch: %v, want %v", th.TID, inside, busy)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	busy := (*BusyError)(nil)
	if _, err := Revert(context.Background(), r.pid, nil, Options{Wait: 50 * time.Millisecond}); !errors.As(err, &busy) || busy.Threads[0].Function != "busy (patched)" {
		t.Errorf("revert: %v", err)
	}
}
