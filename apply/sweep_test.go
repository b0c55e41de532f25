package apply

import (
	"testing"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// TestShadowMemory: a sanitizer maps terabytes, of which few pages have content. A
// search for pointers does not look at the others.
func TestShadowMemory(t *testing.T) {
	bin := compile(t, "asan", "-fPIE", "-pie", "-fsanitize=address")
	r := start(t, bin, "call", "sleep")
	before := r.snapshot().program()
	for range 2 {
		applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer", "other"))
		r.expect("ask", newAnswer)
		revertAll(t, r.pid)
		r.expect("ask", oldAnswer)
	}
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot().program())
}

// TestMemoryThatCannotBeSearched: where nobody can tell which pages of much memory
// have content, the search gives up before it takes long.
func TestMemoryThatCannotBeSearched(t *testing.T) {
	bin := compile(t, "asan", "-fPIE", "-pie", "-fsanitize=address")
	r := start(t, bin)
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := &sweep{p: p, see: func(_, _ specs.Addr) {}}
	for _, m := range p.maps {
		if err = s.region(m.Range); err != nil {
			break
		}
	}
	if err != ptrace.ErrManyPages {
		t.Errorf("%d bytes: %v", s.unknown, err)
	}
}

// TestReferred: a pointer is found wherever it is, and none where there is none.
func TestReferred(t *testing.T) {
	bin := compile(t, "keeper", "-fPIE", "-pie", "-DKEEP")
	r := start(t, bin)
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "text"))
	refers := func() bool {
		t.Helper()
		p, err := Open(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		found, err := p.referred(p.records, &stackUses{})
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		return found[0]
	}
	r.ask("wipe")
	if refers() {
		t.Error("there is no pointer")
	}
	r.ask("keep")
	r.ask("wipe")
	if !refers() {
		t.Error("a pointer is not found")
	}
}
