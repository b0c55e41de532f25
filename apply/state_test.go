package apply

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// variableOf returns what the record in force tells of a variable, and its value.
func variableOf(t testing.TB, pid int, name string) (recordedVariable, uint32) {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, r := range p.records {
		for _, v := range r.Variables {
			if r.state == applied && v.Name == name {
				b, err := p.mem.Read(v.At, 4)
				if err != nil {
					t.Fatal(err)
				}
				return v, binary.LittleEndian.Uint32(b)
			}
		}
	}
	t.Fatalf("no variable %s", name)
	return recordedVariable{}, 0
}

func wantValue(t testing.TB, r *running, name string, want uint32) {
	t.Helper()
	if _, got := variableOf(t, r.pid, name); got != want {
		t.Errorf("%s is %d, want %d", name, got, want)
	}
}

// TestStateGoesOn: a level goes on with the variables of the one that it replaces,
// and what nobody goes on with is freed.
func TestStateGoesOn(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "sleep")
	before := r.snapshot()
	level := func(n specs.Level, carried []string, names ...string) {
		t.Helper()
		res := applyTo(t, r.pid, patchFor(t, bin, "default", n, names...))
		if got := res.Applied[0].Carried; !slices.Equal(got, carried) || len(res.Kept) != 0 {
			t.Errorf("level %d goes on with %v, want %v; kept %v", n, got, carried, res.Kept)
		}
		checkMemory(t, r.pid, res.Applied)
		r.expect("ask", "43 11 old")
	}
	level(1, nil, "answer30")
	at, _ := variableOf(t, r.pid, "count")
	wantValue(t, r, "count", 1)
	level(2, []string{"count"}, "answer31")
	wantValue(t, r, "count", 2)
	wantValue(t, r, "more", 101)
	level(3, []string{"more", "count"}, "answer31")
	wantValue(t, r, "count", 3)
	wantValue(t, r, "more", 102)
	level(4, []string{"count"}, "answer30")
	wantValue(t, r, "count", 4)
	if now, _ := variableOf(t, r.pid, "count"); now.At != at.At {
		t.Errorf("count moved from %v to %v", at.At, now.At)
	}
	level(5, []string{"count"}, "answer31") // more was forgotten
	wantValue(t, r, "more", 101)
	revertAll(t, r.pid)
	r.expect("ask", oldAnswer)
	before.same(t, r.snapshot())
	level(1, nil, "answer30")
	wantValue(t, r, "count", 1)
	revertAll(t, r.pid)
	before.same(t, r.snapshot())
}

// TestStateGoesOnTogether: variables that code reaches by their distance from each
// other go on together, or not at all.
func TestStateGoesOnTogether(t *testing.T) {
	bin := pie(t)
	r := start(t, bin)
	before := r.snapshot()
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer33"))
	r.expect("ask", "43 11 old")
	wantValue(t, r, "two", 2)
	res := applyTo(t, r.pid, patchFor(t, bin, "default", 2, "answer33", "other"))
	if got := res.Applied[0].Carried; !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("level 2 goes on with %v", got)
	}
	r.expect("ask", newAnswer)
	wantValue(t, r, "one", 2)
	wantValue(t, r, "two", 4)
	during := r.snapshot()
	for _, fix := range []string{"answer34", "answer35"} {
		_, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 3, fix)}, Options{})
		if refused := (*StateError)(nil); !errors.As(err, &refused) || refused.Why != "code reaches it by its distance from other data, which is not where it was" {
			t.Errorf("%s: %v", fix, err)
		}
	}
	during.same(t, r.snapshot())
	fresh := patchFor(t, bin, "default", 3, "answer35")
	for i := range fresh.Variables {
		fresh.Variables[i].Fresh = true
	}
	applyTo(t, r.pid, fresh)
	r.expect("ask", "43 11 old")
	wantValue(t, r, "one", 1)
	wantValue(t, r, "two", 2)
	revertAll(t, r.pid)
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestStateUnderLoad: no call is lost that threads make while levels change.
func TestStateUnderLoad(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "call", "sleep")
	last := uint32(0)
	for level := range specs.Level(10) {
		applyTo(t, r.pid, patchFor(t, bin, "default", level+1, []string{"answer30", "answer31"}[level%2]))
		_, v := variableOf(t, r.pid, "count")
		if v < last {
			t.Errorf("level %d: count fell from %d to %d", level+1, last, v)
		}
		for last = v; last == v; {
			_, v = variableOf(t, r.pid, "count")
		}
		last = v
	}
	wantInForce(t, r.pid, "default:10")
}

