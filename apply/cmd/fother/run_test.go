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
