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
	"github.com/fother/fother/specs/testenv"
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
	const char *(*volatile called)(const char *) = answer; // in main, which is always busy, it cannot be patched
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		printf("%s\n", called(line));
		fflush(stdout);
		scrub();
	}
	return 0;
}
`

// TestCases takes small programs the whole way. Each file of testdata/cases is
// a txtar archive whose comment says what it is about, and has:
//
//	NAME, patched/NAME   the sources of the original, and what takes their places in the patched tree:
//	                     nothing, if it is empty
//	requests             are sent to the original build, to the patched build, and to the process before,
//	                     with and after the patch: the answers must be those of the two builds, and differ
//	state                the answers of the process with the patch, if they depend on what came before
//	functions            all that may be in the patch, with their verdicts
//	kept                 why the memory of the patch is kept after it is taken out
//	allow                changes that the spec allows
//	build                the build commands, in which $CC, $FLAGS and $SOURCES are replaced
//	refused              instead of requests: the error with its hints has each of these lines in it;
//	                     if it is empty, the run is not refused
//
// "refused clang", "refused -O2", "functions gcc -O0" and the like are for the
// runs that begin so. The comment may have lines "flags: A | B", one run for
// each, instead of those of all cases; "not clang: REASON"; "not FLAGS: REASON", "not gcc FLAGS: REASON";
// and "needs: COMMAND".
// Each compiler builds each case with one of its flags, by turns, and with all
// of them if FOTHER_LONG is 1.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for turn, file := range files {
		if testing.Short() && turn%6 != 0 {
			continue
		}
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for k, cc := range []string{"gcc", "clang"} {
			if strings.Contains(string(ar.Comment), "not "+cc+":") {
				continue
			}
			for i, flags := range flagsOf(ar) {
				if cc == "clang" && strings.Contains(flags, "-flto") && !strings.HasPrefix(filepath.Base(file), "clang-") {
					continue // the linker compiles
				}
				if strings.Contains(string(ar.Comment), "not "+flags+":") || strings.Contains(string(ar.Comment), "not "+cc+" "+flags+":") {
					continue
				}
				// By turns: every case with gcc or g++, every second one with clang too.
				if n := len(flagsOf(ar)); !testenv.Long() && (i != (turn+k)%n || k > turn%2) {
					continue
				}
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar")+" "+cc+" "+flags, func(t *testing.T) {
					t.Parallel()
					needsToMake(t, commandOf(cc, ar))
					if _, command, ok := strings.Cut(string(ar.Comment), "needs: "); ok {
						command, _, _ = strings.Cut(command, "\n")
						needsToMake(t, command)
					}
					newLinkedCase(t, ar, cc, flags).run()
				})
			}
		}
	}
}

// caseFlags are the compiler options of cases that name none.
var caseFlags = []string{"-O0", "-O2 -g -fcf-protection", "-O3 -fno-pie -no-pie"}

// longFlags are those of the long run. Nearly all of the time is the compilers',
// and what has no -g is built twice as often: so about half have it.
var longFlags = append(slices.Clone(caseFlags), "-O1 -fno-plt -g", "-Os -fno-asynchronous-unwind-tables",
	"-O2 -ffunction-sections -fdata-sections -Wl,--gc-sections -g", "-O2 -fpatchable-function-entry=6,2", "-O2 -flto",
	"-O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fPIE -pie -Wl,-z,relro,-z,now -g")

func flagsOf(ar *txtar.Archive) []string {
	_, list, ok := strings.Cut(string(ar.Comment), "flags:")
	switch {
	case !ok && testenv.Long():
		return longFlags
	case !ok:
		return caseFlags
	}
	list, _, _ = strings.Cut(list, "\n")
	var all []string
	for f := range strings.SplitSeq(list, "|") {
		all = append(all, strings.TrimSpace(f))
	}
	return all
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

// linkedCase is one run of a case.
type linkedCase struct {
	*testing.T
	dir  string
	spec specs.Spec
	// expected has what is said about the run, by name.
	expected map[string][]string
}

func newLinkedCase(t *testing.T, ar *txtar.Archive, cc, flags string) *linkedCase {
	c := &linkedCase{T: t, dir: t.TempDir(), expected: map[string][]string{}}
	for _, tree := range []string{"a", "b"} {
		c.put(filepath.Join(tree, "main.c"), []byte(askMain))
	}
	for _, f := range ar.Files {
		name, only, some := strings.Cut(f.Name, " ")
		switch source, patched := strings.CutPrefix(name, "patched/"); {
		case slices.Contains([]string{"requests", "state", "functions", "kept", "build", "allow", "refused"}, name):
			if _, said := c.expected[name]; !some && !said || some && (strings.HasPrefix(flags, only) || strings.HasPrefix(cc+" "+flags, only)) {
				c.expected[name] = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
			}
		case patched && len(f.Data) == 0:
			if err := os.Remove(filepath.Join(c.dir, "b", source)); err != nil {
				t.Fatal(err)
			}
		case patched:
			c.put(filepath.Join("b", source), f.Data)
		default:
			c.put(filepath.Join("a", source), f.Data)
			c.put(filepath.Join("b", source), f.Data)
		}
	}
	sources := "$(find . -name '*.[cS]' | sort)"
	if cxx(ar) {
		cc, sources = commandOf(cc, ar), "$(find . -name '*.[cS]' -o -name '*.cc' | sort)"
	}
	build := c.expected["build"]
	if build == nil {
		build = []string{"$CC -Wl,--build-id -w $FLAGS -o case $SOURCES -lm -pthread"}
	}
	replace := strings.NewReplacer("$CC", cc, "$FLAGS", flags, "$SOURCES", sources)
	c.spec = specs.Spec{Name: "case", Dir: filepath.Join(c.dir, "a"), Patches: []string{c.patch()}, Series: specs.DefaultSeries, Level: 1}
	for _, change := range c.expected["allow"] {
		c.spec.Allow = append(c.spec.Allow, specs.Allowance{Change: change, Reason: "the case is about it"})
	}
	for _, line := range build {
		c.spec.Build = append(c.spec.Build, replace.Replace(line))
	}
	return c
}

func (c *linkedCase) put(path string, data []byte) {
	c.Helper()
	path = filepath.Join(c.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		c.Fatal(err)
	}
}

// patch writes the difference of the two trees.
func (c *linkedCase) patch() string {
	c.Helper()
	diff := exec.Command("diff", "-urN", "a", "b")
	diff.Dir = c.dir
	patch, err := diff.Output()
	if len(patch) == 0 {
		c.Fatalf("the case changes nothing: %v", err)
	}
	c.put("fix.patch", patch)
	return filepath.Join(c.dir, "fix.patch")
}

func (c *linkedCase) run() {
	if f, runs := makeOrFind(c.T, "made", c.make); runs {
		checkCase(c.T, f, c.expected["requests"], c.expected["state"], c.expected["kept"] != nil)
	}
}

// make makes the patch, or sees that it is refused as it is to be, and returns "".
func (c *linkedCase) make() Folder {
	o := Options{Work: filepath.Join(c.dir, "work"), Shim: bin.cc}
	limit := 5 * time.Minute
	if testenv.Long() {
		limit = 30 * time.Minute // it runs where other work has precedence
	}
	ctx, cancel := context.WithTimeout(c.Context(), limit)
	defer cancel()
	if err := Build(ctx, c.spec, o); err != nil {
		c.Fatal(err)
	}
	targets, err := Diff(ctx, c.spec, o)
	if err == nil {
		if want := c.expected["functions"]; want != nil && !slices.Equal(carried(targets), want) {
			c.Errorf("the patch has %q, want %q", carried(targets), want)
		}
		_, err = Pack(ctx, c.spec, o)
		if is[*RefusedError](err) {
			c.Error("packing refuses what the comparison did not")
		}
	}
	if err == nil {
		if err = Step(ctx, c.spec, o, "verify"); err != nil {
			c.Error("the verification finds what the comparison did not")
		}
	}
	if want, ok := c.expected["refused"]; ok && want[0] != "" {
		if r, e := ReadReport(c.spec, o); is[*RefusedError](err) && (e != nil || r.Result != Refused) {
			c.Errorf("a fix is refused, and its report says %+v, %v", r, e)
		}
		c.refused(Explain(err), want)
		return ""
	}
	if err != nil {
		c.Fatal(Explain(err))
	}
	return FolderOf(c.spec, o)
}

func (c *linkedCase) refused(err error, want []string) {
	c.Helper()
	if err == nil {
		c.Fatalf("accepted; want %q", want)
	}
	c.Log(err)
	for _, line := range want {
		if !strings.Contains(err.Error(), line) {
			c.Errorf("the refusal\n%v\nhas not %q", err, line)
		}
	}
	if !strings.Contains(err.Error(), "\nhint: ") {
		c.Errorf("a refusal without a hint: %v", err)
	}
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
