package specfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
)

// folder makes a spec's folder with a source tree, two patches and ways out.
func folder(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spec")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "src"), 0o755),
		os.WriteFile(filepath.Join(dir, "a.patch"), []byte("a"), 0o644),
		os.WriteFile(filepath.Join(dir, "b.patch"), []byte("b"), 0o644),
		os.WriteFile(filepath.Join(dir, "empty.patch"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "..", "out.patch"), []byte("o"), 0o644),
		os.Symlink("../out.patch", filepath.Join(dir, "link.patch")),
		os.Symlink("a.patch", filepath.Join(dir, "inner.patch")),
		os.Symlink("..", filepath.Join(dir, "up")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const everything = `
name: nginx-1.22
description: |
  two
  lines
source: src
patches: [a.patch, b.patch]
configure:
  - ./configure --with-cc-opt="$CFLAGS"
build:
  - make -j2
  - 'make "second: half"'
env:
  CFLAGS: -O2 -g
  JOBS: 2
  EMPTY: ""
targets: [objs/nginx, ./lib//x.so]
series: security
level: 7
cves: [CVE-2026-0001, CVE-2026-123456]
`

func TestParse(t *testing.T) {
	dir := folder(t)
	got, err := specfile.Parse("x.yaml", dir, []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	want := specs.Spec{
		Name:        "nginx-1.22",
		Description: "two\nlines",
		Dir:         filepath.Join(dir, "src"),
		Patches:     []string{filepath.Join(dir, "a.patch"), filepath.Join(dir, "b.patch")},
		Configure:   []string{`./configure --with-cc-opt="$CFLAGS"`},
		Build:       []string{"make -j2", `make "second: half"`},
		Env:         []string{"CFLAGS=-O2 -g", "JOBS=2", "EMPTY="},
		Targets:     []string{"objs/nginx", "lib/x.so"},
		Series:      "security",
		Level:       7,
		CVEs:        []string{"CVE-2026-0001", "CVE-2026-123456"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParseDefaults(t *testing.T) {
	dir := folder(t)
	out := filepath.Join(filepath.Dir(dir), "out.patch")
	got, err := specfile.Parse("x.yaml", dir, []byte("name: n\npatches: ["+out+", inner.patch]\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := specs.Spec{
		Name: "n", Dir: dir, Patches: []string{out, filepath.Join(dir, "inner.patch")},
		Build: []string{"make"}, Series: specs.DefaultSeries, Level: 1,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestParseErrors gives one mistake after the other, and what is said of it.
func TestParseErrors(t *testing.T) {
	dir := folder(t)
	const good = "name: n\npatches: [a.patch]\n"
	tests := []struct{ name, in, want string }{
		{"empty", "", `x.yaml:1:1: the spec is empty`},
		{"scalar", "hello", `x.yaml:1:1: want a mapping`},
		{"list", "# c\n- a", `x.yaml:2:1: want a mapping`},
		{"syntax", "name: n\npatches: [a.patch\nlevel: 2\n", `not YAML: did not find expected`},
		{"tab", good + "level:\t{", `x.yaml:3:`},
		{"second document", good + "---\nname: m\n", `x.yaml:3:1: a second document`},
		{"broken second document", good + "---\n[", `not YAML`},
		{"missing", "level: 1\n", "x.yaml:1:1: \"name\" is missing\nx.yaml:1:1: \"patches\" is missing"},
		{"unknown near", good + "lvel: 1\n", `x.yaml:3:1: unknown key "lvel": did you mean "level"?`},
		{"unknown swapped", good + "biuld: [make]\n", `did you mean "build"?`},
		{"unknown case", good + "CVEs: []\n", `did you mean "cves"?`},
		{"unknown far", good + "consistency: x\n", `unknown key "consistency": want one of name, description`},
		{"merge", good + "<<: {level: 2}\n", `x.yaml:3:1: unknown key "<<"`},
		{"twice", good + "name: m\n", `x.yaml:3:1: "name" is here a second time, the first is in line 1`},
		{"key not a word", good + "[a]: b\n", `x.yaml:3:1: want a word as key`},
		{"alias", "name: &n n\nseries: *n\npatches: [a.patch]\n", "x.yaml:1:7: anchor &n: a spec has no anchors\nx.yaml:2:9: alias *n"},
		{"alias in list", "name: n\npatches: [&a a.patch, *a]\n", `x.yaml:2:23: alias *a`},
		{"alias as key", "name: &n n\n*n : m\n", `x.yaml:2:1: alias *n`},
		{"tag", good + "level: !!str 1\n", `x.yaml:3:8: tag !!str`},
		{"own tag", "name: !x n\npatches: [a.patch]\n", `x.yaml:1:7: tag !x`},
		{"number as name", "name: 12\npatches: [a.patch]\n", `x.yaml:1:7: want a name: put 12 in quotes`},
		{"null name", "name:\npatches: [a.patch]\n", `want a name`},
		{"bad name", "name: a/b\npatches: [a.patch]\n", `x.yaml:1:7: name "a/b": want 1 to 64 letters`},
		{"patches scalar", "name: n\npatches: a.patch\n", `x.yaml:2:10: want a list of patches, such as [a, b]`},
		{"patches empty", "name: n\npatches: []\n", `x.yaml:2:10: want a list of patches with at least 1`},
		{"patch gone", "name: n\npatches: [a.patch, c.patch]\n", `c.patch: no such file or directory`},
		{"patch is folder", "name: n\npatches: [src]\n", `x.yaml:2:11: path "src": want a file`},
		{"patch empty", "name: n\npatches: [empty.patch]\n", `want a file that is not empty`},
		{"patch outside", "name: n\npatches: [../out.patch]\n", `path "../out.patch" leads out of the spec's folder`},
		{"patch outside by link", "name: n\npatches: [link.patch]\n", `path "link.patch" leads out of the spec's folder`},
		{"patch through link", "name: n\npatches: [up/out.patch]\n", `leads out of the spec's folder`},
		{"source is file", good + "source: a.patch\n", `x.yaml:3:9: path "a.patch": want a folder`},
		{"source outside", good + "source: ..\n", `leads out of the spec's folder`},
		{"command list", good + "build: [make, [x]]\n", `x.yaml:3:15: want a shell command`},
		{"command with colon", good + "build:\n - echo a: b\n", `x.yaml:4:4: want a shell command; a text with ": " in it needs quotes`},
		{"command number", good + "build: [1]\n", `x.yaml:3:9: want a shell command: put 1 in quotes`},
		{"command empty", good + "build: [\"\"]\n", `want a shell command, not an empty one`},
		{"command with NUL", good + "build: [\"a\\0b\"]\n", `without a NUL`},
		{"no commands", good + "build: []\n", `at least 1`},
		{"env list", good + "env: [A]\n", `x.yaml:3:6: want a mapping of variables`},
		{"env name", good + "env: {A-B: x}\n", `x.yaml:3:7: variable "A-B"`},
		{"env null", good + "env: {A: }\n", `variable A: want a value`},
		{"env ours", good + "env: {COMPILER_PATH: /x}\n", `capture sets this one itself`},
		{"env twice", good + "env: {A: x, A: y}\n", `"A" is here a second time`},
		{"target absolute", good + "targets: [/bin/sh]\n", `target "/bin/sh": want a path inside`},
		{"target outside", good + "targets: [a/../../b]\n", `want a path inside the source tree`},
		{"target is tree", good + "targets: [.]\n", `want a path inside the source tree`},
		{"target twice", good + "targets: [a, ./a]\n", `x.yaml:3:14: "a" is in the list already`},
		{"series", good + "series: -x\n", `x.yaml:3:9: series "-x"`},
		{"level zero", good + "level: 0\n", `x.yaml:3:8: level "0": want a number from 1`},
		{"level negative", good + "level: -1\n", `level "-1": want a number from 1`},
		{"level huge", good + "level: 4294967296\n", `want a number from 1 to 4294967295`},
		{"level word", good + "level: one\n", `x.yaml:3:8: want a level, a number from 1`},
		{"level float", good + "level: 1.5\n", `want a level`},
		{"cve", good + "cves: [CVE-26-1]\n", `x.yaml:3:8: CVE number "CVE-26-1": want the form`},
		{"cve twice", good + "cves: [CVE-2026-0001, CVE-2026-0001]\n", `in the list already`},
		{"terminal", good + "description: \"a\\eb\"\n", `without control characters`},
		{"large", good + "#" + strings.Repeat("x", 1<<20), `larger than 1048576 bytes`},
		{"many", good + "cves: [" + strings.Repeat("a,", 1001) + "]", `at most 1000`},
		{"all at once", "nam: n\nlevel: 0\npatches: x\n", "x.yaml:1:1: unknown key \"nam\": did you mean \"name\"?\nx.yaml:1:1: \"name\" is missing\nx.yaml:2:8: level \"0\""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := specfile.Parse("x.yaml", dir, []byte(tt.in))
			var list *specfile.Error
			if !errors.As(err, &list) {
				t.Fatalf("got error %v, want an *Error", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			for _, p := range list.Problems {
				if p.Line < 1 || p.Column < 1 {
					t.Errorf("no place: %+v", p)
				}
			}
		})
	}
}

// TestParseHostile: the time for a spec is bounded by its size, and so is the
// error.
func TestParseHostile(t *testing.T) {
	var distinct strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&distinct, "k%d: x\n", i)
	}
	for name, in := range map[string]string{
		"brackets":      strings.Repeat("[", 1<<20),
		"braces":        strings.Repeat("{a: ", 1<<18),
		"indents":       strings.Repeat("- ", 1<<19),
		"one key":       strings.Repeat("a: x\n", 1<<17),
		"distinct keys": distinct.String(),
		"anchors":       "a: &a x\n" + strings.Repeat("b: [*a, *a]\n", 1<<15),
		"comments":      strings.Repeat("#\n", 1<<19),
	} {
		_, err := specfile.Parse("x", t.TempDir(), []byte(in))
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if len(err.Error()) > 64<<10 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestRead(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "s.yaml")
	if err := os.WriteFile(path, []byte("name: n\npatches: [a.patch]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := specfile.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Dir != dir || s.Patches[0] != filepath.Join(dir, "a.patch") {
		t.Errorf("paths not relative to the spec: %+v", s)
	}
	if _, err := specfile.Read(filepath.Join(dir, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := specfile.Read(dir); err == nil {
		t.Error("a folder was read")
	}
}

// TestFormat holds that Parse reads what Format writes.
func TestFormat(t *testing.T) {
	dir := folder(t)
	for _, in := range []string{everything, "name: \"12\"\npatches: [a.patch]\nbuild: [\"true\", \"# no comment\", ' x ', \"null\", \"a\\nb\"]\n"} {
		want, err := specfile.Parse("x.yaml", dir, []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		text, err := specfile.Format(want, dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := specfile.Parse("again.yaml", dir, text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v\n%s", got, want, text)
		}
		if strings.Contains(string(text), dir) {
			t.Errorf("absolute paths inside the spec's folder:\n%s", text)
		}
	}
}

// TestSamples reads the specs that users copy from.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob("../../samples/*/spec.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, f := range files {
		s, err := specfile.Read(f)
		if err != nil {
			t.Error(err)
		} else if want := filepath.Base(filepath.Dir(f)); s.Name != want {
			t.Errorf("%s: name %q, want that of the folder", f, s.Name)
		}
	}
}

// FuzzParse: no input makes Parse panic, errors have places, and what is
// accepted survives Format.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("{name: n, patches: [a.patch], env: {A: 0x1}}"))
	f.Add([]byte("name: !!binary aGk=\n? [x]\n: y\n"))
	f.Add([]byte("%YAML 1.1\n---\nname: 'n'\n...\n"))
	dir := folder(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := specfile.Parse("x", dir, data)
		if err != nil {
			var list *specfile.Error
			if !errors.As(err, &list) || len(list.Problems) == 0 || list.Problems[0].Line < 1 {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		text, err := specfile.Format(s, dir)
		if err != nil {
			t.Fatal(err)
		}
		again, err := specfile.Parse("y", dir, text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if !reflect.DeepEqual(s, again) {
			t.Fatalf("got %+v, want %+v\n%s", again, s, text)
		}
	})
}
