package patch

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fother/fother/magefiles/internal/pipeline"
)

// elsewhere is the magefile of somebody else's project, as the README shows it.
const elsewhere = `//go:build mage

package main

import (
	//mage:import
	"github.com/fother/fother/magefiles/patch"
)

// Aliases lets "go tool mage patch SPEC" make a patch.
var Aliases = map[string]any{"patch": patch.Patch.All}
`

// module is a Go module of its own that imports the targets.
type module struct {
	t   *testing.T
	dir string
}

func newModule(t *testing.T) *module {
	t.Helper()
	m := &module{t, t.TempDir()}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllLiteralString(string(mod), "module example.com/elsewhere")
	m.write("go.mod", text+"\nrequire github.com/fother/fother v0.0.0\nreplace github.com/fother/fother => "+root+"\n")
	m.write("go.sum", string(sum))
	m.write("magefile.go", elsewhere)
	m.write("src/hello.c", "#include <stdio.h>\nint main(void)\n{\n\treturn puts(\"hello\") < 0;\n}\n")
	m.write("src/Makefile", "hello: hello.c\n\t$(CC) -O2 -Wl,--build-id -o $@ $<\n")
	m.write("fix.patch", "--- a/hello.c\n+++ b/hello.c\n@@ -3,3 +3,3 @@\n {\n-\treturn puts(\"hello\") < 0;\n+\treturn puts(\"hello, world\") < 0;\n }\n")
	m.write("spec.yaml", "name: hello\nsource: src\npatches: [fix.patch]\nbuild: [make]\nlevel: 2\n")
	return m
}

