package pipeline

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/magefiles/internal/machine"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs/testenv"
)

// nativeTests are the packages whose tests run on an emulated aarch64 machine as
// they do here.
var nativeTests = []nativeTest{
	{pkg: "apply/internal/ptrace", sample: "^TestAgent(Alone)?$/^(sleep|compute)$|^TestSleepGoesOn$"},
	{pkg: "apply/internal/unwind", sample: "^TestWalk(VDSO|Thread)$|^TestWalkChains$/^O2$"},
	{pkg: "apply/cmd/fother", sample: "^TestRun$/^pie$", command: "apply/cmd/fother", reads: "apply/deploy", packages: []string{"util-linux", "libcap-ng0"}},
	{pkg: "apply", sample: "^TestApplyAndRevert$/^pie$/^call$|^TestCount$|^TestHooksLevels$", bench: "^BenchmarkStop$"},
}

// nativeTest is a package with such tests.
type nativeTest struct {
	pkg string
	// sample are the tests that run there by default, if any; all do with FOTHER_LONG=1,
	// and then the benchmarks bench.
	sample, bench string
	// command is a program that the tests start: they find it by FOTHER_TEST_TOOL.
	command string
	// reads is a folder besides testdata that the tests read.
	reads string
	// packages are Debian's that have programs that the tests, but none of sample, start.
	packages []string
}

// nativeRun is what is run of packages, by regular expressions.
type nativeRun struct {
	tests, benchmarks map[string]string
	packages          []string
	long              bool
	limit             time.Duration
	pageSize          uint64 // 0 as in machine.Options
	all               bool   // those of notNative too
}

// nativeSample is what runs by default.
func nativeSample() *nativeRun {
	r := &nativeRun{tests: map[string]string{}, limit: 12 * time.Minute}
	for _, n := range nativeTests {
		if n.sample != "" {
			r.tests[n.pkg] = n.sample
		}
	}
	return r
}

// notNative are the tests that do not run there, by package, with the reason. After a
// slash comes a subtest.
var notNative = map[string]map[string]string{
	"apply": {
		"TestApplyAndRevert//mdwe+call": "the machine's kernel, 6.1, has no PR_SET_MDWE: see TestNewerKernelOnAArch64",
		"TestSymbolFile":                "the machine has no gdb",
	},
	"apply/cmd/fother": {
		"TestSplit":                "the machine has no go, and what is left to whom is the same for all architectures",
		"TestSplitImports":         "the machine has no go, and what is imported is the same for all architectures",
		"TestWhatTheToolLinks":     "the machine has no go, and what the tool links is the same for all architectures",
		"TestCronLine":             "the machine's sh is busybox, which has a sleep of its own, and the line is the same for all architectures",
		"TestSystemdVerifiesUnits": "the machine has no systemd, and the files are the same for all architectures",
	},
	"apply/internal/ptrace": {"TestPageMap": "the machine's kernel, 6.1, has no PAGEMAP_SCAN: see TestNewerKernelOnAArch64"},
	"apply/internal/unwind": {
		"TestRowsLikeReadelf": "it reads files of the host, and does so for both architectures there",
		"TestPLT":             "it links with linkers of the host, and does so for aarch64 there; nothing runs",
	},
}

// nativeJob runs the test binaries in the folders of packages. It is busybox's sh.
const nativeJob = `
export CI=true FOTHER_LONG=%s FOTHER_MATRIX_STEP=%s FOTHER_STOP_PAIRS=%s
status=0
for dir in %s; do
	echo "PACKAGE $dir"
	(cd $dir && sh ./test.sh) || { status=1; echo "FAILED $dir"; }
done
exit $status
`

// TestNativeOnAArch64 runs the tests of what is native to a machine on an emulated
// one: the same files as here, compiled into one binary for each package. Their C
// programs come from the host's cross compiler. FOTHER_NATIVE chooses by hand: a
// package, a regular expression of tests and maybe one of benchmarks; these tests find
// FOTHER_LONG, FOTHER_MATRIX_STEP and FOTHER_STOP_PAIRS as they are here.
func TestNativeOnAArch64(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: boots an emulated machine")
	}
	byHand := append(strings.Fields(os.Getenv("FOTHER_NATIVE")), "", "", "")
	if byHand[0] == "" && !testenv.Long() {
		nativeSample().run(t)
		return
	}
	run := nativeRun{tests: map[string]string{}, benchmarks: map[string]string{}, long: byHand[0] != "" && testenv.Long(), limit: 4 * time.Hour}
	for _, n := range nativeTests {
		switch {
		case byHand[0] == n.pkg:
			run.tests[n.pkg], run.benchmarks[n.pkg] = byHand[1], byHand[2]
			run.packages, run.limit = n.packages, 2*time.Hour
		case byHand[0] == "":
			run.tests[n.pkg], run.benchmarks[n.pkg] = ".", n.bench
			run.packages = append(run.packages, n.packages...)
		}
	}
	run.run(t)
}

