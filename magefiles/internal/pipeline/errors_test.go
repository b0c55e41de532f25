package pipeline

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

const tiny = "static int state = 1;\nint main(int argc, char **argv)\n{\n\treturn argc > 1 ? argv[1][0] : state++;\n}\n"

// makeTiny runs the pipeline for a one-file program and a change of tiny.
func makeTiny(t *testing.T, text, from, to string, build ...string) (Folder, error) {
	t.Helper()
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
	write("src/a.c", text)
	patch := write("fix.patch", "--- a/a.c\n+++ b/a.c\n@@ -1,5 +1,5 @@\n"+strings.ReplaceAll(
		" static int state = 1;\n int main(int argc, char **argv)\n {\n \treturn argc > 1 ? argv[1][0] : state++;\n }\n",
		" "+from+"\n", "-"+from+"\n+"+to+"\n"))
	s := specs.Spec{
		Name: "tiny", Dir: filepath.Join(dir, "src"), Patches: []string{patch}, Build: build,
		Series: specs.DefaultSeries, Level: 1,
	}
	o := Options{Work: filepath.Join(dir, "work"), Shim: bin.cc}
	_, err := Make(t.Context(), s, o)
	return FolderOf(s, o), err
}

const (
	returnLine = "\treturn argc > 1 ? argv[1][0] : state++;"
	stateLine  = "static int state = 1;"
	link       = "gcc -O1 -Wl,--build-id -o a a.c"
)

// TestErrors: each thing that can go wrong on the way gives an error of its
// class that names the place, and leaves no patch.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name, from, to string
		build          string
		class          func(error) bool
		says           []string
	}{
		{"a fix that changes nothing", returnLine, returnLine + " /* no */", link,
			func(err error) bool { return errors.Is(err, ErrNoChange) }, []string{"changes no code"}},
		{"a patch that does not apply", returnLine, "\treturn argc;", link,
			is[*source.ApplyError], []string{"fix.patch", "a.c", "@@"}},
		{"a build that fails", returnLine, "\treturn nothing;", link,
			is[*compiler.CommandError], []string{"patched build", "nothing", "a.c"}},
		{"data that changes", stateLine, "static int state = 2;", link,
			is[*differ.RefusalError], []string{"a.c", "state"}},
		{"a target without a build-id", returnLine, "\treturn argc;", "gcc -O1 -Wl,--build-id=none -o a a.c",
			func(err error) bool { return errors.Is(err, compiler.ErrNoBuildID) }, []string{"/a:"}},
		{"a build that links nothing", returnLine, "\treturn argc;", "gcc -c a.c",
			func(err error) bool { return errors.Is(err, compiler.ErrNothingCaptured) }, []string{"no program or library was linked"}},
		{"two targets of one build-id", returnLine, "\treturn argc;",
			"gcc -O1 -Wl,--build-id=0x12345678 -o a a.c; gcc -O2 -Wl,--build-id=0x12345678 -o b a.c", is[*sameIDError], []string{"b: a has", "12345678"}},
		{"a build that compiles nothing", returnLine, "\treturn argc;", "true",
			func(err error) bool { return errors.Is(err, compiler.ErrNothingCaptured) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := tiny
			if strings.Contains(test.name, "does not apply") {
				text = strings.ReplaceAll(tiny, "argc", "count")
			}
			f, err := makeTiny(t, text, test.from, test.to, test.build)
			if err == nil || test.class != nil && !test.class(err) {
				t.Fatalf("error %v (%T)", err, err)
			}
			for _, want := range test.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %q", err, want)
				}
			}
			for _, name := range []string{"patches/*", "*.zst", "new"} {
				if left, _ := filepath.Glob(f.path(name)); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}
			t.Logf("%v\nhints: %q", err, Hints(err))
		})
	}
}

func is[T error](err error) bool {
	var e T
	return errors.As(err, &e)
}

// TestMovedVariable: a variable that moves from one file to another would be
// there twice.
func TestMovedVariable(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("src/a.c", "int state = 1;\nint other(void);\nint main(void) { return other(); }\n")
	write("src/b.c", "extern int state;\nint other(void) { return state++; }\n")
	write("fix.patch", "--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-int state = 1;\n+extern int unused;\n"+
		"--- a/b.c\n+++ b/b.c\n@@ -1,2 +1,2 @@\n-extern int state;\n-int other(void) { return state++; }\n+int state = 1;\n+int other(void) { return ++state; }\n")
	s := specs.Spec{
		Name: "moved", Dir: filepath.Join(dir, "src"), Patches: []string{filepath.Join(dir, "fix.patch")},
		Build: []string{"gcc -O1 -Wl,--build-id -o a a.c b.c"}, Series: specs.DefaultSeries, Level: 1,
	}
	_, err := Make(t.Context(), s, Options{Work: filepath.Join(dir, "work"), Shim: bin.cc})
	if err == nil || !strings.Contains(err.Error(), "state") || !strings.Contains(err.Error(), "moves") {
		t.Errorf("error %v, want one that says that state moves", err)
	}
}

