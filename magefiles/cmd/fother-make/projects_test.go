package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// The sources that the projects share: a program that asks a function in
// another file.
const (
	mainC = `#include <stdio.h>
#include <stdlib.h>
#include "answer.h"

int main(void)
{
	char line[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin))
		printf("%s %d\n", GREETING, answer(atoi(line)));
	return 0;
}
`
	answerH = "#define GREETING \"here is\"\nint answer(int question);\n"
	answerC = `#include "answer.h"

static int calls;

int answer(int question)
{
	calls++;
	return question * 2;
}
`
	answerFix = `Answers are threefold.
--- a/answer.c
+++ b/answer.c
@@ -4,6 +4,6 @@ static int calls;
 
 int answer(int question)
 {
 	calls++;
-	return question * 2;
+	return question * 3;
 }
`
	headerFix = `--- a/answer.h
+++ b/answer.h
@@ -1,2 +1,2 @@
-#define GREETING "here is"
+#define GREETING "there is"
 int answer(int question);
`
)

// plain is a project with a makefile only. It knows no header, and takes the
// folder from $(ROOT).
func plain() files {
	return files{
		"main.c": mainC, "answer.h": answerH, "answer.c": answerC, "fix.patch": answerFix, "header.patch": headerFix,
		"Makefile": `CFLAGS = -O2 -g
ROOT = $(DESTDIR)
ask: main.o answer.o
	$(CC) $(LDFLAGS) -Wl,--build-id -o $@ main.o answer.o
install: ask
	mkdir -p "$(ROOT)/bin"
	cp ask "$(ROOT)/bin/ask"
clean:
	rm -f ask *.o
`,
	}
}

// configured is a project with a configure script written by hand.
func configured() files {
	tree := plain()
	tree["Makefile.in"] = strings.Replace(tree["Makefile"], "CFLAGS", "CC = @CC@\nCFLAGS", 1)
	delete(tree, "Makefile")
	tree["configure"] = `#!/bin/sh -e
src=$(dirname "$0")
echo 'int main(void) { return 0; }' >conftest.c
${CC-cc} -o conftest conftest.c && ./conftest
rm -f conftest conftest.c
sed "s,@CC@,${CC-cc}," "$src/Makefile.in" >Makefile
`
	return tree
}

// autotools is a project for autoconf, automake and libtool, with a library
// that is linked again when it is installed.
func autotools() files {
	return files{
		"src/main.c": mainC, "src/answer.h": answerH, "src/answer.c": answerC,
		"src/digits.c":  "#include \"digits.h\"\nint digits(int n)\n{\n\treturn n < 10 ? 1 : 1 + digits(n / 10);\n}\n",
		"src/digits.h":  "int digits(int n);\n",
		"tests/check.c": "#include \"../src/answer.h\"\nint main(void)\n{\n\treturn answer(1) != 2;\n}\n",
		"configure.ac": `AC_INIT([ask], [1.0])
AC_CONFIG_AUX_DIR([aux])
AC_CONFIG_MACRO_DIRS([m4])
AM_INIT_AUTOMAKE([foreign subdir-objects])
AC_PROG_CC
AM_PROG_AR
LT_INIT
AC_CONFIG_FILES([Makefile])
AC_OUTPUT
`,
		"Makefile.am": `ACLOCAL_AMFLAGS = -I m4
lib_LTLIBRARIES = libdigits.la libanswer.la
libdigits_la_SOURCES = src/digits.c src/digits.h
libanswer_la_SOURCES = src/answer.c src/answer.h
libanswer_la_LIBADD = libdigits.la
bin_PROGRAMS = ask
ask_SOURCES = src/main.c
ask_LDADD = libanswer.la
check_PROGRAMS = tests/check
tests_check_SOURCES = tests/check.c
tests_check_LDADD = libanswer.la
`,
		"ChangeLog": "old\n",
		"fix.patch": strings.ReplaceAll(answerFix, "answer.c", "src/answer.c") + `--- a/ChangeLog
+++ b/ChangeLog
@@ -1 +1,2 @@
+new
 old
--- a/tests/check.c
+++ b/tests/check.c
@@ -1,5 +1,5 @@
 #include "../src/answer.h"
 int main(void)
 {
-	return answer(1) != 2;
+	return answer(1) != 3;
 }
`,
	}
}

