package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// project is a small program with a fix, and a spec for it.
type project struct {
	t    *testing.T
	dir  string
	spec specs.Spec
	o    Options
	said bytes.Buffer // progress
	log  string       // of the compiler's runs
}

// newProject makes a project whose compiler is a wrapper that keeps count.
func newProject(t *testing.T) *project {
	t.Helper()
	p := &project{t: t, dir: t.TempDir()}
	p.log = filepath.Join(p.dir, "compiler.log")
	real, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal(err)
	}
	p.write("bin/gcc", fmt.Sprintf("#!/bin/sh\necho \"$*\" >>%s\nexec %s \"$@\"\n", p.log, real))
	if err := os.Chmod(filepath.Join(p.dir, "bin/gcc"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(p.dir, "bin")+":"+os.Getenv("PATH"))
	p.write("src/a.c", tiny)
	p.write("fix.patch", tinyPatch("argc > 2"))
	p.write("spec.yaml", "name: tiny\n")
	p.spec = specs.Spec{
		Name: "tiny", Dir: filepath.Join(p.dir, "src"), Patches: []string{filepath.Join(p.dir, "fix.patch")},
		Build: []string{link}, Series: specs.DefaultSeries, Level: 1,
	}
	p.o = Options{Work: filepath.Join(p.dir, "work"), Shim: bin.cc, Spec: filepath.Join(p.dir, "spec.yaml"), Progress: &p.said}
	return p
}

// tinyPatch replaces the condition in tiny.
func tinyPatch(condition string) string {
	return "--- a/a.c\n+++ b/a.c\n@@ -1,5 +1,5 @@\n static int state = 1;\n int main(int argc, char **argv)\n {\n-" + returnLine + "\n+" +
		strings.Replace(returnLine, "argc > 1", condition, 1) + "\n }\n"
}

func (p *project) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// compiled returns how often the compiler was started so far.
func (p *project) compiled() int {
	data, _ := os.ReadFile(p.log)
	return bytes.Count(data, []byte("\n"))
}

func (p *project) make() {
	p.t.Helper()
	if _, err := Make(p.t.Context(), p.spec, p.o); err != nil {
		p.t.Fatal(err)
	}
}

// folder returns what the work folder holds, but for the stores.
func (p *project) state() specs.Digest {
	p.t.Helper()
	f := FolderOf(p.spec, p.o)
	s, err := digestTree(string(f), f.store())
	if err != nil {
		p.t.Fatal(err)
	}
	return s.digest
}