// TestSpecErrors: what is wrong in a spec, but seen only when it is used.
func TestSpecErrors(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*project)
		says   []string
	}{
		{"a patch that is gone", func(p *project) { p.remove(p.spec.Patches[0]) }, []string{"fix.patch", "no such file"}},
		{"a source that is gone", func(p *project) { p.remove(p.spec.Dir) }, []string{"src", "no such file"}},
		{"an archive that is gone", func(p *project) { p.spec.Dir, p.spec.Archive = "", "/nothing/x.tar" }, []string{"/nothing/x.tar"}},
		{"a time that is none", func(p *project) { p.spec.Env = []string{"SOURCE_DATE_EPOCH=yesterday"} }, []string{"SOURCE_DATE_EPOCH", "yesterday", "1970"}},
		{"a target that is not made", func(p *project) { p.spec.Targets = []string{"b"} }, []string{"/b: ", "original build did not link it"}},
		{"an exception for what does not change", func(p *project) {
			p.spec.Consistency = specs.Consistency{NextCall: []string{"mian"}, Reason: "it loops"}
		}, []string{"next-call", "no function mian", "hint: the fix changes main"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProject(t)
			test.change(p)
			_, err := Make(t.Context(), p.spec, p.o)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.says {
				if !strings.Contains(Explain(err).Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, Explain(err))
				}
			}
			if _, err := os.Stat(FolderOf(p.spec, p.o).Bundle(p.spec)); err == nil {
				t.Error("there is a bundle")
			}
		})
	}
}

// TestSameFileTwice: a program that is linked to two places is one target.
func TestSameFileTwice(t *testing.T) {
	p := newProject(t)
	p.spec.Build = []string{link, "gcc -O1 -Wl,--build-id -o b a.c"}
	p.spec.Consistency = specs.Consistency{NextCall: []string{"main"}, Reason: "it never returns while it works"}
	p.make()
	targets, err := Targets(p.spec, p.o)
	if err != nil || len(targets) != 2 {
		t.Fatalf("%d targets: %v", len(targets), err)
	}
	r := newRun(p.spec, p.o)
	paths, err := r.patches()
	if err != nil || len(paths) != 1 {
		t.Fatalf("patches %v: %v", paths, err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if patch, err := kpack.Decode(data); err != nil || !patch.Functions[0].NextCall {
		t.Errorf("the patch does not know the exception: %+v, %v", patch, err)
	}
}

// TestVerify: a bundle that is not of this spec and these builds is refused.
func TestVerify(t *testing.T) {
	p := newProject(t)
	p.make()
	f := FolderOf(p.spec, p.o)
	targets, err := Targets(p.spec, p.o)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(r *run) (undo string)
		says   string
	}{
		{"nothing", func(*run) string { return "" }, ""},
		{"another series", func(r *run) string { r.spec.Series = "other"; return "" }, "series other"},
		{"another spec", func(*run) string { p.append("spec.yaml", "# more"); return p.o.Spec }, "another spec"},
		{"a bundle that was cut", func(*run) string { p.cut(f.Bundle(p.spec)); return f.Bundle(p.spec) }, "tiny-1.kpatch"},
		{"other code", func(*run) string { p.flip(targets[0].Original.File, "main"); return targets[0].Original.File }, "other code"},
		{"a patch that lacks a function", func(*run) string {
			p.replace("work/tiny-1/diff/targets.json", `"name": "main"`, `"original": "more", "verdict": "changed"}, { "name": "main"`)
			return filepath.Join(f.diff(), savedName)
		}, "function more: changed, but not in the patch"},
		{"another target", func(*run) string {
			p.replace("work/tiny-1/diff/targets.json", string(targets[0].BuildID[:6]), "00ff00")
			return filepath.Join(f.diff(), savedName)
		}, "no patch for it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			saved := map[string][]byte{}
			for _, path := range []string{p.o.Spec, f.Bundle(p.spec), targets[0].Original.File, filepath.Join(f.diff(), savedName)} {
				saved[path], _ = os.ReadFile(path)
			}
			r := newRun(p.spec, p.o)
			changed := test.change(r)
			err := r.verify(t.Context())
			if test.name == "nothing" && err != nil || test.name != "nothing" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("error %v, want %q", err, test.says)
			}
			if changed != "" {
				if err := os.WriteFile(changed, saved[changed], 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func (p *project) cut(path string) {
	p.t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-1); err != nil {
		p.t.Fatal(err)
	}
}

// flip changes one byte of a function.
func (p *project) flip(path, function string) {
	p.t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		p.t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == function {
			section := file.Sections[s.Section]
			data[s.Value-section.Addr+section.Offset+1] ^= 1
		}
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) replace(name, from, to string) {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	if !strings.Contains(string(data), from) {
		p.t.Fatalf("%s has no %q", name, from)
	}
	p.write(name, strings.Replace(string(data), from, to, 1))
}

// TestPackEnded: a run that is ended while an assembler works says so, and
// blames no assembler.
func TestPackEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	started := filepath.Join(t.TempDir(), "started")
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := assemble(ctx, arch.X86_64, "a.s", nil, []string{"sh", "-c", ": >'" + started + "'; exec sleep 60"})
	if err == nil || err.Error() != context.Canceled.Error() {
		t.Errorf("got %v", err)
	}
}
