package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUsage: what is asked wrongly has exit code 2, under LibCare's name 1.
func TestUsage(t *testing.T) {
	p := newProject(t, "ask", plain())
	for _, test := range []struct{ args, says string }{
		{"", "no source patch is given"},
		{"--nonsense fix.patch", "unknown option --nonsense"},
		{"none.patch", "none.patch is not a file"},
		{".", ". is not a file"},
		{"-s none fix.patch", "none"},
	} {
		args := strings.Fields(test.args)
		p.fails(2, "fother-make: error: ", args...)
		p.fails(2, test.says, args...)
		p.fails(2, "fother-make: hint: ", args...)
		p.fails(1, test.says, append([]string{libcare}, args...)...)
	}
	for env, says := range map[string]string{
		"FOTHER_LEVEL=0":                "FOTHER_LEVEL: level",
		"FOTHER_LEVEL=new":              "FOTHER_LEVEL: level",
		"LPMAKE_ORIGINAL_DIR=/":         "is in it",
		"LPMAKE_ORIGINAL_DIR=.":         "is in it",
		"LPMAKE_PATCHED_DIR=..":         "is in it",
		"LPMAKE_PATCHED_DIR=lpmake":     "are one",
		"LPMAKE_PATCHED_DIR=lpmake/sub": "are one",
		"FOTHER_WORK=a:b":               "colon",
	} {
		p.env = []string{env}
		p.fails(2, says, "fix.patch")
	}
}

func TestHelp(t *testing.T) {
	p := newProject(t, "ask", nil)
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"fother-make", "-h"}, {"fother-make", "--help"}, {libcare, "--help"}} {
		o := p.ok(".", args...)
		for _, want := range []string{
			"usage: " + args[0], "--help", "--update", "--clean", "--srcdir DIR", "--destdir VAR", "--verbose", "PATCH",
			"LPMAKE_ORIGINAL_DIR", "LPMAKE_PATCHED_DIR", "LPMAKE_PATCHROOT", "FOTHER_LEVEL", "FOTHER_MAKE", "FOTHER_WORK", "lpmakefile", "exit codes",
		} {
			if !strings.Contains(o.stdout, want) {
				t.Errorf("%q does not tell of %s", args, want)
			}
		}
		if strings.Contains(o.stdout, "2 usage") == (args[0] == libcare) {
			t.Errorf("%q tells of other exit codes than it has", args)
		}
		for line := range strings.Lines(o.stdout) {
			if len(strings.TrimSuffix(line, "\n")) > 80 {
				t.Errorf("%q: a line of %d columns: %s", args, len(line), line)
			}
		}
	}
	if left, _ := os.ReadDir(p.dir); len(left) > 0 {
		t.Errorf("it leaves %v", left)
	}
}

// TestHeader: a makefile that knows no headers would build half of a fix.
func TestHeader(t *testing.T) {
	p := newProject(t, "ask", plain())
	before := p.snapshot()
	const says = "a clean build is needed: answer.h is included by other files (answer.c, main.c)"
	p.fails(2, says, "header.patch")
	p.fails(2, "hint: --clean", "fix.patch", "header.patch")
	p.fails(1, says, libcare, "header.patch")
	if _, err := os.Stat(p.path("ask")); err == nil {
		t.Error("something was built before")
	}
	p.ok(".", "fother-make", "--clean", "header.patch")
	p.unchanged(before)
	r := p.start("lpmake/bin/ask")
	r.expect("7", "here is 14")
	// Objects of the patched header are not left for make to find.
	o := p.ok(".", "fother-make", "fix.patch")
	if r := p.start("lpmake/bin/ask"); !strings.Contains(o.stdout, "patch for") {
		t.Error(o.stdout)
	} else {
		r.expect("7", "here is 14")
		r.patch("patchroot")
		r.expect("7", "here is 21")
	}
	p.write(files{"main.c": "#include \"answer.c\"\n" + mainC, "Makefile": strings.ReplaceAll(p.read("Makefile"), " answer.o", "")})
	p.fails(2, "answer.c is included by other files (main.c)", "fix.patch")
	p.write(files{"Makefile.patch": "--- a/Makefile\n+++ b/Makefile\n@@ -1,2 +1,2 @@\n-CFLAGS = -O2 -g\n+CFLAGS = -O1 -g\n ROOT = $(DESTDIR)\n"})
	p.fails(2, "other files may be made from Makefile", "Makefile.patch")
}

