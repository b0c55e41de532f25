package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// asCommand makes a command for scripts of what main does under its name.
func asCommand(do func(context.Context, []string, io.Reader, io.Writer, io.Writer) int) func() {
	return func() {
		os.Exit(do(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
}

// withFixtures runs tests with a folder for what fixture makes.
type withFixtures struct{ *testing.M }

func (m withFixtures) Run() int {
	dir, err := os.MkdirTemp("", "fother-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fixtureDir = dir
	return m.M.Run()
}

func TestMain(m *testing.M) {
	testscript.Main(withFixtures{m}, map[string]func(){"fother": asCommand(run), libcareName: asCommand(runLibcare)})
}

// TestScripts runs testdata/script/*.txtar. Beside the usual commands there
// are
//
//	status N CMD ARG…       CMD has to end with exit status N
//	start                   starts the program; $PID, $BUILDID
//	end                     ends it
//	answer N                the program has to print N
//	patchfile FILE LEVEL [SERIES [BUILDID]]
//	bundle FILE LEVEL [BUILDID…]   patches for the program and others
//	fifo FILE
//	give FILE               gives it to user nobody
//	in TEXT PART            TEXT has to contain PART
//	nobody N CMD ARG…       like status, as user nobody, if root runs the
//	                        test; $NOBODY is what it wrote
func TestScripts(t *testing.T) {
	fixture(t) // or skip
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			// A program of the script's own: others run at the same time.
			dir, err := os.MkdirTemp(fixtureDir, "script-")
			if err != nil {
				return err
			}
			prog := compile(t, dir)
			e.Values[childKey{}] = &child{prog: prog}
			e.Setenv("BUILDID", string(prog.id))
			e.Setenv("SHORT", string(prog.id[:9]))
			for dir := e.WorkDir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
				if err := os.Chmod(dir, 0o755); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" || os.Getuid() != 0 && os.Getenv("CI") == "true" {
				return false, fmt.Errorf("condition %q is not met, or not known", cond)
			}
			return os.Getuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":    func(ts *testscript.TestScript, _ bool, args []string) { status(ts, ts.Exec, args) },
			"nobody":    func(ts *testscript.TestScript, _ bool, args []string) { nobody(t, ts, args) },
			"start":     func(ts *testscript.TestScript, _ bool, _ []string) { start(ts) },
			"end":       func(ts *testscript.TestScript, _ bool, _ []string) { running(ts).end() },
			"answer":    func(ts *testscript.TestScript, _ bool, args []string) { running(ts).ask(ts, args[0]) },
			"patchfile": func(ts *testscript.TestScript, _ bool, args []string) { patchFile(t, ts, args) },
			"bundle":    func(ts *testscript.TestScript, _ bool, args []string) { bundleFile(t, ts, args) },
			"fifo":      func(ts *testscript.TestScript, _ bool, args []string) { fifo(ts, args[0]) },
			"give": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.Lchown(ts.MkAbs(args[0]), 65534, 0))
			},
			"in": contains,
		},
	})
}

func status(ts *testscript.TestScript, do func(string, ...string) error, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := do(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d: want %d", got, want)
	}
}

// nobody runs a command as another user, from a folder that this user may read.
func nobody(t *testing.T, ts *testscript.TestScript, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	dir, err := os.MkdirTemp("", "fother-nobody-")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	path := filepath.Join(dir, args[1])
	// Not written by this process: what is open for writing in a child that is
	// just being started cannot be executed.
	ts.Check(exec.Command("cp", self, path).Run())
	status(ts, func(_ string, rest ...string) error {
		cmd := exec.Command(path, rest...)
		cmd.Dir = ts.MkAbs(".")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		ts.Setenv("NOBODY", out.String()+errs.String())
		ts.Logf("%s%s", out.String(), errs.String())
		return err
	}, args)
}

func contains(ts *testscript.TestScript, neg bool, args []string) {
	if strings.Contains(args[0], args[1]) == neg {
		ts.Fatalf("%q: want %q", args[0], args[1])
	}
}

func fifo(ts *testscript.TestScript, name string) {
	path := ts.MkAbs(name)
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(unix.Mkfifo(path, 0o600))
}

// child is the program while it runs.
type child struct {
	prog *program
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// childKey is the script's value that holds its child.
type childKey struct{}

func start(ts *testscript.TestScript) {
	c := ts.Value(childKey{}).(*child)
	c.cmd = exec.Command(c.prog.bin)
	var err error
	c.in, err = c.cmd.StdinPipe()
	ts.Check(err)
	out, err := c.cmd.StdoutPipe()
	ts.Check(err)
	c.out = bufio.NewReader(out)
	ts.Check(c.cmd.Start())
	ts.Defer(c.end)
	ts.Setenv("PID", strconv.Itoa(c.cmd.Process.Pid))
	c.ask(ts, "2") // it runs its own code, no longer the loader's
}

func running(ts *testscript.TestScript) *child {
	c := ts.Value(childKey{}).(*child)
	if c.cmd == nil {
		ts.Fatalf("the program was not started")
	}
	return c
}

func (c *child) ask(ts *testscript.TestScript, want string) {
	fmt.Fprintln(c.in)
	got, err := c.out.ReadString('\n')
	if got = strings.TrimSpace(got); got != want || err != nil {
		ts.Fatalf("answer %q (%v): want %s", got, err, want)
	}
}

func (c *child) end() {
	c.in.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

func level(ts *testscript.TestScript, s string) specs.Level {
	n, err := specs.ParseLevel(s)
	ts.Check(err)
	return n
}

func patchFile(t *testing.T, ts *testscript.TestScript, args []string) {
	prog := ts.Value(childKey{}).(*child).prog
	series := specs.DefaultSeries
	if len(args) > 2 {
		series = specs.Series(args[2])
	}
	data := prog.patch(t, series, level(ts, args[1]))
	if len(args) > 3 {
		data = foreign(t, data, specs.BuildID(args[3]))
	}
	write(t, ts.MkAbs(args[0]), data)
}

func bundleFile(t *testing.T, ts *testscript.TestScript, args []string) {
	prog := ts.Value(childKey{}).(*child).prog
	n := level(ts, args[1])
	own := prog.patch(t, specs.DefaultSeries, n)
	files := [][]byte{own}
	for _, id := range args[2:] {
		files = append(files, foreign(t, own, specs.BuildID(id)))
	}
	write(t, ts.MkAbs(args[0]), bundleOf(t, n, files...))
}
