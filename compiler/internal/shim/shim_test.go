package shim

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/specs"
)

// TestMain lets the test binary be the program: a symbolic link to it runs
// Main.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); !strings.HasSuffix(name, ".test") {
		os.Exit(Main(os.Args, os.Stderr))
	}
	os.Exit(m.Run())
}

// script writes an executable shell script.
func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func self(t *testing.T, path string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, path); err != nil {
		t.Fatal(err)
	}
}

// sandbox is a folder with programs, and a store.
func sandbox(t *testing.T) (bin string, s *store.Store) {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"as", "ld"} {
		self(t, filepath.Join(s.Shims(), name))
	}
	if err := s.Begin(specs.StageOriginal); err != nil {
		t.Fatal(err)
	}
	return t.TempDir(), s
}

func run(t *testing.T, env []string, name string, args ...string) (string, *os.ProcessState) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, env...)
	out, err := cmd.CombinedOutput()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState
}

func TestCompilerChoice(t *testing.T) {
	bin, s := sandbox(t)
	for _, name := range []string{"gcc", "g++", "mycc", "x-gcc-9"} {
		script(t, filepath.Join(bin, name), `echo "`+name+` $COMPILER_PATH $KPATCH_STAGE: $*"`)
	}
	for _, name := range []string{"fother-cc", "fother-c++", "libcare-cc", "x-gcc-9.shim", "loop"} {
		self(t, filepath.Join(bin, name))
	}
	masked := t.TempDir()
	self(t, filepath.Join(masked, "gcc"))
	script(t, filepath.Join(bin, "wrapper"), "exec "+filepath.Join(bin, "loop")+` "$@"`)
	path := "PATH=" + masked + ":" + bin + ":/usr/bin:/bin"
	captured := []string{path, "KPATCH_STAGE=original", "FOTHER_STORE=" + s.Dir()}
	at := func(name string) string { return filepath.Join(bin, name) }
	tests := []struct {
		name string
		env  []string
		args []string
		want string
		code int
	}{
		{"default", []string{path}, []string{at("fother-cc"), "-c", "x.c"}, "gcc  : -c x.c", 0},
		{"configure", []string{path, "KPATCH_STAGE=configure"}, []string{at("fother-cc"), "x"}, "gcc  configure: x", 0},
		{"C++", []string{path}, []string{at("fother-c++"), "x"}, "g++  : x", 0},
		{"LibCare", captured, []string{at("libcare-cc"), "x"}, "gcc " + s.Shims() + " original: x", 0},
		{"keeps the path", append(captured, "COMPILER_PATH="+s.Shims()+":/else"), []string{at("fother-cc")}, "gcc " + s.Shims() + ":/else original: ", 0},
		{"KPCCREAL", []string{path, "KPCCREAL=" + at("mycc")}, []string{at("fother-cc"), "x"}, "mycc  : x", 0},
		{"KPCCREAL with options", []string{path, "KPCCREAL=mycc -m32"}, []string{at("fother-cc"), "x"}, "mycc  : -m32 x", 0},
		{"KPCXXREAL", []string{path, "KPCXXREAL=mycc"}, []string{at("fother-c++"), "x"}, "mycc  : x", 0},
		{"argument", []string{path}, []string{at("fother-cc"), "x-gcc-9", "x"}, "x-gcc-9  : x", 0},
		{"masquerade", []string{path}, []string{filepath.Join(masked, "gcc"), "x"}, "gcc  : x", 0},
		{"itself", []string{path, "KPCCREAL=" + at("fother-cc")}, []string{at("fother-cc")}, "is fother-cc itself", 2},
		{"loop", []string{path, "KPCCREAL=" + at("wrapper")}, []string{at("fother-cc")}, "runs itself", 2},
		{"stage", []string{path, "KPATCH_STAGE=x"}, []string{at("fother-cc")}, "want configure, original or patched", 2},
		{"no store", []string{path, "KPATCH_STAGE=original"}, []string{at("fother-cc")}, "FOTHER_STORE is not", 2},
		{"no such store", []string{path, "KPATCH_STAGE=original", "FOTHER_STORE=/nowhere"}, []string{at("fother-cc")}, "not a capture store", 2},
		{"no compiler", []string{"PATH=" + masked}, []string{at("fother-cc")}, "gcc: no such program", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, state := run(t, tt.env, tt.args[0], tt.args[1:]...)
			if !strings.Contains(out, tt.want) || state.ExitCode() != tt.code {
				t.Errorf("%q and exit code %d, want %q and %d", out, state.ExitCode(), tt.want, tt.code)
			}
		})
	}
}