// TestUpToDate: a second run does nothing and starts no compiler, and each
// thing that matters makes the steps that it matters to run again.
func TestUpToDate(t *testing.T) {
	p := newProject(t)
	p.make()
	// Two builds, and two more with debug data for what the comparison asks it.
	if n := p.compiled(); n != 4 {
		t.Fatalf("%d runs of the compiler, want 4", n)
	}
	f := FolderOf(p.spec, p.o)
	all := []string{"build", "diff", "pack", "verify"}
	quiet := func(what string) {
		t.Helper()
		before, n := p.state(), p.compiled()
		p.said.Reset()
		p.make()
		if p.compiled() != n || p.state() != before || strings.Count(p.said.String(), "up to date") != len(all) {
			t.Errorf("%s: a run that has nothing to do: %d compilers, said:\n%s", what, p.compiled()-n, p.said.String())
		}
	}
	quiet("at once")
	for _, test := range []struct {
		name   string
		change func()
		again  []string // steps that are not up to date then
	}{
		{"times of files", func() {
			p.touch("src/a.c", time.Unix(1, 0))
			p.touch("fix.patch", time.Unix(1, 0))
		}, all}, // the tree's time is the SOURCE_DATE_EPOCH
		{"a time that is given", func() { t.Setenv("SOURCE_DATE_EPOCH", "1700000000") }, all},
		{"times of files, with a time that is given", func() { p.touch("src/a.c", time.Unix(2, 0)) }, nil},
		{"the patch", func() { p.write("fix.patch", tinyPatch("argc > 3")) }, all},
		{"the source", func() { p.write("src/a.c", tiny+"/* more */\n") }, all},
		{"a new file", func() { p.write("src/b.h", "\n") }, all},
		{"a commit", func() { p.write("src/.git/HEAD", "0123\n") }, all},
		{"an index", func() { p.write("src/.git/index", "0123\n") }, nil},
		{"the build commands", func() { p.spec.Build = []string{link, "true"} }, all},
		{"the environment of the spec", func() { p.spec.Env = []string{"X=1"} }, all},
		{"CFLAGS", func() { t.Setenv("CFLAGS", "-O3") }, all},
		{"what no build reads", func() { t.Setenv("SSH_TTY", "/dev/pts/7") }, nil},
		{"a variable that a command names", func() {
			p.spec.Build = []string{"echo $NAMED", link}
			p.make()
			t.Setenv("NAMED", "1")
		}, all},
		{"the compiler", func() { p.append("bin/gcc", "# another\n") }, all},
		{"a linker that is found first", func() { p.script("bin/ld", "#!/bin/sh\nexec /usr/bin/ld \"$@\"\n") }, all},
		{"the targets, but not what differs", func() { p.spec.Targets = []string{"a"} }, all[1:2]},
		{"the description", func() { p.spec.Description = "mended" }, all[2:]},
		{"the text of the spec", func() { p.append("spec.yaml", "# more\n") }, all[2:]},
		{"a damaged build stamp", func() { p.damage(f.stamp("build")) }, all},
		{"a damaged verify stamp", func() { p.damage(f.stamp("verify")) }, all[3:]},
		{"no stamp", func() { p.remove(f.stamp("pack")) }, []string{"pack"}},
		{"an empty stamp", func() { p.write("work/tiny-1/diff.stamp.json", "") }, []string{"diff"}},
		{"no bundle", func() { p.remove(f.Bundle(p.spec)) }, []string{"pack"}},
		{"another patch file", func() { p.write("work/tiny-1/patches/ff.kpatch", "") }, []string{"pack"}},
		{"another program", func() { p.append("work/tiny-1/original/a", "x") }, []string{"build", "diff", "pack", "verify"}},
		{"a file that a program left there", func() { p.write("work/tiny-1/original/a.pid", "17\n") }, nil},
		{"a lost capture", func() { p.remove(f.path("store/original")) }, all},
	} {
		test.change()
		p.said.Reset()
		p.make()
		for _, step := range all {
			had := !strings.Contains(p.said.String(), "tiny: "+step+": up to date")
			want := false
			for _, s := range test.again {
				want = want || s == step
			}
			if had != want {
				t.Errorf("%s: step %s taken: %v, want %v\n%s", test.name, step, had, want, p.said.String())
			}
		}
		quiet(test.name)
	}
}

func (p *project) touch(name string, at time.Time) {
	p.t.Helper()
	if err := os.Chtimes(filepath.Join(p.dir, name), at, at); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) append(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, text...), info.Mode()); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) script(name, text string) {
	p.t.Helper()
	p.write(name, text)
	if err := os.Chmod(filepath.Join(p.dir, name), 0o755); err != nil {
		p.t.Fatal(err)
	}
}

// damage changes one digit of a stamp.
func (p *project) damage(path string) {
	p.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	i := bytes.LastIndexAny(data[:len(data)/2], "0123456789")
	data[i] = '0' + (data[i]-'0'+1)%10
	if err := os.WriteFile(path, data, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) remove(path string) {
	p.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		p.t.Fatal(err)
	}
}

