package pipeline

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// throwing is a program in which threads throw through two functions all the
// time. What it answers is what came of throwing once more, and "wrong" if a
// thread ever caught something that was not thrown.
const throwing = `#include <atomic>
#include <cstdio>
#include <thread>
#include <unistd.h>
__attribute__((noinline)) int thrower(int n) { if (n) throw n; return n; }
static std::atomic<int> counts[2], wrong;
__attribute__((noinline)) int one(int n)
{
	return thrower(n) + 1;
}
__attribute__((noinline)) int two(int n)
{
	return one(n) + 1;
}
static int once(int n) { try { return two(n); } catch (int caught) { return -caught; } }
static void turn()
{
	for (;;) {
		int got = once(5);
		if (got != -5 && got != -15 && got != -105 && got != -115)
			wrong++;
		usleep(300);
	}
}
extern "C" const char *answer(const char *)
{
	static bool begun;
	static char out[64];
	if (!begun)
		for (int i = 0; i < 3; i++)
			std::thread(turn).detach();
	begun = true;
	snprintf(out, sizeof out, "%d %d%s", once(0), once(5), wrong ? " wrong" : "");
	return out;
}
`

// newThrowing makes two patches of different series for one program.
func newThrowing(t *testing.T) (made [2]Folder, runs bool) {
	t.Helper()
	p := newProject(t)
	p.write("src/a.cc", throwing)
	p.write("src/main.cc", askMain)
	for i, function := range []string{"one", "two"} {
		line := strings.Count(throwing[:strings.Index(throwing, function+"(int n)\n")], "\n") + 2
		was := [...]string{"thrower(n) + 1", "one(n) + 1"}[i]
		is := [...]string{"thrower(n ? n + 10 : 0) + 11", "one(n ? n + 100 : 0) + 101"}[i]
		p.write(function+".patch", fmt.Sprintf("--- a/a.cc\n+++ b/a.cc\n@@ -%d,3 +%d,3 @@\n {\n-\treturn %s;\n+\treturn %s;\n }\n", line, line, was, is))
		s := p.spec
		s.Name, s.Series, s.Level = function, specs.Series(function), 1
		s.Patches = []string{filepath.Join(p.dir, function+".patch")}
		s.Build = []string{"c++ -O2 -fno-ipa-ra -fcf-protection -Wl,--build-id -o throwing a.cc main.cc -pthread"}
		made[i], runs = p.made(s)
	}
	return made, runs
}

// TestExceptions: two patches come and go in any order while threads throw
// through both. The unwinder is told of each for as long as it is there.
func TestExceptions(t *testing.T) {
	made, runs := newThrowing(t)
	if !runs {
		return
	}
	program, patches := filepath.Join(made[0].Original(), "throwing"), [2]string{made[0].Patches(), made[1].Patches()}
	files, err := filepath.Glob(filepath.Join(patches[0], "*.kpatch"))
	if err != nil || len(files) != 1 {
		t.Fatalf("patches: %v, %v", patches, err)
	}
	id := strings.TrimSuffix(filepath.Base(files[0]), ".kpatch")
	a := ask(t, program)
	expect := func(state, want string) {
		t.Helper()
		for range 3 {
			if got := a.answer(""); got != want {
				t.Fatalf("%s: answer %q, want %q", state, got, want)
			}
		}
	}
	expect("before", "2 -5")
	for range 3 {
		fother(t, 0, "patch", "-p", a.pid(), patches[0])
		expect("one", "12 -15")
		fother(t, 0, "patch", "-p", a.pid(), patches[1])
		expect("one and two", "112 -115")
		fother(t, 0, "unpatch", "-p", a.pid(), id+":one")
		expect("two", "102 -105")
		fother(t, 0, "patch", "-p", a.pid(), patches[0])
		expect("two and one", "112 -115")
		fother(t, 0, "unpatch", "-p", a.pid())
		expect("reverted", "2 -5")
	}
}

