package semantic_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/differ/semantic"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/testenv"
)

// buildPath compiles the text as unit.c or unit.cc, at one path for both builds as
// far as the debug data tells, and returns the path of the shared library.
func buildPath(t testing.TB, text string, command ...string) string {
	t.Helper()
	testenv.Needs(t, command[0])
	dir := t.TempDir()
	source, out := "unit.c", filepath.Join(dir, "unit.so")
	if strings.HasSuffix(command[0], "++") {
		source = "unit.cc"
	}
	if err := os.WriteFile(filepath.Join(dir, source), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-fPIC", "-shared", "-o", out, source, "-fdebug-prefix-map=" + dir + "=/build"}, command[1:]...)
	cmd := exec.Command(command[0], args...)
	cmd.Dir = dir
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, msg)
	}
	return out
}

func build(t testing.TB, text string, command ...string) *elfobj.File {
	t.Helper()
	f, err := elfobj.Open(buildPath(t, text, command...))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// compare compares two texts; all functions are replaced but those that are
// named in outside.
func compare(t testing.TB, original, patched string, outside []string, command ...string) *semantic.Report {
	t.Helper()
	var programs []*semantic.Program
	for _, text := range []string{original, patched} {
		p, err := semantic.Open(build(t, text, command...))
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
	}
	r, err := semantic.Compare(context.Background(), semantic.Input{Original: programs[0], Patched: programs[1],
		Replaced: func(symbol string) bool {
			for _, o := range outside {
				if o == symbol {
					return false
				}
			}
			return true
		}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sample is the first of the compilers, or all with FOTHER_LONG=1.
func sample(compilers [][]string) [][]string {
	if testenv.Long() {
		return compilers
	}
	return compilers[:1]
}