// TestBuiltBefore: what make takes for up to date was not captured.
// TestLinkedOtherwise: a difference that only the linked builds show is refused,
// and nothing is left to apply.
func TestLinkedOtherwise(t *testing.T) {
	tree := plain()
	tree["other.c"] = "int hook(int n)\n{\n\treturn n;\n}\n"
	tree["answer.c"] += "__attribute__((weak, noinline)) int hook(int n) { return n + 1; }\nint hooked(int n) { return hook(n); }\n"
	tree["Makefile"] = strings.ReplaceAll(tree["Makefile"], "main.o answer.o", "main.o answer.o other.o")
	tree["strong.patch"] = answerFix + `--- a/other.c
+++ b/other.c
@@ -1,4 +1,4 @@
-int hook(int n)
+int other(int n)
 {
 	return n;
 }
`
	p := newProject(t, "ask", tree)
	p.fails(4, "hook: changed, but not in the patch", "strong.patch")
	p.fails(4, "fother-make: hint: the linker made this difference", "--update")
	if n := len(p.patches("patchroot")); n != 0 {
		t.Errorf("%d patches", n)
	}
}

func TestBuiltBefore(t *testing.T) {
	p := newProject(t, "ask", plain())
	p.ok(".", "make")
	p.fails(2, "the tree was built before, without capture", "fix.patch")
	p.fails(2, "hint: --clean", "fix.patch")
	// A part of it was.
	p.ok(".", "rm", "ask")
	p.fails(2, "a clean build is needed: answer.c was compiled before, without capture", "fix.patch")
	// That made answer.c out of date, and what is left was the same in both builds.
	p.ok(".", "fother-make", "fix.patch")
	r := p.start("lpmake/bin/ask")
	r.expect("7", "here is 14")
	r.patch("patchroot")
	r.expect("7", "here is 21")
	// It was captured, and then built once more without: the same comes out.
	made := p.patches("patchroot")
	p.ok(".", "make")
	p.ok(".", "fother-make", "fix.patch")
	same(t, made, p.patches("patchroot"))
	p.ok(".", "fother-make", "-c", "fix.patch")
	same(t, made, p.patches("patchroot"))
}

// TestNotLinkedAgain: the makefile does not know that the program has the
// archive in it.
func TestNotLinkedAgain(t *testing.T) {
	tree := plain()
	tree["Makefile"] = strings.NewReplacer(
		"ask: main.o answer.o\n", "all: ask libanswer.a\nlibanswer.a: answer.o\n\t$(AR) rc $@ answer.o\nask: main.o | libanswer.a\n",
		"main.o answer.o\n", "main.o -L. -lanswer\n", "*.o\n", "*.o *.a\n").Replace(tree["Makefile"])
	p := newProject(t, "ask", tree)
	p.fails(2, "/ask has answer.c in it and was not linked again", "fix.patch")
	p.ok(".", "fother-make", "--clean", "fix.patch")
}

// TestUpdateWithout: there is nothing to compare yet.
func TestUpdateWithout(t *testing.T) {
	p := newProject(t, "ask", plain())
	p.fails(1, "there are no finished builds here", "-u")
}

// TestNothingInstalled: make install does something else.
func TestNothingInstalled(t *testing.T) {
	tree := plain()
	tree["Makefile"] = strings.Replace(tree["Makefile"], "cp ask \"$(ROOT)/bin/ask\"", "touch \"$(ROOT)/bin/ask\"", 1)
	p := newProject(t, "ask", tree)
	p.fails(1, "put no program and no library into", "fix.patch")
	p.fails(1, "--destdir", "fix.patch")
}

