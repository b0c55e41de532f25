package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// inForce returns series and level of each record that is applied, and fails if
// one is half done.
func inForce(t testing.TB, pid int) (ids []string) {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, a := range p.Applied() {
		switch a.State {
		case "applied":
			ids = append(ids, fmt.Sprintf("%s:%d", a.Series, a.Level))
		case "retired": // text's new answer may lie on a stack
		default:
			t.Errorf("%v is %s", a.PatchID, a.State)
		}
	}
	slices.Sort(ids)
	return ids
}

func wantInForce(t testing.TB, pid int, want ...string) {
	t.Helper()
	if got := inForce(t, pid); !slices.Equal(got, want) {
		t.Errorf("in force: %v, want %v", got, want)
	}
}

// TestLevelsInOneCommit: each level goes in as the one before goes out, and
// leaves nothing.
func TestLevelsInOneCommit(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "call", "sleep")
	before := r.snapshot()
	levels := []struct {
		fixes []string
		want  string
	}{
		{[]string{"answer", "other"}, "43 9 old"},
		{[]string{"answer2", "busy"}, "2 11 old"}, // other is the original again
		{[]string{"other"}, "2 9 old"},            // and so is answer
		{[]string{"answer"}, "43 11 old"},
	}
	for i, l := range levels {
		level := specs.Level(i + 1)
		res := applyTo(t, r.pid, patchFor(t, bin, "default", level, l.fixes...))
		if len(res.Applied) != 1 || res.Applied[0].Level != level || len(res.Replaced) != min(i, 1) || len(res.Removed)+len(res.Kept)+len(res.Present) != 0 {
			t.Errorf("level %d: %+v", level, res)
		}
		if i > 0 && (res.Replaced[0].Level != level-1 || res.Replaced[0].State != "retired") {
			t.Errorf("level %d replaced %+v", level, res.Replaced[0])
		}
		r.expect("ask", l.want)
		wantInForce(t, r.pid, fmt.Sprintf("default:%d", level))
		checkMemory(t, r.pid, res.Applied)
	}
	for level := range specs.Level(4) {
		lower := patchFor(t, bin, "default", level+1, "answer", "other")
		res, err := Apply(context.Background(), r.pid, []*kpack.Patch{lower}, Options{})
		if !errors.Is(err, ErrAlreadyApplied) || len(res.Present) != 1 || res.Present[0].Level != 4 || res.Stop.Tries != 0 {
			t.Errorf("level %d after 4: %+v, %v", level+1, res, err)
		}
	}
	r.expect("ask", "43 11 old")
	revertAll(t, r.pid)
	r.expect("ask", oldAnswer)
	before.same(t, r.snapshot())
}

// TestLowerLevel puts a lower level in the place of one that was revoked, in one
// commit.
func TestLowerLevel(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "call", "sleep")
	before := r.snapshot()
	low, high := patchFor(t, bin, "default", 1, "answer", "other"), patchFor(t, bin, "default", 3, "answer2", "busy")
	applyTo(t, r.pid, high)
	r.expect("ask", "2 11 old")
	id := patchID(high)
	other := id
	other.Level = 2
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{low}, Options{Revoked: []specs.PatchID{other}}); !errors.Is(err, ErrAlreadyApplied) {
		t.Errorf("another level is revoked: %v", err)
	}
	res, err := Apply(context.Background(), r.pid, []*kpack.Patch{low}, Options{Revoked: []specs.PatchID{id}})
	if err != nil || len(res.Applied) != 1 || res.Applied[0].Level != 1 || len(res.Replaced) != 1 || res.Replaced[0].Level != 3 {
		t.Fatalf("%+v, %v", res, err)
	}
	r.expect("ask", "43 9 old")
	wantInForce(t, r.pid, "default:1")
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{low}, Options{Revoked: []specs.PatchID{id}}); !errors.Is(err, ErrAlreadyApplied) {
		t.Errorf("the same level again: %v", err)
	}
	if _, err := Revert(context.Background(), r.pid, []Selector{{Level: 3}}, Options{}); !errors.Is(err, ErrNotApplied) {
		t.Errorf("revert of a level that is not applied: %v", err)
	}
	if _, err := Revert(context.Background(), r.pid, []Selector{{Series: "default", Level: 1}}, Options{}); err != nil {
		t.Error(err)
	}
	r.expect("ask", oldAnswer)
	before.same(t, r.snapshot())
}

// checkMemory checks that a process has the memory of the given patches and of
// no others.
func checkMemory(t testing.TB, pid int, patches []Applied) {
	t.Helper()
	maps, err := readMaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		ours := slices.ContainsFunc(patches, func(a Applied) bool {
			return specs.Range[specs.Addr]{Lo: a.Base, Hi: a.Base + specs.Addr(a.Size)}.Contains(m.Range.Lo) || slices.Contains(a.Held, m.Range)
		})
		if m.Path == "[anon:fother]" && !ours || m.executable() && m.anonymous() && !ours {
			t.Errorf("memory of no patch: %+v", m)
		}
	}
}

