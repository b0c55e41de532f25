package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs"
)

// reported is a project with two programs that share a unit.
type reported struct {
	*testing.T
	spec specs.Spec
	o    Options
}

// newReported makes the project, with a fix that replaces from by to in
// shared.c.
func newReported(t *testing.T, from, to string) *reported {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const shared = "int count = 1;\n__attribute__((noinline)) int check(int v)\n{\n\treturn v + count;\n}\nint twice(int v)\n{\n\treturn check(v) * 2;\n}\n"
	write("src/shared.c", shared)
	write("src/one.c", "int check(int);\nint main(int argc, char **argv) { return check(argc); }\n")
	write("src/two.c", "int twice(int);\nint main(int argc, char **argv) { return twice(argc); }\n")
	var b strings.Builder
	b.WriteString("--- a/shared.c\n+++ b/shared.c\n@@ -1,9 +1,9 @@\n")
	for line := range strings.Lines(shared) {
		if strings.TrimSpace(line) == from {
			b.WriteString("-" + line + "+" + strings.Replace(line, from, to, 1))
		} else {
			b.WriteString(" " + line)
		}
	}
	return &reported{t, specs.Spec{
		Name: "both", Dir: filepath.Join(dir, "src"), Patches: []string{write("fix.patch", b.String())}, Series: specs.DefaultSeries, Level: 3,
		Build: []string{"gcc -O1 -Wl,--build-id -o one one.c shared.c", "gcc -O1 -Wl,--build-id -o two two.c shared.c"},
	}, Options{Work: filepath.Join(dir, "work"), Shim: bin.cc}}
}

// compare builds and compares. The report must be the file's, and be of the
// documented form.
func (p *reported) compare() (*Report, error) {
	p.Helper()
	if err := Build(p.Context(), p.spec, p.o); err != nil {
		p.Fatal(err)
	}
	r, err := Compare(p.Context(), p.spec, p.o)
	if r == nil {
		p.Fatal(err)
	}
	data, readErr := os.ReadFile(FolderOf(p.spec, p.o).Report())
	text, jsonErr := r.JSON()
	if readErr != nil || jsonErr != nil || !bytes.Equal(data, text) {
		p.Fatalf("the file is another: %v, %v\n%s\n%s", readErr, jsonErr, data, text)
	}
	var strict Report
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&strict); err != nil || strict.Version != ReportVersion {
		p.Errorf("version %d, %v", strict.Version, err)
	}
	if bytes.Contains(data, []byte(p.o.Work)) || bytes.Contains(data, []byte(": null")) {
		p.Errorf("the report has absolute paths or null in it:\n%s", data)
	}
	return r, err
}

func (p *reported) text(r *Report, verbose bool, want string) {
	p.Helper()
	var b strings.Builder
	r.Text(&b, verbose)
	got := b.String()
	for _, t := range r.Targets {
		got = strings.ReplaceAll(got, string(t.BuildID), "ID-"+t.Name)
	}
	for _, u := range r.Units {
		got = strings.ReplaceAll(got, u.Producer, "PRODUCER")
	}
	if got != want {
		p.Errorf("the report is\n%swant\n%s", got, want)
	}
}

// TestReport: a fix that can be patched, told once though two programs have
// the unit, with the same bytes wherever it is built.
func TestReport(t *testing.T) {
	p := newReported(t, "return v + count;", "return v + 3 * count;")
	r, err := p.compare()
	if err != nil {
		t.Fatal(err)
	}
	d := r.Units[0].Functions[0].First
	p.text(r, false, `both, level 3: functions: 1 changed
one  build-id ID-one
two  build-id ID-two
  shared.c, in one, two; same: 1 function, 1 object
    changed  check: source changed
        - `+plainLine(d.Original)+`
        + `+plainLine(d.Patched)+`
2 units have the same text in both builds
`)
	var verbose strings.Builder
	r.Text(&verbose, true)
	for _, want := range []string{"  one.c\n  two.c\n", "compiled by GCC", "patch assembly: diff/" + string(r.Targets[1].BuildID) + "/000-shared.c.s\n"} {
		if !strings.Contains(verbose.String(), want) {
			t.Errorf("-v has no %q:\n%s", want, verbose.String())
		}
	}
	for _, path := range r.Units[0].Assembly {
		if _, err := os.Stat(FolderOf(p.spec, p.o).path(path)); err != nil {
			t.Error(err)
		}
	}
	again := newReported(t, "return v + count;", "return v + 3 * count;")
	r2, err := again.compare()
	if err != nil {
		t.Fatal(err)
	}
	one, _ := r.JSON()
	two, _ := r2.JSON()
	if !bytes.Equal(one, two) {
		t.Errorf("built elsewhere it is\n%s\nnot\n%s", two, one)
	}
}