// TestDestination: a makefile that does not heed the variable is not let
// install anything, if that is sure.
func TestDestination(t *testing.T) {
	const sure, unsure = "would write elsewhere", "warning: make -n install does not show"
	for name, test := range map[string]struct {
		root, install string // the folder, and the command that copies
		args, says    string
	}{
		"another":        {"root", "cp", "", sure},
		"wrong":          {"$(DESTDIR)$(PWD)/root", "cp", "-d DESTDRI", sure},
		"wrong, script":  {"$(DESTDIR)$(PWD)/root", "./copy", "-d DESTDRI", sure},
		"libtool":        {"root", "/bin/sh ./libtool --mode=install cp", "", sure},
		"right":          {"$(DESTDIR)", "cp", "", ""},
		"right, -d":      {"$(OTHER)", "cp", "-d OTHER", ""},
		"shell":          {"$$DESTDIR", "cp", "", ""},
		"default folder": {"lpmake", "cp", "", ""},
		"script":         {"root", "./copy", "", unsure},
		"script, -d":     {"root", "./copy", "-d OTHER", unsure},
		"recursive":      {"root", "$(MAKE) -f sub.mk", "", ""},
		"recursive, -d":  {"root", "$(MAKE) -f sub.mk", "-d OTHER", sure},
		"bare make":      {"root", "make -f sub.mk", "", unsure},
		"bare make, -d":  {"$(DESTDIR)root", "make -f sub.mk", "-d OTHER", unsure},
	} {
		t.Run(name, func(t *testing.T) {
			tree := plain()
			tree["Makefile"] = strings.NewReplacer("ROOT = $(DESTDIR)", "ROOT = "+test.root, "\tcp ", "\t"+test.install+" ").Replace(tree["Makefile"])
			tree["copy"] = "#!/bin/sh\nmkdir -p \"${DESTDIR:-$OTHER}/bin\" && cp ask \"${DESTDIR:-$OTHER}/bin\"\n"
			tree["libtool"] = "#!/bin/sh\nexit 1\n"
			tree["sub.mk"] = "%:\n\tmkdir -p \"$(DESTDIR)/bin\" && cp ask \"$(DESTDIR)/bin\"\n.PHONY: ask\n"
			p := newProject(t, "ask", tree)
			o := p.in(".", append([]string{"fother-make", "fix.patch"}, strings.Fields(test.args)...)...)
			if test.says == sure {
				if o.code != 2 || !strings.Contains(o.stderr, sure) || !strings.Contains(o.stderr, "hint: ") || !strings.Contains(o.stderr, "DESTDIR") {
					t.Errorf("it exits with %d and says %s", o.code, o.stderr)
				}
				if _, err := os.Stat(p.path("root")); err == nil {
					t.Error("it installed elsewhere")
				}
				return
			}
			if strings.Contains(o.stderr, sure) || strings.Contains(o.stderr, "warning: ") != (test.says == unsure) {
				t.Errorf("it exits with %d and says %s", o.code, o.stderr)
			}
		})
	}
}