// TestStateRefused: what does not agree is refused by name before anything is
// written, unless the level begins anew.
func TestStateRefused(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "sleep")
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer30"))
	r.expect("ask", "43 11 old")
	before := r.snapshot()
	larger := patchFor(t, bin, "default", 2, "answer32")
	typed := func(what string, layout string) *kpack.Patch {
		p := patchFor(t, bin, "default", 2, "answer30")
		d := specs.DigestOf([]byte(layout))
		p.Variables[0].Type, p.Variables[0].Layout = what, &d
		return p
	}
	other := patchFor(t, bin, "default", 2, "answer30")
	other.Variables[0].Initial[0] ^= 1
	for _, c := range []struct {
		patch *kpack.Patch
		why   string
	}{
		{larger, "it has 8 bytes and had 4"}, {other, "it begins with another value"},
	} {
		_, err := Apply(t.Context(), r.pid, []*kpack.Patch{c.patch}, Options{})
		var refused *StateError
		if !errors.As(err, &refused) || refused.Variable != "count" || refused.Why != c.why || refused.Old.Level != 1 || refused.Hint() == "" {
			t.Errorf("%s: %v", c.why, err)
		}
		before.same(t, r.snapshot())
	}
	wantInForce(t, r.pid, "default:1")
	wantValue(t, r, "count", 1)
	larger.Variables[0].Fresh = true
	applyTo(t, r.pid, larger)
	wantValue(t, r, "count", 0)
	revertAll(t, r.pid)

	applyTo(t, r.pid, typed("int", "int"))
	for why, p := range map[string]*kpack.Patch{
		"it is of type long and was of type int":                         typed("long", "long"),
		"what its type int consists of, or leads to, is not what it was": typed("int", "another"),
	} {
		p.Meta.Level = 3
		_, err := Apply(t.Context(), r.pid, []*kpack.Patch{p}, Options{})
		if refused := (*StateError)(nil); !errors.As(err, &refused) || refused.Why != why {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// TestStateLeadsBack: memory of an older level stays as long as a variable leads
// there that the newer one goes on with.
func TestStateLeadsBack(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "sleep")
	before := r.snapshot()
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "text2"))
	res := applyTo(t, r.pid, patchFor(t, bin, "default", 2, "text2", "answer"))
	if len(res.Kept) != 1 || res.Kept[0].Level != 1 {
		t.Errorf("kept %+v", res.Kept)
	}
	r.expect("ask", "43 11 mode") // the string of level 1
	r.ask("wipe")
	res = revertAll(t, r.pid)
	r.expect("ask", oldAnswer)
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
	if len(res.Removed) != 1 || res.Removed[0].Level != 2 {
		t.Errorf("removed %+v", res.Removed)
	}
}

// TestFailedNewerKeepsState: a level that cannot come leaves the older one's
// variables where they are.
func TestFailedNewerKeepsState(t *testing.T) {
	bin := pie(t)
	r := start(t, bin, "forever")
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer30"))
	r.expect("ask", "43 11 old")
	before := r.snapshot()
	_, err := Apply(t.Context(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 2, "answer31", "forever")}, Options{Wait: 20 * time.Millisecond})
	if busy := (*BusyError)(nil); !errors.As(err, &busy) {
		t.Errorf("error %v", err)
	}
	before.same(t, r.snapshot())
	wantValue(t, r, "count", 1)
	r.expect("ask", "43 11 old")
	wantValue(t, r, "count", 2)
}

