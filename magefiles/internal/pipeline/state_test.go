package pipeline

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
	"github.com/fother/fother/specs/testenv"
)

// counting are the levels of a fix that counts. The number that gcc gives to the
// static variables named count is another one in each level.
var counting = []string{`
#include <stdio.h>
#include <string.h>
static char out[64];
__attribute__((noinline)) static int weigh(const char *s)
{
	return (int)strlen(s);
}
const char *answer(const char *request)
{
	snprintf(out, sizeof out, "%d", weigh(request));
	return out;
}
`, `
#include <stdio.h>
#include <string.h>
static char out[64];
static int *last, sums[2], *steps = (int[]){10, 20};
int everybodys = 5;
__attribute__((noinline)) static int weigh(const char *s)
{
	static int count;
	steps[1]++;
	last = &sums[count & 1];
	*last += 10;
	return ++count * 100 + (int)strlen(s);
}
const char *answer(const char *request)
{
	static int count;
	int w = weigh(request);
	snprintf(out, sizeof out, "%d %d %d %d", ++count, w, *last, ++everybodys);
	return out;
}
`, `
#include <stdio.h>
#include <string.h>
static char out[64];
static int sums[2], *last, *steps = (int[]){10, 20};
int everybodys = 5;
__attribute__((noinline)) static int before(void)
{
	static int count = 1000;
	return ++count;
}
__attribute__((noinline)) static int weigh(const char *s)
{
	static int other;
	static int count;
	other += 3;
	last = &sums[count & 1];
	*last += steps[0] + (steps[1]++ < 22 ? 1000 : 0); /* level 1 has counted there */
	return ++count * 100 + (int)strlen(s) + other;
}
const char *answer(const char *request)
{
	static int count;
	int b = before(), w = weigh(request);
	snprintf(out, sizeof out, "%d %d %d %d, %d", ++count, w, *last, ++everybodys, b);
	return out;
}
`, `
#include <stdio.h>
#include <string.h>
static char out[64];
static int *last, sums[2];
int everybodys = 5;
__attribute__((noinline)) static int weigh(const char *s)
{
	static unsigned count;
	last = &sums[count & 1];
	*last += 10;
	return (int)++count * 100 + (int)strlen(s);
}
const char *answer(const char *request)
{
	static int count;
	int w = weigh(request);
	snprintf(out, sizeof out, "%d %d %d %d", ++count, w, *last, ++everybodys);
	return out;
}
`}

// newCounting makes a project of which level n is the n-th of counting.
func newCounting(t *testing.T, command string) (at func(specs.Level) (specs.Spec, Options)) {
	t.Helper()
	p := newProject(t)
	p.write("src/unit.c", counting[0])
	p.write("src/main.c", askMain)
	for n, text := range counting[1:] {
		p.write("new/unit.c", text)
		diff := exec.Command("diff", "-u", "--label", "a/unit.c", "--label", "b/unit.c", "src/unit.c", "new/unit.c")
		diff.Dir = p.dir
		patch, _ := diff.Output() // exit status 1: the files differ
		p.write("fix"+string(rune('1'+n))+".patch", string(patch))
	}
	return func(level specs.Level) (specs.Spec, Options) {
		s := p.spec
		s.Name, s.Level = "counting", level
		s.Patches = []string{filepath.Join(p.dir, "fix"+string(rune('0'+level))+".patch")}
		s.Build = []string{command + " -Wl,--build-id -o counting main.c unit.c"}
		return s, p.o
	}
}

// TestStateOfLevels: a level goes on with the variables of the one before, which
// are known by what they are in the source; what is another type is refused,
// unless the spec says that it begins anew.
func TestStateOfLevels(t *testing.T) {
	for i, command := range []string{"gcc -O2", "gcc -O0 -g", "gcc -O2 -g -fPIE -pie -fcommon", "clang -O2", "clang -O1 -g"} {
		if i > 0 && !testenv.Long() {
			continue
		}
		t.Run(command, func(t *testing.T) { stateOfLevels(t, newCounting(t, command)) })
	}
}

