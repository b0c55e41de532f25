package lpmake

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"ChangeLog": "document", "doc/x.texi": "document", "NEWS": "document", "README.in": "document", "less.1": "document", "po/de.po": "document", "LICENSE": "document",
		"a.c": "unit", "lib/b.cc": "unit", "c.S": "unit", "news.c": "unit",
		"a.h": "other", "parse.y": "other", "Makefile.am": "other", "configure.ac": "other", "data.bin": "other", "newsletter": "other", "x.c.in": "other",
		"history.def": "other", "news.inc": "other", "todo.y": "other", "changes.l": "other", "ChangeLog.md": "document",
	} {
		got := "other"
		if isUnit(name) {
			got = "unit"
		} else if isDocument(name) {
			got = "document"
		}
		if got != want {
			t.Errorf("%s is taken for %s, want %s", name, got, want)
		}
	}
	for folder, want := range map[string]string{"memcached-1.6.18": "memcached-1.6.18", "a project": "a-project", "..x": "x", "---": "make", "größe": "gr--e"} {
		if got := releaseName(folder); got != want {
			t.Errorf("a folder %q makes %q, want %q", folder, got, want)
		}
	}
}

// TestInclude: every way in which C and assembly take in a file.
func TestInclude(t *testing.T) {
	for line, want := range map[string]bool{
		`#include "a.h"`: true, "\t# include <sub/a.h>": true, `%:include "../a.h" // why`: true, `#include_next <a.h>`: true, `#import "a.h"`: true,
		`.include "a.h"`: true, "\t.incbin \"x/a.h\", 4": true,
		`#include "ba.h"`: false, `// #include "a.h"`: false, `#include A_H`: false, `#define X "a.h"`: false, `#include "a.hh"`: false,
	} {
		path := filepath.Join(t.TempDir(), "b.c")
		put(t, path, "int first;\n"+line+"\n")
		if got := includesOf(path, map[string]bool{"a.h": true})["a.h"]; got != want {
			t.Errorf("%s: %v, want %v", line, got, want)
		}
	}
}

// TestIncludeUnknown: a file that cannot be searched may include anything.
func TestIncludeUnknown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.c")
	put(t, path, strings.Repeat("x", maxScanned+1))
	if !includesOf(path, map[string]bool{"a.h": true})["a.h"] {
		t.Error("what is in a file that was not searched is taken for known")
	}
}

// TestBefore: which fixes need a clean build, told for all files at once.
func TestBefore(t *testing.T) {
	tree, build := t.TempDir(), t.TempDir()
	put(t, filepath.Join(tree, "a.c"), "#include \"part.c\"\n")
	put(t, filepath.Join(tree, "part.c"), "int x;\n")
	put(t, filepath.Join(tree, "alone.c"), "int y;\n")
	put(t, filepath.Join(build, "made.c"), "#include \"alone2.c\"\n")
	r := &run{Options: Options{Dir: build, Source: tree, Work: filepath.Join(build, "work")}}
	put(t, filepath.Join(build, "work/x.c"), "#include \"alone.c\"\n") // not a source
	err := (&whole{run: r, names: []string{"alone.c", "ChangeLog"}}).before()
	if err != nil {
		t.Error(err)
	}
	err = (&whole{run: r, names: []string{"alone.c", "part.c", "alone2.c", "grammar.y"}}).before()
	if !errors.Is(err, ErrNeedsClean) {
		t.Fatal(err)
	}
	for _, want := range []string{"part.c is included by other files (a.c)", "alone2.c is included by other files (made.c)", "made from grammar.y"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not tell %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "alone.c is") {
		t.Errorf("error %q tells of alone.c", err)
	}
}

// TestInstallCommand: make gets the path as it is.
func TestInstallCommand(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "lpmakefile"), "install:\n\t@printf '%s' \"$$DESTDIR\"\n")
	for _, original := range []string{"/plain", "/with space", "/with'quote", "/with$HOME", "/with$$(x)", `/with"double"`, "/with\\back", "/with#hash"} {
		r := &run{Options: Options{Dir: dir, Original: original, DestDir: "DESTDIR", Make: "make"}}
		cmd := exec.Command("sh", "-c", r.install())
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != original {
			t.Errorf("%s: make gets %q, %v", original, out, err)
		}
	}
}
