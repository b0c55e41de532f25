package apply

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// unwinding is the test program with an unwinder in its process.
func unwinding(t testing.TB) string {
	return compile(t, "unwinding", "-fPIE", "-pie", "-Wl,--no-as-needed", "-lgcc_s")
}

// chainOf reads the finders of a process as they are.
func chainOf(t testing.TB, pid int) *chain {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	u, err := p.findUnwinders()
	if err != nil {
		t.Fatal(err)
	}
	if len(u.slots) == 0 {
		need(t, "an unwinder that asks "+kpack.FindObject)
	}
	// A record that is no longer there would not be told.
	at := finder{Entry: 1}
	c := p.readChain(u, &transaction{ins: []*record{{recordBody: recordBody{Finder: at}}}})
	if len(c.slots) != len(u.slots) {
		t.Errorf("%d of %d GOT entries lead somewhere else", len(u.slots)-len(c.slots), len(u.slots))
	}
	return c
}

// TestFinders: each patch of the process is in the chain once, the newest in
// front, whatever comes and goes in between.
func TestFinders(t *testing.T) {
	bin := unwinding(t)
	r := start(t, bin)
	one, two := patchFor(t, bin, "one", 1, "answer"), patchFor(t, bin, "two", 1, "other")
	three := patchFor(t, bin, "two", 2, "other")
	expect := func(series ...specs.Series) {
		t.Helper()
		c := chainOf(t, r.pid)
		var got []specs.Series
		for _, e := range c.order {
			for _, rec := range c.p.records {
				if rec.Finder.Entry == e {
					got = append(got, rec.ID.Series)
				}
			}
		}
		if !slices.Equal(got, series) {
			t.Errorf("finders of %v, want %v", got, series)
		}
	}
	apply := func(p *kpack.Patch) {
		t.Helper()
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{p}, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	expect()
	apply(one)
	expect("one")
	apply(two)
	expect("two", "one")
	apply(three)
	expect("two", "one")
	if _, err := Revert(context.Background(), r.pid, []Selector{{Series: "one"}}, Options{}); err != nil {
		t.Fatal(err)
	}
	expect("two")
	apply(one)
	expect("one", "two")
	revertAll(t, r.pid)
	expect()
}

// TestNoUnwinder: a process without one is left alone.
func TestNoUnwinder(t *testing.T) {
	r := start(t, pie(t))
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "answer")}, Options{}); err != nil {
		t.Fatal(err)
	}
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	u, err := p.findUnwinders()
	if err != nil || len(u.slots) != 0 || len(p.records) != 1 || p.records[0].Finder != (finder{}) {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestUnwinderIsMissing: what throws is not patched where exceptions would not
// find the new code. A name in the dynamic string table is all that tells it.
func TestUnwinderIsMissing(t *testing.T) {
	bin := compile(t, "throws", "-fPIE", "-pie", "-Wl,-rpath,__cxa_throw")
	r := start(t, bin)
	before := r.snapshot()
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 1, "answer")}, Options{})
	if missing := (*NoUnwinderError)(nil); !errors.As(err, &missing) || missing.Object != bin {
		t.Errorf("error: %v", err)
	}
	before.same(t, r.snapshot())
}
