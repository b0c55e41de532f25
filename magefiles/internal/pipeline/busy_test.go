package pipeline

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

const coldC = `
#include <stdio.h>
#include <stdlib.h>
__attribute__((cold, noinline)) static int wait_for_line(void) {
	char line[64];
	puts("waiting");
	fflush(stdout);
	return fgets(line, sizeof line, stdin) ? atoi(line) : -1;
}
__attribute__((noinline)) static int work(int x) {
	if (x < 0)
		return wait_for_line() + 1000;
	return FACTOR * x;
}
const char *answer(const char *request) {
	static char out[64];
	snprintf(out, sizeof out, "%d", work(atoi(request)));
	return out;
}
`

// TestBusyInColdPart: a thread that waits in the part of a function that the
// compiler moved away is inside the function.
func TestBusyInColdPart(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"src/main.c": askMain, "src/unit.c": strings.Replace(coldC, "FACTOR", "2", 1),
		"new/unit.c": strings.Replace(coldC, "FACTOR", "3", 1),
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	diff := exec.Command("diff", "-u", "src/unit.c", "new/unit.c")
	diff.Dir = dir
	patch, _ := diff.Output() // exit status 1: the files differ
	patch = bytes.Replace(patch, []byte("+++ new/"), []byte("+++ src/"), 1)
	if err := os.WriteFile(filepath.Join(dir, "fix.patch"), patch, 0o644); err != nil {
		t.Fatal(err)
	}
	s := specs.Spec{
		Name: "cold", Dir: filepath.Join(dir, "src"), Patches: []string{filepath.Join(dir, "fix.patch")},
		Build: []string{"gcc -O2 -Wl,--build-id -o cold main.c unit.c"}, Series: specs.DefaultSeries, Level: 1,
	}
	o := Options{Work: filepath.Join(dir, "work"), Shim: bin.cc}
	paths, err := Make(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if p, err := kpack.Decode(data); err != nil || p.Functions[0].Cold.Size() == 0 {
		t.Fatalf("the case does not test what it should: %+v, %v", p, err)
	}
	p := ask(t, filepath.Join(FolderOf(s, o).Original(), "cold"))
	if got := p.answer("5"); got != "10" {
		t.Fatalf("before: %s", got)
	}
	if got := p.answer("-1"); got != "waiting" {
		t.Fatalf("inside: %s", got)
	}
	if out := fother(t, 4, "patch", "-p", p.pid(), "--wait", "100ms", paths[0]); !strings.Contains(out, "work") {
		t.Errorf("the refusal does not name the function:\n%s", out)
	}
	if got := p.answer("7"); got != "1007" {
		t.Errorf("while refused: %s", got)
	}
	fother(t, 0, "patch", "-p", p.pid(), paths[0])
	if got := p.answer("5"); got != "15" {
		t.Errorf("patched: %s", got)
	}
}

// TestThreadsThatEnded: the stacks that the C library keeps of threads that ran
// patched code and ended do not keep the patch in memory.
func TestThreadsThatEnded(t *testing.T) {
	f := makeSample(t, "server")
	cmd := exec.Command(filepath.Join(f.Original(), "server"))
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
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port := strings.TrimSpace(line[strings.LastIndexByte(line, ':')+1:])
	attack := func(want string) {
		t.Helper()
		out, _ := exec.Command(filepath.Join(f.Original(), "attack"), port).CombinedOutput()
		if !strings.HasPrefix(string(out), want) {
			t.Errorf("attack: %s, want %s", out, want)
		}
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	attack("FALLEN") // and one stack is kept
	before := memory(t, pid)
	fother(t, 0, "patch", "-p", pid, f.Patches())
	attack("HELD")
	fother(t, 0, "unpatch", "-p", pid)
	attack("FALLEN")
	sameMemory(t, before, memory(t, pid))
}