// TestKilled: what a run that was killed left lying does not hinder the next.
func TestKilled(t *testing.T) {
	p := newProject(t)
	p.make()
	f := FolderOf(p.spec, p.o)
	for _, name := range []string{"work/build/tiny/tree/a.c", "work/build/tiny/installed/x", "work/tiny-1/new/store/x", "work/tiny-1/new/diff/x", "work/tiny-1/old/patches/x"} {
		p.write(name, "left")
	}
	// Killed while the new build took the place of the old.
	p.remove(f.stamp("build"))
	p.remove(f.Patched())
	p.make()
	for _, name := range []string{"new", "old"} {
		if _, err := os.Stat(f.path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	lock, err := Lock(f.site())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	p.spec.Level = 2
	if _, err := Make(t.Context(), p.spec, p.o); err == nil || !strings.Contains(err.Error(), "another run works in") {
		t.Errorf("two builds at one place: %v", err)
	}
}

// TestOurFolders: the work folder, the registry and the keys may lie in the
// source tree, and are no part of it. The same goes for the spec.
func TestOurFolders(t *testing.T) {
	p := newProject(t)
	p.o.Work, p.o.Registry, p.o.Keys, p.o.Spec =
		filepath.Join(p.spec.Dir, ".fother"), filepath.Join(p.spec.Dir, "registry"), filepath.Join(p.spec.Dir, "keys"), filepath.Join(p.spec.Dir, "spec.yaml")
	p.write("src/spec.yaml", "name: tiny\n")
	p.make()
	if err := InitRegistry(t.Context(), p.o, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Publish(t.Context(), p.spec, p.o); err != nil {
			t.Fatal(err)
		}
	}
	p.write("src/spec.yaml", "name: tiny # more\n")
	p.said.Reset()
	n := p.compiled()
	p.make()
	if p.compiled() != n || strings.Count(p.said.String(), "up to date") != 2 {
		t.Errorf("another text of the spec: %s", p.said.String())
	}
	p.spec.Build = []string{"test ! -e keys && test ! -e registry && test ! -e .fother", link}
	p.make()
}

// TestStepAlone: a step alone is refused if one before it is missing or not up
// to date, and says which and why.
func TestStepAlone(t *testing.T) {
	p := newProject(t)
	refused := func(step, first, reason string) {
		t.Helper()
		err := Step(t.Context(), p.spec, p.o, step)
		stale, ok := errors.AsType[*StaleError](err)
		if !ok || stale.Step != first || !strings.Contains(err.Error(), reason) || !strings.Contains(Explain(err).Error(), "patch:"+first+" "+p.o.Spec) {
			t.Errorf("%s: %v, want a refusal for %s: %s", step, err, first, reason)
		}
	}
	take := func(step string) {
		t.Helper()
		if err := Step(t.Context(), p.spec, p.o, step); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []string{"diff", "pack", "verify"} {
		refused(s, "build", "missing")
	}
	take("build")
	refused("pack", "diff", "missing")
	take("diff")
	take("pack")
	take("verify")
	n := p.compiled()
	for _, s := range []string{"build", "diff", "pack", "verify"} {
		take(s)
	}
	if p.compiled() != n {
		t.Error("a step that is up to date was taken")
	}
	p.write("fix.patch", tinyPatch("argc > 4"))
	refused("diff", "build", "fix.patch, has changed")
	refused("verify", "build", "fix.patch, has changed")
	take("build")
	refused("pack", "diff", "the build has changed")
	p.damage(FolderOf(p.spec, p.o).stamp("build"))
	refused("diff", "build", "damaged")
}

// TestFailedBuild: a run that fails leaves the builds that were there, and no
// patches that could be taken for its own.
func TestFailedBuild(t *testing.T) {
	p := newProject(t)
	p.make()
	f := FolderOf(p.spec, p.o)
	p.spec.Build = []string{link, "echo no more >&2; false"}
	_, err := Make(t.Context(), p.spec, p.o)
	if err == nil {
		t.Fatal("no error")
	}
	text := Explain(err).Error()
	for _, want := range []string{"original build of tiny", "no more", f.log(specs.StageOriginal)} {
		if !strings.Contains(text, want) {
			t.Errorf("the error does not say %q:\n%s", want, text)
		}
	}
	for _, name := range []string{f.Tree(), f.log(specs.StageOriginal)} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("nothing is left of the failed build: %v", err)
		}
		p.remove(name)
	}
	p.noResult("a build that fails")
	p.remove(f.log(specs.StagePatched))
	p.spec.Build = []string{link}
	p.said.Reset()
	n := p.compiled()
	p.make()
	if p.compiled() != n || strings.Count(p.said.String(), "up to date") != 3 || strings.Contains(p.said.String(), "pack: up to date") {
		t.Errorf("what was there before is no longer up to date: %s", p.said.String())
	}
}

// noResult checks that there are no patches and no bundle.
func (p *project) noResult(after string) {
	p.t.Helper()
	f := FolderOf(p.spec, p.o)
	for _, path := range []string{f.Patches(), f.Bundle(p.spec), string(f.withdrawn())} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			p.t.Errorf("%s leaves %s: %v", after, path, err)
		}
	}
}

