package apply

import "testing"

// TestShadowMemory: a sanitizer maps terabytes, of which few pages have content. A
// search for pointers does not look at the others.
func TestShadowMemory(t *testing.T) {
	bin := compile(t, "asan", "-fPIE", "-pie", "-fsanitize=address")
	r := start(t, bin, "call", "sleep")
	before := r.snapshot()
	for range 2 {
		applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer", "other"))
		r.expect("ask", newAnswer)
		revertAll(t, r.pid)
		r.expect("ask", oldAnswer)
	}
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestMemoryThatCannotBeSearched: where nobody can tell which pages of much memory
// have content, a patch's memory is kept.
func TestMemoryThatCannotBeSearched(t *testing.T) {
	bin := compile(t, "asan", "-fPIE", "-pie", "-fsanitize=address")
	r := start(t, bin)
	applyTo(t, r.pid, patchFor(t, bin, "default", 1, "answer"))
	p, err := open(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := &sweep{p: p, records: p.records, found: make([]bool, 1), span: p.records[0].memory()}
	if err := s.all(p.maps, &stackUses{}); err != nil || !s.found[0] {
		t.Errorf("%d bytes: found %v, %v", s.unknown, s.found, err)
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
