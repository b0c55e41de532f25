package pipeline

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/specs"
)

// installMakefile links a library and a program that is linked anew, with
// another path in it, when it is installed.
const installMakefile = `
all: libday.so main
libday.so: day.c
	$(CC) -O2 -fPIC -shared -Wl,--build-id,-soname,libday.so.1 -o $@ day.c
main: main.c libday.so
	$(CC) -O2 -Wl,--build-id -Wl,-rpath,'$$ORIGIN' -o $@ main.c -L. -l:libday.so
	test -z "$$DESTDIR"
install: all
	mkdir -p $(DESTDIR)/opt/bin $(DESTDIR)/opt/lib
	cp libday.so $(DESTDIR)/opt/lib/libday.so.1.0
	ln -sf libday.so.1.0 $(DESTDIR)/opt/lib/libday.so.1
	$(CC) -O2 -DHOME='"/opt"' -Wl,--build-id -Wl,-rpath,'$$ORIGIN/../lib' -o $(DESTDIR)/opt/bin/main main.c -L. -l:libday.so
`

// TestInstall: what is installed counts, too: a program that was linked anew
// gets its patch, and targets may be named by where they are installed.
func TestInstall(t *testing.T) {
	p := newProject(t)
	p.write("src/Makefile", installMakefile)
	p.write("src/day.c", "int day(int n) { return n % 7; }\n")
	p.write("src/main.c", strings.Replace(askMain, "int main", "int day(int n);\n#include <stdlib.h>\n"+
		mainLine+"\nint main", 1))
	p.write("fix.patch", "--- a/day.c\n+++ b/day.c\n@@ -1 +1 @@\n-int day(int n) { return n % 7; }\n+int day(int n) { return (n % 7 + 7) % 7; }\n"+
		"--- a/main.c\n+++ b/main.c\n@@ -10,3 +10,3 @@\n int day(int n);\n #include <stdlib.h>\n-"+mainLine+"\n+"+strings.Replace(mainLine, "+ 1", "+ 2", 1)+"\n")
	p.spec.Build, p.spec.Install = []string{"make CC=gcc"}, []string{"make CC=gcc install"}
	p.make()
	f := FolderOf(p.spec, p.o)
	targets, err := Targets(p.spec, p.o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(targets), []string{"opt/bin/main", "libday.so", "main"}; !slices.Equal(got, want) {
		t.Errorf("targets %q, want %q", got, want)
	}
	program := filepath.Join(f.Installed(specs.StageOriginal), "opt/bin/main")
	a := ask(t, program)
	if got := a.answer("-4"); got != "-3" {
		t.Errorf("before: %s", got)
	}
	fother(t, 0, "patch", "-p", a.pid(), f.Patches())
	if got := a.answer("-4"); got != "5" {
		t.Errorf("patched: %s", got)
	}
	if _, err := os.Stat(filepath.Join(f.Installed(specs.StagePatched), "opt/lib/libday.so.1")); err != nil {
		t.Error(err)
	}
	for _, test := range []struct{ target, want string }{
		{"main", "main"}, {"opt/bin/main", "opt/bin/main"}, {"opt/lib/libday.so.1", "libday.so"}, {"opt/lib/libday.so.1.0", "libday.so"},
	} {
		p.spec.Targets = []string{test.target}
		p.make()
		if targets, err = Targets(p.spec, p.o); err != nil || !slices.Equal(names(targets), []string{test.want}) {
			t.Errorf("target %s: %v, %v", test.target, names(targets), err)
		}
	}
	p.spec.Targets = []string{"opt/bin/nothing"}
	if err := Step(t.Context(), p.spec, p.o, "diff"); err == nil || !strings.Contains(err.Error(), "opt/bin/nothing") {
		t.Errorf("a target that is not there: %v", err)
	}
}

const mainLine = `__attribute__((noinline)) const char *answer(const char *r) { static char b[32]; sprintf(b, "%d", day(atoi(r) + 1)); return b; }`

func names(targets []Target) (names []string) {
	for _, t := range targets {
		names = append(names, t.Name)
	}
	return names
}

// TestArchive: a source in an archive is fetched once, checked, and built.
func TestArchive(t *testing.T) {
	p := newProject(t)
	p.touch("src/a.c", time.Unix(1234567890, 0))
	archive := filepath.Join(p.dir, "tiny-1.0.tar.gz")
	if out, err := exec.Command("tar", "-C", p.dir, "-czf", archive, "src").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	digest, err := digestFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	p.spec.Dir, p.spec.Archive, p.spec.Checksum = "", archive, "sha256:"+digest.String()
	p.make()
	n := p.compiled()
	p.make()
	if p.compiled() != n {
		t.Error("a second run starts compilers")
	}
	st, err := readStamp(FolderOf(p.spec, p.o), "build")
	if err != nil || st.Built.Sources[0] != (sourceDigest{"tiny-1.0.tar.gz", digest}) || st.Built.Epoch != 1234567890 {
		t.Errorf("source %+v, %v", st, err)
	}
	p.append("tiny-1.0.tar.gz", "x")
	_, err = Make(t.Context(), p.spec, p.o)
	if err == nil || !strings.Contains(err.Error(), "checksum") && !strings.Contains(err.Error(), "sha256") {
		t.Errorf("another archive: %v", err)
	}
	t.Log(Explain(err))
	if got := p.compiled(); got != n {
		t.Error("an archive that is not the right one was built")
	}
}
