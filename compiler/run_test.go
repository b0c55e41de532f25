package compiler

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

func run(t *testing.T, dir string, stage specs.Stage, log *bytes.Buffer, commands ...string) error {
	t.Helper()
	return Run(t.Context(), Options{Dir: dir, Commands: commands, Store: filepath.Join(t.TempDir(), "store"), Stage: stage, Shim: fotherCC, Log: log})
}

func TestRunRefuses(t *testing.T) {
	testenv.Needs(t, "gcc")
	tests := map[string]struct {
		commands []string
		want     string
		class    error
	}{
		"nothing":         {[]string{"true"}, "no assembler and no linker was seen", ErrNothingCaptured},
		"no link":         {[]string{"gcc -c one.c"}, "no program or library was linked", ErrNothingCaptured},
		"unseen linker":   {[]string{"gcc -c one.c two.c && gcc -B/usr/bin -o one one.o two.o"}, "was linked by a linker that was not seen", ErrNothingCaptured},
		"no build-id":     {[]string{"gcc -o one one.c two.c -Wl,--build-id=none"}, "no build-id", ErrNoBuildID},
		"store goes away": {[]string{"rmdir $FOTHER_STORE/tmp && gcc -c one.c"}, "one.o cannot be captured: store /", nil},
		"store goes away, pipe": {
			[]string{"rmdir $FOTHER_STORE/tmp && gcc -pipe -c one.c"}, "one.o cannot be captured: store /", nil,
		},
		"store goes away, link": {
			[]string{"gcc -c one.c two.c; rmdir $FOTHER_STORE/tmp && gcc -o one one.o two.o"}, "fother", nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tree(t, dir, project)
			err := run(t, dir, specs.StageOriginal, new(bytes.Buffer), tt.commands...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if tt.class != nil && !errors.Is(err, tt.class) {
				t.Errorf("error %v is not %v", err, tt.class)
			}
			for _, name := range []string{"one.o", "one"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil && tt.class == nil && !strings.Contains(tt.commands[0], "two.o") {
					t.Errorf("%s is there, make would take it for built", name)
				}
			}
		})
	}
}

func TestRunFullStore(t *testing.T) {
	testenv.Needs(t, "gcc")
	if os.Getuid() != 0 {
		testenv.Skip(t, "a full file system needs root to mount")
	}
	dir, store := t.TempDir(), t.TempDir()
	tree(t, dir, project)
	if err := syscall.Mount("fother", store, "tmpfs", 0, "size=40k"); err != nil {
		testenv.Skip(t, "mount: "+err.Error())
	}
	defer syscall.Unmount(store, 0)
	err := Run(t.Context(), Options{Dir: dir, Commands: []string{"g++ -c plus.cc"}, Store: store, Stage: specs.StageOriginal, Shim: fotherCC})
	want := "plus.o cannot be captured: store " + store + ": "
	if err == nil || strings.Count(err.Error(), want) != 1 || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestRunFails(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	err := run(t, dir, specs.StageConfigure, &log, "echo early", "echo late >&2; exit 3", "echo never")
	var failed *CommandError
	var exit *exec.ExitError
	if !errors.As(err, &failed) || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("error %v", err)
	}
	if failed.Tail != "late\n" || log.String() != "early\nlate\n" {
		t.Errorf("tail %q, log %q", failed.Tail, log.String())
	}
}

func TestRunLeavesDaemon(t *testing.T) {
	dir := t.TempDir()
	err := run(t, dir, specs.StageConfigure, new(bytes.Buffer), "sleep 20 & echo $! >pid")
	if pid, e := os.ReadFile(filepath.Join(dir, "pid")); e == nil {
		if n, e := strconv.Atoi(strings.TrimSpace(string(pid))); e == nil && n > 1 {
			defer syscall.Kill(n, syscall.SIGKILL)
		}
	}
	if err != nil {
		t.Errorf("error %v of a command that succeeded", err)
	}
}

func TestRunColon(t *testing.T) {
	err := Run(t.Context(), Options{Dir: t.TempDir(), Store: "/a:b", Stage: specs.StageOriginal, Shim: fotherCC})
	if err == nil || !strings.Contains(err.Error(), "colon") {
		t.Errorf("error %v", err)
	}
}

// TestSmall: the shim starts for every file of a build.
func TestSmall(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./cmd/fother-cc").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if dep == "net" || dep == "net/http" || dep == "crypto/tls" || strings.Contains(dep, "yaml") || strings.HasPrefix(dep, "log") {
			t.Errorf("fother-cc links %s", dep)
		}
	}
}

