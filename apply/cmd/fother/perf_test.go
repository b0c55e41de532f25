package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// spinSource is a program that calls answer all the time once it is told to.
const spinSource = `
#include <stdio.h>
volatile int one = 1;
__attribute__((noipa)) int answer(int x) { return x + one; }
__attribute__((noipa)) int other(int x) { return x - one; }
int main(void) { char l[9]; printf("%d\n", answer(1)); fflush(stdout); while (fgets(l, 9, stdin)) for (;;) answer(1); return 0; }
`

// TestPerfReport: perf names new functions by the map that is written for it.
func TestPerfReport(t *testing.T) {
	if !testenv.Long() {
		t.Skip("needs perf, and a kernel that lets it count: set FOTHER_LONG=1")
	}
	testenv.Needs(t, "perf")
	prog := compileSource(t, t.TempDir(), spinSource)
	patch := filepath.Join(prog.dir, "p.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	cmd := exec.Command(prog.bin)
	c := askCommand(t, cmd)
	c.expect("", "2")
	pid := strconv.Itoa(cmd.Process.Pid)
	if _, errs, code := fother("patch", "-p", pid, patch); code != 0 {
		t.Fatal(errs)
	}
	if _, err := fmt.Fprintln(c.in); err != nil { // it calls the new code from here on
		t.Fatal(err)
	}
	data := filepath.Join(prog.dir, "perf.data")
	record := exec.Command("perf", "record", "-q", "-e", "task-clock:u", "-c", "100000", "-o", data, "-p", pid, "--", "sleep", "2")
	if out, err := record.CombinedOutput(); err != nil {
		testenv.Skip(t, fmt.Sprintf("perf may not count: %v: %s", err, out))
	}
	names := "/tmp/perf-" + pid + ".map" // where perf looks for it
	if _, errs, code := fother("symbols", "-p", pid, "--map", names); code != 0 {
		t.Fatal(errs)
	}
	defer os.Remove(names)
	out, err := exec.Command("perf", "report", "--stdio", "-i", data, "--sort", "symbol").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "answer.kpatch") {
		t.Errorf("perf report: %v\n%s", err, out)
	}
}