// TestToolIsKilledBetweenStates: whatever a killed tool leaves of levels that go
// on with each other's variables, the next run clears up.
func TestToolIsKilledBetweenStates(t *testing.T) {
	r := start(t, pie(t), "call", "sleep")
	before := r.snapshot()
	patch := func(level specs.Level, names ...string) *kpack.Patch {
		return patchFor(t, pie(t), "default", level, names...)
	}
	killAtRandom(t, r, 15, patch(1, "answer30"), patch(2, "answer31", "other"), patch(3, "answer30", "text2"))
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestMatching: which variable of the older level a variable is.
func TestMatching(t *testing.T) {
	static := func(scope string, users ...string) kpack.Variable {
		return kpack.Variable{Name: "count", Unit: "a.c", Numbered: true, Scope: scope, Users: users, Size: 4, Align: 4}
	}
	named := func(name, unit string, global bool) kpack.Variable {
		return kpack.Variable{Name: name, Unit: unit, Global: global, Size: 4, Align: 4}
	}
	const new, unclear = -1, -2
	for name, c := range map[string]struct {
		old, now []kpack.Variable
		want     []int
	}{
		"by name":              {[]kpack.Variable{named("x", "a.c", false), named("y", "a.c", false)}, []kpack.Variable{named("y", "a.c", false), named("z", "a.c", false)}, []int{1, new}},
		"by unit":              {[]kpack.Variable{named("x", "a.c", false), named("x", "b.c", false)}, []kpack.Variable{named("x", "b.c", false), named("x", "c.c", false)}, []int{1, new}},
		"global in any unit":   {[]kpack.Variable{named("x", "a.c", true)}, []kpack.Variable{named("x", "b.c", true)}, []int{0}},
		"by scope":             {[]kpack.Variable{static("f"), static("g")}, []kpack.Variable{static("g"), static("f"), static("h")}, []int{1, 0, new}},
		"by users":             {[]kpack.Variable{static("", "f"), static("", "g")}, []kpack.Variable{static("", "g", "k"), static("", "f")}, []int{1, 0}},
		"one is gone":          {[]kpack.Variable{static("", "f"), static("", "g")}, []kpack.Variable{static("", "f")}, []int{0}},
		"one is new":           {[]kpack.Variable{static("", "f")}, []kpack.Variable{static("", "f"), static("", "g")}, []int{0, new}},
		"other users":          {[]kpack.Variable{static("", "f")}, []kpack.Variable{static("", "g")}, []int{unclear}},
		"two of one function":  {[]kpack.Variable{static("", "f"), static("", "f")}, []kpack.Variable{static("", "f")}, []int{unclear}},
		"two for one":          {[]kpack.Variable{static("", "f")}, []kpack.Variable{static("", "f"), static("", "f", "g")}, []int{unclear, unclear}},
		"the same users first": {[]kpack.Variable{static("", "f"), static("", "f", "g")}, []kpack.Variable{static("", "f", "g")}, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			old := &record{}
			for _, v := range c.old {
				old.Variables = append(old.Variables, recordedVariable{v, fakeBase})
			}
			m := &matching{old: old, new: c.now, step: &step{patch: &kpack.Patch{}, object: &object{}}}
			m.find()
			refused := 0
			for _, w := range c.want {
				if w == unclear {
					refused++
				}
			}
			for i, w := range c.want {
				if m.found[i] != max(w, new) {
					t.Errorf("variable %d is %d: want %d", i, m.found[i], w)
				}
			}
			if len(m.refused) != refused {
				t.Errorf("refused: %v", m.refused)
			}
		})
	}
}
