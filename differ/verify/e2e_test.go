package verify_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// made is a patch with the builds that it was made from.
type made struct {
	original, patched *elfobj.File
	patch             *kpack.Patch
	report            *verify.Report
	// refused has the names of what the differ leaves to the author.
	refused []string
}

// covered is what the patch says that it covers.
func (m *made) covered() verify.Covered {
	c := verify.Covered{Refused: m.refused}
	for _, f := range m.patch.Functions {
		c.Functions = append(c.Functions, verify.CoveredFunction{Name: f.Name, Original: f.Original})
	}
	for _, s := range m.patch.Symbols {
		if s.Binding == kpack.Carried {
			c.Carried = append(c.Carried, strings.TrimSuffix(s.Name, ".kpatch"))
		}
	}
	return c
}

// kitchen makes patches out of sources.
type kitchen struct {
	testing.TB
	dir   string
	flags []string
	cc    string // "" for gcc
}

// compile makes the text and the object of a unit. clang's object does not come
// from its text, as in a build.
func (k *kitchen) compile(name, source string) {
	k.Helper()
	flags := append(slices.Clone(k.flags), "-w", "-iquote", ".") // a case may have headers
	args := append(slices.Clone(flags), "-S", "-o", name+".s", source)
	if k.clang() {
		k.tool(k.cc, args...)
		k.tool(k.cc, append(flags, "-c", "-o", name+".o", source)...)
		return
	}
	k.tool(cmp.Or(k.cc, "gcc"), append(args, "-frandom-seed=1")...)
	k.assemble(name)
}

// clang reports whether a clang makes objects without the assembler.
func (k *kitchen) clang() bool { return strings.HasPrefix(k.cc, "clang") }

// assemble makes an object of a text.
func (k *kitchen) assemble(name string) {
	k.Helper()
	if k.clang() {
		k.tool(k.cc, "-c", "-o", name+".o", name+".s")
		return
	}
	k.tool("as", "-o", name+".o", name+".s")
}

func (k *kitchen) tool(name string, args ...string) {
	k.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = k.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		k.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func (k *kitchen) open(name string) *elfobj.File {
	k.Helper()
	f, err := elfobj.Open(filepath.Join(k.dir, name))
	if err != nil {
		k.Fatal(err)
	}
	return f
}

// errUnchanged means that the builds do not differ.
var errUnchanged = errors.New("nothing changes")

// refused fails the test unless there is rightly no patch to hold against the
// oracle.
func refused(t *testing.T, err error) {
	t.Helper()
	if e := (*differ.RefusalError)(nil); errors.As(err, &e) || errors.Is(err, errUnchanged) {
		return
	}
	// What kpack refuses by name: an alias whose names part, and type information
	// of a library that nothing of an executable with fixed addresses used.
	for _, reason := range []string{"or defines it once more", "which needs a copy relocation"} {
		if strings.Contains(err.Error(), reason) {
			return
		}
	}
	t.Errorf("no patch: %v", err)
}

// make builds both sides of each unit, the program of each side, and the patch.
// extra are more files and options for linking. It returns an error if the
// differ or kpack refuse, and what was made without the patch.
func (k *kitchen) make(units [][2]string, extra ...string) (*made, error) {
	k.Helper()
	sides := [2][]string{}
	var sets []*differ.ChangeSet
	var refusals []error
	for i, u := range units {
		var text [2][]byte
		for side, source := range u {
			name := fmt.Sprintf("unit%d-%d", i, side)
			// The builds of a real project have the same paths.
			folder := filepath.Join(k.dir, fmt.Sprint(side))
			if err := os.MkdirAll(folder, 0o755); err != nil {
				k.Fatal(err)
			}
			file := filepath.Join(folder, fmt.Sprintf("unit%d%s", i, filepath.Ext(source)))
			k.tool("cp", source, file)
			k.compile(name, file)
			b, err := os.ReadFile(filepath.Join(k.dir, name+".s"))
			if err != nil {
				k.Fatal(err)
			}
			text[side] = b
			sides[side] = append(sides[side], name+".o")
		}
		set, err := differ.Diff(differ.Input{Unit: u[0], Arch: arch.X86_64, Original: text[0], Patched: text[1]})
		refusals = append(refusals, err)
		sets = append(sets, set)
	}
	for side, out := range []string{"original", "patched"} {
		k.tool(cmp.Or(k.cc, "gcc"), slices.Concat(k.flags, []string{"-w", "-Wl,--build-id", "-o", out}, sides[side], extra, []string{"-lm", "-pthread"})...)
	}
	m := &made{original: k.open("original"), patched: k.open("patched")}
	var err error
	if m.report, err = verify.Compare(m.original, m.patched, k.literals(sides)); err != nil {
		k.Fatal(err)
	}
	if err := errors.Join(refusals...); err != nil {
		return m, err
	}
	in := kpack.BuildInput{Arch: arch.X86_64, Name: "program", Original: m.original, Patched: m.patched, Meta: kpack.Meta{Name: "x", Series: "default", Level: 1}}
	for i, set := range sets {
		if set.Assembly == nil {
			continue
		}
		name := fmt.Sprintf("patch%d", i)
		if err := os.WriteFile(filepath.Join(k.dir, name+".s"), set.Assembly, 0o600); err != nil {
			k.Fatal(err)
		}
		k.assemble(name)
		bu := kpack.BuildUnit{Name: set.Unit, Object: k.open(name + ".o"), OriginalObject: k.open(fmt.Sprintf("unit%d-0.o", i)), Local: map[string]bool{}}
		for _, r := range set.References {
			if r.Local {
				bu.Local[r.Symbol] = true
			}
		}
		for _, f := range set.Functions {
			if f.Verdict == differ.Changed {
				bu.Functions = append(bu.Functions, kpack.BuildFunction{Original: f.Original, Label: f.Name + differ.Suffix, Reason: f.Reason.String()})
			}
		}
		in.Units = append(in.Units, bu)
	}
	if len(in.Units) == 0 {
		return m, errUnchanged
	}
	m.patch, err = kpack.Build(in)
	return m, err
}

// literals are the strings of the objects of both sides.
func (k *kitchen) literals(sides [2][]string) map[string]bool {
	k.Helper()
	all := map[string]bool{}
	for _, name := range slices.Concat(sides[:]...) {
		if err := verify.AddLiterals(all, k.open(name)); err != nil {
			k.Fatal(err)
		}
	}
	return all
}

// agree fails the test if the oracle finds anything in the patch.
func (m *made) agree(t testing.TB) {
	t.Helper()
	found := verify.Check(m.report, m.covered())
	for _, f := range found.Missing {
		t.Errorf("missing: %v", f)
	}
	for _, f := range found.Needless {
		t.Logf("needless: %v", f)
	}
	findings, err := verify.CheckPatch(m.report, linked(t, m.patch))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("patch: %v", f)
	}
}

