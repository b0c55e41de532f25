package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fother/fother/specs/testenv"
)

// launchedSource is a program that tells what it finds at its beginning: the
// answer, 2, in its first own code, whether it has children, its entry point,
// waiting signals. It ends as its arguments say.
const launchedSource = `
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>
extern char _start[];
volatile int one = 1;
__attribute__((noipa)) int answer(int x) { return x + one; }
__attribute__((noipa)) int other(int x) { return x - one; }
int first;
__attribute__((constructor)) static void begin(void) { first = answer(1); }
static void atend(void) { printf("ended\n"); }
int main(int argc, char **argv) {
	atexit(atend);
	printf("%d %d %d\n", first, answer(1), other(1));
	printf("children: %d\n", waitpid(-1, 0, WNOHANG) == -1 && errno == ECHILD);
	printf("entry: %d\n", getauxval(AT_ENTRY) == (unsigned long)_start);
	sigset_t s; sigpending(&s);
	struct sigaction a; sigaction(SIGPIPE, 0, &a); printf("signals: %d %d", !sigisemptyset(&s), a.sa_handler == SIG_DFL);
	sigaction(SIGCHLD, 0, &a); printf(" %d\n", a.sa_handler == SIG_DFL);
	printf("pid: %d\n", getpid());
	for (int i = 1; i < argc; i++) printf("argument: %s\n", argv[i]);
	fflush(stdout);
	if (argc > 1 && !strcmp(argv[1], "kill")) raise(SIGTERM);
	if (argc > 1 && !strcmp(argv[1], "wait")) { char l[9]; while (fgets(l, 9, stdin)) { printf("%d\n", answer(1)); fflush(stdout); } }
	return argc > 1 ? atoi(argv[1]) : 0;
}
`

// launchedSays is what the program says when its answer is a, and it is process pid.
func launchedSays(a, pid int, args ...string) string {
	s := fmt.Sprintf("%d %d 0\nchildren: 1\nentry: 1\nsignals: 0 1 1\npid: %d\n", a, a, pid)
	for _, arg := range args {
		s += "argument: " + arg + "\n"
	}
	return s
}

// tryRun runs fother run as a process of its own, and returns what was written
// and how it ended.
func tryRun(t *testing.T, args ...string) (stdout, stderr string, state *os.ProcessState) {
	t.Helper()
	cmd := fotherRun(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState
}

func fotherRun(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: self, Args: append([]string{"fother", "run"}, args...)}
}

func TestRun(t *testing.T) {
	testenv.Needs(t, "gcc", "as", "ld")
	for _, b := range []struct{ name, flags string }{
		{"pie", "-fPIE -pie"},
		{"fixed", "-fno-pie -no-pie"},
		{"static", "-fno-pie -static"},
		{"static-pie", "-fPIE -static-pie"},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			prog := compileSource(t, t.TempDir(), launchedSource, strings.Fields(b.flags)...)
			patch := filepath.Join(prog.dir, "p.kpatch")
			write(t, patch, prog.patch(t, "default", 1))
			for _, c := range []struct {
				args []string
				code int
				sig  syscall.Signal
			}{
				{nil, 0, -1}, {[]string{"7", "a b"}, 7, -1}, {[]string{"kill"}, -1, syscall.SIGTERM},
			} {
				out, errs, state := tryRun(t, append([]string{patch, "--", prog.bin}, c.args...)...)
				want := launchedSays(41, state.Pid(), c.args...)
				if c.sig < 0 {
					want += "ended\n"
				}
				ws := state.Sys().(syscall.WaitStatus)
				if out != want || errs != "" || state.ExitCode() != c.code || ws.Signaled() && ws.Signal() != c.sig {
					t.Errorf("%q: %v, %q, %q: want %q", c.args, state, out, errs, want)
				}
			}
		})
	}
}