// TestSeriesInAnyOrder: what does not touch each other comes and goes as it
// likes.
func TestSeriesInAnyOrder(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "call")
	before := r.snapshot()
	fixes := map[specs.Series]string{"a": "answer", "b": "other", "c": "text"}
	answers := func(on []specs.Series) string {
		a, o, x := 2, 11, "old"
		if slices.Contains(on, "a") {
			a = 43
		}
		if slices.Contains(on, "b") {
			o = 9
		}
		if slices.Contains(on, "c") {
			x = "new"
		}
		return fmt.Sprint(a, " ", o, " ", x)
	}
	orders := [][]specs.Series{{"a", "b", "c"}, {"a", "c", "b"}, {"b", "a", "c"}, {"b", "c", "a"}, {"c", "a", "b"}, {"c", "b", "a"}}
	for i, in := range orders {
		var on []specs.Series
		for _, s := range in {
			applyTo(t, r.pid, patchFor(t, bin, s, 1, fixes[s]))
			on = append(on, s)
			r.expect("ask", answers(on))
		}
		wantInForce(t, r.pid, "a:1", "b:1", "c:1")
		if i == 0 { // one of them may rise meanwhile
			applyTo(t, r.pid, patchFor(t, bin, "b", 7, fixes["b"]))
			wantInForce(t, r.pid, "a:1", "b:7", "c:1")
		}
		for _, s := range orders[len(orders)-1-i] {
			res, err := Revert(context.Background(), r.pid, []Selector{{Series: s}}, Options{})
			if err != nil || len(res.Removed) != 1 || res.Removed[0].Series != s {
				t.Fatalf("revert of %s: %+v, %v", s, res, err)
			}
			on = slices.DeleteFunc(on, func(o specs.Series) bool { return o == s })
			r.expect("ask", answers(on))
		}
	}
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestConflictWritesNothing: two series that want one function.
func TestConflictWritesNothing(t *testing.T) {
	bin := pie(t)
	r := start(t, bin)
	before := r.snapshot()
	conflict := (*ConflictError)(nil)
	a, b := patchFor(t, bin, "a", 1, "answer"), patchFor(t, bin, "b", 1, "answer2", "other")
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{a, b}, Options{}); !errors.As(err, &conflict) || conflict.Function != "answer" {
		t.Errorf("both at once: %v", err)
	}
	before.same(t, r.snapshot())
	applyTo(t, r.pid, a)
	before = r.snapshot()
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{b}, Options{}); !errors.As(err, &conflict) || conflict.Other.Series != "a" {
		t.Errorf("one after the other: %v", err)
	}
	before.same(t, r.snapshot())
	r.expect("ask", "43 11 old")
	// A level that lets go of the function makes room for the other series, also
	// in the same commit.
	res := applyTo(t, r.pid, patchFor(t, bin, "a", 2, "text"), b)
	if len(res.Applied) != 2 || len(res.Replaced) != 1 {
		t.Errorf("result: %+v", res)
	}
	r.expect("ask", "2 9 new")
	wantInForce(t, r.pid, "a:2", "b:1")
}

// TestFailedNewerKeepsOlder: whatever keeps a newer level out, the older one
// stays, all of it.
func TestFailedNewerKeepsOlder(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "forever", "call")
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer", "text"))
	before := r.snapshot()
	kept := func(why string, err error) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s: no error", why)
		}
		before.same(t, r.snapshot())
		r.expect("ask", "43 11 new")
		wantInForce(t, r.pid, "default:1")
	}
	try := func(p ...*kpack.Patch) error {
		_, err := Apply(context.Background(), r.pid, p, Options{Wait: 50 * time.Millisecond})
		return err
	}
	err := try(patchFor(t, bin, "default", 2, "answer2", "forever"))
	if busy := (*BusyError)(nil); !errors.As(err, &busy) || busy.Threads[0].Function != "forever" {
		t.Errorf("busy: %v", err)
	}
	kept("busy", err)

	damaged := patchFor(t, bin, "default", 2, "answer2", "other")
	damaged.Functions[1].Digest[0] ^= 1
	err = try(damaged)
	if mismatch := (*MismatchError)(nil); !errors.As(err, &mismatch) || mismatch.Function != "other" {
		t.Errorf("damaged: %v", err)
	}
	kept("damaged", err)

	conflicting := patchFor(t, bin, "other", 1, "answer2")
	err = try(patchFor(t, bin, "default", 2, "answer2", "other"), conflicting)
	if conflict := (*ConflictError)(nil); !errors.As(err, &conflict) {
		t.Errorf("conflict: %v", err)
	}
	kept("conflict", err)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Apply(ctx, r.pid, []*kpack.Patch{patchFor(t, bin, "default", 2, "answer2")}, Options{})
	kept("cancelled", err)

	// And a good one takes its place.
	applyTo(t, r.pid, patchFor(t, bin, "default", 2, "answer2", "other"))
	r.expect("ask", "2 9 old")
	wantInForce(t, r.pid, "default:2")
}

// TestProcesses: all means all but init, this program and the kernel.
func TestProcesses(t *testing.T) {
	r := start(t, pie(t))
	pids, err := Processes()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(pids, r.pid) || !slices.IsSorted(pids) {
		t.Errorf("%v: want %d in it, and sorted", pids, r.pid)
	}
	for _, pid := range pids {
		if pid == 1 || pid == os.Getpid() {
			t.Errorf("process %d is among all", pid)
		}
	}
}
