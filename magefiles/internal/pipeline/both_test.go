package pipeline

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// bothUnit is a program that says on what it runs.
const bothUnit = `#include <stdio.h>
#ifdef __aarch64__
#define MACHINE "aarch64"
#else
#define MACHINE "x86_64"
#endif
const char *answer(const char *request)
{
	static char out[80];
	snprintf(out, sizeof out, "%s: %d", MACHINE, request[0] - 'a');
	return out;
}
`

// TestBothArchitectures: one build machine makes one bundle for two architectures, by
// one spec, and each host takes its own patch.
func TestBothArchitectures(t *testing.T) {
	tuple := arch.AArch64.Tuple
	p := newProject(t)
	p.write("src/a.c", bothUnit)
	p.write("src/main.c", askMain)
	p.write("fix.patch", "--- a/a.c\n+++ b/a.c\n@@ -9,4 +9,4 @@\n \tstatic char out[80];\n-\tsnprintf(out, sizeof out, \"%s: %d\", MACHINE, request[0] - 'a');\n"+
		"+\tsnprintf(out, sizeof out, \"%s: fixed, %d\", MACHINE, request[0] - 'a');\n \treturn out;\n }\n")
	s := p.spec
	s.Name, s.Patches = "both", []string{filepath.Join(p.dir, "fix.patch")}
	s.Build = []string{"/usr/bin/gcc -O2 -g -Wl,--build-id -o both-x86_64 a.c main.c", tuple + "-gcc -O2 -g -Wl,--build-id -o both-aarch64 a.c main.c"}
	f, runs := makeOrFind(t, "both", func() Folder {
		testenv.Needs(t, tuple+"-gcc")
		if _, err := Make(t.Context(), s, p.o); err != nil {
			t.Fatal(Explain(err))
		}
		f := FolderOf(s, p.o)
		twoPatches(t, f.Bundle(s))
		if err := os.Rename(f.Bundle(s), filepath.Join(f.Patches(), filepath.Base(f.Bundle(s)))); err != nil {
			t.Fatal(err)
		}
		return f
	})
	if !runs {
		return
	}
	machine, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	mine := strings.TrimSpace(string(machine))
	a := ask(t, filepath.Join(f.Original(), "both-"+mine))
	expect := func(want string) {
		t.Helper()
		if got := a.answer("d"); got != mine+": "+want {
			t.Errorf("answer %q, want %q of %s", got, want, mine)
		}
	}
	expect("3")
	fother(t, 0, "patch", "-p", a.pid(), filepath.Join(f.Patches(), bundle.Name(s.Name, s.Level)))
	expect("fixed, 3")
	fother(t, 0, "unpatch", "-p", a.pid())
	expect("3")
}

// twoPatches checks that a bundle has a patch for each architecture.
func twoPatches(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]int{}
	for _, patch := range b.Patches {
		has[patch.Arch.Name]++
	}
	if fmt.Sprint(has) != "map[aarch64:1 x86_64:1]" {
		t.Errorf("the bundle has patches for %v", has)
	}
}
