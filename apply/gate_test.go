package apply

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
)

// TestAlone: a function of which there is no copy changes alone, or together with
// others that can have a gate, but not with one like it in another page. Then
// nothing is written, on the way back either.
func TestAlone(t *testing.T) {
	bin := matrixProgram(t)
	r := start(t, bin, "sleep")
	before := r.snapshot()
	refused := func(err error) {
		t.Helper()
		alone := (*AloneError)(nil)
		if !errors.As(err, &alone) || !strings.Contains(err.Error(), "looping") || !strings.Contains(err.Error(), "circling") ||
			!strings.Contains(alone.Error(), "may lead back") || !strings.Contains(alone.Hint(), "of its own") {
			t.Errorf("error %v", err)
		}
	}
	two := []*kpack.Patch{patchFor(t, bin, "a", 1, "looping", "answer"), patchFor(t, bin, "b", 1, "circling")}
	_, err := Prepare(context.Background(), r.pid, two)
	refused(err)
	_, err = Apply(context.Background(), r.pid, two, Options{})
	refused(err)
	before.same(t, r.snapshot())

	applyTo(t, r.pid, two[0])
	applyTo(t, r.pid, two[1])
	r.expect("loops", "43 6 8")
	during := r.snapshot()
	_, err = Revert(context.Background(), r.pid, nil, Options{})
	refused(err)
	during.same(t, r.snapshot())
	for _, s := range []Selector{{Series: "a"}, {Series: "b"}} {
		if _, err := Revert(context.Background(), r.pid, []Selector{s}, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	r.expect("loops", "2 5 5")
	before.same(t, r.snapshot())
}

// TestGatesInUse: functions in one page change by one write, and no gate is used;
// those in several do, and have direct jumps in the end.
func TestGatesInUse(t *testing.T) {
	for _, c := range []struct {
		bin   string
		patch *kpack.Patch
		used  bool
	}{
		{pie(t), patchFor(t, pie(t), "default", 1, "answer", "other"), false},
		{matrixProgram(t), matrixPatch(t, 1), true},
	} {
		r := start(t, c.bin, "sleep")
		applyTo(t, r.pid, c.patch)
		p, err := Open(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range p.records[0].Functions {
			gate, err := p.mem.Read(f.Gate, 48)
			if err != nil {
				t.Fatal(err)
			}
			entry, err := p.mem.Read(f.Site, len(f.New))
			if err != nil {
				t.Fatal(err)
			}
			if used := len(bytes.Trim(gate, "\x00")) > 0; used != c.used || !bytes.Equal(entry, f.New) {
				t.Errorf("%s: gate in use %v, want %v; entry % x, want % x", f.Name, used, c.used, entry, f.New)
			}
		}
		p.Close()
		revertAll(t, r.pid)
	}
}