// TestNoOldResult: a fix that is refused, one that changes nothing, one that
// before.
func TestNoOldResult(t *testing.T) {
	p := newProject(t)
	for _, test := range []struct {
		name, fix string
		class     func(error) bool
	}{
		{"a fix that is refused", strings.Replace(strings.Replace(tinyPatch("argc > 2"), " static int state = 1;\n", "-static int state = 1;\n+static int state = 2;\n", 1), "argc > 2", "argc > 1 + 0", 1), is[*RefusedError]},
		{"a fix that changes nothing", tinyPatch("1 < argc"), func(err error) bool { return errors.Is(err, ErrNoChange) }},
		{"a fix that does not apply", "--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-not there\n+nor here\n", nil},
	} {
		p.write("fix.patch", tinyPatch("argc > 2"))
		p.make()
		p.write("fix.patch", test.fix)
		_, err := Make(t.Context(), p.spec, p.o)
		if err == nil || test.class != nil && !test.class(err) {
			t.Errorf("%s: error %v", test.name, err)
		}
		p.noResult(test.name)
	}
	p.write("fix.patch", tinyPatch("argc > 2"))
	p.make()
	p.write("fix.patch", tinyPatch("argc > 5"))
	if err := Step(t.Context(), p.spec, p.o, "build"); err != nil {
		t.Fatal(err)
	}
	p.noResult("a build of another fix")
}

// TestReleased: only a release is told by its version; a checkout, as the
// module's own magefile or another module's replace directive takes it, is not.
func TestReleased(t *testing.T) {
	for _, test := range []struct {
		dep  debug.Module
		want string
	}{
		{debug.Module{Path: module, Version: "v1.2.3", Sum: "h1:x"}, "v1.2.3 h1:x"},
		{debug.Module{Path: module, Version: "(devel)"}, ""},
		{debug.Module{Path: module, Version: "v0.0.0", Sum: "h1:x", Replace: &debug.Module{Path: "/checkout"}}, ""},
		{debug.Module{Path: "example.com/other", Version: "v1.2.3", Sum: "h1:x"}, ""},
	} {
		if got := released(&debug.BuildInfo{Deps: []*debug.Module{&test.dep}}); got != test.want {
			t.Errorf("%+v: %q, want %q", test.dep, got, test.want)
		}
	}
	d := depends{}
	if err := d.addVersion(); err != nil || d[versionName] == (specs.Digest{}) {
		t.Errorf("the version of a test: %v, %v", d, err)
	}
}

// TestManifest: the bundle says what it was made from.
func TestManifest(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	t.Setenv("CFLAGS", "-pipe")
	p := newProject(t)
	p.spec.Description, p.spec.CVEs = "one more", []string{"CVE-2026-0001"}
	p.make()
	data, err := os.ReadFile(FolderOf(p.spec, p.o).Bundle(p.spec))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	m := b.Manifest
	spec, _ := digestFile(p.o.Spec)
	fix, _ := digestFile(p.spec.Patches[0])
	tree, _ := digestTree(p.spec.Dir)
	if m.Created != time.Unix(1700000000, 0).UTC() || m.Spec != spec || len(m.Sources) != 2 || m.Sources[0].Digest != tree.digest ||
		m.Sources[1] != (bundle.Source{Name: "fix.patch", Digest: fix}) || len(m.Toolchain) != 3 || !strings.HasPrefix(m.Toolchain[0], "GCC: ") || !strings.HasPrefix(m.Toolchain[1], "GNU assembler ") ||
		!strings.HasPrefix(m.Toolchain[2], "GNU ld ") || m.Build.Path != "" || m.Build.Environment["CFLAGS"] != "-pipe" || len(m.Build.Environment) != 1 ||
		m.Description != "one more" || len(m.CVEs) != 1 || len(m.Targets) != 1 || m.Targets[0].Functions[0].Name != "main" {
		t.Errorf("manifest %+v", m)
	}
}
