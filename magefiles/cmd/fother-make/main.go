// Fother-make makes live patches for the project in the current folder, which
// is built with make. Under the name libcare-patch-make it takes the place of
// LibCare's script of that name. Package lpmake does the work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fother/fother/magefiles/internal/lpmake"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
)

func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	// The sources must come back though nobody reads what is written. To ignore
	// the signal would be inherited by the builds.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes. Under LibCare's name there are 0 and 1.
const (
	exitDone    = 0
	exitError   = 1
	exitUsage   = 2
	exitRefused = 4
)

// libcare is LibCare's name of this command.
const libcare = "libcare-patch-make"

const usage = `Makes live patches for the project in the current folder, built with make.

usage: %s [-h] [-u|-c] [-v] [-s DIR] [-d VAR] PATCH...

  -h, --help         show this
  -u, --update       only make the patches again from the builds of the last run
  -c, --clean        make clean before each build, and at the end
  -s, --srcdir DIR   apply the patches in DIR: for builds beside the source tree
  -d, --destdir VAR  what tells make install where to; DESTDIR if not given
  -v, --verbose      show what the builds print

A PATCH is a unified diff, applied as by patch -p1 and taken back at the end.
The project is built and installed twice; the patches are in patchroot, one
BUILDID.kpatch for each program or library that the fix changes:

  KPATCH_STAGE=configure CC=fother-cc ./configure
  fother-make fix.patch
  fother patch -p PID patchroot

A file called lpmakefile is used in place of the makefile. Environment:

  LPMAKE_ORIGINAL_DIR  where the original is installed    lpmake
  LPMAKE_PATCHED_DIR   where the patched one is           .lpmaketmp/patched
  LPMAKE_PATCHROOT     where the patches go               patchroot
  FOTHER_LEVEL         level of the patches               1
  FOTHER_MAKE          the make command                   make
  FOTHER_WORK          what is kept between runs          .fother

A makefile that surely does not heed VAR is refused before it installs anything;
where it cannot be told, a warning says so. A file that is edited while the fix
is applied to it is left alone: an error says where the original is.

exit codes: %s
`

// What the exit codes mean, under each name.
const (
	codes        = "0 done, 1 error, 2 usage or --clean needed, 4 cannot be patched"
	libcareCodes = "0 done, 1 error"
)

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	c := &command{name: "fother-make", stdout: stdout, stderr: stderr}
	if len(args) > 0 {
		c.name, args = filepath.Base(args[0]), args[1:]
	}
	code := c.run(ctx, args)
	if c.name == libcare && code > exitError {
		return exitError
	}
	return code
}

// command is one run of the command.
type command struct {
	name           string
	stdout, stderr io.Writer
}

func (c *command) run(ctx context.Context, args []string) int {
	f, err := parse(args)
	if err != nil {
		return c.fail(err)
	}
	if f.help {
		fmt.Fprintf(c.stdout, usage, c.name, c.codes())
		return exitDone
	}
	o, err := c.options(f)
	if err != nil {
		return c.fail(err)
	}
	work := lpmake.Make
	if f.update {
		work = lpmake.Update
	} else if err := checkMake(o.Make); err != nil {
		return c.fail(err)
	}
	made, err := work(ctx, o)
	if err != nil {
		var left *lpmake.RestoreError
		switch {
		case ctx.Err() == nil:
		case errors.As(err, &left):
			err = fmt.Errorf("interrupted: %w", left)
		default:
			err = fmt.Errorf("interrupted: %w", ctx.Err())
		}
		return c.fail(err)
	}
	for _, p := range made {
		fmt.Fprintf(c.stdout, "patch for %s is in %s\n", p.Target, p.File)
	}
	return exitDone
}

func (c *command) codes() string {
	if c.name == libcare {
		return libcareCodes
	}
	return codes
}

// checkMake says how to install make if it is not there. What else a build
// needs is known when it asks for it.
func checkMake(command string) error {
	words := strings.Fields(command)
	if len(words) == 0 {
		return tools.Check("make")
	}
	if strings.ContainsAny(words[0], "=$'\"\\") {
		return nil // for the shell to find out
	}
	return tools.Check(words[0])
}