// TestReportRefused: a fix that is refused has a report with what the author
// can do, and is an error of the class.
func TestReportRefused(t *testing.T) {
	p := newReported(t, "int count = 1;", "int count = 2;")
	r, err := p.compare()
	if e, ok := errors.AsType[*differ.RefusalError](err); !ok {
		t.Fatalf("error %v, %v", err, e)
	}
	if r.Result != Refused || len(r.Refusals) != 1 || len(r.Refusals[0].Targets) != 2 || r.Refusals[0].Line == 0 {
		t.Errorf("report %+v", r)
	}
	if n := r.Refusals[0]; !strings.HasPrefix(n.Assembly, "store/") || n.Source != "shared.c:1" {
		t.Errorf("refusal %+v", n)
	}
	r.Refusals[0].Hint = "HINT"
	r.Units[0].Data[0].First = nil
	r.Refusals[0].Reason, _, _ = strings.Cut(r.Refusals[0].Reason, ":")
	p.text(r, false, `both, level 3: no patch can be made, for 1 reason
one  build-id ID-one
two  build-id ID-two
  shared.c, in one, two; same: 2 functions, 0 objects
    changed  count (data): content changed
2 units have the same text in both builds
refused:
  shared.c:1: count: initial value of writable data changed
    hint: HINT
`)
	if left, _ := filepath.Glob(FolderOf(p.spec, p.o).path("diff.stamp*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestReportUnchanged: a fix that changes no code has a report too.
func TestReportUnchanged(t *testing.T) {
	p := newReported(t, "return v + count;", "return count + v; /* no */")
	r, err := p.compare()
	if !errors.Is(err, ErrNoChange) || r.Result != Unchanged || len(r.EqualUnits)+len(r.Units) != 3 {
		t.Errorf("%v: %+v", err, r)
	}
}

// TestReportStale: a report that was changed or is gone is made again, and one
// of another version is not read.
func TestReportStale(t *testing.T) {
	p := newReported(t, "return v + count;", "return v - count;")
	r, err := p.compare()
	if err != nil {
		t.Fatal(err)
	}
	path := FolderOf(p.spec, p.o).Report()
	want, _ := r.JSON()
	for _, do := range []func() error{
		func() error { return os.Remove(path) },
		func() error { return os.WriteFile(path, []byte("{}"), 0o644) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if _, err := Compare(t.Context(), p.spec, p.o); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %s", err, got)
		}
	}
	if err := os.WriteFile(path, bytes.Replace(want, []byte(`"version": 1`), []byte(`"version": 99`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadReport(p.spec, p.o); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("error %v", err)
	}
}

// TestReportPacking: what packing refuses is in the report with what the author
// can do, and together with what the comparison of types refuses.
func TestReportPacking(t *testing.T) {
	const tree = `
-- unit.c --
#include <unistd.h>
int limit = 7;
__attribute__((noinline, aligned(1))) int tiny(void) { return 0; }
__attribute__((noinline, aligned(1))) int next(void) { return 0; }
__attribute__((noinline)) int check(int v) { return v + 1; }
int main(int argc, char **argv) { return check(argc) + tiny() + next(); }
`
	s, o := semanticCase(t, tree, []string{"int limit", "unsigned limit", "tiny(void) { return 0", "tiny(void) { return 77", "v + 1", "v + (optind += 2)"},
		"gcc -O2 -fno-pie -no-pie -Wl,--build-id -o unit unit.c")
	s.Consistency.NextCall = []string{"main"}
	if err := Build(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	r, err := Compare(t.Context(), s, o)
	if e, ok := errors.AsType[*RefusedError](err); !ok || e.OfSpec() {
		t.Fatalf("error %v", err)
	}
	if r.Result != Refused {
		t.Errorf("result %q", r.Result)
	}
	for name, reason := range map[string]string{"optind": "copy relocation, used by check", "tiny": "too short", "": "next-call: the fix changes no function main"} {
		found := false
		for _, n := range r.Refusals {
			if n.Name == name && strings.Contains(n.Reason, reason) {
				found = true
				if n.Hint == "" || name != "" && (n.Unit != "unit.c" || len(n.Targets) != 1 || n.Targets[0] != "unit") {
					t.Errorf("refusal %+v", n)
				}
			}
		}
		if !found {
			t.Errorf("%q is not refused for %q: %+v", name, reason, r.Refusals)
		}
	}
	if left, _ := filepath.Glob(FolderOf(s, o).path("diff")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	stale, _ := errors.AsType[*StaleError](Step(t.Context(), s, o, "pack"))
	if stale == nil || !stale.Refused || !strings.Contains(Explain(stale).Error(), "patch:diff") {
		t.Errorf("packing: %v", stale)
	}
	s.Consistency.NextCall = nil
	if _, err := Make(t.Context(), s, o); !is[*RefusedError](err) {
		t.Errorf("error %v", err)
	}
}
