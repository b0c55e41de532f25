package differ_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// A case is testdata/<arch>-<area>-<case>.txtar. Its comment says why it is
// there; "flags:" in it lists compiler options, one run for each, separated by
// "|", and "keeps:" variables that keep their values in a running program.
// Files:
//
//	orig.c, patched.c   compiled by the test; or orig.cc, patched.cc; or orig.s, patched.s
//	run.c, run.cc       before() and after(), which print: the answers of the patched process must
//	                    equal those of the patched build
//	want                verdicts, those that are "same" left out, and hooks; numbers in names as "#"
//	want.err            instead: each refusal has one of the lines in it, each line is in one refusal
//	want.asm            "+text" is in the patch assembly, "-text" is not
//
// "want -O0" instead of "want" is for the runs whose options begin so.
//
// Cases in C and C++ are compiled by clang too, unless "not clang: REASON" is in the
// comment; "want clang" and "want clang -O0" are for those runs. They are one
// for each case, with the options whose turn it is, and all if FOTHER_LONG is
// set.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	for turn, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		flags := "-O0 | -O2 -g"
		if _, rest, ok := strings.Cut(string(ar.Comment), "flags:"); ok {
			flags, _, _ = strings.Cut(rest, "\n")
		}
		all := strings.Split(flags, "|")
		for i, opt := range all {
			opt = strings.TrimSpace(opt)
			t.Run(name+"/"+strings.ReplaceAll(opt, " ", ""), func(t *testing.T) {
				t.Parallel()
				newCase(t, name, "gcc", opt, ar).run()
			})
			if ar.Files[0].Name == "orig.s" || strings.Contains(string(ar.Comment), "not clang:") ||
				i != turn%len(all) && !testenv.Long() {
				continue
			}
			t.Run(name+"/clang"+strings.ReplaceAll(opt, " ", ""), func(t *testing.T) {
				t.Parallel()
				newCase(t, name, "clang", opt, ar).run()
			})
		}
	}
}

type testCase struct {
	*testing.T
	compiler string // "gcc" or "clang"
	dir, opt string
	arch     *arch.Arch
	tools    string // prefix of the toolchain's commands
	keeps    []string
	files    map[string]string
	set      *differ.ChangeSet
}

