package pipeline

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
	"github.com/fother/fother/specs/testenv"
)

// bin holds the commands, built once for all tests of the package.
var bin struct{ cc, fother string }

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if dir := os.Getenv(makeIn); dir != "" {
			return makeThere(dir)
		}
		dir, err := os.MkdirTemp("", "fother-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if made := os.Getenv(madeIn); made != "" {
			bin.fother = filepath.Join(made, "fother")
			return m.Run()
		}
		for pkg, path := range map[string]*string{"compiler/cmd/fother-cc": &bin.cc, "apply/cmd/fother": &bin.fother} {
			if *path, err = Command(context.Background(), dir, pkg); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

// answer is a row of a sample's answers.tsv.
type answer struct{ request, original, patched string }

func answers(t *testing.T, sample string) []answer {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(samples, sample, "answers.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []answer
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if !strings.HasPrefix(line, "#") && len(f) == 3 {
			rows = append(rows, answer{f[0], f[1], f[2]})
		}
	}
	if len(rows) == 0 {
		t.Fatal("no answers")
	}
	return rows
}

const samples = "../../../samples"

// asked is a sample that runs with --ask.
type asked struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func ask(t *testing.T, path string, wrap ...string) *asked {
	t.Helper()
	args := append(wrap, path, "--ask")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &asked{t, cmd, in, bufio.NewReader(out)}
}

// follow patches the program with what is in f and reverts that, and fails unless
// it answers the request so before, with the patch, and after.
func (a *asked) follow(f Folder, request, before, patched, after string) {
	a.t.Helper()
	for _, step := range []struct {
		command []string
		want    string
	}{{nil, before}, {[]string{"patch", "-p", a.pid(), f.Patches()}, patched}, {[]string{"unpatch", "-p", a.pid()}, after}} {
		if step.command != nil {
			fother(a.t, 0, step.command...)
		}
		if got := a.answer(request); got != step.want {
			a.t.Errorf("%q: answer %q, want %q", step.command, got, step.want)
		}
	}
}

func (a *asked) pid() string { return strconv.Itoa(a.cmd.Process.Pid) }

func (a *asked) answer(request string) string {
	a.t.Helper()
	if _, err := fmt.Fprintln(a.in, request); err != nil {
		a.t.Fatalf("%q: the program is gone: %v", request, err)
	}
	line, err := a.out.ReadString('\n')
	if err != nil {
		a.t.Fatalf("%q: the program is gone: %v", request, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// expect checks all answers of one state of the program.
func (a *asked) expect(state string, rows []answer, want func(answer) string) {
	a.t.Helper()
	for _, r := range rows {
		if got := a.answer(r.request); got != want(r) {
			a.t.Errorf("%s: %q is answered by %q, want %q", state, r.request, got, want(r))
		}
	}
}

// fother runs the tool and fails the test unless it ends with the exit status.
func fother(t *testing.T, exit int, args ...string) string {
	t.Helper()
	cmd := exec.Command(bin.fother, args...)
	out, err := cmd.CombinedOutput()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != exit {
		t.Fatalf("fother %s: exit status %d, want %d\n%s", strings.Join(args, " "), got, exit, out)
	}
	return string(out)
}

// makeSample runs the pipeline for a sample with more environment variables.
func makeSample(t *testing.T, sample string, env ...string) Folder {
	t.Helper()
	s, err := specfile.Read(filepath.Join(samples, sample, "spec.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.Env = append(s.Env, env...)
	o := Options{Work: t.TempDir(), Shim: bin.cc}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if _, err := Make(ctx, s, o); err != nil {
		t.Fatal(err)
	}
	return FolderOf(s, o)
}

// TestSamples takes every sample the whole way: built twice, patched while it
// runs, asked, reverted, asked again.
func TestSamples(t *testing.T) {
	sampleFlags := []string{"-O2 -g", "-O0", "-O3 -fno-plt -ffunction-sections -fdata-sections", "-Os -fno-pie -no-pie -fcf-protection=full"}
	for turn, sample := range []string{"simple", "server", "ghost", "threads", "library", "shadow"} {
		for i, flags := range sampleFlags {
			if strings.Contains(flags, "-fno-pie") && (sample == "ghost" || sample == "library") {
				continue // their libraries need position independent code
			}
			mine := testenv.Long() || i == turn%len(sampleFlags)
			if i > 0 && (!mine || testing.Short()) {
				continue
			}
			t.Run(sample+" "+flags, func(t *testing.T) {
				t.Parallel()
				testSample(t, sample, "CFLAGS="+flags)
			})
			if !mine {
				continue
			}
			t.Run(sample+" clang "+flags, func(t *testing.T) {
				t.Parallel()
				needsToMake(t, "clang")
				testSample(t, sample, "CC=clang", "CFLAGS="+flags)
			})
		}
	}
}

func testSample(t *testing.T, sample string, env ...string) {
	f, runs := makeOrFind(t, "made", func() Folder { return makeSample(t, sample, env...) })
	if !runs {
		return
	}
	rows := answers(t, sample)
	original := func(a answer) string { return a.original }
	patched := func(a answer) string { return a.patched }
	built := ask(t, filepath.Join(f.Patched(), sample))
	built.expect("patched build", rows, patched)

	p := ask(t, filepath.Join(f.Original(), sample))
	p.expect("before", rows, original)
	before := memory(t, p.pid())
	fother(t, 0, "patch", "-p", p.pid(), f.Patches())
	p.expect("patched", rows, patched)
	fother(t, 3, "patch", "-p", p.pid(), f.Patches())
	p.expect("patched twice", rows, patched)
	if out := fother(t, 0, "info", "-p", p.pid()); !strings.Contains(out, sample) {
		t.Errorf("info does not name the patch:\n%s", out)
	}
	fother(t, 0, "unpatch", "-p", p.pid())
	p.expect("reverted", rows, original)
	sameMemory(t, before, memory(t, p.pid()))
}

// sameMemory compares what memory returned before and after.
func sameMemory(t *testing.T, before, after []string) {
	t.Helper()
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("the process no longer has %s", line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("the process has in addition %s", line)
		}
	}
}

// memory returns the process's mappings, with a digest of each that is
// executable.
func memory(t *testing.T, pid string) (lines []string) {
	t.Helper()
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/" + pid + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var lo, hi uint64
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &lo, &hi, &perm); err != nil {
			t.Fatal(err)
		}
		line = strings.TrimSpace(line)
		if strings.Contains(perm, "x") && !strings.Contains(line, "vsyscall") && !strings.Contains(line, "[stack]") {
			b := make([]byte, hi-lo)
			if _, err := mem.ReadAt(b, int64(lo)); err != nil {
				t.Fatal(err)
			}
			line += " " + specs.DigestOf(b).String()
		}
		lines = append(lines, line)
	}
	return lines
}
