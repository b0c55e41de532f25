package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
)

var runCommand = &command{
	name:  "run",
	args:  "[OPTION…] [FILE|DIR…] -- CMD [ARG…]",
	brief: "start a program with its patches",
	help: `
Starts a program that is patched before its first own instruction: after the
dynamic linker has loaded the libraries and run their constructors. The program
takes this command's place: process id, standard files and exit status are its
own, and so are signals, but that SIGCHLD is not ignored. No process of fother's
stays. What stays is the patches' memory, and a few bytes of code in the kernel's
page (vDSO), which fother's next run on the process takes away.

FILE and DIR are those of fother patch: a FILE that is named has to fit, of a DIR
what fits goes in. With --registry it is what fother pull would apply. What is
loaded later, the next fother pull finds.

If patching fails the program does not start, and the exit status is fother's. A
constructor that takes two minutes, or executes a program, is such a failure, for
which the process is ended.
A program that changes its privileges (set-user-ID) is refused.

Options:
  --best-effort   start the program even so
  --count         count the calls of the patched functions, which info tells; not
                  with --registry
  --registry URL  folder or address of a registry, in place of FILE
                  ($FOTHER_REGISTRY, if no FILE is named)
  --root FILE     the root.json that says whose signatures are trusted
                  (/etc/fother/root.json)
  --channel NAME  which releases of the registry: those in edge, beta or stable,
                  and above it (stable; $FOTHER_CHANNEL)
  --state DIR     private folder for what was fetched (/var/lib/fother; else
                  $XDG_STATE_HOME/fother)
  --wait TIME     how long to wait for threads that are inside a function that
                  changes, such as 500ms or 10s (2s)
` + denyHelp + `
A program on the deny list starts without patches.
`,
	tail: true,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &runner{tool: t}
		c.registry.declare(fs)
		c.wait.declare(fs)
		c.deny.declare(fs)
		fs.StringVar(&c.state, "state", "", "")
		fs.BoolVar(&c.bestEffort, "best-effort", false, "")
		fs.BoolVar(&c.count, "count", false, "")
		fs.IntVar(&c.parent, helperOption, 0, "")
		return c.run
	},
}

// helperOption makes the command the helper of the process whose id it has: the
// one that patches its parent. Nobody gives it by hand.
const helperOption = "helper-of"

// The helper's pipes: from the first it reads that it may trace its parent, to
// the second it writes that the program may be executed.
const (
	helperIn = 3 + iota
	helperOut
)

func init() {
	// A program is executed by the process's first thread: it is the only one
	// that is traced then. Only here does the first goroutine run on it.
	if len(os.Args) > 1 && os.Args[1] == runCommandName {
		runtime.LockOSThread()
	}
}

const runCommandName = "run"

type runner struct {
	*tool
	registry   registryFlags
	state      string
	wait       wait
	deny       deny
	bestEffort bool
	count      bool
	parent     int
}

func (c *runner) run(ctx context.Context, args []string) int {
	if c.registry.url == "" && len(args) == 0 {
		c.registry.url = os.Getenv("FOTHER_REGISTRY")
	}
	switch {
	case c.json:
		return c.fail(usageError{errors.New("run takes no --json: standard output is the program's")})
	case len(c.tail) == 0:
		return c.fail(usageError{errors.New("no program is named behind --")})
	case c.registry.url == "" && len(args) == 0:
		return c.fail(usageError{errors.New("no patch file and no registry is named")})
	case c.registry.url != "" && (len(args) > 0 || c.count):
		return c.fail(usageError{errors.New("--registry cannot stand with patch files or --count")})
	case c.parent != 0:
		return c.help(ctx, args)
	}
	if err := c.registry.handOver(c.tool); err != nil {
		return c.fail(err)
	}
	code, err := c.launch()
	if err != nil {
		return c.fail(err)
	}
	return code
}

// launch starts the helper and executes the program. It returns only if the
// program was not executed.
func (c *runner) launch() (int, error) {
	path, err := exec.LookPath(c.tail[0])
	if err != nil {
		return 0, err
	}
	if err := unprivileged(path); err != nil {
		return 0, err
	}
	if err := c.denied(path); err != nil {
		c.note("%s: %v", clean(c.tail[0]), err)
		c.inherited()()
		return 0, c.execute(path)
	}
	inherit := c.inherited()
	helper, ready, err := startHelper()
	if err != nil {
		return 0, err
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil { // it ended, and said why
		_ = helper.Wait() // the state says it too
		if code := helper.ProcessState.ExitCode(); code > 0 {
			return code, nil
		} else if !c.bestEffort {
			return 0, fmt.Errorf("the helper ended: %v", helper.ProcessState)
		}
	}
	if unix.Gettid() != os.Getpid() {
		return 0, errors.New("not the first thread")
	}
	inherit()
	return 0, c.execute(path)
}

// execute returns only if it fails.
func (c *runner) execute(path string) error {
	return &os.PathError{Op: "execute", Path: path, Err: syscall.Exec(path, c.tail, os.Environ())}
}

// denied is an error if the deny list has the program: then there is no helper,
// for which the program would be left to wait. The helper asks again, of what is
// executed in the end, which of a script is its interpreter; and it tells what is
// wrong with the list.
func (c *runner) denied(path string) error {
	exe, err := filepath.EvalSymlinks(path)
	if err == nil {
		exe, err = filepath.Abs(exe)
	}
	if err != nil || c.deny.read() != nil {
		return nil
	}
	return c.deny.list.CheckProgram(os.Getpid(), exe)
}

// startHelper starts a child that is to patch this process. ready says when the
// program may be executed, and ends when the child does.
func startHelper() (helper *exec.Cmd, ready *os.File, err error) {
	in, allow, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	ready, out, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	args := append([]string{os.Args[0], runCommandName, "--" + helperOption, strconv.Itoa(os.Getpid())}, os.Args[2:]...)
	helper = &exec.Cmd{Path: "/proc/self/exe", Args: args, Stdout: os.Stderr, Stderr: os.Stderr, ExtraFiles: []*os.File{in, out}}
	err = helper.Start()
	in.Close()
	out.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("start the helper: %w", err)
	}
	// Yama lets nobody else trace its parent. Without Yama this fails, and need
	// not be.
	_ = unix.Prctl(unix.PR_SET_PTRACER, uintptr(helper.Process.Pid), 0, 0, 0)
	_, _ = allow.Write([]byte{0}) // if the helper has ended already, ready tells
	allow.Close()
	return helper, ready, nil
}

