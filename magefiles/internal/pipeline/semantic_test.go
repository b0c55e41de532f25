package pipeline

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// server is a small program whose parts the cases change.
const server = `
-- conn.h --
struct conn { int fd; int flags; };
struct server { struct conn *head; };
int parse(struct conn *c, int n);
-- conn.c --
#include "conn.h"
int limit = 7;
int parse(struct conn *c, int n) { return c->fd + n > limit; }
-- main.c --
#include <stdio.h>
#include "conn.h"
struct conn first = { 1, 2 };
int unchanged(int n) { return parse(&first, n) + 3; }
int main(void) { printf("%d\n", unchanged(4)); return 0; }
`

// semanticCase makes a tree and the fix that replaces strings of it, and the
// spec of both, which builds with the given command.
func semanticCase(t *testing.T, tree string, replace []string, build string) (specs.Spec, Options) {
	t.Helper()
	dir := t.TempDir()
	for name, change := range map[string]*strings.Replacer{"a": strings.NewReplacer(), "b": strings.NewReplacer(replace...)} {
		for _, f := range txtar.Parse([]byte(tree)).Files {
			path := filepath.Join(dir, name, f.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(change.Replace(string(f.Data))), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	fix := filepath.Join(dir, "fix.patch")
	diff := exec.Command("diff", "-urN", "a", "b")
	diff.Dir = dir
	patch, err := diff.Output()
	if len(patch) == 0 {
		t.Fatalf("the case changes nothing: %v", err)
	}
	if err := os.WriteFile(fix, patch, 0o644); err != nil {
		t.Fatal(err)
	}
	return specs.Spec{Name: "case", Dir: filepath.Join(dir, "a"), Patches: []string{fix}, Build: []string{build}, Series: specs.DefaultSeries, Level: 1},
		Options{Work: filepath.Join(dir, "work"), Shim: bin.cc}
}

const (
	withDebug    = "gcc -g -O2 -fno-inline -o server conn.c main.c"
	withoutDebug = "gcc -O2 -fno-inline -o server conn.c main.c"
	withClang    = "clang -O2 -fno-inline -o server conn.c main.c -Wl,--build-id"
)

// layoutChange inserts a field, and parse uses it.
var layoutChange = []string{"int fd; int flags;", "int fd; int more; int flags;", "c->fd + n > limit", "c->fd + n + (c->flags == 3) > limit"}

// TestSemanticRefused: what the debug data says is refused by name, together
// with what the assembly says, whether the shipped build has debug data or not.
func TestSemanticRefused(t *testing.T) {
	for name, c := range map[string]struct {
		replace []string
		want    []string // of the error, which has nothing else in one line each
	}{
		"layout": {layoutChange, []string{
			"server: struct conn (conn.h:1): field more: new, at offset 4, size 8 became 12 bytes, field flags: offset 4 became 8; used by functions parse; used by variables first",
			"first: initial value or size of writable data changed"}},
		"variable": {[]string{"int limit", "unsigned limit"}, []string{"server: variable limit (conn.c:2): type int became unsigned int"}},
		"signature": {[]string{"int n);", "unsigned n);", "int n) { return c->fd + n >", "unsigned n) { return c->fd + n >"}, []string{
			"server: function parse (conn.c:3): int(struct conn *, int) became int(struct conn *, unsigned int), called by unchanged, outside the patch"}},
	} {
		for _, build := range []string{withDebug, withoutDebug, withClang, withDebug + " -s", withDebug + " -gsplit-dwarf", "g1() { gcc -g1 \"$@\"; }; g1" + strings.TrimPrefix(withoutDebug, "gcc")} {
			if build != withDebug && name != "variable" && !testenv.Long() {
				continue
			}
			t.Run(name+" "+build, func(t *testing.T) {
				t.Parallel()
				s, o := semanticCase(t, server, c.replace, build)
				if err := Build(t.Context(), s, o); err != nil {
					t.Fatal(err)
				}
				_, err := Diff(t.Context(), s, o)
				if err == nil {
					t.Fatal("no error")
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %v\nwant %s in it", err, want)
					}
				}
				if hints := strings.Join(Hints(err), "\n"); !strings.Contains(hints, "from a spec and name it there: allow:") {
					t.Errorf("hints %q do not say how to allow it", hints)
				}
			})
		}
	}
}

// TestSemanticAllowed: a name in the spec lets a change pass, and is kept in the
// bundle with its reason; a name of nothing is an error that names the nearest.
func TestSemanticAllowed(t *testing.T) {
	replace := []string{"int n);", "unsigned n);", "int n) { return c->fd + n >", "unsigned n) { return c->fd + n >"}
	s, o := semanticCase(t, server, replace, withDebug)
	if err := Build(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	s.Allow = []specs.Allowance{{Change: "function prase", Reason: "it is never negative"}}
	_, err := Diff(t.Context(), s, o)
	var unused *AllowError
	if !errors.As(err, &unused) || unused.Hint() != `did you mean "function parse"?` || !strings.Contains(err.Error(), "struct conn *, unsigned int") {
		t.Fatalf("error %v, want the name that is not there and the refusal", err)
	}
	s.Allow[0].Change = "function parse"
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(FolderOf(s, o).Bundle(s))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Manifest.Allowed) != 1 || b.Manifest.Allowed[0] != s.Allow[0] {
		t.Errorf("the bundle has %v, want %v", b.Manifest.Allowed, s.Allow)
	}
}

// TestSemanticInside: a signature may change if only the patch calls the
// function, and the builds with debug data leave no trace in the bundle.
func TestSemanticInside(t *testing.T) {
	replace := []string{"int n);", "int n, int m);", "struct conn *c, int n) {", "struct conn *c, int n, int m) {", "c->fd + n >", "c->fd + n + m >", "parse(&first, n)", "parse(&first, n, 5)"}
	s, o := semanticCase(t, server, replace, withoutDebug)
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	with, err := os.ReadFile(FolderOf(s, o).Bundle(s))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(FolderOf(s, o).debug()); err != nil {
		t.Fatalf("no builds with debug data: %v", err)
	}
	targets, err := Targets(s, o)
	if err != nil || len(targets) != 1 || len(targets[0].Unchecked) > 0 {
		t.Errorf("targets %+v, %v: want one that was checked", targets, err)
	}
	if _, err := Pack(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(FolderOf(s, o).Bundle(s))
	if err != nil || string(again) != string(with) {
		t.Errorf("the bundle is another: %v", err)
	}
}

// TestSemanticUnchecked: a compiler that no shim stands for gives no debug data,
// which is refused unless the spec allows it; then the patch and the bundle tell.
func TestSemanticUnchecked(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal(err)
	}
	s, o := semanticCase(t, server, []string{"c->fd + n > limit", "c->fd + n >= limit"}, gcc+" -O2 -fno-inline -o server conn.c main.c")
	var said strings.Builder
	o.Progress = &said
	const want = "server: no debug data: layouts of types, types of variables and signatures of functions are not compared"
	_, err = Make(t.Context(), s, o)
	if !is[*UncheckedError](err) || !is[*RefusedError](err) || !strings.Contains(err.Error(), want) || !strings.Contains(Explain(err).Error(), "allow: [{change: no debug data, reason: why}]") {
		t.Fatalf("error %v", Explain(err))
	}
	s.Allow = []specs.Allowance{{Change: specs.NoDebugData, Reason: "it was read"}}
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "warning: "+want) {
		t.Errorf("said %q, want %q", said.String(), want)
	}
	report, err := ReadReport(s, o)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if report.Text(&text, false); !strings.Contains(text.String(), "warning: no debug data") {
		t.Errorf("report %q", text.String())
	}
	data, err := os.ReadFile(FolderOf(s, o).Bundle(s))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Decode(data)
	if err != nil || len(b.Manifest.Allowed) != 1 || b.Manifest.Allowed[0] != s.Allow[0] || len(b.Patches) != 1 || len(b.Patches[0].Meta.Unchecked) != 1 {
		t.Errorf("bundle %+v, %v", b, err)
	}
	// Where all is compared there is nothing to allow.
	s.Build = []string{withDebug}
	_, err = Make(t.Context(), s, o)
	if refused, ok := errors.AsType[*RefusedError](err); !ok || !is[*AllowError](err) || !refused.OfSpec() {
		t.Errorf("error %v", err)
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"struct con", "struct conn", 1}, {"prase", "parse", 2}, {"kitten", "sitting", 3}} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// TestKeptValue: a variable whose initial value changed keeps its own in a
// running program if the spec allows that, and nothing finds fault with the
// patch. Its size, and that of another, may not change.
func TestKeptValue(t *testing.T) {
	replace := []string{"int limit = 7", "int limit = 70", "c->fd + n > limit", "c->fd + n >= limit"}
	s, o := semanticCase(t, server, replace, withDebug)
	if err := Build(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	_, err := Diff(t.Context(), s, o)
	const want = "conn.c:2: limit: initial value of writable data changed: \".long\\t7\" became \".long\\t70\""
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(Explain(err).Error(), "allow: [{change: variable limit, reason: why}]") {
		t.Fatalf("error %v, want %s", Explain(err), want)
	}
	s.Allow = []specs.Allowance{{Change: "variable limits", Reason: "7 is right for those that run"}}
	_, err = Diff(t.Context(), s, o)
	var unused *AllowError
	if !errors.As(err, &unused) || unused.Hint() != `did you mean "variable limit"?` {
		t.Errorf("error %v, hint %q", err, unused.Hint())
	}
	s.Allow[0].Change = "variable limit"
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	report, err := ReadReport(s, o)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if report.Text(&text, false); !strings.Contains(text.String(), "limit (data, a running program keeps its value): content changed") {
		t.Errorf("report %q", text.String())
	}
	s, o = semanticCase(t, strings.Replace(server, "int limit = 7", "int limit[2] = { 7 }", 1), []string{"limit[2]", "limit[3]"}, withDebug)
	s.Allow = []specs.Allowance{{Change: "variable limit", Reason: "nobody looks"}}
	if err := Build(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	if _, err := Diff(t.Context(), s, o); err == nil || !strings.Contains(err.Error(), "initial value or size") {
		t.Errorf("error %v", err)
	}
}

// TestKeptName: that a variable keeps its value says nothing of a function that
// has its name, nor of a variable of that name in another file.
func TestKeptName(t *testing.T) {
	tree := strings.Replace(server, "int limit = 7", "static volatile int limit = 7", 1)
	tree = strings.Replace(tree, "struct conn first", "static int __attribute__((noinline)) limit(int n) { return n * 3; }\nstruct conn first", 1)
	tree = strings.Replace(tree, "parse(&first, n) + 3", "parse(&first, limit(n)) + 3", 1)
	s, o := semanticCase(t, tree, []string{"int limit = 7", "int limit = 70", "return n * 3", "return n * 5 + 1"}, withDebug)
	s.Allow = []specs.Allowance{{Change: "variable limit", Reason: "7 is right for those that run"}}
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(Explain(err))
	}
	targets, err := Targets(s, o)
	if err != nil {
		t.Fatal(err)
	}
	own, err := definitions(FolderOf(s, o).store())
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, want string, target Target, lacking bool) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(FolderOf(s, o).Patches(), string(target.BuildID)+".kpatch"))
		if err != nil {
			t.Fatal(err)
		}
		patch, err := kpack.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if lacking {
			patch.Functions = nil
		}
		if err := oracle(patch, target, own); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", what, err, want)
		}
	}
	check("the patch", "", targets[0], false)
	check("without the function", "limit (main.c): changed, but not in the patch", targets[0], true)
	elsewhere := targets[0]
	elsewhere.Kept = slices.Clone(elsewhere.Kept)
	elsewhere.Kept[0].File = "main.c"
	check("of another file", "limit (conn.c): writable data", elsewhere, false)
}
