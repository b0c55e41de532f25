package lpmake

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// put writes a file, with its folders.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// replace does to a file what source.Apply does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	_ = os.Remove(path)
	put(t, path, text)
}

func text(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "no file"
	}
	return string(data)
}

var names = []string{"sub/a.c", "link.c", "removed.c", "new/deep/b.c", "empty.c"}

// patchedTree makes a tree, keeps the files of names and patches it.
func patchedTree(t *testing.T) (s *sources, tree, other string) {
	t.Helper()
	tree, other = t.TempDir(), t.TempDir()
	put(t, filepath.Join(tree, "sub/a.c"), "original")
	put(t, filepath.Join(tree, "removed.c"), "removed")
	put(t, filepath.Join(tree, "empty.c"), "")
	put(t, filepath.Join(other, "target.c"), "target")
	if err := os.Link(filepath.Join(tree, "sub/a.c"), filepath.Join(other, "hard.c")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(other, "target.c"), filepath.Join(tree, "link.c")); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range names {
		_ = os.Chtimes(filepath.Join(tree, name), old, old)
	}
	s, err := keep(filepath.Join(t.TempDir(), "kept"), tree, names, func(dir string) error {
		for _, name := range names {
			replace(t, filepath.Join(dir, name), "patched")
		}
		return os.Remove(filepath.Join(dir, "removed.c"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.apply(); err != nil {
		t.Fatal(err)
	}
	return s, tree, other
}

// checkRestored fails if the tree is not what it was.
func checkRestored(t *testing.T, s *sources, tree, other string) {
	t.Helper()
	for name, want := range map[string]string{"sub/a.c": "original", "link.c": "target", "removed.c": "removed", "empty.c": ""} {
		path := filepath.Join(tree, name)
		if got := text(path); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > time.Minute {
			t.Errorf("%s is of %v: make would not build it again", name, info.ModTime())
		}
	}
	if _, err := os.Lstat(filepath.Join(tree, "new")); err == nil {
		t.Error("new is left")
	}
	if target, err := os.Readlink(filepath.Join(tree, "link.c")); err != nil || target != filepath.Join(other, "target.c") {
		t.Errorf("link.c leads to %q, %v", target, err)
	}
	if info, err := os.Stat(filepath.Join(tree, "sub/a.c")); err == nil && info.Mode().Perm() != 0o640 {
		t.Errorf("sub/a.c has mode %v", info.Mode())
	}
	if _, err := os.Stat(s.folder); err == nil {
		t.Error("what was kept is left")
	}
}

func TestRestore(t *testing.T) {
	s, tree, other := patchedTree(t)
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	checkRestored(t, s, tree, other)
	a, _ := os.Stat(filepath.Join(tree, "sub/a.c"))
	b, _ := os.Stat(filepath.Join(other, "hard.c"))
	if !os.SameFile(a, b) {
		t.Error("sub/a.c has lost its other name")
	}
}

// TestRestoreLater: another process does it, after one that was interrupted at
// any file.
func TestRestoreLater(t *testing.T) {
	for done := range len(names) + 1 {
		s, tree, other := patchedTree(t)
		for _, f := range s.journal.Files[:done] {
			if err := s.restoreFile(f); err != nil {
				t.Fatal(err)
			}
		}
		later, err := unfinished(s.folder)
		if err != nil || later == nil {
			t.Fatalf("%v, %v", later, err)
		}
		if err := later.restore(); err != nil {
			t.Fatal(err)
		}
		checkRestored(t, s, tree, other)
	}
}

// TestRestoreUntouched: the run ended before the fix was applied, or in the
// middle of that.
func TestRestoreUntouched(t *testing.T) {
	tree := t.TempDir()
	put(t, filepath.Join(tree, "a.c"), "original")
	put(t, filepath.Join(tree, "b.c"), "original")
	s, err := keep(filepath.Join(t.TempDir(), "kept"), tree, []string{"a.c", "b.c", "c.c"}, func(dir string) error {
		for _, name := range []string{"a.c", "b.c", "c.c"} {
			replace(t, filepath.Join(dir, name), "patched")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.applyFile(s.journal.Files[1]); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(tree, "a.c.fother-new"), "half") // of the next one
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.c": "original", "b.c": "original", "c.c": "no file", "a.c.fother-new": "no file"} {
		if got := text(filepath.Join(tree, name)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestRestoreLost: a clean target removed the work folder.
func TestRestoreLost(t *testing.T) {
	s, tree, other := patchedTree(t)
	if err := os.RemoveAll(s.folder); err != nil {
		t.Fatal(err)
	}
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	checkRestored(t, s, tree, other)
}

// TestKeepInterrupted: without a journal nothing was patched yet.
func TestKeepInterrupted(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "kept")
	put(t, filepath.Join(folder, "0"), "half")
	if s, err := unfinished(folder); s != nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	put(t, journalAt(folder), "{")
	if _, err := unfinished(folder); err == nil {
		t.Error("a journal that is damaged is passed over")
	}
}

// TestCopied: what an interrupted run left in a copy of a tree and its work
// folder says nothing of the tree that it was copied from.
func TestCopied(t *testing.T) {
	s, tree, _ := patchedTree(t)
	work, copied := t.TempDir(), t.TempDir()
	if err := os.Rename(s.folder, filepath.Join(work, "sources")); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(tree, "sub/a.c"))
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Options: Options{Work: work, Source: copied}}
	if err := r.recover(); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), tree) {
		t.Errorf("error %v, want one that names %s", err, tree)
	}
	if now, err := os.ReadFile(filepath.Join(tree, "sub/a.c")); err != nil || string(now) != string(before) {
		t.Errorf("the other tree was changed: %q, %v", now, err)
	}
}

// TestStash: the folder comes back from wherever it was when a run ended.
func TestStash(t *testing.T) {
	dir := t.TempDir()
	original, note := filepath.Join(dir, "lpmake"), filepath.Join(dir, "stash.json")
	put(t, filepath.Join(original, "bin/a"), "original")
	if _, err := aside(note, original); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(original, "bin/a"), "patched")
	left, err := leftAside(note)
	if err != nil || left == nil {
		t.Fatalf("%v, %v", left, err)
	}
	for range 2 {
		if err := left.back(); err != nil {
			t.Fatal(err)
		}
		if got := text(filepath.Join(original, "bin/a")); got != "original" {
			t.Errorf("%q is back", got)
		}
	}
	if left, err := leftAside(note); left != nil || err != nil {
		t.Errorf("still aside: %v, %v", left, err)
	}
	// What is dropped in half does not come back.
	if _, err := aside(note, original); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(original, "bin/a"), "newer")
	if err := os.Remove(note); err != nil {
		t.Fatal(err)
	}
	s, err := aside(note, original)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.back(); err != nil {
		t.Fatal(err)
	}
	if got := text(filepath.Join(original, "bin/a")); got != "newer" {
		t.Errorf("%q is back", got)
	}
	if err := moveFolder(filepath.Join(dir, "x/y"), original); err != nil || text(filepath.Join(dir, "x/y/bin/a")) != "newer" {
		t.Errorf("moved: %v", err)
	}
}