// prepared is a project for which autoreconf has been run, in a new folder.
func prepared(t *testing.T) *project {
	t.Helper()
	testenv.Needs(t, "autoreconf", "automake", "libtoolize")
	p := newProject(t, "ask", autotools())
	p.ok(".", "autoreconf", "-fi")
	return p
}

// checkAutotools applies what was made to a program that is installed below
// original.
func checkAutotools(t *testing.T, p *project, original, patchroot string) {
	t.Helper()
	if n := len(p.patches(patchroot)); n != 1 {
		t.Errorf("%d patches, want that of libanswer.so", n)
	}
	r := p.start(original+"/usr/local/bin/ask", "LD_LIBRARY_PATH="+p.path(original+"/usr/local/lib"))
	r.expect("7", "here is 14")
	r.patch(patchroot)
	r.expect("7", "here is 21")
}

func TestAutotools(t *testing.T) {
	p := prepared(t)
	before := p.snapshot()
	p.env = []string{"KPATCH_STAGE=configure"}
	p.ok(".", "sh", "-c", "CC=fother-cc ./configure")
	p.env = nil
	o := p.ok(".", "fother-make", "fix.patch")
	p.unchanged(before)
	if !strings.Contains(o.stdout, "/lib/libanswer.so.0.0.0 is in "+p.path("patchroot")) {
		t.Errorf("it says %q", o.stdout)
	}
	checkAutotools(t, p, "lpmake", "patchroot")
	first := p.patches("patchroot")

	// Once more without building: the same.
	if err := os.RemoveAll(p.path("patchroot")); err != nil {
		t.Fatal(err)
	}
	p.ok(".", "fother-make", "-u")
	same(t, first, p.patches("patchroot"))
	// And with building what make takes for out of date, or everything.
	p.ok(".", "fother-make", "fix.patch")
	same(t, first, p.patches("patchroot"))
	p.ok(".", "fother-make", "--clean", "fix.patch")
	same(t, first, p.patches("patchroot"))
	p.unchanged(before)
}