func newCase(t *testing.T, name, compiler, opt string, ar *txtar.Archive) *testCase {
	c := &testCase{T: t, compiler: compiler, dir: t.TempDir(), opt: opt, arch: arch.X86_64, files: make(map[string]string)}
	if strings.HasPrefix(name, "aarch64-") {
		c.arch = arch.AArch64
		c.tools = "aarch64-linux-gnu-"
	}
	if _, rest, ok := strings.Cut(string(ar.Comment), "keeps:"); ok {
		names, _, _ := strings.Cut(rest, "\n")
		c.keeps = strings.Fields(names)
	}
	testenv.Needs(t, c.tools+"gcc")
	if compiler == "clang" {
		testenv.Needs(t, "clang")
	}
	for _, f := range ar.Files {
		base, only, ok := strings.Cut(f.Name, " ")
		if ok && !strings.HasPrefix(opt, only) && !strings.HasPrefix(compiler+" "+opt, only) {
			continue
		}
		if _, set := c.files[base]; ok || !set {
			c.files[base] = string(f.Data)
		}
		if err := os.WriteFile(filepath.Join(c.dir, base), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *testCase) tool(name string, args ...string) string {
	c.Helper()
	cmd := exec.Command(name, args...)
	if name == "gcc" || name == "as" || name == "nm" || name == "objcopy" || name == "readelf" {
		cmd = exec.Command(c.tools+name, args...)
	}
	if name == "clang" {
		cmd = exec.Command(name, append([]string{"--target=" + c.arch.Tuple, "-Qunused-arguments"}, args...)...)
	}
	cmd.Dir = c.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

func (c *testCase) text(build string) []byte {
	c.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, build+".s"))
	if err != nil {
		c.Fatal(err)
	}
	return b
}

func (c *testCase) run() {
	for _, ext := range []string{".c", ".cc"} {
		if _, ok := c.files["orig"+ext]; ok {
			c.compile("orig", ext)
			c.compile("patched", ext)
		}
	}
	in := differ.Input{Unit: "orig.c", Arch: c.arch, Original: c.text("orig"), Patched: c.text("patched"), Keeps: func(name string) bool { return slices.Contains(c.keeps, name) }}
	set, err := differ.DiffBoth(c.T, in)
	if want, ok := c.files["want.err"]; ok {
		c.refused(want, err)
		return
	}
	if err != nil {
		c.Fatal(err)
	}
	c.set = set
	if got, want := summary(set), c.files["want"]; got != want {
		c.Errorf("verdicts:\n%swant:\n%s\n%s", got, want, set.Assembly)
	}
	c.assertions()
	again, err := differ.DiffBoth(c.T, in)
	if err != nil || !bytes.Equal(again.Assembly, set.Assembly) {
		c.Errorf("a second run gives other bytes: %v", err)
	}
	for _, same := range [][]byte{in.Original, in.Patched} {
		if s, err := differ.DiffBoth(c.T, differ.Input{Unit: "same", Arch: c.arch, Original: same, Patched: same}); err != nil || s.Assembly != nil {
			c.Errorf("a unit and itself: %v\n%s", err, s.Assembly)
		}
	}
	if set.Assembly != nil {
		c.assemble()
	}
	for _, run := range []string{"run.c", "run.cc"} {
		if _, ok := c.files[run]; ok && c.arch == arch.X86_64 {
			c.execute(run)
		}
	}
}

// compile compiles one build's source in a folder of its own, under the name
// that it has in both: clang names the initialisation after the file.
func (c *testCase) compile(build, ext string) {
	c.Helper()
	source := filepath.Join(build, "unit"+ext)
	if err := os.Mkdir(filepath.Join(c.dir, build), 0o700); err != nil {
		c.Fatal(err)
	}
	if err := os.Rename(filepath.Join(c.dir, build+ext), filepath.Join(c.dir, source)); err != nil {
		c.Fatal(err)
	}
	c.tool(c.compiler, append(strings.Fields(c.opt), "-w", "-S", "-frandom-seed=1", "-I.", "-o", build+".s", source)...)
}

func (c *testCase) refused(want string, err error) {
	c.Helper()
	if err == nil {
		c.Fatalf("accepted; want refusal:\n%s", want)
	}
	for line := range strings.Lines(want) {
		if !strings.Contains(err.Error(), strings.TrimSuffix(line, "\n")) {
			c.Errorf("error:\n%v\nhas not: %s", err, line)
		}
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !slices.ContainsFunc(strings.Split(strings.TrimSpace(want), "\n"), func(w string) bool { return strings.Contains(line, w) }) {
			c.Errorf("refusal that is not wanted: %s", line)
		}
	}
}

var suffixNumber = regexp.MustCompile(`\.[0-9]+\b`)

// summary lists the verdicts that are not "same", sorted.
func summary(set *differ.ChangeSet) string {
	var lines []string
	plain := func(s string) string { return suffixNumber.ReplaceAllString(s, ".#") }
	for _, f := range set.Functions {
		if f.Verdict != differ.Same {
			lines = append(lines, fmt.Sprintf("function %s %v\n", plain(f.Name), f.Verdict))
		}
	}
	for _, d := range set.Data {
		if d.Verdict != differ.Same {
			carried := ""
			if d.Carried {
				carried = " carried"
			}
			lines = append(lines, fmt.Sprintf("datum %s %v%s\n", plain(d.Name), d.Verdict, carried))
		}
	}
	for _, h := range set.Hooks {
		lines = append(lines, fmt.Sprintf("hook %s %s\n", h.Point, h.Function))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (c *testCase) assertions() {
	for line := range strings.Lines(c.files["want.asm"]) {
		line = strings.TrimSuffix(line, "\n")
		if has := bytes.Contains(c.set.Assembly, []byte(line[1:])); has != (line[0] == '+') {
			c.Errorf("assembly: %q\n%s", line, c.set.Assembly)
		}
	}
}

// assembler assembles the text of that name with the compiler's own assembler.
func (c *testCase) assembler(name string, options ...string) {
	c.Helper()
	if c.compiler == "gcc" {
		c.tool("as", append(options, "-o", name+".o", name+".s")...)
		return
	}
	args := []string{"-c", "-o", name + ".o", name + ".s"}
	for _, o := range options {
		args = append(args, "-Wa,"+o)
	}
	c.tool("clang", args...)
}

// assemble checks that the patch assembly is assembled and needs what
// References say.
func (c *testCase) assemble() {
	c.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "patch.s"), c.set.Assembly, 0o600); err != nil {
		c.Fatal(err)
	}
	c.assembler("patch", "--fatal-warnings")
	var undefined, references []string
	for line := range strings.Lines(c.tool("nm", "-u", "patch.o")) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "_GLOBAL_OFFSET_TABLE_" {
			undefined = append(undefined, name)
		}
	}
	for _, r := range c.set.References {
		references = append(references, r.Symbol)
	}
	slices.Sort(undefined)
	slices.Sort(references)
	if !slices.Equal(undefined, references) {
		c.Errorf("undefined symbols %q, references %q\n%s", undefined, references, c.set.Assembly)
	}
	symbols := c.tool("readelf", "-sW", "patch.o")
	for _, f := range c.set.Functions {
		if f.Verdict != differ.Changed && f.Verdict != differ.New {
			continue
		}
		if !regexp.MustCompile(`[1-9][0-9]* FUNC .* ` + regexp.QuoteMeta(f.Name) + `\.kpatch\n`).MatchString(symbols) {
			c.Errorf("no sized function %s.kpatch in\n%s", f.Name, symbols)
		}
	}
	if strings.Count(string(c.set.Assembly), ".cfi_startproc") != strings.Count(string(c.set.Assembly), ".cfi_endproc") {
		c.Errorf("unbalanced CFI:\n%s", c.set.Assembly)
	}
}