// privilegedError means that a program gets rights of its own.
type privilegedError struct{ path, why string }

func (e *privilegedError) Error() string {
	return fmt.Sprintf("%s: %v: it %s", e.path, apply.ErrPrivileged, e.why)
}

func (e *privilegedError) Unwrap() error { return apply.ErrPrivileged }

// unprivileged refuses a program that gets rights of its own. The kernel does
// not give them to a program that is traced.
func unprivileged(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	_, err = unix.Getxattr(path, "security.capability", nil)
	switch {
	case info.Mode()&fs.ModeSetuid != 0:
		return &privilegedError{path, "is set-user-ID"}
	case info.Mode()&fs.ModeSetgid != 0:
		return &privilegedError{path, "is set-group-ID"}
	case err == nil:
		return &privilegedError{path, "has file capabilities"}
	}
	return nil
}

// help is the helper's work. Its exit status is whether the program may begin.
func (c *runner) help(ctx context.Context, args []string) int {
	if os.Getppid() != c.parent {
		return c.fail(usageError{fmt.Errorf("--%s is not for use by hand", helperOption)})
	}
	code := c.patchParent(ctx, args)
	if code == exitDone || !c.bestEffort {
		return code
	}
	c.note("%s starts without its patches", clean(c.tail[0]))
	return exitDone
}

func (c *runner) patchParent(ctx context.Context, args []string) int {
	err := c.deny.read()
	if err != nil {
		return c.fail(err)
	}
	put, err := c.source(args)
	if err != nil {
		return c.fail(err)
	}
	in, out := os.NewFile(helperIn, "pipe"), os.NewFile(helperOut, "pipe")
	if _, err := io.ReadFull(in, make([]byte, 1)); err != nil {
		return exitError // the parent has ended
	}
	makeRoom()
	err = apply.AtEntry(ctx, c.parent, apply.LaunchOptions{Anyway: c.bestEffort, Check: c.deny.list.Check, Ready: func() error {
		_, err := out.Write([]byte{0})
		return err
	}})
	var denied *fleet.DeniedError
	switch {
	case errors.As(err, &denied):
		c.note("%s: %v", clean(c.tail[0]), err)
		return exitDone
	case errors.Is(err, apply.ErrGone): // it tells itself why it has ended
		return exitError
	case err != nil:
		return c.fail(fmt.Errorf("%s: %w", clean(c.tail[0]), err))
	}
	return put(ctx)
}

// source reads the patches, and returns what puts them into the parent and
// returns the exit code.
func (c *runner) source(args []string) (func(context.Context) int, error) {
	if c.registry.url != "" {
		p := &pull{tool: c.tool, registry: c.registry, state: c.state, wait: c.wait, deny: c.deny, procs: processes{pid: c.parent}}
		if !c.verbose {
			c.stdout = io.Discard
		}
		return func(ctx context.Context) int { return pullUnlocked(ctx, p) }, nil
	}
	s, err := openStore(args)
	if err == nil {
		err = s.empty()
	}
	return func(ctx context.Context) int {
		if err := c.patchFrom(ctx, s); err != nil {
			return c.fail(fmt.Errorf("%s: %w", clean(c.tail[0]), err))
		}
		return exitDone
	}, err
}

// patchFrom puts in what a store has for the parent.
func (c *runner) patchFrom(ctx context.Context, s *store) error {
	p, err := c.opener.Open(ctx, c.parent)
	if err != nil {
		return err
	}
	patches, err := s.patches(p.Objects())
	p.Close()
	if err != nil || len(patches) == 0 && !s.named {
		return err
	}
	if len(patches) == 0 {
		patches = s.given() // apply says what is wrong
	}
	o := c.options(c.wait)
	o.Count, o.Check = c.count, c.deny.list.Check
	res, err := c.applyTo(ctx, c.parent, patches, o)
	if err == nil && c.verbose {
		c.print(&outcome{PID: c.parent, Result: res})
	}
	return err
}

// pullUnlocked makes a pass for one process, after one that is under way.
func pullUnlocked(ctx context.Context, p *pull) int {
	const patience, nap = 30 * time.Second, 50 * time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(nap) {
		report, err := p.pass(ctx)
		if errors.Is(err, fleet.ErrLocked) && ctx.Err() == nil && time.Now().Before(end) {
			continue
		}
		if err != nil {
			return p.fail(pullError(err))
		}
		return p.tell(report)
	}
}
