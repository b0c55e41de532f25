package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// splitTool builds the two programs into a folder of their own, and returns the
// one that leaves registries to the other.
func splitTool(t testing.TB) string {
	t.Helper()
	tool := filepath.Join(t.TempDir(), "fother")
	for path, tags := range map[string]string{tool: "split", filepath.Join(filepath.Dir(tool), wholeName): ""} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-w", "-tags", tags, "-o", path, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return tool
}

// TestSplit: a program that has no code for registries does all else by itself, and
// leaves these to the one beside it, with process id, signals and exit status.
func TestSplit(t *testing.T) {
	testenv.Needs(t, "go", "gcc", "as", "ld")
	tool, prog, s := splitTool(t), fixture(t), newShelf(t)
	patch := filepath.Join(t.TempDir(), "p.kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	s.publish(prog.patch(t, "default", 2))
	c := ask(t, prog)
	do := func(code int, want string, args ...string) {
		t.Helper()
		cmd := exec.Command(tool, args...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
			t.Errorf("fother %v: %v, exit %d, %s: want %d, %q", args, err, got, out, code, want)
		}
	}
	pull := []string{"pull", "--registry", s.dir, "--root", s.root, "--state", s.state, "-p", c.pid()}
	shown := []string{"show", "--registry", s.dir, "--root", s.root, s.bundle}
	run := []string{"run", "--registry", s.dir, "--root", s.root, "--state", s.state, "--"}

	do(0, "applied", "patch", "-p", c.pid(), patch)
	c.expect("41")
	do(0, "1 bundle applied", pull...)
	c.expect("42")
	do(0, "reverted", "unpatch", "-p", c.pid())
	c.expect("2")
	do(0, "lists it for package the-fix", shown...)
	do(0, "usage: fother pull", "pull", "-h")
	do(7, "", append(run, "sh", "-c", "exit 7")...)
	// The program has the signals ignored that the first one was started with.
	for _, trap := range []string{"", "trap '' PIPE USR1;"} {
		var told [2]string
		for i, before := range [][]string{append([]string{tool}, run...), nil} {
			args := append([]string{"-c", trap + `exec "$@"`, "sh"}, append(before, "grep", "SigIgn", "/proc/self/status")...)
			out, err := exec.Command("sh", args...).Output()
			if err != nil {
				t.Error(err)
			}
			told[i] = string(out)
		}
		if told[0] != told[1] {
			t.Errorf("%q: %q: want %q", trap, told[0], told[1])
		}
	}

	whole := filepath.Join(filepath.Dir(tool), wholeName)
	if err := os.Chmod(whole, 0o777); err != nil {
		t.Fatal(err)
	}
	do(1, "everybody can write it", pull...)
	if err := os.Remove(whole); err != nil {
		t.Fatal(err)
	}
	do(2, "no registry is named", "pull")
	do(1, "hint: build it with: CGO_ENABLED=0 go build", pull...)
	do(1, whole, shown...)
	do(1, whole, append(run, "true")...)
	if err := os.Symlink(tool, whole); err != nil {
		t.Fatal(err)
	}
	do(1, "was built with -tags split", pull...)
	do(3, "", "unpatch", "-p", c.pid())
	c.expect("2")
}

// TestSplitImports: the smaller program has no network in it.
func TestSplitImports(t *testing.T) {
	testenv.Needs(t, "go")
	network := regexp.MustCompile(`(?m)^(net|net/http|crypto/tls|.*\.(org|com|dev|land)/.*(tuf|sigstore|minio|oras|getter).*)$`)
	for tags, want := range map[string]bool{"split": false, "": true} {
		out, err := exec.Command("go", "list", "-deps", "-tags", tags, ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := network.Find(out); (got != nil) != want {
			t.Errorf("-tags %q: %q is in it", tags, got)
		}
	}
}