var redirectOnce struct {
	sync.Once
	object string
	err    error
}

// compileRedirect compiles testdata/redirect.c, once for all cases.
func compileRedirect(t *testing.T) string {
	t.Helper()
	r := &redirectOnce
	r.Do(func() {
		r.object = filepath.Join(objects, "redirect.o")
		out, err := exec.Command("gcc", "-O1", "-c", "-o", r.object, "testdata/redirect.c").CombinedOutput()
		if err != nil {
			r.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.object
}

// objects is a folder that lives as long as the tests.
var objects string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "differ")
	if err != nil {
		panic(err)
	}
	objects = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// execute links the original with the patch, redirects the changed functions
// in mid-run and compares what the program prints with the patched build. run
// is the file with before and after.
func (c *testCase) execute(run string) {
	c.Helper()
	opt := strings.Fields(c.opt)
	gcc := func(args ...string) { c.Helper(); c.tool("gcc", append(slices.Clone(opt), args...)...) }
	redirect := compileRedirect(c.T)
	for _, build := range []string{"orig", "patched"} {
		c.assembler(build)
	}
	gcc("-w", "-c", run)
	table, global := ".data\n.globl redirects\nredirects:\n", []string{}
	none := table + ".quad 0\n.section .note.GNU-stack,\"\",@progbits\n"
	for _, f := range c.set.Functions {
		if f.Verdict == differ.Changed {
			table += fmt.Sprintf(".quad %s, %s.kpatch\n", f.Original, f.Name)
			global = append(global, "--globalize-symbol="+f.Original, "--globalize-symbol="+f.Name+".kpatch")
		}
	}
	for _, r := range c.set.References {
		if r.Local {
			global = append(global, "--globalize-symbol="+r.Original)
		}
	}
	table += ".quad 0\n.section .note.GNU-stack,\"\",@progbits\n"
	for name, text := range map[string]string{"table.s": table, "none.s": none} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			c.Fatal(err)
		}
	}
	var libs []string
	if run == "run.cc" {
		libs = []string{"-lstdc++"}
	}
	files := []string{"run.o", redirect, "table.s", "orig.o"}
	c.tool("objcopy", append(slices.Clone(global), "orig.o")...)
	if c.set.Assembly != nil {
		c.tool("objcopy", append(slices.Clone(global), "patch.o")...)
		files = append(files, "patch.o")
	}
	gcc(slices.Concat([]string{"-no-pie", "-o", "live"}, files, libs)...)
	gcc(append([]string{"-no-pie", "-o", "rebuilt", "run.o", redirect, "none.s", "patched.o"}, libs...)...)
	live, rebuilt := c.tool(filepath.Join(c.dir, "live")), c.tool(filepath.Join(c.dir, "rebuilt"))
	if live != rebuilt || live == "" {
		c.Errorf("the patched process says\n%s\nthe patched build\n%s", live, rebuilt)
	}
}
