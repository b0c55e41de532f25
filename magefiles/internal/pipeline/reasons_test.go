package pipeline

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

var cloneNumber = regexp.MustCompile(`(\.(?:constprop|isra|part)\.)[0-9]+`)

// TestReasons compiles the cases of testdata/reasons with both compilers, with
// and without debug data, and says why each function differs. A case has the
// files of a tree, of which a.c or a.cc is compiled; "patched/NAME" takes the
// place of NAME. "want" has the reasons of all functions that are not the same;
// "want gcc", "want gcc -g", … are for those runs; "flags:" and "flags gcc:" in
// the comment have more options. Numbers that compilers give
// to clones are "#".
func TestReasons(t *testing.T) {
	files, err := filepath.Glob("testdata/reasons/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		runs := []string{"gcc", "gcc -g", "clang -g"}
		if testenv.Long() {
			runs = append(runs, "clang")
		}
		for _, run := range runs {
			cc, _, _ := strings.Cut(run, " ")
			if strings.Contains(string(ar.Comment), "not "+cc+":") {
				continue
			}
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar")+" "+run, func(t *testing.T) {
				t.Parallel()
				testenv.Needs(t, cc)
				c := newReasonsCase(t, ar, run)
				if got, want := c.reasons(run), c.want(run); got != want {
					t.Errorf("reasons:\n%swant:\n%s", got, want)
				}
			})
		}
	}
}

type reasonsCase struct {
	*testing.T
	dir   string
	unit  string
	wants map[string]string
	flags []string
}

func newReasonsCase(t *testing.T, ar *txtar.Archive, run string) *reasonsCase {
	c := &reasonsCase{T: t, dir: t.TempDir(), wants: map[string]string{}}
	cc, _, _ := strings.Cut(run, " ")
	for _, mark := range []string{"\nflags: ", "\nflags " + cc + ": "} {
		if _, flags, ok := strings.Cut(string(ar.Comment), mark); ok {
			flags, _, _ = strings.Cut(flags, "\n")
			c.flags = append(c.flags, strings.Fields(flags)...)
		}
	}
	put := func(path string, data []byte) {
		path = filepath.Join(c.dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range ar.Files {
		switch name, patched := strings.CutPrefix(f.Name, "patched/"); {
		case strings.HasPrefix(f.Name, "want"):
			c.wants[f.Name] = string(f.Data)
		case patched:
			put(filepath.Join("b", name), f.Data)
		default:
			put(filepath.Join("a", name), f.Data)
			put(filepath.Join("b", name), f.Data)
			if strings.HasPrefix(f.Name, "a.c") {
				c.unit = f.Name
			}
		}
	}
	diff := exec.Command("diff", "-ruN", "a", "b")
	diff.Dir = c.dir
	patch, _ := diff.Output() // it ends with 1 when there is a difference
	if len(patch) == 0 {
		t.Fatal("the case changes nothing")
	}
	put("fix.patch", patch)
	return c
}

// want is that of the run, or of all runs with its compiler, or of all.
func (c *reasonsCase) want(run string) string {
	cc, _, _ := strings.Cut(run, " ")
	for _, name := range []string{"want " + run, "want " + cc, "want"} {
		if w, ok := c.wants[name]; ok {
			return w
		}
	}
	c.Errorf("nothing is wanted of %s", run)
	return ""
}

// reasons compares the builds of the case, which are made in one place.
func (c *reasonsCase) reasons(run string) string {
	c.Helper()
	l := Layout{Tree: filepath.Join(c.dir, "tree"), SourceAt: filepath.Join(c.dir, "tree"), Source: filepath.Join(c.dir, "a")}
	s := specs.Spec{Patches: []string{filepath.Join(c.dir, "fix.patch")}}
	in := differ.Input{Unit: c.unit, Arch: arch.X86_64, Fix: fixOf(s, l)}
	if in.Fix == nil {
		c.Fatal("the fix is not understood")
	}
	in.Fix.Dir = l.Tree
	if err := os.CopyFS(l.Tree, os.DirFS(l.Source)); err != nil {
		c.Fatal(err)
	}
	in.Original = c.compile(l.Tree, run)
	if _, err := source.Apply(l.Tree, s.Patches); err != nil {
		c.Fatal(err)
	}
	in.Patched = c.compile(l.Tree, run)
	set, err := differ.Diff(in)
	if err != nil {
		c.Fatal(err)
	}
	var lines []string
	for _, f := range set.Functions {
		if f.Verdict != differ.Same {
			lines = append(lines, fmt.Sprintf("%v %s: %v\n", f.Verdict, f.Name, f.Reason))
		}
	}
	slices.Sort(lines)
	return cloneNumber.ReplaceAllString(strings.Join(lines, ""), "$1#")
}

func (c *reasonsCase) compile(tree, run string) []byte {
	c.Helper()
	args := strings.Fields(run)
	if strings.HasSuffix(c.unit, ".cc") {
		args[0] = map[string]string{"gcc": "g++", "clang": "clang++"}[args[0]]
	}
	args = append(args, "-O2", "-w", "-S", "-o", "out.s", c.unit)
	cmd := exec.Command(args[0], append(args[1:], c.flags...)...)
	cmd.Dir = tree
	if out, err := cmd.CombinedOutput(); err != nil {
		c.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	text, err := os.ReadFile(filepath.Join(tree, "out.s"))
	if err != nil {
		c.Fatal(err)
	}
	return text
}
