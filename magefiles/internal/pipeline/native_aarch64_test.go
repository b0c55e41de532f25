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
var nativeTests = []struct {
	pkg string
	// sample are the tests that run there by default, if any; all do with FOTHER_LONG=1,
	// and then the benchmarks bench.
	sample, bench string
}{
	{"apply/internal/ptrace", "^TestAgent(Alone)?$/^(sleep|compute)$", ""},
	{"apply/internal/unwind", "", ""},
	{"apply/cmd/fother", "^TestRun$/^pie$", ""},
	{"apply", "^TestApplyAndRevert$/^pie$/^call$|^TestCount$|^TestHooksLevels$", "^BenchmarkStop$"},
}

// nativeRun is what is run of a package, by regular expressions.
type nativeRun struct{ tests, benchmarks string }

// notNative are the tests that do not run there, by package, with the reason. After a
// slash comes a subtest.
var notNative = map[string]map[string]string{
	"apply": {
		"TestApplyAndRevert//mdwe+call": noMDWE,
		"TestSymbolFile":                "the machine has no gdb",
	},
	"apply/cmd/fother": {
		"TestWhatTheToolLinks":        noGo,
		"TestRunSignals":              noGo,
		"TestDeployed":                noGo,
		"TestDeployedCommandLines":    noDeploy,
		"TestCronLine":                noDeploy,
		"TestUnitDoesNotBreakTracing": noDeploy,
		"TestSystemdVerifiesUnits":    noDeploy,
		"TestHostileNames":            "it starts a copy of sleep under another name, and the machine's is busybox",
	},
	"apply/internal/ptrace": {"TestPageMap": "the machine's kernel, 6.1, has no PAGEMAP_SCAN"},
	"apply/internal/unwind": {"TestRowsLikeReadelf": "it reads files of the host, and does so for both architectures there"},
}

const (
	noMDWE   = "the machine's kernel, 6.1, has no PR_SET_MDWE"
	noGo     = "the machine has no go"
	noDeploy = "it looks at files that are the same for all architectures"
)

// nativeJob runs the test binaries in the folders below its own. It is busybox's sh.
const nativeJob = `
export CI=true FOTHER_LONG=%s
status=0
for dir in */; do
	cd $dir
	echo "PACKAGE $dir"
	sh ./test.sh || { status=1; echo "FAILED $dir"; }
	cd ..
done
exit $status
`

// TestNativeOnAArch64 runs the tests of what is native to a machine on an emulated
// one: the same files as here, compiled into one binary for each package. Their C
// programs come from the host's cross compiler. FOTHER_NATIVE chooses by hand: a
// package, a regular expression of tests and maybe one of benchmarks.
func TestNativeOnAArch64(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: boots an emulated machine")
	}
	byHand := append(strings.Fields(os.Getenv("FOTHER_NATIVE")), "", "", "")
	run, limit := map[string]nativeRun{}, 12*time.Minute
	for _, n := range nativeTests {
		switch {
		case byHand[0] == n.pkg:
			run[n.pkg], limit = nativeRun{byHand[1], byHand[2]}, 2*time.Hour
		case byHand[0] != "":
		case testenv.Long():
			run[n.pkg], limit = nativeRun{".", n.bench}, 4*time.Hour
		case n.sample != "":
			run[n.pkg] = nativeRun{n.sample, ""}
		}
	}
	runNative(t, run, "0", limit)
}

// TestKillMatrixOnAArch64 is the whole of TestKillMatrix of package apply on an emulated
// machine.
func TestKillMatrixOnAArch64(t *testing.T) {
	if !testenv.Long() {
		t.Skip("FOTHER_LONG=1 asks for it: it takes hours")
	}
	runNative(t, map[string]nativeRun{"apply": {"^TestKillMatrix$", ""}}, "1", 24*time.Hour)
}

// runNative runs tests on an emulated machine, by package, with FOTHER_LONG=long.
func runNative(t *testing.T, tests map[string]nativeRun, long string, limit time.Duration) {
	t.Helper()
	for _, err := range []error{machine.Check(), tools.Check("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")} {
		if err != nil {
			testenv.Skip(t, err.Error())
		}
	}
	job := t.TempDir()
	for pkg, run := range tests {
		nativeTest(t, filepath.Join(job, strings.ReplaceAll(pkg, "/", "-")), pkg, run)
	}
	if err := os.WriteFile(filepath.Join(job, "run.sh"), fmt.Appendf(nil, nativeJob, long), 0o755); err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	status, err := machine.Run(t.Context(), machine.Options{Dir: job, Compilers: true, Timeout: limit, Console: io.MultiWriter(&console, t.Output())})
	if err != nil || status != 0 {
		t.Fatalf("exit status %d: %v", status, err)
	}
	if n := strings.Count(console.String(), "\nPASS\n"); n != len(tests) {
		t.Errorf("%d packages passed of %d", n, len(tests))
	}
}

// nativeTest puts a package's tests into dir, with what they read and the command
// that runs those that are to run there.
func nativeTest(t *testing.T, dir, pkg string, run nativeRun) {
	t.Helper()
	root := moduleRoot(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "tests"), "./"+pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", pkg, err, out)
	}
	if data := filepath.Join(root, pkg, "testdata"); dirExists(data) {
		if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
	}
	command := "./tests -test.v -test.timeout 24h -test.run '" + run.tests + "'"
	if run.benchmarks != "" {
		command += " -test.benchtime 20x -test.bench '" + run.benchmarks + "'"
	}
	if skip := notNative[pkg]; len(skip) > 0 {
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
	if err := os.WriteFile(filepath.Join(dir, "test.sh"), []byte(command+"\n"), 0o644); err != nil {
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