// TestDifferCases holds the patches of the differ's own cases against the
// oracle.
func TestDifferCases(t *testing.T) {
	files, err := filepath.Glob("../testdata/x86_64-*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, flags := range []string{"-O2 -g", "-O0 -fPIE -pie"} {
			name := strings.TrimSuffix(filepath.Base(file), ".txtar")
			if strings.Contains(name, "reject") || !has(ar, "orig.c") || !has(ar, "run.c") {
				continue
			}
			t.Run(name+" "+flags, func(t *testing.T) {
				t.Parallel()
				k := &kitchen{TB: t, dir: t.TempDir(), flags: strings.Fields(flags)}
				k.unpack(ar)
				redirect, err := filepath.Abs("../testdata/redirect.c")
				if err != nil {
					t.Fatal(err)
				}
				none := ".data\n.globl redirects\nredirects: .quad 0\n.section .note.GNU-stack,\"\",@progbits\n"
				if err := os.WriteFile(filepath.Join(k.dir, "none.s"), []byte(none), 0o600); err != nil {
					t.Fatal(err)
				}
				m, err := k.make([][2]string{{"orig.c", "patched.c"}}, "run.c", redirect, "none.s")
				if err != nil {
					refused(t, err)
					return
				}
				m.agree(t)
			})
		}
	}
}

func has(ar *txtar.Archive, name string) bool {
	return slices.ContainsFunc(ar.Files, func(f txtar.File) bool { return f.Name == name })
}

func (k *kitchen) unpack(ar *txtar.Archive) {
	for _, f := range ar.Files {
		path := filepath.Join(k.dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			k.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			k.Fatal(err)
		}
	}
}

// TestPatches holds patches of the test program against the oracle, in several
// flavours, one for each change that a patch can make.
func TestPatches(t *testing.T) {
	source, err := filepath.Abs("testdata/program.c")
	if err != nil {
		t.Fatal(err)
	}
	for i, flags := range []string{"-O2 -g", "-O2 -no-pie -fno-pie", "-O0", "-O3 -fPIC -shared", "-Os -fno-plt -fcf-protection"} {
		for n := 1; n <= 31; n++ {
			if (n+i)%5 != 0 && !testenv.Long() {
				continue
			}
			t.Run(fmt.Sprint(n, " ", flags), func(t *testing.T) {
				t.Parallel()
				k := &kitchen{TB: t, dir: t.TempDir(), flags: strings.Fields(flags)}
				patched := filepath.Join(k.dir, "patched.c")
				text := fmt.Sprintf("#define PLANT %d\n#line 1 \"%s\"\n#include \"%s\"\n", n, source, source)
				if err := os.WriteFile(patched, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				m, err := k.make([][2]string{{source, patched}})
				if err != nil {
					refused(t, err)
					return
				}
				m.agree(t)
			})
		}
	}
}