// same fails if there are other patches than before.
func same(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name, data := range want {
		if got[name] != data {
			t.Errorf("%s: %d bytes, which are not the %d of before", name, len(got[name]), len(data))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d patches, want %d", len(got), len(want))
	}
}

// TestOutOfTree builds in a folder beside the sources.
func TestOutOfTree(t *testing.T) {
	p := prepared(t)
	before := p.snapshot()
	if err := os.Mkdir(p.path("build"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.ok("build", "sh", "-c", "KPATCH_STAGE=configure CC=libcare-cc ../configure")
	// The patch's name is relative to here, or to the sources.
	for _, args := range [][]string{{"-s", "..", "../fix.patch"}, {"--srcdir=..", "fix.patch"}} {
		p.ok("build", append([]string{"fother-make"}, args...)...)
		p.unchanged(before)
		checkAutotools(t, p, "build/lpmake", "build/patchroot")
	}
}

// TestConfigured: every option, on a project with a configure script. TestParse
// has all their forms.
func TestConfigured(t *testing.T) {
	p := newProject(t, "ask", configured())
	before := p.snapshot()
	p.ok(".", "sh", "-c", "KPATCH_STAGE=configure CC=fother-cc ./configure")
	var first map[string]string
	for _, args := range []string{
		"fix.patch", "fix.patch --clean", "-cv fix.patch", "-s . -d ROOT fix.patch", "--srcdir=. --destdir=ROOT fix.patch", "-u", "--update fix.patch",
	} {
		for _, dir := range []string{"patchroot", "lpmake", ".lpmaketmp"} {
			if err := os.RemoveAll(p.path(dir)); err != nil {
				t.Fatal(err)
			}
		}
		o := p.ok(".", append([]string{"fother-make"}, strings.Fields(args)...)...)
		if strings.Contains(args, "v") != strings.Contains(o.stderr, "-o ask main.o answer.o") {
			t.Errorf("%s: it shows %q", args, o.stderr)
		}
		p.unchanged(before)
		if first == nil {
			first = p.patches("patchroot")
			r := p.start("lpmake/bin/ask")
			r.expect("7", "here is 14")
			r.patch("patchroot")
			r.expect("7", "here is 21")
		}
		same(t, first, p.patches("patchroot"))
	}
}

// TestMakefileOnly: no configure script, a path with spaces, and a fix in two
// patches of which the second needs the first.
func TestMakefileOnly(t *testing.T) {
	p := newProject(t, "a project (first)", plain())
	p.write(files{"second.patch": strings.NewReplacer("question * 2", "question * 3", "question * 3", "question * 4").Replace(answerFix)})
	before := p.snapshot()
	p.fails(1, "second.patch: answer.c: hunk @@", "second.patch", "fix.patch")
	p.unchanged(before)
	if len(p.patches("patchroot")) > 0 {
		t.Error("patches are left")
	}
	p.ok(".", "fother-make", "fix.patch", "second.patch")
	p.unchanged(before)
	r := p.start("lpmake/bin/ask")
	r.expect("7", "here is 14")
	r.patch("patchroot")
	r.expect("7", "here is 28")
}

// TestEnvironment: the variables of LibCare's script and our own.
func TestEnvironment(t *testing.T) {
	p := newProject(t, "ask", plain())
	p.write(files{"lpmakefile": p.read("Makefile") + "\ninstall: note\nnote:\n\techo \"$$LPMAKE_ORIGINAL_DIR $$LPMAKE_PATCHED_DIR $$LPMAKE_PATCHROOT $${MAKEFLAGS%% *}\" >note\n"})
	if err := os.Remove(p.path("Makefile")); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	p.env = []string{
		"LPMAKE_ORIGINAL_DIR=" + out + "/before", "LPMAKE_PATCHED_DIR=" + out + "/after", "LPMAKE_PATCHROOT=lpmake", "FOTHER_LEVEL=7",
		"FOTHER_WORK=" + out + "/work", "FOTHER_MAKE=make -s", "MAKEFLAGS=--no-such-option", "MAKELEVEL=3",
	}
	p.ok(".", "fother-make", "fix.patch")
	if got, want := p.read("note"), out+"/before "+out+"/after "+p.path("lpmake")+" s\n"; got != want {
		t.Errorf("the makefile sees %q, want %q", got, want)
	}
	for _, path := range []string{out + "/before/bin/ask", out + "/after/bin/ask"} {
		if !isProgram(path) {
			t.Errorf("%s is not there", path)
		}
	}
	if _, err := os.Stat(p.path(".fother")); err == nil {
		t.Error("FOTHER_WORK is not heeded")
	}
	for name, data := range p.patches("lpmake") {
		if !strings.Contains(data, `"level":7`) {
			t.Errorf("%s is not of level 7", name)
		}
	}
	if len(p.patches("lpmake")) != 1 {
		t.Error("no patch is there")
	}
}

// TestSamples: the project's own samples have what is needed.
func TestSamples(t *testing.T) {
	for sample, flags := range map[string][]string{"simple": nil, "server": nil, "ghost": nil, "threads": nil, "library": {"--clean"}} {
		t.Run(sample, func(t *testing.T) {
			p := newProject(t, sample, nil)
			if err := os.CopyFS(p.dir, os.DirFS(filepath.Join("../../../samples", sample))); err != nil {
				t.Fatal(err)
			}
			// What was built in the checkout does not belong to the copy.
			if out, err := exec.Command("make", "-C", p.dir, "clean").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			o := p.ok(".", append(append([]string{libcare}, flags...), "fix.patch")...)
			if len(p.patches("patchroot")) == 0 || !strings.Contains(o.stdout, "patch for ") {
				t.Errorf("no patch is there:\n%s", o.stdout)
			}
		})
	}
}
