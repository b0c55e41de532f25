package pipeline

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs/specfile"
)

// libcare runs the tool under the name libcare-ctl and fails the test unless it
// ends with the exit status.
func libcare(t *testing.T, exit int, args ...string) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "libcare-ctl")
	if err := os.Symlink(bin.fother, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(link, args...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != exit {
		t.Fatalf("libcare-ctl %s: exit status %d, want %d\n%s", strings.Join(args, " "), got, exit, out)
	}
	return string(out)
}

// shelve puts all patches of a folder into LibCare's layout as the given level.
// It returns the build-ids.
func shelve(t *testing.T, patches, storage string, level int) (ids []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(patches, "*.kpatch"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no patches (%v)", patches, err)
	}
	for _, file := range files {
		id := strings.TrimSuffix(filepath.Base(file), ".kpatch")
		at := filepath.Join(storage, id, strconv.Itoa(level))
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.MkdirAll(at, 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(at, "kpatch.bin"), data, 0o644)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(at, "description"), []byte("what it mends\n"), 0o644)
		}
		link := filepath.Join(storage, id, "latest")
		_ = os.Remove(link)
		if err == nil {
			err = os.Symlink(strconv.Itoa(level), link)
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// TestLibcareStorage patches a running program from LibCare's folders by
// LibCare's command lines: levels replace each other, and all can be taken out.
func TestLibcareStorage(t *testing.T) {
	f := makeSample(t, "library")
	rows := answers(t, "library")
	original := func(a answer) string { return a.original }
	patched := func(a answer) string { return a.patched }
	storage := filepath.Join(t.TempDir(), "storage")
	ids := shelve(t, f.Patches(), storage, 1)

	p := ask(t, filepath.Join(f.Original(), "library"))
	p.expect("before", rows, original)
	before := memory(t, p.pid())
	has := func(out, what string) {
		t.Helper()
		if !strings.Contains(out, what) {
			t.Errorf("%q is not in\n%s", what, out)
		}
	}
	has(libcare(t, 0, "info", "-p", p.pid(), "-s", storage), " buildid="+ids[0]+" latest=1\n")
	has(libcare(t, 0, "patch", "-p", p.pid(), storage), "have been successfully applied to PID '"+p.pid()+"'")
	p.expect("level 1", rows, patched)
	has(libcare(t, 0, "patch", "-p", p.pid(), storage), "No patch(es) applicable to PID")
	shelve(t, f.Patches(), storage, 2)
	has(libcare(t, 0, "info", "-p", p.pid(), "-s", storage), " patchlvl=1 latest=2\n")
	has(libcare(t, 0, "patch", "-p", p.pid(), storage), ": replacing patch level 1 with level 2\n")
	p.expect("level 2", rows, patched)
	out := libcare(t, 0, "info", "-p", p.pid(), "-s", storage)
	has(out, " patchlvl=2 latest=2\n")
	has(out, "\nwhat it mends\n")
	has(libcare(t, 0, "info", "-b", ids[0]), "pid="+p.pid()+" comm=")
	has(libcare(t, 0, append([]string{"unpatch", "-p", p.pid()}, ids...)...), "were successfully cancelled from PID")
	p.expect("reverted", rows, original)
	sameMemory(t, before, memory(t, p.pid()))
}

// TestBundleArgument patches by the bundle, from its file and from a folder,
// and takes single objects out.
func TestBundleArgument(t *testing.T) {
	s, err := specfile.Read(filepath.Join(samples, "library", "spec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f := makeSample(t, "library")
	rows := answers(t, "library")
	original := func(a answer) string { return a.original }
	patched := func(a answer) string { return a.patched }
	data, err := os.ReadFile(f.Bundle(s))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Decode(data)
	if err != nil {
		t.Fatal(err)
	}

	p := ask(t, filepath.Join(f.Original(), "library"))
	p.expect("before", rows, original) // it is loaded when it answers
	before := memory(t, p.pid())
	fother(t, 0, "patch", "-p", p.pid(), f.Bundle(s))
	p.expect("by the bundle", rows, patched)
	fother(t, 3, "patch", "-p", p.pid(), filepath.Dir(f.Bundle(s)))
	var all []string
	for _, target := range b.Manifest.Targets {
		all = append(all, string(target.BuildID)+":"+string(s.Series))
		fother(t, 3, "unpatch", "-p", p.pid(), string(target.BuildID)+":another")
	}
	fother(t, 0, append([]string{"unpatch", "-p", p.pid()}, all...)...)
	p.expect("reverted", rows, original)
	fother(t, 0, "patch", "-p", p.pid(), filepath.Dir(f.Bundle(s)))
	p.expect("by the folder", rows, patched)
	fother(t, 0, "unpatch", "-p", p.pid())
	p.expect("reverted again", rows, original)
	sameMemory(t, before, memory(t, p.pid()))
}
