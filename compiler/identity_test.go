package compiler

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// project has an executable, a shared library, an archive of which one member
// is used, and a program that is compiled and linked in one step.
var project = map[string]string{
	"main.c": `#include <stdio.h>
int used(int), shared(int);
int main(int argc, char **argv) { printf("%d %s\n", used(argc) + shared(argc), __FILE__); return 0; }
`,
	"used.c":   "static int count;\nint used(int n) { return count += n; }\n",
	"unused.c": "int unused(int n) { return n; }\n",
	"shared.c": "static int twice(int n) { return n * 2; }\nint shared(int n) { return twice(n) + 1; }\n",
	"one.c":    "int helper(int);\nint main(int argc, char **argv) { return helper(argc); }\n",
	"two.c":    "int helper(int n) { return n - 1; }\n",
	"plus.cc": `#include <stdexcept>
#include <string>
namespace { struct Guard { ~Guard() {} }; }
template <typename T> T more(T n) { static T sum; return sum += n; }
int main(int argc, char **argv) {
	try { Guard g; if (more(argc) > 3) throw std::runtime_error(std::string(argv[0])); }
	catch (const std::exception &e) { return 1; }
	return 0;
}
`,
	"Makefile": `CC = gcc
CXX = g++
CFLAGS =
all: prog one plus
prog: main.o libparts.a libshared.so
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ main.o libparts.a -L. -lshared
libparts.a: used.o unused.o
	rm -f $@; $(AR) rc $@ used.o unused.o
libshared.so: shared.c
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -fPIC -o $@ shared.c
one: one.c two.c
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ one.c two.c
plus: plus.o
	$(CXX) $(CFLAGS) $(LDFLAGS) -o $@ plus.o
plus.o: plus.cc
	$(CXX) $(CFLAGS) -c -o $@ plus.cc
%.o: %.c
	$(CC) $(CFLAGS) -c -o $@ $<
clean:
	rm -f prog one plus *.o *.a *.so
`,
}

func TestIdentity(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds many projects")
	}
	testenv.Needs(t, "gcc", "g++", "make")
	tests := map[string]string{
		"O0":        "-O0",
		"O2 debug":  "-O2 -g",
		"pipe":      "-O2 -g -pipe",
		"lto":       "-O2 -flto -frandom-seed=1",
		"fat lto":   "-O2 -g -flto=2 -ffat-lto-objects -frandom-seed=1",
		"strip":     "-O1 -s",
		"lto strip": "-O1 -flto -frandom-seed=1 -s",
		"gold":      "-O2 -fuse-ld=gold",
	}
	doors := map[string][]string{
		"COMPILER_PATH": nil,
		"CC":            {"CC=" + fotherCC, "CXX=" + filepath.Join(filepath.Dir(fotherCC), "fother-c++")},
	}
	for name, flags := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tree(t, dir, project)
			build := "make -j4 CFLAGS='" + flags + "'"
			plain(t, dir, build)
			want := binaries(snapshot(t, dir))
			for door, vars := range doors {
				plain(t, dir, "make clean")
				line := build
				var env []string
				for _, v := range vars {
					line += " " + v
				}
				c := capture(t, dir, filepath.Join(t.TempDir(), "a store"), specs.StageOriginal, env, line)
				t.Log(door)
				sameFiles(t, want, binaries(snapshot(t, dir)))
				checkProject(t, c, strings.Contains(flags, "-flto"), want)
			}
		})
	}
}

// checkProject checks which units make up which deliverable of the project.
func checkProject(t *testing.T, c *Capture, lto bool, files map[string][]byte) {
	t.Helper()
	want := map[string]string{"prog": "main.c used.c", "libshared.so": "shared.c", "one": "one.c two.c", "plus": "plus.cc"}
	if n := len(c.Deliverables()); n != len(want) {
		t.Errorf("%d deliverables, want %d", n, len(want))
	}
	for base, units := range want {
		l := deliverable(t, c, base)
		if l.BuildID == "" || l.NoSymbols != "" || l.NoInputs != "" {
			t.Errorf("%s: build-id %q, symbols: %s, inputs: %s", base, l.BuildID, l.NoSymbols, l.NoInputs)
		}
		if l.Digest != specs.DigestOf(files[base]) {
			t.Errorf("%s: stored file is not the output", base)
		}
		if shared := base == "libshared.so"; (l.Kind == Shared) != shared {
			t.Errorf("%s: kind %v", base, l.Kind)
		}
		if got := sources(l.Units()); lto && !strings.Contains(got, "artificial") || !lto && got != units {
			t.Errorf("%s: units %q, want %q", base, got, units)
		}
		for _, u := range l.Units() {
			if text, err := os.ReadFile(u.Text); err != nil || specs.DigestOf(text) != u.TextDigest || u.Arch == nil || u.LTO {
				t.Errorf("%s: %s: err %v, arch %v, lto %v", base, u.Source, err, u.Arch, u.LTO)
			}
		}
	}
}
