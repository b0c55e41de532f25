package pipeline

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/magefiles/internal/machine"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// crossCompiler stands for a compiler of this host. Protection of control flow has another
// option there, and there is no red zone. ANCHORS is set for what is compiled with section anchors, which gcc has by
// default.
const crossCompiler = `#!/bin/sh
for a do
	shift
	case $a in
	-mno-red-zone) continue;;
	-fcf-protection*) a=-mbranch-protection=standard;;
	esac
	set -- "$@" "$a"
done
exec %s${ANCHORS-%s} "$@"
`

// crossCompilers writes compilers for aarch64 under the names of this host's to a folder.
func crossCompilers(t *testing.T, dir string) {
	t.Helper()
	tuple := arch.AArch64.Tuple
	testenv.Needs(t, tuple+"-gcc", tuple+"-g++", "clang", "clang++")
	commands := map[string]string{
		"gcc": tuple + "-gcc", "cc": tuple + "-gcc", "g++": tuple + "-g++", "c++": tuple + "-g++", "ar": tuple + "-ar",
		"objcopy": tuple + "-objcopy", "strip": tuple + "-strip",
	}
	for _, name := range []string{"clang", "clang++"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		commands[name] = path + " --target=" + tuple
	}
	for name, command := range commands {
		without := ""
		if strings.HasSuffix(command, "gcc") || strings.HasSuffix(command, "g++") {
			without = " -fno-section-anchors"
		}
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, crossCompiler, command, without), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// notElsewhere are the tests and subtests that cannot be made for aarch64, as in
// -test.skip, with the reason.
var notElsewhere = map[string]string{
	"TestCases/^target-clones":                            "compilers do not have them there",
	"TestCases/^short-reject":                             "no function there is shorter than a jump",
	"TestCases/^copy-relocation-reject-new":               "data of others come from the global offset table, and need no copy relocation",
	"TestCases/^code-nested":                              "gcc has what nested functions are called by among the code there: it is refused",
	"TestCases/^(cpp-guards|state|units-added) clang -O3": "clang merges static variables from -O3 on: a new one, or new uses, move the others, which is refused",
	"TestCases/^lto-partitions":                           "too little else is in a part of the program to tell it by: it is refused",
}

// skipped is what -test.skip gets.
func skipped(more string) string {
	all := slices.Sorted(maps.Keys(notElsewhere))
	if more != "" {
		all = append(all, more)
	}
	return strings.Join(all, "|")
}

// elsewhereJob runs the tests of this package in a tree like this one. It is busybox's sh.
const elsewhereJob = `
export CI=true %s=/job/made
grep -m 1 KernelPageSize /proc/self/smaps
cd module/magefiles/internal/pipeline && ./tests -test.v -test.timeout 24h -test.parallel 2 -test.run '%s' -test.skip '%s'
`

// elsewhere is what runs on an emulated machine: a job for it, and how many folders its
// tests find there.
type elsewhere struct {
	job  string
	made int
}

// makeElsewhere runs tests of this package here, with a cross compiler, for what they
// make to be found elsewhere: a sample of the cases as by default. Those of anchored are
// compiled with section anchors.
func makeElsewhere(t *testing.T, anchored, tests string) *elsewhere {
	t.Helper()
	if err := machine.Check(); err != nil {
		testenv.Skip(t, err.Error())
	}
	job, cross := t.TempDir(), t.TempDir()
	made := filepath.Join(job, "made")
	crossCompilers(t, cross)
	all := []string{}
	for run, env := range map[string][]string{anchored: {"ANCHORS="}, tests: nil} {
		if run == "" {
			continue
		}
		all = append(all, run)
		skip := ""
		if run == tests {
			skip = anchored
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run", run, "-test.skip", skipped(skip))
		cmd.Env = append(append(os.Environ(), "FOTHER_LONG=0", makeFor+"="+made, "PATH="+cross+":"+os.Getenv("PATH")), env...)
		out, err := cmd.CombinedOutput()
		t.Logf("made here:\n%s", out)
		if err != nil {
			t.Fatal(err)
		}
	}
	packElsewhere(t, job)
	if err := os.WriteFile(filepath.Join(job, "run.sh"), fmt.Appendf(nil, elsewhereJob, madeIn, strings.Join(all, "|"), skipped("")), 0o755); err != nil {
		t.Fatal(err)
	}
	return &elsewhere{job, madeFolders(t, made)}
}

// run runs the tests on an emulated machine. It returns what the machine said.
func (e *elsewhere) run(t *testing.T, o machine.Options) string {
	t.Helper()
	var console bytes.Buffer
	o.Dir, o.Compilers, o.Console = e.job, true, io.MultiWriter(&console, t.Output())
	status, err := machine.Run(t.Context(), o)
	if err != nil || status != 0 {
		t.Fatalf("exit status %d: %v", status, err)
	}
	if n := strings.Count(console.String(), found); n != e.made || n == 0 {
		t.Errorf("%d of %d folders were found there", n, e.made)
	}
	return console.String()
}

// madeFolders counts what tests made.
func madeFolders(t *testing.T, made string) (n int) {
	t.Helper()
	err := filepath.WalkDir(made, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "patches" {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// packElsewhere puts the tests of this package, what they read, and the tool into a job.
func packElsewhere(t *testing.T, job string) {
	t.Helper()
	root, here := moduleRoot(t), filepath.Join(job, "module/magefiles/internal/pipeline")
	if err := os.MkdirAll(here, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(here, "tests"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	for from, to := range map[string]string{"testdata/cases": filepath.Join(here, "testdata/cases"), filepath.Join(root, "samples"): filepath.Join(job, "module/samples")} {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	path, err := Command(t.Context(), t.TempDir(), "apply/cmd/fother", "GOARCH=arm64")
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, filepath.Join(job, "made/fother"), 0o755)
}

// TestEndToEndOnAArch64 takes samples and small programs the whole way: patches are made
// with cross compilers, and applied and reverted on an emulated machine. FOTHER_ELSEWHERE
// chooses tests by hand.
func TestEndToEndOnAArch64(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: boots an emulated machine")
	}
	anchored, tests, limit := "^TestSamples$/^(simple_-O2|threads_-Os)|^TestCases$/^anchors", "^TestSamples$/^shadow_-O2|^TestExceptions$|^TestBothArchitectures$", 12*time.Minute
	if testenv.Long() {
		tests, limit = "^Test(Samples|Cases|Exceptions|ExceptionsLinked|FinderAnswers|ComdatOfAnotherUnit|BothArchitectures)$", 6*time.Hour
	}
	if byHand := os.Getenv("FOTHER_ELSEWHERE"); byHand != "" {
		anchored, tests, limit = "", byHand, 4*time.Hour
	}
	makeElsewhere(t, anchored, tests).run(t, machine.Options{Timeout: limit})
}

// TestPagesOnAArch64 is a part of that, and the sample of native tests, under kernels
// with larger pages.
func TestPagesOnAArch64(t *testing.T) {
	if !testenv.Long() {
		t.Skip("FOTHER_LONG=1 asks for it: it fetches a kernel and builds one")
	}
	if err := machine.CheckBuild(); err != nil {
		testenv.Skip(t, err.Error())
	}
	e := makeElsewhere(t, "^TestSamples$/^(simple|threads)_-O2_-g$|^TestCases$/^anchors_gcc", "^TestSamples$/^shadow_-O2_-g$|^TestExceptions$")
	for _, page := range arch.AArch64.PageSizes[1:] {
		t.Run(fmt.Sprintf("%d KiB", page>>10), func(t *testing.T) {
			said := e.run(t, machine.Options{Timeout: time.Hour, PageSize: page})
			if !regexp.MustCompile(fmt.Sprintf(`(?m)^KernelPageSize: +%d kB$`, page>>10)).MatchString(said) {
				t.Error("the pages have another size")
			}
			native := nativeSample()
			native.pageSize, native.limit = page, time.Hour
			native.run(t)
		})
	}
}

// copyFile copies a file to a path whose folder it makes.
func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, mode); err != nil {
		t.Fatal(err)
	}
}
