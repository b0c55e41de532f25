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
		os.WriteFile(filepath.Join(dir, "..", "out.tar"), []byte("o"), 0o644),
		os.WriteFile(filepath.Join(dir, "src.tar.xz"), []byte("x"), 0o644),
		os.WriteFile(filepath.Join(dir, "src.rar"), []byte("x"), 0o644),
		os.WriteFile(filepath.Join(dir, ".zip"), []byte("x"), 0o644),
		os.Symlink("../out.tar", filepath.Join(dir, "link.tar")),
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

const (
	sum    = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	commit = "0123456789abcdef0123456789abcdef01234567"
)

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
install: [make install]
env:
  CFLAGS: -O2 -g
  JOBS: 2
  EMPTY: ""
targets: [objs/nginx, ./lib//x.so]
series: security
level: 7
cves: [CVE-2026-0001, CVE-2026-123456]
consistency:
  next-call: [worker_loop, main, _ZN1a3runEv, count.isra.0]
  reason: they never return
allow:
  - {change: struct conn, reason: new ones only}
  - change: function a::f<int, 2>
    reason: |
      two
      lines
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
		Install:     []string{"make install"},
		Env:         []string{"CFLAGS=-O2 -g", "JOBS=2", "EMPTY="},
		Targets:     []string{"objs/nginx", "lib/x.so"},
		Series:      "security",
		Level:       7,
		CVEs:        []string{"CVE-2026-0001", "CVE-2026-123456"},
		Consistency: specs.Consistency{NextCall: []string{"worker_loop", "main", "_ZN1a3runEv", "count.isra.0"}, Reason: "they never return"},
		Allow:       []specs.Allowance{{Change: "struct conn", Reason: "new ones only"}, {Change: "function a::f<int, 2>", Reason: "two\nlines"}},
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

// TestParseSource gives the forms of a source, and what becomes of them.
func TestParseSource(t *testing.T) {
	dir := folder(t)
	digits := strings.TrimPrefix(sum, "sha256:")
	tests := []struct{ name, in, dir, archive, checksum string }{
		{"none", "", dir, "", ""},
		{"folder", "source: src", filepath.Join(dir, "src"), "", ""},
		{"archive", "source: src.tar.xz", "", filepath.Join(dir, "src.tar.xz"), ""},
		{"archive and sum", "source: src.tar.xz\nchecksum: " + sum, "", filepath.Join(dir, "src.tar.xz"), sum},
		{"archive elsewhere", "source: " + dir + "/../out.tar", "", filepath.Join(dir, "..", "out.tar"), ""},
		{"upper case", "source: src.tar.xz\nchecksum: sha256:" + strings.ToUpper(digits), "", filepath.Join(dir, "src.tar.xz"), sum},
		{"https", "source: https://h:1/a.tgz\nchecksum: " + sum, "", "https://h:1/a.tgz", sum},
		{"sha512", "source: https://h/a.tgz\nchecksum: sha512:" + digits + digits, "", "https://h/a.tgz", "sha512:" + digits + digits},
		{"sum in address", "source: https://h/a.tgz?checksum=" + sum, "", "https://h/a.tgz", sum},
		{"sum twice", "source: https://h/a.tgz?checksum=" + sum + "\nchecksum: " + sum, "", "https://h/a.tgz", sum},
		{"signed", "source: https://h/a.tgz?b=%2f+&checksum=" + sum + "&a=1", "", "https://h/a.tgz?b=%2f+&a=1", sum},
		{"file", "source: file:///x/a.tgz", "", "file:///x/a.tgz", ""},
		{"git commit", "source: git::https://h/a.git?ref=" + commit, "", "git::https://h/a.git?ref=" + commit, "git:" + commit},
		{"git tag", "source: git::ssh://git@h/a?ref=v1.0\nchecksum: git:" + commit, "", "git::ssh://git@h/a?ref=v1.0", "git:" + commit},
		{"git no ref", "source: git::file:///a\nchecksum: git:" + commit, "", "git::file:///a", "git:" + commit},
		{"git sum in address", "source: git::https://h/a?checksum=git:" + commit + "&ref=x/y", "", "git::https://h/a?ref=x/y", "git:" + commit},
		{"git sha256 repository", "source: git::https://h/a?ref=" + digits, "", "git::https://h/a?ref=" + digits, "git:" + digits},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := "name: n\npatches: [a.patch]\n" + tt.in + "\n"
			s, err := specfile.Parse("x.yaml", dir, []byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if s.Dir != tt.dir || s.Archive != tt.archive || s.Checksum != tt.checksum {
				t.Errorf("got  %q %q %q\nwant %q %q %q", s.Dir, s.Archive, s.Checksum, tt.dir, tt.archive, tt.checksum)
			}
			text, err := specfile.Format(s, dir)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := specfile.Parse("y.yaml", dir, text); err != nil || !reflect.DeepEqual(again, s) {
				t.Errorf("after Format: %+v, %v\n%s", again, err, text)
			}
		})
	}
}

