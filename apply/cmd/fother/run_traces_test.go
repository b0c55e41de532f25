package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

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