// TestMissingTools: what is not there is named, with what installs it, if the
// build asks for it.
func TestMissingTools(t *testing.T) {
	p := newProject(t, "ask", plain())
	tools := t.TempDir()
	link := func(names ...string) {
		for _, name := range names {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path, filepath.Join(tools, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.env = []string{"PATH=" + tools}
	link("sh", "cp", "mkdir", "rm")
	p.fails(1, "error: make is missing on this machine", "fix.patch")
	p.fails(1, "hint: install", "fix.patch")
	link("make")
	p.fails(1, "error: gcc is missing on this machine: original build: command", "fix.patch")
	p.fails(1, "hint: install", "fix.patch")
	link("gcc")
	p.env = append(p.env, "FOTHER_MAKE=make CC=gcc")
	p.fails(1, "error: as is missing on this machine", "fix.patch")
	link("as", "ld")
	p.ok(".", "fother-make", "fix.patch")
	p.env = []string{"FOTHER_MAKE=no-make -j2"}
	p.fails(1, "no-make is missing on this machine", "fix.patch")
}

// TestBadFix: the sources come back, with times that make heeds, and the
// patches of before are gone: nobody takes them for those of this fix.
func TestBadFix(t *testing.T) {
	p := newProject(t, "ask", plain())
	p.write(files{
		"wrong.patch": strings.Replace(answerFix, "question * 3", "nothing * 3", 1),
		"none.patch":  strings.Replace(answerFix, "question * 3", "question * 2 /* as before */", 1),
		"data.patch":  "--- a/answer.c\n+++ b/answer.c\n@@ -1,5 +1,5 @@\n #include \"answer.h\"\n \n-static int calls;\n+static int calls = 5;\n \n int answer(int question)\n",
	})
	before := p.snapshot()
	p.ok(".", "fother-make", "fix.patch")
	made := p.patches("patchroot")
	start := time.Now()
	p.write(files{"patchroot/0123.kpatch": "theirs"})
	for name, says := range map[string]string{"wrong.patch": "nothing", "none.patch": "changes no code", "data.patch": "calls"} {
		code := 1
		if name == "data.patch" {
			code = 4
		}
		p.ok(".", "fother-make", "fix.patch")
		p.fails(code, says, name)
		p.unchanged(before)
		if left := p.patches("patchroot"); len(left) != 1 || left["0123.kpatch"] != "theirs" {
			t.Errorf("%s: %d patches are left, want theirs alone", name, len(left))
		}
	}
	if err := os.Remove(p.path("patchroot/0123.kpatch")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(p.path("answer.c")); err != nil || !info.ModTime().After(start) {
		t.Errorf("answer.c is of %v: make would not build it again", info.ModTime())
	}
	p.ok(".", "fother-make", "fix.patch")
	same(t, made, p.patches("patchroot"))
}

// blocking is a project whose patched build waits until it is told to go on.
func blocking(t *testing.T) *project {
	tree := plain()
	tree["Makefile"] = strings.Replace(tree["Makefile"], "ask: main.o answer.o\n",
		"answer.o: answer.c\n\t@if grep -q '[*] 3' answer.c && [ -e block ]; then echo $$$$ >reached; sleep 1000; fi\n"+
			"\t$(CC) $(CFLAGS) -c -o $@ answer.c\nask: main.o answer.o\n", 1)
	tree["block"] = ""
	return newProject(t, "ask", tree)
}

// TestKilled: a run that ends in the middle leaves no process, and the
// sources come back: at once or, if nothing else can be done, in the next run.
func TestKilled(t *testing.T) {
	for _, test := range []struct {
		signal syscall.Signal
		flags  []string
	}{
		{syscall.SIGTERM, nil}, {syscall.SIGINT, []string{"-c"}}, {syscall.SIGKILL, nil}, {syscall.SIGKILL, []string{"-c"}},
	} {
		t.Run(test.signal.String()+strings.Join(test.flags, ""), func(t *testing.T) {
			p := blocking(t)
			before := p.snapshot()
			var stderr bytes.Buffer
			cmd := p.command(".", append(append([]string{"fother-make"}, test.flags...), "fix.patch")...)
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the patched build does not begin", func() bool { _, err := os.Stat(p.path("reached")); return err == nil })
			if err := cmd.Process.Signal(test.signal); err != nil {
				t.Error(err)
			}
			err := cmd.Wait()
			shell, _ := strconv.Atoi(strings.TrimSpace(p.read("reached")))
			waitFor(t, "the build lives on", func() bool { return shell > 0 && syscall.Kill(shell, 0) != nil })
			if test.signal == syscall.SIGKILL {
				if !strings.Contains(p.read("answer.c"), "* 3") {
					t.Error("the fix is not applied: nothing is tested")
				}
			} else {
				p.unchanged(before)
				if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "interrupted") {
					t.Errorf("it ends with %v and says %q", err, stderr.String())
				}
			}
			if err := os.Remove(p.path("block")); err != nil {
				t.Fatal(err)
			}
			p.ok(".", "fother-make", "fix.patch")
			p.unchanged(before)
			r := p.start("lpmake/bin/ask")
			r.expect("7", "here is 14")
			r.patch("patchroot")
			r.expect("7", "here is 21")
			if left, _ := filepath.Glob(p.path("lpmake.*")); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// TestEdited: what the user did to a patched file stays, whether the run was
// killed or ends by itself.
func TestEdited(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		p := blocking(t)
		before := p.snapshot()
		var stderr bytes.Buffer
		cmd := p.command(".", "fother-make", "fix.patch")
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the patched build does not begin", func() bool { _, err := os.Stat(p.path("reached")); return err == nil })
		mine := p.read("answer.c") + "/* mine */\n"
		edit := func() { p.write(files{"answer.c": mine}) }
		if sig != syscall.SIGKILL {
			edit()
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		edit()
		if err := os.Remove(p.path("block")); err != nil {
			t.Fatal(err)
		}
		const says = "files were changed after the fix was applied to them"
		if sig != syscall.SIGKILL && (cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), says)) {
			t.Errorf("it exits with %d and says %s", cmd.ProcessState.ExitCode(), stderr.String())
		}
		kept := ".fother/make/sources/0"
		for _, args := range [][]string{{"fix.patch"}, {"-c", "fix.patch"}, {"-u"}} {
			for _, says := range []string{says, p.path("answer.c") + ": the original is kept in " + p.path(kept), "hint: nothing is lost"} {
				p.fails(1, says, args...)
			}
			if p.read("answer.c") != mine || p.read(kept) != before["answer.c"] {
				t.Fatalf("%v: a file was written to", args)
			}
		}
		if err := os.Rename(p.path("answer.c"), p.path("answer.c.mine")); err != nil {
			t.Fatal(err)
		}
		o := p.ok(".", "fother-make", "fix.patch")
		if !strings.Contains(o.stderr, "restoring 1 file that") || !strings.Contains(o.stderr, "answer.c is not there") {
			t.Errorf("it says %q", o.stderr)
		}
		p.unchanged(before)
		if p.read("answer.c.mine") != mine {
			t.Error("the user's file was written to")
		}
	}
}

// TestTwoRuns: the second waits for nobody and disturbs nothing.
func TestTwoRuns(t *testing.T) {
	p := blocking(t)
	before := p.snapshot()
	cmd := p.command(".", "fother-make", "fix.patch")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the patched build does not begin", func() bool { _, err := os.Stat(p.path("reached")); return err == nil })
	p.fails(1, "another run works in", "fix.patch")
	if !strings.Contains(p.read("answer.c"), "* 3") {
		t.Error("the fix was taken back under a run")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	p.unchanged(before)
}

// TestCleanRemovesAll: LibCare's own tests have a clean target that removes
// what its script makes.
func TestCleanRemovesAll(t *testing.T) {
	tree := plain()
	tree["Makefile"] = strings.Replace(tree["Makefile"], "rm -f ask", "rm -rf .lpmaketmp lpmake\n\trm -f ask", 1)
	p := newProject(t, "ask", tree)
	p.ok(".", "fother-make", "--clean", "header.patch")
	r := p.start("lpmake/bin/ask")
	r.expect("7", "here is 14")
}

// TestPatchroot: patches of an earlier fix that this one does not make again
// would be half of another; what others put there stays.
func TestPatchroot(t *testing.T) {
	tree := plain()
	tree["other.c"] = "#include <stdio.h>\nint main(void)\n{\n\tputs(\"one\");\n\treturn 0;\n}\n"
	tree["other.patch"] = "--- a/other.c\n+++ b/other.c\n@@ -2,5 +2,5 @@\n int main(void)\n {\n-\tputs(\"one\");\n+\tputs(\"two\");\n \treturn 0;\n }\n"
	tree["Makefile"] = strings.Replace(tree["Makefile"], "install: ask\n", "install: ask other\n\tmkdir -p \"$(ROOT)/bin\"\n\tcp other \"$(ROOT)/bin\"\n", 1) +
		"other: other.o\n\t$(CC) -Wl,--build-id -o $@ other.o\n"
	p := newProject(t, "ask", tree)
	p.write(files{"patchroot/0123.kpatch": "theirs"})
	p.ok(".", "fother-make", "fix.patch", "other.patch")
	if n := len(p.patches("patchroot")); n != 3 {
		t.Errorf("%d patches, want two and theirs", n)
	}
	p.ok(".", "fother-make", "fix.patch")
	if left := p.patches("patchroot"); len(left) != 2 || left["0123.kpatch"] != "theirs" {
		t.Errorf("%d patches, want one and theirs", len(left))
	}
}

// TestMakeRemovesAll: so does a makefile whose first target begins with clean.
// The original is lost where the patched build does it.
func TestMakeRemovesAll(t *testing.T) {
	tree := plain()
	tree["Makefile"] = "all:\n\trm -rf lpmake\n\t$(MAKE) ask\n" + tree["Makefile"]
	p := newProject(t, "ask", tree)
	before := p.snapshot()
	p.fails(1, "make removed the folder where the original is installed", "fix.patch")
	p.unchanged(before)
	p.env = []string{"LPMAKE_ORIGINAL_DIR=" + t.TempDir()}
	p.ok(".", "fother-make", "fix.patch")
}