// TestExceptionsLinked: the unwinder is a library's, or linked into the program.
func TestExceptionsLinked(t *testing.T) {
	for name, c := range map[string]struct{ build, refused, left string }{
		"library":    {build: "c++ -O1 -fPIC -shared -Wl,--build-id -o liba.so a.cc && c++ -Wl,--build-id -o throwing main.cc -L. -la -Wl,-rpath,$(pwd) -Wl,-rpath,'$ORIGIN' -pthread"},
		"static gcc": {build: "c++ -O1 -static-libgcc -static-libstdc++ -Wl,--build-id -o throwing a.cc main.cc -pthread"},
		// It stands in for a second unwinder, which does not ask the dynamic linker.
		"another unwinder": {
			build: "cc -O1 -fPIC -shared -o libother.so other.c && c++ -O1 -Wl,--build-id -o throwing a.cc main.cc -pthread -Wl,--no-as-needed -L. -lother -Wl,-rpath,'$ORIGIN'",
			left:  "libother.so, which does not ask _dl_find_object",
		},
		"static": {build: "c++ -O1 -static -Wl,--build-id -o throwing a.cc main.cc -pthread", refused: "the unwinder is linked in statically"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t)
			p.write("src/a.cc", strings.ReplaceAll(throwing, "for (int i = 0; i < 3; i++)", "for (;false;)"))
			p.write("src/main.cc", askMain)
			p.write("src/other.c", "#define _GNU_SOURCE\n#include <dlfcn.h>\nint _Unwind_RaiseException(void *e) { return ((int (*)(void *))dlsym(RTLD_NEXT, \"_Unwind_RaiseException\"))(e); }\n")
			p.write("two.patch", "--- a/a.cc\n+++ b/a.cc\n@@ -26,3 +26,3 @@\n {\n-\treturn one(n) + 1;\n+\treturn one(n ? n + 100 : 0) + 101;\n }\n")
			s := p.spec
			s.Name, s.Patches, s.Build = "linked", []string{filepath.Join(p.dir, "two.patch")}, []string{c.build}
			f, runs := makeOrFind(t, "made", func() Folder {
				_, err := Make(t.Context(), s, p.o)
				if c.refused != "" {
					if err == nil || !strings.Contains(err.Error(), c.refused) {
						t.Fatalf("error %v, want %s", err, c.refused)
					}
					return ""
				}
				if err != nil {
					t.Fatal(err)
				}
				return FolderOf(s, p.o)
			})
			if !runs {
				return
			}
			a := ask(t, filepath.Join(f.Original(), "throwing"))
			if c.left != "" {
				if out := fother(t, 4, "patch", "-p", a.pid(), f.Patches()); !strings.Contains(out, c.left) || a.answer("") != "2 -5" {
					t.Errorf("answers %q after %s", a.answer(""), out)
				}
				return
			}
			a.follow(f, "", "2 -5", "102 -105", "2 -5")
		})
	}
}

// TestComdatOfAnotherUnit: of an inline function that the units were compiled
// into differently, the copy that the linker kept is the one that changes.
func TestComdatOfAnotherUnit(t *testing.T) {
	p := newProject(t)
	p.write("src/next.h", "inline __attribute__((noinline)) int next(int x)\n{\n\tstatic int calls;\n\treturn x + ++calls * 10;\n}\n")
	p.write("src/a.cc", "#include \"next.h\"\nint first(int x) { return next(x); }\n")
	p.write("src/b.cc", `#include <cstdio>
#include "next.h"
int first(int x);
extern "C" const char *answer(const char *)
{
	static char out[64];
	int one = first(1), two = next(2);
	snprintf(out, sizeof out, "%d %d %d", one % 100, two % 100, &next == 0);
	return out;
}
`)
	p.write("src/main.cc", askMain)
	p.write("next.patch", "--- a/next.h\n+++ b/next.h\n@@ -2,4 +2,4 @@\n {\n \tstatic int calls;\n-\treturn x + ++calls * 10;\n+\treturn x * 2 + ++calls * 10;\n }\n")
	s := p.spec
	s.Name, s.Patches = "comdat", []string{filepath.Join(p.dir, "next.patch")}
	s.Build = []string{"c++ -O0 -c a.cc && c++ -O2 -c b.cc && c++ -Wl,--build-id -o comdat a.o b.o main.cc"}
	f, runs := p.made(s)
	if !runs {
		return
	}
	a := ask(t, filepath.Join(f.Original(), "comdat"))
	a.follow(f, "", "11 22 0", "32 44 0", "51 62 0")
}

// TestFinderAnswers: who asks the dynamic linker what new code belongs to is
// told the object that was patched, as of its old code.
func TestFinderAnswers(t *testing.T) {
	p := newProject(t)
	p.write("src/a.c", `#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#ifndef DLFO_STRUCT_HAS_EH_DBASE
#error no _dl_find_object
#endif
__attribute__((noinline)) int mine(void)
{
	struct dl_find_object found;
	void *caller = __builtin_return_address(0);
	return _dl_find_object(caller, &found) == 0 && found.dlfo_link_map->l_ld == _DYNAMIC && found.dlfo_map_start <= caller && found.dlfo_map_end > caller;
}
const char *answer(const char *request)
{
	static char out[40];
	snprintf(out, sizeof out, "%d", mine() + 10);
	return out;
}
`)
	p.write("src/main.c", askMain)
	p.write("fix.patch", "--- a/a.c\n+++ b/a.c\n@@ -15,4 +15,4 @@\n {\n \tstatic char out[40];\n-\tsnprintf(out, sizeof out, \"%d\", mine() + 10);\n+\tsnprintf(out, sizeof out, \"%d\", mine() + 20);\n \treturn out;\n")
	s := p.spec
	s.Name, s.Patches, s.Build = "asks", []string{filepath.Join(p.dir, "fix.patch")}, []string{"cc -O1 -Wl,--build-id -o asks a.c main.c"}
	f, runs := p.made(s)
	if !runs {
		return
	}
	a := ask(t, filepath.Join(f.Original(), "asks"))
	a.follow(f, "", "11", "21", "11")
}
