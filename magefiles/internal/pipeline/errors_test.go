package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs"
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
		{"a build that links nothing", returnLine, "\treturn argc;", "gcc -c a.c", nil, nil},
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
			if left, _ := filepath.Glob(filepath.Join(f.Patches(), "*")); len(left) > 0 {
				t.Errorf("patches are left: %v", left)
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