// endless starts processes that outlive what they are told in different ways,
// and leaves their numbers in files called *.pid.
var endless = []string{`
	sleep 1000 & echo $! >plain.pid
	sh -c 'trap "" TERM INT HUP; echo $$ >deaf.pid; while :; do sleep 1; done' &
	setsid sh -c 'echo $$ >session.pid; sleep 1000; :' &
	sh -c 'setsid sh -c "echo \$\$ >orphan.pid; sleep 1000; :" & :'
	trap 'rm -f half.o; exit 1' TERM
	echo half >half.o
	while [ ! -s orphan.pid ] || [ ! -s deaf.pid ] || [ ! -s session.pid ]; do sleep 0.02; done
	touch ready; wait`}

// ends waits until all processes of endless have ended.
func ends(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	for _, f := range files {
		pid, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, filepath.Base(f)+" lives on", func() bool {
			stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
			return err != nil || bytes.Contains(stat, []byte(") Z "))
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "half.o")); err == nil {
		t.Error("the commands had no time to clean up")
	}
}

func waitFor(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}

func isThere(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

func TestRunCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	go func() {
		waitFor(t, "it does not start", isThere(filepath.Join(dir, "ready")))
		cancel()
	}()
	err := Run(ctx, Options{Dir: dir, Commands: endless, Stage: specs.StageConfigure, Shim: fotherCC})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	ends(t, dir)
}

// TestRunKilled: whatever ends the process that builds, the build ends too.
func TestRunKilled(t *testing.T) {
	if dir := os.Getenv("FOTHER_TEST_KILLED"); dir != "" {
		t.Fatal(Run(t.Context(), Options{Dir: dir, Commands: endless, Stage: specs.StageConfigure, Shim: os.Getenv("FOTHER_TEST_SHIM")}))
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestRunKilled$")
		cmd.Env = append(os.Environ(), "FOTHER_TEST_KILLED="+dir, "FOTHER_TEST_SHIM="+fotherCC)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it does not start", isThere(filepath.Join(dir, "ready")))
		if err := cmd.Process.Signal(s); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		ends(t, dir)
	}
}

// TestMessages compares what tools print, and how they end, with and without
// the shims.
func TestMessages(t *testing.T) {
	testenv.Needs(t, "gcc")
	files := map[string]string{
		"syntax.c":  "int f( { return; }\n",
		"asm.c":     "int main(void) { __asm__(\"nonsense %eax\"); return 0; }\n",
		"undef.c":   "int nowhere(void);\nint main(void) { return nowhere(); }\n",
		"ok.c":      "int main(void) { return 0; }\n",
		"warn.c":    "#include <stdio.h>\nint main(void) { char b[9]; gets(b); return 0; }\nchar *gets(char *);\n",
		"tmpnam.c":  "char *tmpnam(char *);\nint main(void) { return tmpnam(0) == 0; }\n",
		"include.s": ".include \"none.inc\"\n",
	}
	commands := []string{
		"gcc -c syntax.c", "gcc -pipe -c syntax.c", "gcc -c -save-temps asm.c", "gcc -pipe -c asm.c", "gcc -c -Wa,--nonsense ok.c",
		"gcc -o undef undef.c -save-temps", "gcc -flto -o undef undef.c -save-temps", "gcc -o x ok.c -Wl,--nonsense", "gcc -o x tmpnam.c -save-temps", "gcc -c include.s",
		"gcc -o x ok.c -lnowhere", "gcc -fuse-ld=gold -o undef undef.c -save-temps", "gcc -Wa,--version -c ok.c", "as --version", "ld -v", "ld", "as /nowhere", "gcc -c -o /nowhere/x.o ok.c", "gcc -o /nowhere/x ok.c",
		"gcc -Wa,-o,/dev/null -c ok.c", "gcc -Wl,-t -o x ok.c -save-temps", "gcc -Wl,--print-map -o x ok.c -save-temps", "gcc @none -o x ok.c",
	}
	dir, dir2 := t.TempDir(), t.TempDir()
	tree(t, dir, files)
	capture(t, dir, dir2, specs.StageOriginal, nil, "gcc -o first ok.c") // makes the store
	shims := captureEnviron(os.Environ(), store.At(dir2), specs.StageOriginal)
	for _, c := range commands {
		t.Run(c, func(t *testing.T) {
			want, wantCode := outcome(t, dir, c, os.Environ())
			got, gotCode := outcome(t, dir, c, shims)
			if got != want || gotCode != wantCode {
				t.Errorf("prints %q and exits with %d, want %q and %d", got, gotCode, want, wantCode)
			}
		})
	}
}

// temporary matches the names that gcc makes up.
var temporary = regexp.MustCompile(`/tmp/cc[A-Za-z0-9]{6}`)

func outcome(t *testing.T, dir, command string, env []string) (string, int) {
	t.Helper()
	cmd := exec.Command("sh", "-c", command+" 2>stderr; code=$?; echo; echo stderr; cat stderr; exit $code")
	cmd.Dir, cmd.Env = dir, append(env, "LC_ALL=C")
	out, err := cmd.Output()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return temporary.ReplaceAllString(string(out), "/tmp/ccXXXXXX"), cmd.ProcessState.ExitCode()
}
