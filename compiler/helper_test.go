package compiler

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// fotherCC is the program under test, built once.
var fotherCC string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fother-cc")
	if err == nil {
		fotherCC = filepath.Join(dir, "fother-cc")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", fotherCC, "./cmd/fother-cc").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err == nil {
		err = os.Symlink("fother-cc", filepath.Join(dir, "fother-c++"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build fother-cc:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// tree writes files, given as name and content, to dir.
func tree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// plain runs the commands in dir without capture.
func plain(t testing.TB, dir string, commands ...string) {
	t.Helper()
	for _, c := range commands {
		cmd := exec.Command("sh", "-c", c)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
}

// capture runs the commands in dir with capture and loads the result.
func capture(t testing.TB, dir, store string, stage specs.Stage, env []string, commands ...string) *Capture {
	t.Helper()
	if err := Run(t.Context(), Options{Dir: dir, Commands: commands, Env: env, Store: store, Stage: stage, Shim: fotherCC}); err != nil {
		t.Fatal(err)
	}
	c, err := Load(store, stage)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// snapshot reads all regular files below dir.
func snapshot(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// binaries keeps of a snapshot what compilers and binutils made.
func binaries(files map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for name, data := range files {
		if bytes.HasPrefix(data, []byte("\x7fELF")) || bytes.HasPrefix(data, []byte("!<arch>")) {
			out[name] = data
		}
	}
	return out
}

// sameFiles fails the test if want and got differ, or hold nothing.
func sameFiles(t testing.TB, want, got map[string][]byte) {
	t.Helper()
	if len(want) == 0 {
		t.Error("nothing to compare")
	}
	for _, name := range sortedKeys(want) {
		if g, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		} else if !bytes.Equal(g, want[name]) {
			t.Errorf("%s differs", name)
		}
	}
	for _, name := range sortedKeys(got) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not made by a plain build", name)
		}
	}
}

func sortedKeys(m map[string][]byte) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// sources returns the base names of units, sorted.
func sources(units []*Unit) string {
	var names []string
	for _, u := range units {
		names = append(names, filepath.Base(u.Source))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// deliverable returns the deliverable with the given base name.
func deliverable(t testing.TB, c *Capture, base string) *Link {
	t.Helper()
	var have []string
	for _, l := range c.Deliverables() {
		if filepath.Base(l.Output) == base {
			return l
		}
		have = append(have, l.Output)
	}
	t.Fatalf("no deliverable %s among %q", base, have)
	return nil
}
