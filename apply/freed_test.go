package apply

import (
	"context"
	"errors"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// TestCodeGoesWithItsRecord: the code of a patch and its record are freed by one call, the
// last one, of what is still there as it was mapped.
func TestCodeGoesWithItsRecord(t *testing.T) {
	prog := start(t, pie(t))
	applyTo(t, prog.pid, patchFor(t, pie(t), "default", 1, "answer"))
	p, err := Open(prog.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r := p.records[0]
	all := p.freed(p.maps, r)
	if last := all[len(all)-1]; last.Lo != r.Base || last.Hi < r.text().Hi {
		t.Errorf("freed are %v, want %v and %v at last", all, r.part(0), r.text())
	}
	size := uint64(0)
	for _, m := range all {
		size += m.Size()
	}
	if want := r.part(0).Size() + r.part(1).Size() + r.part(2).Size(); size != want {
		t.Errorf("freed are %v, %d bytes, want %d", all, size, want)
	}
	for i, lost := range []specs.Range[specs.Addr]{r.text(), r.part(2)} {
		maps := append([]Mapping(nil), p.maps...)
		for j := range maps {
			if lost.Contains(maps[j].Range.Lo) { // as if the program had it for something else
				maps[j].Perm = "rwxp"
			}
		}
		all := p.freed(maps, r)
		for _, m := range all {
			if m.Lo < lost.Hi && lost.Lo < m.Hi {
				t.Errorf("without part %d: %v is freed, which is another's", i, m)
			}
		}
		if all[len(all)-1].Lo != r.Base {
			t.Errorf("without part %d: freed are %v, want the record at last", i, all)
		}
	}
}

// TestNothingIsStagedAfterTheEnd: no thread is held for a patch that is given up.
func TestNothingIsStagedAfterTheEnd(t *testing.T) {
	prog := start(t, pie(t))
	p, err := open(prog.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	plan, err := makePlan(p, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "answer")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if held, err := p.stageAll(ctx, plan.steps); held != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("held for %v: %v", held, err)
	}
	if err := p.refresh(); err != nil || len(p.records) > 0 {
		t.Errorf("%d records are there: %v", len(p.records), err)
	}
	prog.expect("ask", oldAnswer)
}
