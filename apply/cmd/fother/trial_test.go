package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
)

// patchOnTrial starts fother patch --trial as a process of its own and waits
// until it has applied the patch.
func patchOnTrial(t *testing.T, a *asked, patch, trial string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out = &bytes.Buffer{}
	cmd = &exec.Cmd{Path: self, Args: []string{"fother", "patch", "--trial", trial, "-p", a.pid(), patch}, Stdout: out, Stderr: out}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		info, _, _ := fother("info", "-p", a.pid())
		if strings.Contains(info, "on trial until") {
			return cmd, out
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("nothing is on trial: %s; %s", info, out)
		}
	}
}

func TestTrial(t *testing.T) {
	prog := fixture(t)
	patch := filepath.Join(t.TempDir(), "p.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	a := ask(t, prog)
	pid := a.pid()
	accept := func(code int, want string) {
		t.Helper()
		if out, errs, got := fother("accept", "-p", pid); got != code || !strings.Contains(out+errs, want) {
			t.Errorf("accept: %d, %q, %q: want %d, %q", got, out, errs, code, want)
		}
	}
	accept(3, "no such patch is on trial")
	cmd, out := patchOnTrial(t, a, patch, "1h")
	a.expect("41")
	cmd.Process.Signal(syscall.SIGHUP) // a lost terminal does not end it
	accept(0, "accepted the-fix (series default, level 1)")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after it was accepted: %v, %s", err, out)
	}
	a.expect("41")
	fother("unpatch", "-p", pid)
	cmd, out = patchOnTrial(t, a, patch, "700ms")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitRefused || !strings.Contains(out.String(), "nobody accepted the patch") {
		t.Errorf("after it ended: %v, %s", err, out)
	}
	a.expect("2")
	if _, errs, code := fother("patch", "-p", pid, "--trial", "-1s", patch); code != exitUsage {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// TestTrialOfTraced: when the trial ends a debugger has the process. The watch
// does not give up, and reverts as soon as the debugger has gone.
func TestTrialOfTraced(t *testing.T) {
	prog := fixture(t)
	patch := filepath.Join(t.TempDir(), "p.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	a := ask(t, prog)
	cmd, out := patchOnTrial(t, a, patch, "1s")
	pid, err := strconv.Atoi(a.pid())
	if err != nil {
		t.Fatal(err)
	}
	seized, leave, left := make(chan error), make(chan bool), make(chan error)
	go func() {
		left <- ptrace.Do(func() error { // its end lets go
			seized <- unix.PtraceSeize(pid)
			<-leave
			return nil
		})
	}()
	if err := <-seized; err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	info, _, _ := fother("info", "-p", a.pid())
	close(leave)
	<-left
	if !strings.Contains(info, "on trial until") && !strings.Contains(info, "applied") {
		t.Errorf("it was reverted although it was traced: %s", info)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitRefused || !strings.Contains(out.String(), "nobody accepted the patch") || !strings.Contains(out.String(), "tried again") {
		t.Errorf("%v, %s", err, out)
	}
	a.expect("2")
}

// TestTrialWithoutTheTool: the tool is killed while it waits; the next pull
// reverts what nobody accepted, and does not put it in again although the
// registry has it.
func TestTrialWithoutTheTool(t *testing.T) {
	prog := fixture(t)
	s := newShelf(t)
	patch := filepath.Join(t.TempDir(), "p.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	s.publish(prog.patch(t, "default", 1))
	a := ask(t, prog)
	pid := a.pid()
	cmd, _ := patchOnTrial(t, a, patch, "2s")
	ended := time.Now().Add(2 * time.Second)
	cmd.Process.Kill()
	cmd.Wait()
	s.pull(0, "", "-p", pid)
	if time.Now().Before(ended.Add(-time.Second)) {
		a.expect("41")
	}
	time.Sleep(time.Until(ended))
	s.pull(0, "would take out", "-p", pid, "--dry-run")
	s.pull(0, "reverted the-fix", "-p", pid)
	a.expect("2")
	s.pull(0, "was on trial and was not accepted", "-p", pid, "-v")
	a.expect("2")
	if _, errs, code := fother("patch", "-p", pid, patch); code != 0 {
		t.Errorf("patch: %d, %s", code, errs)
	}
	a.expect("41")
	s.publish(prog.patch(t, "default", 2)) // a higher level is another patch
	s.pull(0, "applied the-fix", "-p", pid)
	a.expect("42")
}
