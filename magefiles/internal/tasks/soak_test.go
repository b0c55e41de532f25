package tasks

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGrown: what this process maps, opens and changes is noticed.
func TestGrown(t *testing.T) {
	before, err := restOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if len(before.files) < 2 || len(before.text) < 2 || before.fds < 3 || before.threads < 1 || before.resident == 0 {
		t.Fatalf("%v", before)
	}
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(code)
	var pipes []io.Closer
	for range 20 { // more than the test itself closes meanwhile
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		pipes = append(pipes, r, w)
	}
	after, err := restOf(os.Getpid())
	for _, p := range pipes {
		p.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for at := range before.text {
		before.text[at] = [32]byte{1} // as if it had changed
		break
	}
	all := strings.Join(after.grown(before), "\n")
	for _, want := range []string{"r-xp", "descriptors", "is not what it was"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s\nwant %q", all, want)
		}
	}
	if all := after.grown(after); len(all) > 0 {
		t.Errorf("it has grown over itself: %v", all)
	}
	if all := before.grown(after); !strings.Contains(strings.Join(all, "\n"), "is gone") {
		t.Errorf("a mapping that is gone: %v", all)
	}
}

// TestOutcomes: what is not to be expected is a fault.
func TestOutcomes(t *testing.T) {
	s := &soak{out: io.Discard, counts: map[string]int{}}
	for _, c := range []struct {
		run   toolRun
		count string
		fault bool
	}{
		{toolRun{exit: 0}, "x: done", false},
		{toolRun{exit: 3}, "x: nothing to do", false},
		{toolRun{exit: 1, stderr: "fother: error: process 7: busy for 3s in 9 tries: thread 7"}, "x: busy", false},
		{toolRun{exit: 4, stderr: "nobody accepted the patch: it was reverted"}, "x: reverted", false},
		{toolRun{exit: 4, stderr: "function f is patched already by series more level 1"}, "x: refused: another series has changed the function", false},
		{toolRun{exit: 1, stderr: "input/output error"}, "x: failed", true},
		{toolRun{exit: 4, stderr: "does not fit"}, "x: failed", true},
		{toolRun{exit: 2}, "x: failed", true},
		{toolRun{exit: -1}, "x: failed", true},
	} {
		before := s.counts[c.count]
		s.faults = nil
		s.note(7, "x", c.run)
		if s.counts[c.count] != before+1 || (len(s.faults) > 0) != c.fault {
			t.Errorf("%+v: %v, faults %v", c.run, s.counts, s.faults)
		}
	}
	if text := s.String(); strings.Count(text, "\n") != 5 || !strings.Contains(text, fmt.Sprintf("%7d x: failed", 4)) {
		t.Errorf("counts:\n%s", text)
	}
}
