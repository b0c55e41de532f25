package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// headlessSource is a program whose first thread ends before the others.
const headlessSource = `
#include <pthread.h>
#include <unistd.h>
volatile int one = 1;
__attribute__((noipa)) int answer(int x) { return x + one; }
__attribute__((noipa)) int other(int x) { return x - one; }
static void *go_on(void *a) { for (;;) { answer(1); other(1); pause(); } return a; }
int main(void) { pthread_t t; if (pthread_create(&t, 0, go_on, 0)) return 1; pthread_exit(0); }
`

// TestHeadless: a process whose first thread has ended is told as what it is, by
// commands that would change it; where there is nothing for it, nothing is wrong.
func TestHeadless(t *testing.T) {
	prog := compileSource(t, t.TempDir(), headlessSource, "-pthread")
	patch, other := filepath.Join(prog.dir, "p.kpatch"), filepath.Join(prog.dir, "other.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	write(t, other, foreign(t, prog.patch(t, "default", 1), "00112233445566778899aabbccddeeff00112233"))
	cmd := exec.Command(prog.bin)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pid := strconv.Itoa(cmd.Process.Pid)
	for end := time.Now().Add(time.Minute); !ended(t, pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its first thread does not end")
		}
	}
	s := newShelf(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"info -p " + pid, exitDone, "note: its first thread has ended"},
		{"info -p " + pid + " --json", exitDone, `"headless": true`},
		{"info -p all -b " + string(prog.id), exitDone, "note: its first thread has ended"},
		{"patch -p " + pid + " " + patch, exitRefused, "its first thread has ended"},
		{"patch -p all " + patch, exitRefused, "process " + pid + ": its first thread has ended"},
		{"patch -p all --dry-run " + patch, exitRefused, "process " + pid + ": its first thread has ended"},
		{"patch -p all " + other, exitNothing, "nothing to do"},
		{"unpatch -p " + pid, exitRefused, "its first thread has ended"},
	} {
		stdout, stderr, code := fother(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) || c.code == exitNothing && strings.Contains(stdout+stderr, pid) {
			t.Errorf("fother %s: exit %d, %q, %q: want %d, %q", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
	s.publish(foreign(t, prog.patch(t, "default", 2), "00112233445566778899aabbccddeeff00112233"))
	s.pull(exitDone, "0 bundles", "-v", "-p", pid)
	s.publish(prog.patch(t, "default", 1))
	s.pull(exitRefused, "its first thread has ended", "-p", pid)
}

// ended reports whether the first thread of a process has.
func ended(t *testing.T, pid string) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(status), "\nState:\tZ")
}
