package lpmake

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/compiler/source"
)

// TestRestoreEdited: an edit of any file keeps all as they are, in this process
// and in the next. Once it is out of the way, everything comes back.
func TestRestoreEdited(t *testing.T) {
	for _, edited := range append(names, "removed.c") {
		for _, later := range []bool{false, true} {
			s, tree, other := patchedTree(t)
			path := filepath.Join(tree, edited)
			put(t, path, "mine")
			restore := s.restore
			if later {
				again, err := unfinished(s.folder)
				if err != nil || again == nil {
					t.Fatalf("%v, %v", again, err)
				}
				restore = again.restore
			}
			err := restore()
			if !errors.Is(err, ErrEdited) || !strings.Contains(err.Error(), path) || strings.Count(err.Error(), "\n") != 1 {
				t.Fatalf("%s edited: %v", edited, err)
			}
			if got := text(path); got != "mine" {
				t.Errorf("%s: %q", edited, got)
			}
			for _, name := range names {
				if got := text(filepath.Join(tree, name)); name != edited && name != "removed.c" && got != "patched" {
					t.Errorf("%s edited: %s was restored: %q", edited, name, got)
				}
			}
			for _, f := range s.journal.Files {
				kept := filepath.Join(s.folder, f.Kept)
				if text(kept) == "no file" && f.Kept != "" {
					t.Errorf("%s edited: the original of %s is gone", edited, f.Name)
				}
				if f.Name == edited && f.Kept != "" && !strings.Contains(err.Error(), kept) {
					t.Errorf("error %q does not tell of %s", err, kept)
				}
			}
			if err := os.Rename(path, filepath.Join(other, "mine")); err != nil {
				t.Fatal(err)
			}
			if err := restore(); err != nil {
				t.Fatal(err)
			}
			checkRestored(t, s, tree, other)
		}
	}
}

// TestRestoreEditedKinds: an edit may leave something else than a file.
func TestRestoreEditedKinds(t *testing.T) {
	for what, edit := range map[string]func(path string) error{
		"link":   func(path string) error { return errors.Join(os.Remove(path), os.Symlink("mine", path)) },
		"folder": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
		"less":   func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"above": func(path string) error {
			return errors.Join(os.RemoveAll(filepath.Dir(path)), os.WriteFile(filepath.Dir(path), nil, 0o644))
		},
	} {
		s, tree, _ := patchedTree(t)
		if err := edit(filepath.Join(tree, "sub/a.c")); err != nil {
			t.Fatal(err)
		}
		if err := s.restore(); !errors.Is(err, ErrEdited) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestStageCopies: a fix may copy a file that it does not change, and may make
// a file executable.
func TestStageCopies(t *testing.T) {
	tree := t.TempDir()
	put(t, filepath.Join(tree, "a.c"), "one\n")
	patch := filepath.Join(t.TempDir(), "copy.patch")
	put(t, patch, "diff --git a/a.c b/sub/b.txt\ncopy from a.c\ncopy to sub/b.txt\n--- a/a.c\n+++ b/sub/b.txt\n@@ -1 +1 @@\n-one\n+two\n")
	fix, err := source.Check(tree, []string{patch})
	if err != nil {
		t.Fatal(err)
	}
	s, err := keep(filepath.Join(t.TempDir(), "kept"), tree, fix.Files, func(dir string) error {
		_, err := source.Apply(dir, []string{patch})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := text(filepath.Join(tree, "sub/b.txt")); got != "no file" {
		t.Errorf("%q is there before the journal", got)
	}
	if err := s.apply(); err != nil {
		t.Fatal(err)
	}
	if got := text(filepath.Join(tree, "sub/b.txt")); got != "two\n" {
		t.Errorf("%q is copied", got)
	}
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(tree, "sub")); err == nil {
		t.Error("sub is left")
	}
}

// TestOneFileTwice: a fix that names a file twice would be applied in half.
func TestOneFileTwice(t *testing.T) {
	tree := t.TempDir()
	put(t, filepath.Join(tree, "sub/a.c"), "original")
	if err := os.Symlink("sub", filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	_, err := keep(filepath.Join(t.TempDir(), "kept"), tree, []string{"link/a.c", "sub/a.c"}, func(string) error { return nil })
	if !errors.Is(err, ErrUsage) || text(filepath.Join(tree, "sub/a.c")) != "original" {
		t.Error(err)
	}
}