// launched is a program that was built and a patch for it.
func launched(t *testing.T) (prog *program, patch string) {
	t.Helper()
	testenv.Needs(t, "gcc", "as", "ld")
	prog = compileSource(t, t.TempDir(), launchedSource)
	patch = filepath.Join(prog.dir, "p.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	return prog, patch
}

func TestRunThatCannotPatch(t *testing.T) {
	prog, patch := launched(t)
	foreignPatch := filepath.Join(prog.dir, "foreign.kpatch")
	write(t, foreignPatch, foreign(t, prog.patch(t, "default", 1), "abcd1234"))
	folder := filepath.Join(prog.dir, "folder")
	write(t, filepath.Join(folder, "abcd1234.kpatch"), foreign(t, prog.patch(t, "default", 1), "abcd1234"))
	suid := filepath.Join(prog.dir, "suid")
	execute(t, "cp", prog.bin, suid)
	if err := os.Chmod(suid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string // by fother
		runs bool
	}{
		{foreignPatch + " -- " + prog.bin, 4, "fother: error: " + prog.bin + ": no patch fits", false},
		{"--best-effort " + foreignPatch + " -- " + prog.bin, 0, "starts without its patches", true},
		{folder + " -- " + prog.bin, 0, "", true}, // what does not fit need not
		{patch + "x -- " + prog.bin, 1, "no such file", false},
		{"--best-effort " + patch + "x -- " + prog.bin, 0, "no such file", true},
		{patch + " -- " + suid, 4, "it is set-user-ID", false},
		{patch + " -- " + prog.bin + "x", 1, "no such file", false},
		{patch + " -- " + patch, 1, "permission denied", false},
		{patch + " -- ", 2, "no program is named", false},
		{prog.bin, 2, "no program is named", false},
		{"-- " + prog.bin, 2, "no patch file and no registry", false},
		{"--registry x " + patch + " -- " + prog.bin, 2, "cannot stand with", false},
		{"--json " + patch + " -- " + prog.bin, 2, "--json", false},
		{"--helper-of 1 " + patch + " -- " + prog.bin, 2, "not for use by hand", false},
	} {
		out, errs, state := tryRun(t, strings.Fields(c.args)...)
		want := ""
		if c.runs {
			want = launchedSays(2, state.Pid()) + "ended\n"
		}
		if out != want || !strings.Contains(errs, c.says) || (c.says == "") != (errs == "") || state.ExitCode() != c.code {
			t.Errorf("fother run %s: %v, %q, %q: want %d, %q, %q", c.args, state, out, errs, c.code, want, c.says)
		}
	}
}

// TestRunLibraryMissing: the dynamic linker's own exit status is the program's.
func TestRunLibraryMissing(t *testing.T) {
	testenv.Needs(t, "gcc", "as", "ld")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "l.c"), []byte("int l;\n"))
	lib := filepath.Join(dir, "libl.so")
	execute(t, "gcc", "-shared", "-o", lib, filepath.Join(dir, "l.c"))
	prog := compileSource(t, dir, launchedSource, "-Wl,--no-as-needed", lib)
	patch := filepath.Join(dir, "p.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	if err := os.Remove(lib); err != nil {
		t.Fatal(err)
	}
	out, errs, state := tryRun(t, patch, "--", prog.bin)
	if state.ExitCode() != 127 || out != "" || !strings.Contains(errs, "libl.so") || strings.Contains(errs, "fother") {
		t.Errorf("%v, %q, %q", state, out, errs)
	}
}

// TestRunHelperKilled kills the helper at many moments: the program is patched,
// or does not begin; with --best-effort it always begins, and is whole.
func TestRunHelperKilled(t *testing.T) {
	prog, patch := launched(t)
	moments := 6
	if testenv.Long() {
		moments = 200
	}
	for _, effort := range []bool{false, true} {
		args := []string{patch, "--", prog.bin}
		if effort {
			args = append([]string{"--best-effort"}, args...)
		}
		killed := 0
		for i := range moments {
			cmd := fotherRun(t, args...)
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := cmd.Process.Pid
			if helper := childOf(pid); helper != 0 {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond / time.Duration(moments))
				if syscall.Kill(helper, syscall.SIGKILL) == nil {
					killed++
				}
			}
			err := cmd.Wait()
			old, patched := launchedSays(2, pid)+"ended\n", launchedSays(41, pid)+"ended\n"
			switch got := out.String(); {
			case got == patched && err == nil:
			case (got == old || got == strings.Replace(old, "children: 1", "children: 0", 1)) && err == nil && effort: // nobody waited for the helper
			case got == "" && err != nil && !effort:
			default:
				t.Errorf("best effort %v, moment %d: %v, %q", effort, i, err, got)
			}
		}
		if killed == 0 {
			t.Error("no helper was killed")
		}
	}
}

// childOf waits for the only child of a process, and returns 0 if the process
// ends before.
func childOf(pid int) int {
	for range 2000 {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		if err != nil || len(tasks) == 0 {
			return 0
		}
		for _, name := range tasks {
			b, _ := os.ReadFile(name)
			if child, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				return child
			}
		}
		time.Sleep(500 * time.Microsecond)
	}
	return 0
}

