package pipeline

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs"
)

// askMain is the main program of every case: it answers each line of its
// input by calling answer. Then it overwrites the stack below its own frame, so
// that no stale word there looks like a reference to a patch that is taken
// out, whose memory would be kept.
const askMain = `
#include <stdio.h>
#include <string.h>
#ifdef __cplusplus
extern "C"
#endif
const char *answer(const char *request);
__attribute__((noinline)) static void scrub(void) {
	char area[32768];
	memset(area, 0, sizeof area);
	__asm__ volatile("" : : "r"(area) : "memory");
}
int main(void) {
	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		printf("%s\n", answer(line));
		fflush(stdout);
		scrub();
	}
	return 0;
}
`

// TestCases takes small programs the whole way. Each file of testdata/cases is
// a txtar archive whose comment says what it is about. "requests" are sent to
// the original build, to the patched build and to the process before, with and
// after the patch; a "patched/NAME" takes the place of NAME. The answers
// must be those of the two builds, and differ. "state", if present, are the
// answers of the process with the patch when they depend on what came before;
// "functions" are all that may be in the patch. "kept" says why the memory of
// the patch is kept after it is taken out. gcc builds each case with all
// flags, clang with those whose turn it is, or with all if FOTHER_LONG is set;
// a compiler or flags are left out if the comment says "not clang: REASON" or
// "not FLAGS: REASON".
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	all := []string{"-O0", "-O2 -g -fcf-protection", "-O3 -fno-pie -no-pie"}
	turn := 0
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		clang := !strings.Contains(string(ar.Comment), "not clang:")
		if clang {
			turn++
		}
		for i, flags := range all {
			if strings.Contains(string(ar.Comment), "not "+flags+":") {
				continue
			}
			for _, cc := range []string{"gcc", "clang"} {
				if strings.Contains(string(ar.Comment), "not "+cc+":") || cc == "clang" && (!clang || i != turn%len(all) && os.Getenv("FOTHER_LONG") == "") {
					continue
				}
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar")+" "+cc+" "+flags, func(t *testing.T) {
					needCompiler(t, commandOf(cc, ar))
					testCase(t, ar, cc, flags)
				})
			}
		}
	}
}

// cxx reports whether a case has C++ sources.
func cxx(ar *txtar.Archive) bool {
	return slices.ContainsFunc(ar.Files, func(f txtar.File) bool { return strings.HasSuffix(f.Name, ".cc") })
}

// commandOf returns the command with which a compiler builds a case.
func commandOf(cc string, ar *txtar.Archive) string {
	if cxx(ar) {
		return map[string]string{"gcc": "g++", "clang": "clang++"}[cc]
	}
	return cc
}

// needCompiler skips the test if a compiler is missing, which CI does not allow.
func needCompiler(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func testCase(t *testing.T, ar *txtar.Archive, cc, flags string) {
	dir := t.TempDir()
	var requests, state, functions []string
	kept := false
	put := func(path string, data []byte) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sources := "-name '*.c'"
	cc = commandOf(cc, ar)
	if cxx(ar) {
		sources = "-name '*.c' -o -name '*.cc'"
	}
	trees := []string{"a", "b"}
	for _, tree := range trees {
		put(filepath.Join(dir, tree, "main.c"), []byte(askMain))
	}
	for _, f := range ar.Files {
		lines := strings.Split(strings.TrimSpace(string(f.Data)), "\n")
		switch name, patched := strings.CutPrefix(f.Name, "patched/"); {
		case f.Name == "requests":
			requests = lines
		case f.Name == "kept":
			kept = true
		case f.Name == "state":
			state = lines
		case f.Name == "functions":
			functions = lines
		case patched:
			put(filepath.Join(dir, "b", name), f.Data)
		default:
			put(filepath.Join(dir, "a", name), f.Data)
			put(filepath.Join(dir, "b", name), f.Data)
		}
	}
	diff := exec.Command("diff", "-urN", "a", "b")
	diff.Dir = dir
	patch, err := diff.Output()
	if len(patch) == 0 {
		t.Fatalf("the case changes nothing: %v", err)
	}
	put(filepath.Join(dir, "fix.patch"), patch)
	s := specs.Spec{
		Name: "case", Dir: filepath.Join(dir, "a"), Patches: []string{filepath.Join(dir, "fix.patch")},
		Build:  []string{cc + " -Wl,--build-id -Wno-unused-result " + flags + " -o case $(find . " + sources + " | sort) -lm -pthread"},
		Series: specs.DefaultSeries, Level: 1,
	}
	o := Options{Work: filepath.Join(dir, "work"), Shim: bin.cc}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Build(ctx, s, o); err != nil {
		t.Fatal(err)
	}
	targets, err := Diff(ctx, s, o)
	if err != nil {
		t.Fatal(err)
	}
	if got := carried(targets); functions != nil && !slices.Equal(got, functions) {
		t.Errorf("the patch has %q, want %q", got, functions)
	}
	if _, err := Pack(ctx, s, o); err != nil {
		t.Fatal(err)
	}
	if err := Step(ctx, s, o, "verify"); err != nil {
		t.Fatal(err)
	}
	checkCase(t, FolderOf(s, o), requests, state, kept)
}

// carried lists the functions of a patch with their verdicts.
func carried(targets []Target) (all []string) {
	for _, t := range targets {
		for _, u := range t.Units {
			for _, f := range u.Changes.Functions {
				if f.Verdict != differ.Same {
					all = append(all, f.Verdict.String()+" "+f.Name)
				}
			}
		}
	}
	return all
}

func checkCase(t *testing.T, f Folder, requests, state []string, kept bool) {
	answersOf := func(p *asked) (all []string) {
		for _, r := range requests {
			all = append(all, p.answer(r))
		}
		return all
	}
	original := answersOf(ask(t, filepath.Join(f.Original(), "case")))
	patched := answersOf(ask(t, filepath.Join(f.Patched(), "case")))
	if strings.Join(original, "\n") == strings.Join(patched, "\n") {
		t.Fatalf("the two builds answer alike: %q", original)
	}
	p := ask(t, filepath.Join(f.Original(), "case"))
	expect := func(what string, got, want []string) {
		t.Helper()
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: answers %q, want %q", what, got, want)
		}
	}
	expect("before", answersOf(p), original)
	before := memory(t, p.pid())
	fother(t, 0, "patch", "-p", p.pid(), f.Patches())
	if state != nil {
		patched = state
	}
	expect("patched", answersOf(p), patched)
	fother(t, 0, "unpatch", "-p", p.pid())
	if state == nil {
		expect("reverted", answersOf(p), original)
	} else {
		answersOf(p)
	}
	if !kept {
		sameMemory(t, before, memory(t, p.pid()))
	}
}