// TestParseStrict: the word for the default is taken.
func TestParseStrict(t *testing.T) {
	s, err := specfile.Parse("x.yaml", folder(t), []byte("name: n\npatches: [a.patch]\nconsistency: strict\n"))
	if err != nil || !reflect.DeepEqual(s.Consistency, specs.Consistency{}) {
		t.Errorf("%+v, %v", s.Consistency, err)
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
		{"unknown far", good + "maintainer: x\n", `unknown key "maintainer": want one of name, description`},
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
		{"source is file", good + "source: a.patch\n", `x.yaml:3:9: path "a.patch": want a folder or an archive (.tar, .tar.gz`},
		{"source is no archive", good + "source: src.rar\n", `want a folder or an archive`},
		{"source is suffix", good + "source: .zip\n", `want a folder or an archive`},
		{"source gone", good + "source: gone.tar.gz\n", `x.yaml:3:9: path "gone.tar.gz": no such file or folder; an address begins with`},
		{"source without scheme", good + "source: github.com/a/b\n", `x.yaml:3:9: path "github.com/a/b": no such file or folder; an address begins with one of https://, git::https://`},
		{"source list", good + "source: [a]\n", `x.yaml:3:9: want a folder, an archive or an address`},
		{"archive outside", good + "source: ../out.tar\n", `leads out of the spec's folder`},
		{"archive outside by link", good + "source: link.tar\n", `leads out of the spec's folder`},
		{"scheme near", good + "source: htps://h/a.tgz\n", `x.yaml:3:9: unknown scheme "htps": did you mean "https"?`},
		{"scheme far", good + "source: s3::https://h/a.tgz\n", `x.yaml:3:9: unknown scheme "s3": want one of https, http, file, git`},
		{"git alone", good + "source: git://h/a\n", `scheme "git": want one of https, http, file`},
		{"git scp", good + "source: git::git@h:a.git\n", `git::ssh://git@host/path`},
		{"git scheme", good + "source: git::ext::sh\n", `want one of https, ssh, http, git, file`},
		{"no checksum", good + "source: https://h/a.tgz\n", `x.yaml:3:9: checksum is missing: an address needs one, checksum: sha256:HEX`},
		{"git tag", good + "source: git::https://h/a?ref=v1\n", `checksum is missing: ref v1 can be moved: want the full commit id`},
		{"git nothing", good + "source: git::https://h/a\n", `checksum is missing: want ?ref= with the full commit id`},
		{"git short commit", good + "source: git::https://h/a?ref=0123abc\n", `can be moved`},
		{"git option", good + "source: git::https://h/a?ref=--upload-pack=x\n", `want a branch, tag or commit`},
		{"git depth", good + "source: git::https://h/a?depth=1&ref=" + commit + "\n", `git knows ref and checksum`},
		{"git host option", good + "source: git::ssh://-oProxyCommand=x/a?ref=" + commit + "\n", `want the name of a host`},
		{"git sha256", good + "source: git::https://h/a?ref=v1\nchecksum: " + sum + "\n", `x.yaml:4:11: checksum sha256: a git tree is checked by its commit`},
		{"git commits differ", good + "source: git::https://h/a?ref=" + commit + "\nchecksum: git:" + strings.Repeat("0", 40) + "\n", `x.yaml:4:11: checksum git:0000000000000000000000000000000000000000 does not agree with git:` + commit},
		{"archive with commit", good + "source: https://h/a.tgz\nchecksum: git:" + commit + "\n", `x.yaml:4:11: checksum git: an archive has none`},
		{"local archive with commit", good + "source: src.tar.xz\nchecksum: git:" + commit + "\n", `x.yaml:4:11: checksum git: an archive has none`},
		{"checksums differ", good + "source: https://h/a.tgz?checksum=" + sum + "\nchecksum: sha256:" + strings.Repeat("0", 64) + "\n", `does not agree with ` + sum},
		{"checksum twice", good + "source: https://h/a.tgz?checksum=" + sum + "&checksum=" + sum + "\n", `twice`},
		{"checksum in address", good + "source: https://h/a.tgz?checksum=" + sum[:20] + "\n", `: checksum of 13 digits: want 64`},
		{"checksum by file", good + "source: https://h/a.tgz?checksum=file:https://h/sums\n", `want ALGORITHM:HEX`},
		{"checksum of folder", good + "checksum: " + sum + "\n", `x.yaml:3:11: checksum of a folder`},
		{"checksum bare", good + "source: src.tar.xz\nchecksum: " + sum[7:] + "\n", `want ALGORITHM:HEX with one of sha256, sha512, git`},
		{"checksum algorithm", good + "source: src.tar.xz\nchecksum: sha265:00\n", `x.yaml:4:11: unknown algorithm "sha265": did you mean "sha256"?`},
		{"checksum weak", good + "source: src.tar.xz\nchecksum: md5:00\n", `unknown algorithm "md5": want one of sha256`},
		{"checksum short", good + "source: src.tar.xz\nchecksum: sha256:00\n", `x.yaml:4:11: checksum of 2 digits: want 64 after "sha256:"`},
		{"checksum no digits", good + "source: src.tar.xz\nchecksum: sha256:" + strings.Repeat("g", 64) + "\n", `want hexadecimal digits`},
		{"password", good + "source: https://me:secret@h/a.tgz\nchecksum: " + sum + "\n", `want no password`},
		{"no host", good + "source: https:///a.tgz\nchecksum: " + sum + "\n", `want the name of a host`},
		{"no path", good + "source: https://h/\nchecksum: " + sum + "\n", `want a path after the host`},
		{"fragment", good + "source: https://h/a.tgz#x\nchecksum: " + sum + "\n", `want a URL of the form`},
		{"part", good + "source: https://h/a.tgz//sub\nchecksum: " + sum + "\n", `// in the path`},
		{"file host", good + "source: file://a.tgz\n", `want three slashes`},
		{"not a URL", good + "source: \"https://h/%zz\"\nchecksum: " + sum + "\n", `invalid URL escape`},
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
		{"env ours", good + "env: {COMPILER_PATH: /x}\n", `this one is set for the commands`},
		{"env twice", good + "env: {A: x, A: y}\n", `"A" is here a second time`},
		{"target absolute", good + "targets: [/bin/sh]\n", `target "/bin/sh": want a path inside`},
		{"target outside", good + "targets: [a/../../b]\n", `want a path inside the source tree`},
		{"target is tree", good + "targets: [.]\n", `want a path inside the source tree`},
		{"target twice", good + "targets: [a, ./a]\n", `x.yaml:3:14: "a" is in the list already`},
		{"install scalar", good + "install: make install\n", `x.yaml:3:10: want a list of shell commands`},
		{"env destdir", good + "env: {DESTDIR: /x}\n", `this one is set for the commands`},
		{"consistency near", good + "consistency: srict\n", `x.yaml:3:14: unknown consistency "srict": did you mean "strict"?`},
		{"consistency far", good + "consistency: eventual\n", `unknown consistency "eventual": want strict, or a mapping with next-call and reason`},
		{"consistency alone", good + "consistency: next-call\n", `want the functions and a reason`},
		{"consistency list", good + "consistency: [strict]\n", `x.yaml:3:14: want strict, or a mapping`},
		{"consistency key", good + "consistency: {nextcall: [f], reason: r}\n", "x.yaml:3:14: \"next-call\" is missing\nx.yaml:3:15: unknown key \"nextcall\": did you mean \"next-call\"?"},
		{"consistency reason", good + "consistency: {next-call: [f]}\n", `x.yaml:3:14: "reason" is missing`},
		{"consistency no function", good + "consistency: {next-call: [], reason: r}\n", `want a list of functions with at least 1`},
		{"consistency empty", good + "consistency: {}\n", `"next-call" is missing`},
		{"consistency function", good + "consistency: {next-call: [\"a::f(int)\"], reason: r}\n", `x.yaml:3:27: function "a::f(int)": want a symbol`},
		{"allow no list", good + "allow: {change: struct a, reason: r}\n", `x.yaml:3:8: want a list of at most 1000 changes, such as`},
		{"allow word", good + "allow: [struct a]\n", `x.yaml:3:9: want a mapping such as {change: struct conn, reason: why}`},
		{"allow key", good + "allow: [{chnge: struct a, reason: r}]\n", "x.yaml:3:9: \"change\" is missing\nx.yaml:3:10: unknown key \"chnge\": did you mean \"change\"?"},
		{"allow no reason", good + "allow: [{change: struct a}]\n", `x.yaml:3:9: "reason" is missing`},
		{"allow empty reason", good + "allow: [{change: struct a, reason: ''}]\n", `x.yaml:3:36: want a text, not an empty one`},
		{"allow name", good + "allow: [{change: conn, reason: r}]\n", `x.yaml:3:18: change "conn": want what the refusal names, such as struct conn`},
		{"allow twice", good + "allow: [{change: struct a, reason: r}, {change: struct a, reason: s}]\n", `x.yaml:3:40: "struct a" is in the list already`},
		{"consistency twice", good + "consistency: {next-call: [f, f], reason: r}\n", `in the list already`},
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

// roundTrips are specs that set every field.
var roundTrips = []string{
	everything,
	"name: n\npatches: [a.patch]\nsource: https://h/a.tar.gz\nchecksum: " + sum + "\n",
	"name: \"12\"\npatches: [a.patch]\nbuild: [\"true\", \"# no comment\", ' x ', \"null\", \"a\\nb\"]\n",
}

// TestFormat holds that Parse reads what Format writes.
func TestFormat(t *testing.T) {
	dir := folder(t)
	for _, in := range roundTrips {
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
		if data, err := os.ReadFile(f); err != nil {
			t.Error(err)
		} else if err := validate(t, data); err != nil {
			t.Errorf("%s: %v", f, err)
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
	f.Add([]byte("name: n\npatches: [a.patch]\nsource: git::ssh://u@h/a?ref=v1&checksum=git:" + commit + "\n"))
	f.Add([]byte("name: n\npatches: [a.patch]\nsource: https://h/a?checksum=" + sum + "\n"))
	f.Add([]byte("name: n\npatches: [a.patch]\nsource: src.tar.xz\nconsistency: {next-call: [a, b], reason: c}\n"))
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
		if err := validate(t, data); err != nil {
			t.Fatalf("the schema refuses what the parser takes: %v", err)
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