// TestRunSignals: what the command was started with ignored stays so, and
// nothing else. The tool is built as it is installed, with symbols, and with
// FOTHER_LONG=1 as a position-independent executable too.
func TestRunSignals(t *testing.T) {
	prog, patch := launched(t)
	if tool := os.Getenv(builtTool); tool != "" {
		ignoredStays(t, tool, patch, prog.bin)
		return
	}
	modes := []string{"exe"}
	if testenv.Long() { // all of Go's library has to be compiled for it
		modes = append(modes, "pie")
	}
	for _, mode := range modes {
		tool := filepath.Join(prog.dir, mode)
		execute(t, "go", "build", "-buildmode="+mode, "-o", tool, ".")
		t.Run(mode, func(t *testing.T) { ignoredStays(t, tool, patch, prog.bin) })
	}
}

func ignoredStays(t *testing.T, tool, patch, bin string) {
	for trap, want := range map[string]string{"": "signals: 0 1 1\n", "trap '' PIPE USR1 HUP;": "signals: 0 0 1\n"} {
		out, err := exec.Command("sh", "-c", trap+`exec "$@"`, "sh", tool, "run", patch, "--", bin).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "41 41 0\n") || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, %s: want %q", trap, err, out, want)
		}
		out, err = exec.Command("sh", "-c", trap+`exec "$@"`, "sh", tool, "run", patch, "--", "grep", "SigIgn", "/proc/self/status").Output()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitRefused {
			t.Errorf("grep has no patch: %v, %s", err, out)
		}
		out, err = exec.Command("sh", "-c", trap+`exec "$@"`, "sh", tool, "run", "--best-effort", patch, "--", "grep", "SigIgn", "/proc/self/status").Output()
		plain, e := exec.Command("sh", "-c", trap+`exec "$@"`, "sh", "grep", "SigIgn", "/proc/self/status").Output()
		if err != nil || e != nil || !bytes.Equal(out, plain) {
			t.Errorf("%q: %v, %v, %s: want %s", trap, err, e, out, plain)
		}
	}
}

// vdso returns the code page of the kernel's in a process, where the code that
// waits was written.
func vdso(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var lo, hi int64
		if n, _ := fmt.Sscanf(line, "%x-%x", &lo, &hi); n == 2 && strings.Contains(line, "[vdso]") {
			b := make([]byte, hi-lo)
			if _, err := mem.ReadAt(b, lo); err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	testenv.Skip(t, "the kernel has no vDSO")
	return nil
}

// TestRunLeavesNothing: the next run takes away the code that waited.
func TestRunLeavesNothing(t *testing.T) {
	prog, patch := launched(t)
	self := vdso(t, os.Getpid())
	cmd := fotherRun(t, patch, "--", prog.bin, "wait")
	a := askCommand(t, cmd)
	for _, line := range strings.Split(strings.TrimSpace(launchedSays(41, cmd.Process.Pid, "wait")), "\n") {
		a.expect("", line)
	}
	a.expect("\n", "41")
	if bytes.Equal(vdso(t, cmd.Process.Pid), self) {
		t.Error("the code that waited is not where it is looked for")
	}
	if _, errs, code := fother("unpatch", "-p", strconv.Itoa(cmd.Process.Pid)); code != 0 {
		t.Errorf("unpatch: %d, %s", code, errs)
	}
	a.expect("\n", "2")
	if !bytes.Equal(vdso(t, cmd.Process.Pid), self) {
		t.Error("the code that waited is still there")
	}
}

// TestRunDenied: nothing is written into a program that the deny list has, nor
// into a script's interpreter.
func TestRunDenied(t *testing.T) {
	prog, patch := launched(t)
	script, list := filepath.Join(prog.dir, "script"), filepath.Join(prog.dir, "deny")
	write(t, script, []byte("#!"+prog.bin+" wait\n"))
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, list, []byte("exe "+prog.bin+"\n"))
	self := vdso(t, os.Getpid())
	for _, c := range []struct {
		tail, args []string
		children   string
	}{
		{[]string{prog.bin, "wait"}, []string{"wait"}, "children: 1"},
		{[]string{script}, []string{"wait", script}, "children: 0"}, // the helper
	} {
		cmd := fotherRun(t, append([]string{"--deny", list, patch, "--"}, c.tail...)...)
		a := askCommand(t, cmd)
		says := strings.Replace(launchedSays(2, cmd.Process.Pid, c.args...), "children: 1", c.children, 1)
		for _, line := range strings.Split(strings.TrimSpace(says), "\n") {
			a.expect("", line)
		}
		a.expect("\n", "2")
		if !bytes.Equal(vdso(t, cmd.Process.Pid), self) {
			t.Errorf("%q: code was written into a process that is to be left alone", c.tail)
		}
	}
}

