package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

const levelsC = `#include <stdio.h>
#include <string.h>
__attribute__((noinline)) static int level(void)
{
	return 0;
}
const char *answer(const char *request)
{
	static char out[64];
	snprintf(out, sizeof out, "%d", level() + (int)strlen(request));
	return out;
}
`

// newLevels makes a project whose level n has n patches, each of which raises
// what it answers by ten. It is built with debug data, in which the paths of
// the build are.
func newLevels(t *testing.T) (at func(specs.Level) (specs.Spec, Options)) {
	t.Helper()
	p := newProject(t)
	p.write("src/a.c", levelsC)
	p.write("src/main.c", askMain)
	for n := range 3 {
		p.write(fmt.Sprintf("fix%d.patch", n+1), fmt.Sprintf(
			"--- a/a.c\n+++ b/a.c\n@@ -4,3 +4,3 @@\n {\n-\treturn %d;\n+\treturn %d;\n }\n", 10*n, 10*n+10))
	}
	p.o.Registry, p.o.Keys = filepath.Join(p.dir, "registry"), filepath.Join(p.dir, "keys")
	return func(level specs.Level) (specs.Spec, Options) {
		s := p.spec
		s.Name, s.Level, s.Patches = "levels", level, nil
		s.Build = []string{"gcc -g -O2 -Wl,--build-id -o levels a.c main.c"}
		for n := range level {
			s.Patches = append(s.Patches, filepath.Join(p.dir, fmt.Sprintf("fix%d.patch", n+1)))
		}
		return s, p.o
	}
}

// TestLevels: one process is taken from level to level, each made by a run of
// its own from the same source, and back to where it was.
func TestLevels(t *testing.T) {
	at := newLevels(t)
	var folders []Folder
	for level := range specs.Level(3) {
		s, o := at(level + 1)
		if _, err := Make(t.Context(), s, o); err != nil {
			t.Fatal(err)
		}
		folders = append(folders, FolderOf(s, o))
	}
	a := ask(t, filepath.Join(folders[0].Original(), "levels"))
	expect := func(state, want string) {
		t.Helper()
		if got := a.answer(""); got != want {
			t.Errorf("%s: answer %s, want %s", state, got, want)
		}
	}
	expect("before", "0")
	before := memory(t, a.pid())
	for i, f := range folders {
		fother(t, 0, "patch", "-p", a.pid(), f.Bundle(specs.Spec{Name: "levels", Level: specs.Level(i + 1)}))
		expect(fmt.Sprintf("level %d", i+1), fmt.Sprint(10*(i+1)))
		if out := fother(t, 0, "info", "-p", a.pid()); strings.Count(out, "applied:") != 1 || !strings.Contains(out, fmt.Sprintf("level %d", i+1)) {
			t.Errorf("level %d: info says\n%s", i+1, out)
		}
	}
	fother(t, 3, "patch", "-p", a.pid(), folders[0].Patches())
	expect("an older level after a newer", "30")
	fother(t, 0, "unpatch", "-p", a.pid())
	expect("reverted", "0")
	sameMemory(t, before, memory(t, a.pid()))
}

// TestPull: a process gets what the registry has for it, one level after the
// other as they are published, and a new process the highest at once.
func TestPull(t *testing.T) {
	at := newLevels(t)
	_, o := at(1)
	if err := InitRegistry(t.Context(), o, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	pull := func(a *asked) string {
		t.Helper()
		return fother(t, 0, "pull", "-v", "--registry", o.Registry, "--root", Root(o), "--state", state, "-p", a.pid())
	}
	var a *asked
	for level := range specs.Level(3) {
		s, _ := at(level + 1)
		if err := Publish(t.Context(), s, o); err == nil || !is[*StaleError](err) {
			t.Fatalf("published before it was made: %v", err)
		}
		if _, err := Make(t.Context(), s, o); err != nil {
			t.Fatal(err)
		}
		if a == nil {
			a = ask(t, filepath.Join(FolderOf(s, o).Original(), "levels"))
			pull(a)
			if got := a.answer(""); got != "0" {
				t.Errorf("nothing is published: answer %s", got)
			}
		}
		for range 2 { // the second time there is nothing to do
			if err := Publish(t.Context(), s, o); err != nil {
				t.Fatal(err)
			}
			out := pull(a)
			if got, want := a.answer(""), fmt.Sprint(10*(level+1)); got != want {
				t.Errorf("level %d is published: answer %s, want %s\n%s", level+1, got, want, out)
			}
		}
	}
	fresh := ask(t, a.cmd.Path)
	out := pull(fresh)
	if got := fresh.answer(""); got != "30" || strings.Count(out, "applied levels") != 1 {
		t.Errorf("a new process answers %s:\n%s", got, out)
	}
	checkListing(t, o)
}

// checkListing checks that the registry has three levels of one build-id, the highest first: all
// were made from one original.
func checkListing(t *testing.T, o Options) {
	t.Helper()
	p, err := registry.Open(o.Registry, o.Keys)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := p.List(t.Context())
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
	for i, e := range entries {
		if e.Level != specs.Level(3-i) || e.BuildID != entries[0].BuildID {
			t.Errorf("entry %+v", e)
		}
	}
	b, err := json.Marshal(entries)
	if err != nil || !strings.Contains(string(b), "levels-2.kpatch.tar.zst") {
		t.Errorf("%s, %v", b, err)
	}
}

// TestPublishRefuses: nothing is published that is not what was verified.
func TestPublishRefuses(t *testing.T) {
	at := newLevels(t)
	s, o := at(1)
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	if err := Publish(t.Context(), s, o); !errors.Is(err, registry.ErrNotFound) || !strings.Contains(Explain(err).Error(), "registry:init") {
		t.Errorf("without a registry: %v", err)
	}
	if err := InitRegistry(t.Context(), o, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	bundle := FolderOf(s, o).Bundle(s)
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bundle, append(data, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Publish(t.Context(), s, o); !is[*StaleError](err) {
		t.Errorf("another bundle: %v", err)
	}
	if err := os.WriteFile(bundle, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Publish(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	s.Description = "the same level, another text"
	if _, err := Make(t.Context(), s, o); err != nil {
		t.Fatal(err)
	}
	if err := Publish(t.Context(), s, o); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("another bundle of one level: %v", err)
	}
}