func stateOfLevels(t *testing.T, at func(specs.Level) (specs.Spec, Options)) {
	var a *asked
	make := func(s specs.Spec, o Options) string {
		t.Helper()
		if _, err := Make(t.Context(), s, o); err != nil {
			t.Fatal(Explain(err))
		}
		if a == nil {
			a = ask(t, filepath.Join(FolderOf(s, o).Original(), "counting"))
		}
		return FolderOf(s, o).Patches()
	}
	expect := func(state, want string) {
		t.Helper()
		if got := a.answer("x"); got != want {
			t.Errorf("%s: answer %s, want %s", state, got, want)
		}
	}
	one := make(at(1))
	expect("original", "1")
	before := memory(t, a.pid())
	fother(t, 0, "patch", "-p", a.pid(), one)
	expect("level 1", "1 101 10 6")
	expect("level 1", "2 201 10 7")
	out := fother(t, 0, "patch", "-p", a.pid(), make(at(2)))
	if !strings.Contains(out, "it goes on with the values of ") {
		t.Errorf("level 2: %s", out)
	}
	expect("level 2", "3 304 20 8, 1001")
	expect("level 2", "4 407 20 9, 1002")
	three, o := at(3)
	out = fother(t, 4, "patch", "-p", a.pid(), make(three, o))
	for _, want := range []string{"cannot go on with variable ", "count (unit.c) of level 2: it is of type unsigned int and was of type int", "hint: ", "fresh variable "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	expect("level 2 still", "5 510 30 10, 1003")
	anew := refusedVariable(out)
	three.Allow = []specs.Allowance{{Change: "fresh variable " + anew, Reason: "the number is small by then"}}
	fother(t, 0, "patch", "-p", a.pid(), make(three, o))
	if anew == "count" { // all that have the name begin anew
		expect("level 3", "1 101 40 11")
	} else {
		expect("level 3", "6 101 40 11")
	}
	three.Allow[0].Change += "s"
	if _, err := Make(t.Context(), three, o); !is[*AllowError](err) {
		t.Errorf("a variable that is not there may begin anew: %v", err)
	}
	fother(t, 0, "unpatch", "-p", a.pid())
	expect("reverted", "1")
	sameMemory(t, before, memory(t, a.pid()))
}

// refusedVariable is the name in a refusal.
func refusedVariable(out string) string {
	_, out, _ = strings.Cut(out, "cannot go on with variable ")
	name, _, _ := strings.Cut(out, " ")
	return name
}

// TestShadowOfLevels: shadow variables that one level attached the next one finds,
// and they go when nobody uses them.
func TestShadowOfLevels(t *testing.T) {
	s, err := specfile.Read(filepath.Join(samples, "shadow", "spec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Work: t.TempDir(), Shim: bin.cc}
	var folders []string
	var p *asked
	for level := range specs.Level(2) {
		s.Level = level + 1
		if level == 1 { // another answer of the third failure on
			fix, err := os.ReadFile(s.Patches[0])
			if err != nil {
				t.Fatal(err)
			}
			s.Patches = []string{filepath.Join(t.TempDir(), "fix.patch")}
			fix = []byte(strings.Replace(string(fix), "MOST_FAILURES = 3", "MOST_FAILURES = 2", 1))
			if err := os.WriteFile(s.Patches[0], fix, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Make(t.Context(), s, o); err != nil {
			t.Fatal(Explain(err))
		}
		folders = append(folders, FolderOf(s, o).Patches())
		if p == nil {
			p = ask(t, filepath.Join(FolderOf(s, o).Original(), "shadow"))
		}
	}
	expect := func(request, want string) {
		t.Helper()
		if got := p.answer(request); got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
	expect("login ann 1", "wrong")
	before := memory(t, p.pid())
	fother(t, 0, "patch", "-p", p.pid(), folders[0])
	expect("login ann 1", "wrong")
	expect("login ann 1", "wrong")
	expect("login ann 17", "welcome")
	expect("login ann 1", "wrong")
	expect("login ann 1", "wrong")
	out := fother(t, 0, "patch", "-p", p.pid(), folders[1])
	if !strings.Contains(out, "it goes on with the values of fother_shadows") || strings.Contains(out, "fother_shadow_free") {
		t.Errorf("level 2: %s", out)
	}
	expect("login ann 17", "locked")
	expect("login bob b0b", "welcome")
	if out := fother(t, 0, "unpatch", "-p", p.pid()); !strings.Contains(out, "ran fother_shadow_free") {
		t.Errorf("unpatch: %s", out)
	}
	expect("login ann 17", "welcome")
	sameMemory(t, before, memory(t, p.pid()))
}
