package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// linesBefore and its patched form differ in lines above functions that print
// their line.
const linesBefore = `#include <stdio.h>
#define SHOW() printf("%s %d\n", __func__, __LINE__)
#define CALL(x) \
	do { x; } while (0)
/* a comment
 * with a { in it
 */
static void first(void)
{
	SHOW();
}

static void second(void)
{
	CALL(SHOW());
	SHOW(
	);
}

#ifdef ABSENT
static void absent(void) {
#else
static void present(void) {
#endif
	SHOW();
}

static const char text[] = "a \" { string";
#ifdef __cplusplus
extern "C" {
#endif
static char brace(void) { SHOW(); return '{'; }
#ifdef __cplusplus
}
namespace space {
void inner(void) { SHOW(); }
}
using namespace space;
#else
static void inner(void) { SHOW(); }
#endif
int main(void)
{
	first(); second(); present(); brace(); inner();
	SHOW();
	return text[0] == 0;
}
`

var linesPatches = map[string][2]string{
	"in a function":    {"{\n\tSHOW();\n}\n\nstatic void second", "{\n\tSHOW(); int x = 1;\n\tx++;\n\t(void)x;\n}\n\nstatic void second"},
	"in a comment":     {" * with a { in it\n", " * with a { in it\n * and }\n * more\n"},
	"in a macro":       {"\tdo { x; } while (0)\n", "\tdo { \\\n\t x; } while (0)\n"},
	"before a group":   {"static const char text", "static int added1;\nstatic int added2 __attribute__((unused));\nstatic const char text"},
	"lines removed":    {"\n\nstatic void second", "\nstatic void second"},
	"in a conditional": {"static void absent(void) {\n", "static int more;\nstatic void absent(void) {\n"},
}

// TestKeepLines compiles the original and the patched text and compares what
// they print of lines.
func TestKeepLines(t *testing.T) {
	for _, cc := range [][2]string{{"gcc", "x.c"}, {"g++", "x.cc"}} {
		testenv.Needs(t, cc[0])
		want := compileAndRun(t, cc[0], cc[1], linesBefore)
		for name, p := range linesPatches {
			t.Run(cc[0]+" "+name, func(t *testing.T) {
				after := strings.Replace(linesBefore, p[0], p[1], 1)
				if after == linesBefore {
					t.Fatal("the patch changes nothing")
				}
				dir := t.TempDir()
				write(t, filepath.Join(dir, "a", cc[1]), linesBefore)
				write(t, filepath.Join(dir, "b", cc[1]), after)
				diff := exec.Command("diff", "-u", filepath.Join("a", cc[1]), filepath.Join("b", cc[1]))
				diff.Dir = dir
				patch, _ := diff.Output() // exits with 1 if there are differences
				write(t, filepath.Join(dir, "p"), string(patch))
				if _, err := Apply(filepath.Join(dir, "a"), []string{filepath.Join(dir, "p")}); err != nil {
					t.Fatal(err)
				}
				text := read(t, filepath.Join(dir, "a", cc[1]))
				if got := compileAndRun(t, cc[0], cc[1], text); got != want {
					t.Errorf("lines are %s, want %s\n%s", got, want, text)
				}
				if got := withoutDirectives(text); got != after {
					t.Errorf("more than directives was added:\n%s", text)
				}
			})
		}
	}
}

func withoutDirectives(text string) string {
	var b strings.Builder
	for _, l := range splitLines(text) {
		if !strings.HasPrefix(l, "#line ") {
			b.WriteString(l)
		}
	}
	return b.String()
}

func compileAndRun(t *testing.T, cc, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, name), text)
	cmd := exec.Command(cc, "-Wall", "-Werror", "-Wno-unused", "-o", "x", name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", cc, err, out, text)
	}
	out, err := exec.Command(filepath.Join(dir, "x")).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestKeepLinesLeavesGenerated(t *testing.T) {
	dir := t.TempDir()
	text := "#line 7 \"x.y\"\nint a;\nint b;\n"
	write(t, filepath.Join(dir, "y.tab.c"), text)
	p := write(t, filepath.Join(dir, "p"), "--- a/y.tab.c\n+++ b/y.tab.c\n@@ -2 +2,2 @@\n+int c;\n int a;\n")
	if _, err := Apply(dir, []string{p}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "y.tab.c")); strings.Count(got, "#line") != 1 {
		t.Errorf("a file with #line of its own got more:\n%s", got)
	}
}

func FuzzPlaces(f *testing.F) {
	f.Add([]byte(linesBefore))
	f.Add([]byte("#define A '\\\n{\nR\"x({)x\" /* \\\n"))
	if data, err := os.ReadFile("/usr/include/stdio.h"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n := len(splitLines(string(text)))
		last := -1
		for _, p := range places(text) {
			if p.line <= last || p.line >= n {
				t.Fatalf("place at line %d after %d of %d", p.line, last, n)
			}
			last = p.line
		}
	})
}