// TestRunDiverted: a library's constructor executes the program once more, as
// some do for their environment. Then it is not patched, and is ended unless it
// may run so; and nobody waits for it for ever.
func TestRunDiverted(t *testing.T) {
	prog, patch := launched(t)
	src, lib := filepath.Join(prog.dir, "again.c"), filepath.Join(prog.dir, "again.so")
	write(t, src, []byte(`
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void again(int argc, char **argv) {
	if (getenv("AGAIN") || strcmp(argv[0], PROGRAM)) return;
	setenv("AGAIN", "1", 1);
	execv(argv[0], argv);
}`))
	execute(t, "gcc", "-shared", "-fPIC", "-DPROGRAM=\""+prog.bin+"\"", "-o", lib, src)
	preload := func(args ...string) *exec.Cmd {
		cmd := fotherRun(t, args...)
		cmd.Env = append(os.Environ(), "LD_PRELOAD="+lib)
		return cmd
	}
	var errs bytes.Buffer
	cmd := preload(patch, "--", prog.bin, "wait")
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe() // it waits for input
	if err == nil {
		defer in.Close()
		err = cmd.Run()
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %s: want that it is ended", err, &errs)
	}
	if !strings.Contains(errs.String(), "executed another") {
		t.Errorf("%s", &errs)
	}
	a := askCommand(t, preload("--best-effort", patch, "--", prog.bin, "wait"))
	a.expect("", "2 2 0")
	for _, line := range []string{"children: 0", "entry: 1", "signals: 0 1 1"} {
		a.expect("", line)
	}
}

// loaderSource is a program that loads a library when it is told to.
const loaderSource = `
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
	char l[9];
	printf("ready\n"); fflush(stdout);
	if (!fgets(l, 9, stdin)) return 1;
	void *h = dlopen(argv[1], RTLD_NOW);
	int (*answer)(int) = h ? (int (*)(int))dlsym(h, "answer") : 0;
	if (!answer) { printf("%s\n", dlerror()); return 1; }
	printf("loaded\n"); fflush(stdout);
	while (fgets(l, 9, stdin)) { printf("%d\n", answer(1)); fflush(stdout); }
	return 0;
}
`

const librarySource = `
volatile int one = 1;
__attribute__((noipa)) int answer(int x) { return x + one; }
__attribute__((noipa)) int other(int x) { return x - one; }
`

// TestRunFromRegistry: what is there at the beginning is patched at once, what
// is loaded later by the next pull.
func TestRunFromRegistry(t *testing.T) {
	testenv.Needs(t, "gcc", "as", "ld")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "loader.c"), []byte(loaderSource))
	loader := filepath.Join(dir, "loader")
	execute(t, "gcc", "-o", loader, filepath.Join(dir, "loader.c"))
	lib := compileSource(t, dir, librarySource, "-shared", "-fPIC")
	s := newShelf(t)
	s.publish(lib.patch(t, "default", 1))
	for _, late := range []bool{true, false} {
		cmd := fotherRun(t, "--registry", s.dir, "--root", s.root, "--state", s.state, "--", loader, lib.bin)
		if !late { // the library is there from the beginning
			cmd.Env = append(os.Environ(), "LD_PRELOAD="+lib.bin)
		}
		a := askCommand(t, cmd)
		a.expect("", "ready")
		a.expect("load\n", "loaded")
		if late {
			a.expect("\n", "2")
			s.pull(0, "", "-p", strconv.Itoa(cmd.Process.Pid))
		}
		a.expect("\n", "41")
	}
	if _, errs, state := tryRun(t, "--registry", filepath.Join(dir, "none"), "--root", s.root, "--state", s.state, "--", "true"); state.ExitCode() != 1 || !strings.Contains(errs, "registry") {
		t.Errorf("no registry: %v, %q", state, errs)
	}
}

// conversation is a program that is asked and answers in lines.
type conversation struct {
	t   *testing.T
	in  io.Writer
	out io.Reader
}

func askCommand(t *testing.T, cmd *exec.Cmd) *conversation {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	return &conversation{t, in, out}
}

func (c *conversation) expect(say, want string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, say); err != nil {
		c.t.Fatal(err)
	}
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if _, err := c.out.Read(b); err != nil || b[0] == '\n' {
			break
		}
	}
	if string(line) != want {
		c.t.Fatalf("%q: want %q", line, want)
	}
}