// TestToolOfCompiler: the tool is the one that the compiler names, and its
// end is passed on.
func TestToolOfCompiler(t *testing.T) {
	bin, s := sandbox(t)
	script(t, filepath.Join(bin, "own-as"), `case $1 in die) kill -SEGV $$;; *) echo "$0" "$@"; exit $1;; esac`)
	script(t, filepath.Join(bin, "cc"), `[ -z "$COMPILER_PATH" ] || exit 9
echo asked >>`+filepath.Join(bin, "log")+`
[ "$*" = "-B /b -m64 -print-prog-name=as" ] && echo `+filepath.Join(bin, "own-as"))
	env := []string{
		"KPATCH_STAGE=original", "FOTHER_STORE=" + s.Dir(), "COMPILER_PATH=" + s.Shims(),
		"COLLECT_GCC=" + filepath.Join(bin, "cc"), "COLLECT_GCC_OPTIONS='-O2' '-B' '/b' '-m64' '-c'",
	}
	as := filepath.Join(s.Shims(), "as")
	for _, code := range []string{"0", "3"} {
		out, state := run(t, env, as, code, "x.s")
		if want := filepath.Join(bin, "own-as") + " " + code + " x.s\n"; out != want || !strings.HasSuffix(state.String(), code) {
			t.Errorf("%q, %v, want %q", out, state, want)
		}
	}
	_, state := run(t, env, as, "die")
	if w := state.Sys().(syscall.WaitStatus); !w.Signaled() || w.Signal() != syscall.SIGSEGV {
		t.Errorf("%v, want a segmentation fault", state)
	}
	if log, err := os.ReadFile(filepath.Join(bin, "log")); err != nil || string(log) != "asked\n" {
		t.Errorf("the compiler was asked %q, %v: want once", log, err)
	}
	if records, err := s.Records(specs.StageOriginal); err != nil || len(records) != 0 {
		t.Errorf("%d records of runs that made nothing, %v", len(records), err)
	}
}

// TestSearchOptions: what says where a compiler looks for programs is told from what
// it passes on, with which it could not be asked.
func TestSearchOptions(t *testing.T) {
	for args, want := range map[string]string{
		"-O2 -target a --target=b -B c -Bd --sysroot e --sysroot=f -m32 -o x": "-target a --target=b -B c -Bd --sysroot e --sysroot=f -m32",
		"--gcc-toolchain=a -specs=b -c x.c":                                   "--gcc-toolchain=a -specs=b",
		"-mllvm -mx -Xclang -mrelax -Xlinker -m -Xlinker elf -march=a":        "-march=a",
		"-mthread-model posix -meabi gnu -mmlir -mx -X -mabi=b":               "-mabi=b",
		"-mllvm": "",
		"-B":     "-B",
	} {
		if got := strings.Join(searchOptions(strings.Fields(args)), " "); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

func TestParseAsArgs(t *testing.T) {
	tests := []struct {
		args string
		want asArgs
	}{
		{"--64 -o x.o x.s", asArgs{inputs: []string{"x.s"}, output: "x.o"}},
		{"-I a -Ib --defsym x=1 -ox.o", asArgs{output: "x.o", dirs: []string{"a", "b"}}},
		{"-mabi=lp64 a.s b.s -", asArgs{inputs: []string{"a.s", "b.s", "-"}, output: "a.out"}},
		{"--debug-prefix-map a=b -- -odd", asArgs{inputs: []string{"-odd"}, output: "a.out"}},
		{"--version", asArgs{output: "a.out", query: true}},
	}
	for _, tt := range tests {
		got, err := parseAsArgs("/nowhere", strings.Fields(tt.args))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.inputs, tt.want.inputs) || got.output != tt.want.output || !slices.Equal(got.dirs, tt.want.dirs) || got.query != tt.want.query {
			t.Errorf("%s: %+v, want %+v", tt.args, *got, tt.want)
		}
	}
}

func TestScanText(t *testing.T) {
	text := "\t.file\t\"a b.c\"\n\t.file \"other.c\"\n\t.include \"x.inc\"\nl:\t.incbin \"y\\\"z\", 3\n" +
		"\t.section\t.gnu.lto_.decls,\"e\",@progbits\n\tnop; .include \"w\"\n\t.ascii \"" + strings.Repeat("long", 50_000) + "\"\n.incbin \"end\""
	got := scanText(strings.NewReader(text))
	if got.file != "a b.c" || !got.lto || !slices.Equal(got.includes, []string{"x.inc", `y"z`, "w", "end"}) {
		t.Errorf("%+v", got)
	}
}

func FuzzScanText(f *testing.F) {
	f.Add("\t.file\t\"a.c\"\nx: .incbin \"y\\")
	f.Fuzz(func(t *testing.T, text string) { scanText(strings.NewReader(text)) })
}