func (m *module) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// mage runs a target, and fails the test unless it ends with the exit status.
// A compiler that is in the folder bin comes first.
func (m *module) mage(exit int, args ...string) string {
	m.t.Helper()
	cmd := m.command(args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exit {
		m.t.Fatalf("mage %s: %v, want exit status %d\n%s", strings.Join(args, " "), err, exit, out)
	}
	return string(out)
}

func (m *module) command(args ...string) *exec.Cmd {
	cmd := exec.Command("go", append([]string{"tool", "mage"}, args...)...)
	cmd.Dir = m.dir
	// CGO_ENABLED: else go build asks gcc for its version.
	cmd.Env = append(os.Environ(), "PWD="+m.dir, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "CGO_ENABLED=0",
		"FOTHER_WORK=", "FOTHER_REGISTRY=", "FOTHER_KEYS=", "PATH="+filepath.Join(m.dir, "bin")+":"+os.Getenv("PATH"))
	return cmd
}

// report runs patch:diff -json, and returns what it prints on standard output.
// The test fails unless that is a report and nothing else, and the exit status
// is the given one.
func (m *module) report(exit int, spec string) (r pipeline.Report) {
	m.t.Helper()
	cmd := m.command("patch:diff", spec, "-json")
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exit {
		m.t.Fatalf("%v: %v, want exit status %d\n%s", cmd.Args, err, exit, out)
	}
	if err := json.Unmarshal(out, &r); err != nil || r.Version != pipeline.ReportVersion {
		m.t.Fatalf("version %d, %v:\n%s", r.Version, err, out)
	}
	return r
}

func (m *module) has(names ...string) {
	m.t.Helper()
	for _, name := range names {
		if found, err := filepath.Glob(filepath.Join(m.dir, ".fother", name)); err != nil || len(found) == 0 {
			m.t.Errorf("there is no %s", name)
		}
	}
}

// TestImported: a project of its own has the targets by //mage:import, and
// makes, verifies and publishes a patch with them.
func TestImported(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds a magefile")
	}
	m := newModule(t)
	list := m.mage(0, "-l")
	for _, target := range []string{
		"patch:all", "patch:build", "patch:diff", "patch:pack", "patch:verify", "patch:publish", "patch:promote", "patch:revoke", "patch:list",
		"registry:init", "registry:refresh", "registry:list", "registry:key", "registry:keys", "registry:rotate", "registry:sign", "registry:fetch",
	} {
		if !regexp.MustCompile(`(?m)^ +` + target + `\*? +\S`).MatchString(list) {
			t.Errorf("no target %s:\n%s", target, list)
		}
	}
	m.mage(2, "patch:build", "nospec.yaml")
	if out := m.mage(1, "patch:pack", "spec.yaml"); !strings.Contains(out, "the build is missing") || !strings.Contains(out, "patch:build spec.yaml") {
		t.Errorf("pack before build says:\n%s", out)
	}
	if out := m.mage(0, "patch", "spec.yaml"); !strings.HasSuffix(out, "\n.fother/hello-2/hello-2.kpatch.tar.zst\n") {
		t.Errorf("the last line is not the bundle's path:\n%s", out)
	}
	m.has("hello-2/patches/*.kpatch", "hello-2/hello-2.kpatch.tar.zst", "hello-2/original/hello")

	if out := m.mage(0, "patch:diff", "spec.yaml"); !strings.Contains(out, "changed  main: ") {
		t.Errorf("patch:diff says\n%s", out)
	}
	if out := m.mage(0, "patch:diff", "spec.yaml", "-v"); !strings.Contains(out, "patch assembly: diff/") {
		t.Errorf("patch:diff -v says\n%s", out)
	}
	if r := m.report(0, "spec.yaml"); r.Result != pipeline.Patchable || len(r.Units) != 1 {
		t.Errorf("report %+v", r)
	}
	m.write("bad.patch", "--- a/hello.c\n+++ b/hello.c\n@@ -1,2 +1,3 @@\n #include <stdio.h>\n+__attribute__((constructor)) static void early(void) { puts(\"early\"); }\n int main(void)\n")
	m.write("bad.yaml", "name: bad\nsource: src\npatches: [bad.patch]\nbuild: [make]\n")
	m.mage(0, "patch:build", "bad.yaml")
	if out := m.mage(4, "patch:diff", "bad.yaml"); strings.Count(out, "hint: ") != 1 || !strings.Contains(out, "the report says why") {
		t.Errorf("patch:diff of a fix that is refused says\n%s", out)
	}
	if r := m.report(4, "bad.yaml"); r.Result != pipeline.Refused || len(r.Refusals) != 1 || r.Refusals[0].Hint == "" {
		t.Errorf("report %+v", r)
	}

	gcc, err := exec.LookPath("cc")
	if err != nil {
		t.Fatal(err)
	}
	m.mage(0, "registry:init")
	m.mage(0, "patch:publish", "spec.yaml")
	if out := m.mage(0, "registry:list"); !strings.Contains(out, "hello") {
		t.Errorf("the registry lists\n%s", out)
	}
	m.mage(1, "registry:init")
	if out := m.mage(0, "patch:verify", "spec.yaml", "-rebuild"); !strings.Contains(out, "hello: rebuild: the same ") || !strings.Contains(out, "hosts take it") {
		t.Errorf("a rebuild says\n%s", out)
	}
	if out := m.mage(0, "registry:fetch", "hello-2", "-to=fetched"); !strings.Contains(out, "fetched/provenance.intoto.json\n") {
		t.Errorf("what is fetched:\n%s", out)
	}
	m.mage(2, "patch:verify", "spec.yaml", "-bundle=fetched/hello-2.kpatch.tar.zst")
	if out := m.mage(0, "patch:promote", "hello-2"); !strings.Contains(out, "in stable already") {
		t.Errorf("patch:promote says\n%s", out)
	}
	m.mage(2, "patch:promote", "hello")
	m.mage(0, "registry:rotate", "package.hello")
	m.mage(0, "patch:revoke", "hello-2", "it says too much")
	if out := m.mage(0, "patch:list"); !strings.Contains(out, "revoked: it says too much") {
		t.Errorf("patch:list says\n%s", out)
	}
	if out := m.mage(0, "registry:keys"); !strings.Contains(out, "package.hello.pem") {
		t.Errorf("registry:keys says\n%s", out)
	}
	m.mage(0, "registry:refresh")

	// Again, with compilers that tell when they are run. They are other
	// programs than before, so all is made once more, and then nothing.
	for _, name := range []string{"cc", "gcc"} {
		m.write("bin/"+name, fmt.Sprintf("#!/bin/sh\necho run >>%s/log\nexec %s \"$@\"\n", m.dir, gcc))
		if err := os.Chmod(filepath.Join(m.dir, "bin", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out := m.mage(1, "patch:publish", "spec.yaml"); !strings.Contains(out, "not up to date") {
		t.Errorf("a stale build is published:\n%s", out)
	}
	m.mage(0, "patch:all", "spec.yaml")
	first, err := os.ReadFile(filepath.Join(m.dir, "log"))
	if err != nil {
		t.Fatal("the compiler was not run")
	}
	if out := m.mage(0, "patch:all", "spec.yaml"); strings.Count(out, "up to date") != 4 {
		t.Errorf("a second run says:\n%s", out)
	}
	if second, _ := os.ReadFile(filepath.Join(m.dir, "log")); len(second) != len(first) {
		t.Errorf("a second run started a compiler %d times", (len(second)-len(first))/4)
	}
}
