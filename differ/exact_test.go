package differ_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// exactSource is a program of which one function is touched. It has what
// compilers number, sort and merge: strings, constants, jump tables, static
// locals, cold parts, tables that they make of a switch.
const exactSource = `/*top*/
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct item { const char *name; double weight; int kind; };
static struct item items[] = { { "first", 1.5, 1 }, { "second", 2.25, 2 }, { "third", 3.0, 0 } };
int total;
static int hidden = 7;
/*before*/
__attribute__((noinline)) static int jumps(int n)
{
	switch (n) {
	case 0: return printf("zero %d\n", n); case 1: return puts("one"); case 2: return total++; case 3: return abs(hidden);
	case 4: return hidden--; case 5: return puts("five"); case 6: return total * 3; case 7: return (int)strlen("seven or so");
	}
	return -1;
}
__attribute__((noinline)) static const char *table(int n)
{
	switch (n) { case 0: return "red"; case 1: return "green"; case 2: return "blue"; case 3: return "black"; case 4: return "white"; }
	return "a longer red";
}
__attribute__((noinline)) static double numbers(double x, float y) { return x * 3.14159 + y * 2.5f - (x > 100.0 ? 0.125 : 0.75); }
__attribute__((noinline)) static int counts(int by) { static int count = 3, limit; count += by; limit |= count; return count + limit; }
/*middle*/
__attribute__((noinline, noipa)) int touched(int n) // noipa: callers know which registers it uses, and change with it
{
	static int count = 5;
	/*inside*/
	count += n;
	return count /*value*/;
}
/*after*/
__attribute__((noinline)) static int later(int by) { static int count = 11; static const int steps[] = { 4, 8, 15, 16 }; count += steps[by & 3]; return count; }
__attribute__((noinline)) static int various(int n, ...)
{
	va_list ap; int sum = 0;
	va_start(ap, n);
	while (n-- > 0) sum += va_arg(ap, int);
	va_end(ap);
	if (__builtin_expect(sum < 0, 0)) { fprintf(stderr, "%s: negative\n", __func__); abort(); }
	return sum;
}
__attribute__((noinline)) static int loops(const unsigned char *s, int n) { int h = 0; for (int i = 0; i < n; i++) for (int k = s[i]; k; k >>= 1) h = h * 31 + k; return h; }
int entry(int n, char **v)
{
	struct item *i = &items[n % 3];
	printf("%s %f %s %d\n", i->name, numbers(i->weight, n), table(n), i->kind);
	return jumps(n) + counts(n) + touched(n) + later(n) + various(3, n, 2, total) + loops((const unsigned char *)v[0], n);
}
/*end*/
`

// perturbations are what must not matter beside the change of touched, which
// all of them have. more are the other verdicts that are right then.
var perturbations = []struct {
	name  string
	marks map[string]string // comments of exactSource, and what takes their places
	flags string            // of the patched build only
	more  string
}{
	{name: "nothing else"},
	{name: "lines and comments", marks: map[string]string{"top": "\n\n/* a\n\nb */", "before": "\n\n// x\n\n", "middle": "\n\n\n", "inside": "\n\n// y\n", "after": "\n", "end": "\n\n// z\n"}},
	{name: "strings in front", marks: map[string]string{"inside": `if (n > 1000) { puts("a new string"); puts("green"); puts("another"); }`}},
	{name: "a static local in front", marks: map[string]string{"inside": "{ static int count = 1; static long sum; count += n; sum += count; if (sum > 99) return count; }"},
		more: "datum count.# new carried\ndatum sum.# new carried\n"},
	{name: "a new function in front", marks: map[string]string{
		"top":    "static int helper(int n);",
		"before": "__attribute__((noinline)) static int helper(int n) { switch (n) { case 1: case 4: return 6; case 2: return total; case 3: return abs(n); case 5: return 8; case 6: return rand(); } return n; }\n#include <limits.h>",
		"inside": "n = helper(n);",
	}, more: "function helper new\n"},
	{name: "declarations", marks: map[string]string{"before": "struct unused { int a, b; }; extern int nowhere; int elsewhere(struct unused *); enum { A, B };", "after": "typedef int number;"}},
	{name: "debug data on one side", flags: "-g3"},
	{name: "alignment on one side", flags: "-falign-functions=64 -falign-loops=32"},
}

// TestExactlyWhatChanged: a changed function is all that is in the patch,
// whatever else the change moves, numbers or aligns.
func TestExactlyWhatChanged(t *testing.T) {
	long := testenv.Long()
	levels := []string{"-O0", "-O1", "-O2", "-O3", "-Os"}
	others := []string{"", "-g -fPIC", "-ffunction-sections -fdata-sections -fcf-protection", "-g -fno-pie -fno-plt -fstack-protector-strong"}
	n := 0
	for _, cc := range []string{"gcc", "g++", "clang", "clang++"} {
		for _, p := range perturbations {
			n++
			for i, level := range levels {
				for k, other := range others {
					if !long && (i != n%len(levels) || k != n/len(levels)%len(others)) {
						continue
					}
					t.Run(strings.Join([]string{p.name, cc, level, other}, " "), func(t *testing.T) {
						t.Parallel()
						testenv.Needs(t, cc)
						flags := strings.Fields(level + " " + other)
						original := exactUnit(t, cc, flags, nil)
						marks := map[string]string{"value": "+ (n > 5)"}
						for mark, text := range p.marks {
							marks[mark] = text
						}
						patched := exactUnit(t, cc, append(flags, strings.Fields(p.flags)...), marks)
						exactly(t, original, patched, p.more)
					})
				}
			}
		}
	}
}

// exactUnit compiles exactSource, some of whose marks are replaced.
func exactUnit(t *testing.T, cc string, flags []string, marks map[string]string) []byte {
	t.Helper()
	text := exactSource
	for mark, to := range marks {
		text = strings.Replace(text, "/*"+mark+"*/", to, 1)
	}
	name := "unit.c"
	if strings.HasSuffix(cc, "++") {
		name = "unit.cc"
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cc, append(flags, "-w", "-frandom-seed=1", "-ffile-prefix-map="+dir+"=.", "-S", "-o", "unit.s", name)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	unit, err := os.ReadFile(filepath.Join(dir, "unit.s"))
	if err != nil {
		t.Fatal(err)
	}
	return unit
}

// exactly checks that touched changed, and besides what more says.
func exactly(t *testing.T, original, patched []byte, more string) {
	t.Helper()
	set, err := differ.DiffBoth(t, differ.Input{Unit: "unit", Arch: arch.X86_64, Original: original, Patched: patched})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.NewReplacer("_Z7touchedi", "touched", "_ZL6helperi", "helper", "_ZZ7touchediE", "", "_ZZZ7touchediE", "").Replace(summary(set))
	var want []string
	for line := range strings.Lines("function touched changed\n" + more) {
		want = append(want, line)
		if !strings.Contains(got, strings.TrimSuffix(line, "\n")) && !strings.HasPrefix(line, "datum") {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
	if n := strings.Count(got, "\n"); n != len(want) {
		t.Errorf("verdicts\n%swant\n%s", got, strings.Join(want, ""))
	}
	for _, f := range set.Functions {
		if f.First != nil {
			t.Logf("%s: %v", f.Name, f.First)
		}
	}
}