// TestKillMatrixOnAArch64 is the whole of TestKillMatrix of package apply on an emulated
// machine.
func TestKillMatrixOnAArch64(t *testing.T) {
	if !testenv.Long() {
		t.Skip("FOTHER_LONG=1 asks for it: it takes hours")
	}
	(&nativeRun{tests: map[string]string{"apply": "^TestKillMatrix$"}, long: true, limit: 24 * time.Hour}).run(t)
}

// TestNewerKernelOnAArch64 runs what the usual kernel is too old for.
func TestNewerKernelOnAArch64(t *testing.T) {
	if !testenv.Long() {
		t.Skip("FOTHER_LONG=1 asks for it: it fetches a kernel")
	}
	tests := map[string]string{"apply": `^TestApplyAndRevert$//^mdwe\+call$`, "apply/internal/ptrace": "^TestPageMap$"}
	(&nativeRun{tests: tests, limit: time.Hour, pageSize: 16 << 10, all: true}).run(t)
}

// run runs the tests on an emulated machine.
func (r *nativeRun) run(t *testing.T) {
	t.Helper()
	for _, err := range []error{machine.Check(), tools.Check("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")} {
		if err != nil {
			testenv.Skip(t, err.Error())
		}
	}
	job, long := t.TempDir(), "0"
	if r.long {
		long = "1"
	}
	var packages []string
	for i := range nativeTests {
		if n := &nativeTests[i]; r.tests[n.pkg] != "" {
			packages = append(packages, n.pkg)
			r.add(t, job, n)
		}
	}
	if err := os.WriteFile(filepath.Join(job, "run.sh"), fmt.Appendf(nil, nativeJob, long, os.Getenv("FOTHER_MATRIX_STEP"), os.Getenv("FOTHER_STOP_PAIRS"), strings.Join(packages, " ")), 0o755); err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	status, err := machine.Run(t.Context(), machine.Options{Dir: job, Compilers: true, Packages: r.packages, Timeout: r.limit, PageSize: r.pageSize, Console: io.MultiWriter(&console, t.Output())})
	if err != nil || status != 0 {
		t.Fatalf("exit status %d: %v", status, err)
	}
	if n := strings.Count(console.String(), "\nPASS\n"); n != len(packages) {
		t.Errorf("%d packages passed of %d", n, len(packages))
	}
}

// add puts a package's tests into a job, with what they read and start, and the
// command that runs them.
func (r *nativeRun) add(t *testing.T, job string, n *nativeTest) {
	t.Helper()
	root, dir := moduleRoot(t), filepath.Join(job, n.pkg)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "tests"), "./"+n.pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", n.pkg, err, out)
	}
	folders := []string{n.pkg + "/testdata"}
	if n.reads != "" {
		folders = append(folders, n.reads)
	}
	for _, f := range folders {
		if from := filepath.Join(root, f); dirExists(from) {
			if err := os.CopyFS(filepath.Join(job, f), os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
		}
	}
	settings := ""
	if n.command != "" {
		tool, err := Command(t.Context(), t.TempDir(), n.command, "GOARCH=arm64")
		if err != nil {
			t.Fatal(err)
		}
		copyFile(t, tool, filepath.Join(dir, "tool"), 0o755)
		settings = "FOTHER_TEST_TOOL=$PWD/tool "
	}
	r.script(t, filepath.Join(dir, "test.sh"), settings, n.pkg)
}

// script writes the command that runs those tests of a package that are to run there.
func (r *nativeRun) script(t *testing.T, file, settings, pkg string) {
	t.Helper()
	command := settings + "./tests -test.v -test.timeout 24h -test.run '" + r.tests[pkg] + "'"
	if b := r.benchmarks[pkg]; b != "" {
		command += " -test.benchtime 1x -test.bench '" + b + "'"
	}
	if skip := notNative[pkg]; len(skip) > 0 && !r.all {
		var patterns []string
		for name := range skip {
			parts := strings.Split(name, "/")
			for i, part := range parts {
				if part != "" {
					parts[i] = "^" + regexp.QuoteMeta(part) + "$"
				}
			}
			patterns = append(patterns, strings.Join(parts, "/"))
		}
		slices.Sort(patterns)
		command += " -test.skip '" + strings.Join(patterns, "|") + "'"
	}
	if err := os.WriteFile(file, []byte(command+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func dirExists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// moduleRoot returns the folder of the module's go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestNotNativeExists: each test that does not run on the emulated machine is one
// that there is, and has a reason.
func TestNotNativeExists(t *testing.T) {
	for pkg, names := range notNative {
		files, err := filepath.Glob(filepath.Join(moduleRoot(t), pkg, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no tests in %s: %v", pkg, err)
		}
		var all strings.Builder
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
		for name, why := range names {
			test, _, _ := strings.Cut(name, "/")
			if !strings.Contains(all.String(), "\nfunc "+test+"(t *testing.T)") {
				t.Errorf("%s has no test %s", pkg, name)
			}
			if why == "" {
				t.Errorf("%s: no reason why %s does not run", pkg, name)
			}
		}
	}
}
