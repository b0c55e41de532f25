package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fother runs the command line and returns what it wrote and its exit code.
func fother(args ...string) (stdout, stderr string, code int) {
	var out, err bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &err)
	return out.String(), err.String(), code
}

// TestWhatTheToolLinks holds a line: what runs as root never links
// the compiler or the differ.
func TestWhatTheToolLinks(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(out)) {
		rest, ours := strings.CutPrefix(strings.TrimSpace(dep), "github.com/fother/fother/")
		top, _, _ := strings.Cut(rest, "/")
		if ours && (top == "compiler" || top == "differ" || top == "magefiles") {
			t.Errorf("fother links %s", rest)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string // in stdout or stderr
	}{
		{"", 2, "usage: fother"},
		{"-h", 0, "usage: fother"},
		{"patch -h", 0, "usage: fother patch"},
		{"-v info", 2, "-v: options come after the command"},
		{"frobnicate", 2, `fother: error: "frobnicate" is not a command`},
		{"patch x.kpatch", 2, "fother: error: -p PID or -p all is missing"},
		{"patch -p 1", 2, "fother: error: no patch file is named"},
		{"patch -p 1 /nonexistent", 1, "no such file"},
		{"patch -p zero x", 2, "want a process id or all"},
		{"patch -p 1 --wait -5s x", 2, "not below 0"},
		{"help unpatch", 0, "usage: fother unpatch"},
		{"unpatch -p -3", 2, "flag -p: want a process id or all"},
		{"unpatch -p 1 nothex", 2, "hexadecimal"},
		{"unpatch -p 1 abcd:.x", 2, "series"},
		{"info -p x", 2, "want a process id"},
		{"info 12", 2, "takes no argument"},
		{"info --frob", 2, "frob"},
		{"info -p 4194303", 1, "fother: error: process 4194303: the process is gone"},
	} {
		out, err, code := fother(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+err, c.want) {
			t.Errorf("fother %s: exit %d, %q, %q: want %d, %q", c.args, code, out, err, c.code, c.want)
		}
	}
}

// brokenWriter fails with an error.
type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestLostOutputIsAnError(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{syscall.ENOSPC, 1},
		{syscall.EPIPE, 0}, // who closes a pipe has read enough
	} {
		var stderr bytes.Buffer
		code := run(t.Context(), []string{"info", "-p", strconv.Itoa(os.Getpid())}, nil, brokenWriter{c.err}, &stderr)
		if code != c.code || (code == 0) != (stderr.Len() == 0) {
			t.Errorf("%v: exit %d, %q: want %d", c.err, code, stderr.String(), c.code)
		}
	}
}

func TestPatchFilesMustBeTrusted(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.kpatch")
	write := func(mode os.FileMode) {
		os.Remove(file)
		if err := os.WriteFile(file, []byte("no patch"), mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(file, mode)
	}
	check := func(want string) {
		t.Helper()
		_, err, code := fother("patch", "-p", "1", file)
		if code != 1 || !strings.Contains(err, want) {
			t.Errorf("exit %d, %q: want %q", code, err, want)
		}
	}
	write(0o644)
	check("x.kpatch: ") // what is wrong with its content
	write(0o666)
	check("everybody can write it")
	write(0o644)
	os.Chmod(dir, 0o777)
	check(dir + ": everybody can write it")
	os.Chmod(dir, 0o755)
	if os.Getuid() == 0 {
		os.Chown(file, 65534, 0)
		check("it belongs to user 65534")
	}
	os.Remove(file)
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	check("not a regular file")
	if _, err, code := fother("patch", "-p", "1", t.TempDir()); code != 1 || !strings.Contains(err, "holds no .kpatch files") {
		t.Errorf("empty folder: exit %d, %q", code, err)
	}
}

func TestDamagedPatchFiles(t *testing.T) {
	data := fixture(t).patch(t, "default", 1)
	for name, bad := range map[string][]byte{
		"empty": nil, "half": data[:len(data)/2], "short": data[:len(data)-1], "text": []byte("#!/bin/sh\n"),
		"flipped": append(append(bytes.Clone(data[:len(data)/2]), data[len(data)/2]^1), data[len(data)/2+1:]...),
	} {
		path := filepath.Join(t.TempDir(), name+".kpatch")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, code := fother("patch", "-p", strconv.Itoa(os.Getpid()), path)
		if code == 0 || !strings.HasPrefix(stderr, "fother: error: ") {
			t.Errorf("%s: exit %d, %q", name, code, stderr)
		}
	}
}

func TestPatchInfoUnpatch(t *testing.T) {
	prog := fixture(t)
	patch := filepath.Join(t.TempDir(), "fix.kpatch")
	if err := os.WriteFile(patch, prog.patch(t, "default", 1), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(prog.bin)
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
	defer cmd.Wait()
	defer cmd.Process.Kill()
	answer := func() string {
		var s string
		fmt.Fprintln(in)
		fmt.Fscan(out, &s)
		return s
	}
	folder := t.TempDir() // in which nothing is left
	for _, name := range []string{"TMPDIR", "HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"} {
		t.Setenv(name, folder)
	}
	t.Chdir(folder)
	defer func() {
		if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
			t.Errorf("files are left: %v, %v", left, err)
		}
	}()
	pid := strconv.Itoa(cmd.Process.Pid)
	step := func(code int, want string, args ...string) string {
		t.Helper()
		stdout, stderr, got := fother(args...)
		if got != code || !strings.Contains(stdout+stderr, want) {
			t.Errorf("fother %v: exit %d, %q, %q: want %d, %q", args, got, stdout, stderr, code, want)
		}
		return stdout
	}
	if got := answer(); got != "2" {
		t.Errorf("before: %s", got)
	}
	step(0, "would apply the-fix", "patch", "-p", pid, "--dry-run", patch)
	step(3, "no such patch is applied", "unpatch", "-p", pid)
	step(0, "stopped for ", "patch", "-p", pid, filepath.Dir(patch))
	if got := answer(); got != "41" {
		t.Errorf("patched: %s", got)
	}
	step(3, "already applied", "patch", patch, "-p", pid) // options may follow
	step(0, "applied: the-fix (series default, level 1) to prog: answer", "info", "-p", pid)
	var infos []processInfo
	if err := json.Unmarshal([]byte(step(0, "", "info", "-p", pid, "--json")), &infos); err != nil || len(infos) != 1 || len(infos[0].Applied) != 1 {
		t.Errorf("info --json: %v, %+v", err, infos)
	}
	id := string(infos[0].Applied[0].BuildID)
	step(3, "no such patch", "unpatch", "-p", pid, id+":other")
	var outcomes []outcome
	if err := json.Unmarshal([]byte(step(0, "", "unpatch", "-p", pid, "--json", id+":default")), &outcomes); err != nil ||
		len(outcomes) != 1 || outcomes[0].Result == nil || outcomes[0].Result.Stop.Total <= 0 {
		t.Errorf("unpatch --json: %v, %+v", err, outcomes)
	}
	if got := answer(); got != "2" {
		t.Errorf("reverted: %s", got)
	}
	step(4, "fother: hint: a patch fits only the build", "patch", "-p", strconv.Itoa(os.Getpid()), patch)
}
