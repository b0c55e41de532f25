package main

import (
	"bytes"
	"fmt"
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