// fail tells an error and what can be done about it, and returns its exit
// code.
func (c *command) fail(err error) int {
	fmt.Fprintf(c.stderr, "%s: error: %v\n", c.name, err)
	for _, h := range pipeline.Hints(err) {
		fmt.Fprintf(c.stderr, "%s: hint: %s\n", c.name, h)
	}
	var refused *pipeline.RefusedError
	switch {
	case errors.Is(err, lpmake.ErrUsage), errors.Is(err, lpmake.ErrNeedsClean):
		return exitUsage
	case errors.As(err, &refused):
		return exitRefused
	}
	return exitError
}

// options joins flags and environment.
func (c *command) options(f *flags) (lpmake.Options, error) {
	o := lpmake.Options{
		Source: f.source, DestDir: f.destdir, Clean: f.clean, Progress: c.stderr,
		Original: os.Getenv("LPMAKE_ORIGINAL_DIR"), Patched: os.Getenv("LPMAKE_PATCHED_DIR"), Patchroot: os.Getenv("LPMAKE_PATCHROOT"),
		Make: os.Getenv("FOTHER_MAKE"),
	}
	var err error
	if o.Dir, err = os.Getwd(); err != nil {
		return o, err
	}
	if level := os.Getenv("FOTHER_LEVEL"); level != "" {
		if o.Level, err = specs.ParseLevel(level); err != nil {
			return o, &usageError{"FOTHER_LEVEL: " + err.Error()}
		}
	}
	if work := os.Getenv("FOTHER_WORK"); work != "" {
		// Others may work there: each folder that is built has its own.
		o.Work = filepath.Join(work, "make-"+specs.DigestOf([]byte(o.Dir)).String()[:12])
	}
	if f.verbose {
		o.Output = c.stderr
		o.Logger = slog.New(slog.NewTextHandler(c.stderr, nil))
	}
	if o.Patches, err = c.patches(f); err != nil {
		return o, err
	}
	if o.Shim, err = findShim(); err != nil {
		return o, err
	}
	o.Env = c.environ(&o)
	return o, nil
}

// environ returns what is added to the environment of the builds. Under
// LibCare's name that is what LibCare's script adds, and the builds' output is
// shown on standard output.
func (c *command) environ(o *lpmake.Options) []string {
	dir := filepath.Dir(o.Shim)
	// A makefile that was configured with CC=fother-cc has to find it.
	env := []string{"PATH=" + os.Getenv("PATH") + ":" + dir}
	if c.name != libcare {
		return env
	}
	o.Progress, o.Output = c.stdout, c.stdout
	env = append(env, "IS_LIBCARE_CC=y", "CC="+o.Shim, "CXX="+o.Shim)
	if plus := filepath.Join(dir, "fother-c++"); isProgram(plus) {
		env = append(env, "CXX="+plus)
	}
	return env
}

// patches returns the paths of the patches: relative to the current folder or,
// as LibCare has it, to the source tree.
func (c *command) patches(f *flags) ([]string, error) {
	var out []string
	for _, p := range f.patches {
		if _, err := os.Stat(p); err != nil && f.source != "" && !filepath.IsAbs(p) {
			if in := filepath.Join(f.source, p); isFile(in) {
				p = in
			}
		}
		if !isFile(p) {
			return nil, &usageError{p + " is not a file: a source patch is expected"}
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		out = append(out, abs)
	}
	return out, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// findShim finds fother-cc beside this program, else on PATH.
func findShim() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if path := filepath.Join(filepath.Dir(self), "fother-cc"); isProgram(path) {
		return path, nil
	}
	path, err := exec.LookPath("fother-cc")
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", &toolError{err}
	}
	return path, nil
}

// toolError means that fother-cc is not there.
type toolError struct{ error }

func (e *toolError) Unwrap() error { return e.error }
func (e *toolError) Hint() string {
	return "fother-make needs fother-cc beside it or on PATH: go tool mage install"
}
