package compiler

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// TestContinue: what an earlier build in the tree captured is taken over, in
// the same stage and in the other.
func TestContinue(t *testing.T) {
	testenv.Needs(t, "gcc", "make")
	dir, store, outside := t.TempDir(), filepath.Join(t.TempDir(), "store"), t.TempDir()
	tree(t, dir, project)
	run := func(stage, base specs.Stage, commands ...string) *Capture {
		t.Helper()
		err := Run(t.Context(), Options{
			Dir: dir, Commands: commands, Store: store, Stage: stage, Base: base, Shim: fotherCC,
			Folders: []string{outside, filepath.Join(dir, "in")}, Skip: []string{filepath.Join(dir, "skipped")},
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Load(store, stage)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := run(specs.StageOriginal, specs.StageOriginal, "make", "mkdir in skipped; cp one in; cp one skipped; mv plus "+outside)
	if n := fresh(first); n != len(first.Units) || n == 0 {
		t.Fatalf("%d of %d units are fresh in the first build", n, len(first.Units))
	}
	if !hasOutput(first, filepath.Join(outside, "plus")) {
		t.Error("what was moved to a folder of Folders is not found there")
	}
	again := run(specs.StageOriginal, specs.StageOriginal, "mv "+outside+"/plus .; make")
	if n := fresh(again); n != 0 || len(again.Units) != len(first.Units) || len(again.Deliverables()) != len(first.Deliverables()) {
		t.Errorf("make did nothing: %d fresh units, %d units, %d deliverables", n, len(again.Units), len(again.Deliverables()))
	}
	if len(again.Unseen) > 0 {
		t.Errorf("unseen: %v", again.Unseen)
	}

	if err := os.WriteFile(filepath.Join(dir, "used.c"), []byte("static int count;\nint used(int n) { return count -= n; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	patched := run(specs.StagePatched, specs.StageOriginal, "make")
	if n := fresh(patched); n != 1 || len(patched.Units) != len(first.Units)+1 {
		t.Errorf("%d fresh units of %d, want one more than before", n, len(patched.Units))
	}
	original, err := Load(store, specs.StageOriginal)
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := Compare(original, patched)
	if err != nil {
		t.Fatal(err)
	}
	var changed []string
	for _, p := range pairs {
		if p.Changed() {
			changed = append(changed, filepath.Base(p.Original.Output))
		}
		if p.Changed() == p.Patched.Kept {
			t.Errorf("%s: changed is %v, and kept too", p.Original.Output, p.Changed())
		}
	}
	if len(changed) != 1 || changed[0] != "prog" {
		t.Errorf("changed: %v, want prog", changed)
	}

	// Without a base, what was is forgotten.
	if c := run(specs.StageOriginal, "", "make clean; make one"); len(c.Deliverables()) != 1 || fresh(c) != len(c.Units) {
		t.Errorf("%d deliverables and %d units", len(c.Deliverables()), len(c.Units))
	}
}

func fresh(c *Capture) (n int) {
	for _, u := range c.Units {
		if !u.Kept {
			n++
		}
	}
	return n
}

func hasOutput(c *Capture, path string) bool {
	return slices.ContainsFunc(c.Deliverables(), func(l *Link) bool { return l.Output == path })
}

// TestBefore: it is called before each command, and its error ends the build.
func TestBefore(t *testing.T) {
	dir := t.TempDir()
	var seen []string
	err := Run(t.Context(), Options{
		Dir: dir, Commands: []string{"true", "touch a", "touch b"}, Stage: specs.StageConfigure, Shim: fotherCC,
		Before: func(c string) error {
			if seen = append(seen, c); len(seen) == 3 {
				return os.ErrInvalid
			}
			return nil
		},
	})
	if err != os.ErrInvalid || !slices.Equal(seen, []string{"true", "touch a", "touch b"}) {
		t.Errorf("error %v after %q", err, seen)
	}
	if !isThere(filepath.Join(dir, "a"))() || isThere(filepath.Join(dir, "b"))() {
		t.Error("the wrong commands ran")
	}
}
