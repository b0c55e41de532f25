package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// Tests that run on an emulated machine, which has no compiler, run twice: here,
// where they make their patches with a cross compiler, and there, where they find
// them. Each variable names a folder: makeFor is where the first run keeps what the
// second finds in that of madeIn, by the name of the test.
const (
	makeFor = "FOTHER_TEST_MAKE_FOR"
	madeIn  = "FOTHER_TEST_MADE_IN"
)

// found is what a run that finds a test's folder says, and the test's name.
const found = "MADE ELSEWHERE: "

// makeOrFind returns the folder that make returns, "" for none, and whether the test is
// to go on, with what runs. Name tells the folders of one test apart.
func makeOrFind(t *testing.T, name string, make func() Folder) (f Folder, runs bool) {
	t.Helper()
	if dir := os.Getenv(madeIn); dir != "" {
		f = Folder(filepath.Join(dir, t.Name(), name))
		if _, err := os.Stat(string(f)); errors.Is(err, fs.ErrNotExist) {
			return "", false // where it was made there was nothing to run, and it was checked
		}
		fmt.Println(found + t.Name())
		return f, true
	}
	f = make()
	dir := os.Getenv(makeFor)
	if f == "" || dir == "" {
		return f, f != ""
	}
	kept := filepath.Join(dir, t.Name(), name)
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", f.Original(), f.Patched(), f.Patches(), kept).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return f, false
}

// made is makeOrFind for a spec that is not refused.
func (p *project) made(s specs.Spec) (f Folder, runs bool) {
	p.t.Helper()
	return makeOrFind(p.t, s.Name, func() Folder {
		if _, err := Make(p.t.Context(), s, p.o); err != nil {
			p.t.Fatal(Explain(err))
		}
		return FolderOf(s, p.o)
	})
}

// needsToMake is testenv.Needs for what only making a patch needs.
func needsToMake(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getenv(madeIn) == "" {
		testenv.Needs(t, programs...)
	}
}
