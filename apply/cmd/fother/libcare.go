package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
)

// libcareName is the name under which the tool takes LibCare's command line.
const libcareName = "libcare-ctl"

// libcareWait is how long LibCare waits for threads to leave a function.
const libcareWait = wait(3 * time.Second)

const libcareUsage = `usage: libcare-ctl [-v] [-h] COMMAND [OPTION…] [ARGUMENT…]

This is fother under LibCare's name: it takes the command lines of LibCare's
libcare-ctl, and patches that fother-make, libcare-patch-make or a pipeline of
fother's made.

  patch   [-h] -p PID|all PATCH          apply a .kpatch file, a bundle, or what
                                         fits of a folder (also: patch-user)
  unpatch [-h] -p PID|all [ID…]          take patches out: those of the objects
                                         of these build-ids or base names, or all
                                         (also: unpatch-user)
  info    [-h] [-n] [-v] [-p PID|all] [-s FOLDER] [-r REGEXP] | -b BUILDID
                                         objects that are patched, or that FOLDER
                                         (/var/lib/libcare if it exists) has
                                         patches for (also: info-user)
    -n  without the patches' descriptions
    -r  only objects whose base name matches
    -b  all processes that have this object loaded
    -s  "" and /dev/null stand for no folder

Options before the command: -v says more, -h is this help.

server, client and stresstest are not served: see fother pull.

Exit status: 0 done, or nothing to do; 1 error.
`

// libcare is a run under LibCare's name.
type libcare struct{ *tool }

// runLibcare is [run] with LibCare's grammar, lines of output and exit codes.
// Nothing to do is 0: LibCare says so in a line, not in its exit status. Unlike
// there, it is 0 too after patches were taken out and after -h, and 1 after
// a wrong command line.
func runLibcare(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	return runAs(libcareName, stdout, stderr, func(t *tool) int {
		if code := (&libcare{t}).run(ctx, args); code != exitDone {
			return exitError
		}
		return exitDone
	})
}

func (l *libcare) run(ctx context.Context, args []string) int {
	options, args, err := getopt(args, "+vh")
	if err != nil {
		return l.fail(usageError{err})
	}
	for _, o := range options {
		if o.letter == 'h' {
			return l.help()
		}
		l.verbose = true
	}
	if len(args) == 0 {
		return l.fail(usageError{errors.New("no command is named")})
	}
	switch args[0] {
	case "patch", "patch-user":
		return l.patch(ctx, args[1:])
	case "unpatch", "unpatch-user":
		return l.unpatch(ctx, args[1:])
	case "info", "info-user":
		return l.info(ctx, args[1:])
	case "server", "client", "stresstest":
		return l.fail(&servedError{args[0]})
	}
	return l.fail(usageError{fmt.Errorf("%q is not a command", args[0])})
}

func (l *libcare) help() int {
	io.WriteString(l.stdout, libcareUsage)
	return exitDone
}

// servedError means a command of LibCare's that something else serves.
type servedError struct{ command string }

func (e *servedError) Error() string {
	return fmt.Sprintf("there is no %s: fother keeps no process that waits for others to start", e.command)
}

// Hint says what serves instead.
func (e *servedError) Hint() string {
	return "fother pull patches all that run with what a registry has for them: start it by the timer fother-pull.timer or by cron; libcare-ctl patch -p all FOLDER does so with a folder"
}

// target reads the options of patch and unpatch, which want -p.
func (l *libcare) target(args []string) (p processes, rest []string, help bool, err error) {
	options, rest, err := getopt(args, "hp:")
	if err != nil {
		return p, nil, false, usageError{err}
	}
	for _, o := range options {
		if o.letter == 'h' {
			return p, nil, true, nil
		}
		if err := p.Set(o.value); err != nil {
			return p, nil, false, usageError{fmt.Errorf("-p %q: %w", o.value, err)}
		}
	}
	if p.text == "" {
		return p, nil, false, errNoTarget
	}
	return p, rest, false, nil
}

// each calls f for the processes, which tells what was done and returns an
// error, or whether it did anything.
func (l *libcare) each(ctx context.Context, p processes, none string, f func(pid int) (bool, error)) int {
	pids, err := p.list()
	if err != nil {
		return l.fail(err)
	}
	code, any := exitDone, false
	for _, pid := range pids {
		if ctx.Err() != nil {
			return l.fail(fmt.Errorf("interrupted: %w", ctx.Err()))
		}
		did, err := f(pid)
		if p.all && (errors.Is(err, apply.ErrGone) || errors.Is(err, fleet.ErrLeftOut)) {
			continue
		}
		if err != nil {
			code = l.fail(fmt.Errorf("process %d: %w", pid, err))
		}
		any = any || did || err != nil
		if !p.all && !did && err == nil {
			fmt.Fprintf(l.stdout, none+"\n", fmt.Sprintf("PID '%d'", pid))
		}
	}
	l.noteLeftOut()
	// LibCare writes a line for each process there is.
	if p.all && !any {
		fmt.Fprintf(l.stdout, none+"\n", "any process")
	}
	return code
}

func (l *libcare) patch(ctx context.Context, args []string) int {
	procs, rest, help, err := l.target(args)
	switch {
	case help:
		return l.help()
	case err != nil:
		return l.fail(err)
	case len(rest) == 0:
		return l.fail(usageError{errors.New("no patch is named")})
	}
	path := rest[len(rest)-1]
	for _, other := range rest[:len(rest)-1] {
		l.note("%s: not applied: one patch or folder is taken, the last", clean(other))
	}
	c := &patch{tool: l.tool, procs: procs, wait: libcareWait}
	if err = c.deny.read(); err == nil {
		c.store, err = openStore([]string{path})
	}
	if err != nil {
		return l.fail(err)
	}
	defer c.deny.note(l.tool)
	c.noteScripts()
	makeRoom()
	return l.each(ctx, procs, "No patch(es) applicable to %s have been found", func(pid int) (bool, error) {
		if refused, err := c.deny.refuses(l.tool, procs, pid); refused {
			return false, err
		}
		res, err := l.apply(ctx, c, pid)
		if res != nil && err == nil {
			l.printApplied(res)
		}
		if err != nil && !(procs.all && errors.Is(err, apply.ErrGone)) {
			fmt.Fprintf(l.stdout, "Failed to apply patch '%s'\n", clean(path))
		}
		return res != nil, err
	})
}

// apply returns what was done. It returns nil if there is nothing to do, which
// is no error for LibCare: all is there, or nothing fits.
func (l *libcare) apply(ctx context.Context, c *patch, pid int) (res *apply.Result, err error) {
	patches, err := c.fitting(ctx, pid)
	if err == nil && len(patches) == 0 {
		return nil, nil
	}
	if err == nil {
		res, err = c.applyTo(ctx, pid, patches, c.applyOptions())
	}
	var noFit *apply.NoFitError
	var none *noneFitError
	if errors.Is(err, apply.ErrAlreadyApplied) || errors.As(err, &noFit) || errors.As(err, &none) {
		return nil, nil
	}
	return res, err
}

func (l *libcare) printApplied(res *apply.Result) {
	hunks := 0
	for _, a := range res.Applied {
		hunks += len(a.Functions)
		for _, b := range res.Replaced {
			if b.BuildID == a.BuildID && b.Series == a.Series {
				fmt.Fprintf(l.stdout, "%s: replacing patch level %d with level %d\n", clean(filepath.Base(a.Object)), b.Level, a.Level)
				break
			}
		}
	}
	fmt.Fprintf(l.stdout, "%d patch hunk(s) have been successfully applied to PID '%d'\n", hunks, res.PID)
	if l.verbose {
		l.print(&outcome{PID: res.PID, Result: res})
	}
}

func (l *libcare) unpatch(ctx context.Context, args []string) int {
	procs, names, help, err := l.target(args)
	switch {
	case help:
		return l.help()
	case err != nil:
		return l.fail(err)
	}
	var d deny
	if err := d.read(); err != nil {
		return l.fail(err)
	}
	defer d.note(l.tool)
	return l.each(ctx, procs, "No patch(es) cancellable from %s were found", func(pid int) (bool, error) {
		if refused, err := d.refuses(l.tool, procs, pid); refused {
			return false, err
		}
		res, err := l.revert(ctx, pid, names, procs.all)
		switch {
		case err != nil && !(procs.all && errors.Is(err, apply.ErrGone)):
			fmt.Fprintf(l.stdout, "Failed to cancel patches for %d\n", pid)
		case err == nil && res != nil:
			hunks := 0
			for _, r := range res.Removed {
				hunks += len(r.Functions)
			}
			fmt.Fprintf(l.stdout, "%d patch hunk(s) were successfully cancelled from PID '%d'\n", hunks, pid)
			if l.verbose {
				l.print(&outcome{PID: pid, Result: res})
			}
		}
		return res != nil, err
	})
}

// revert takes the patches of the named objects out of a process. It returns
// nil if there are none.
func (l *libcare) revert(ctx context.Context, pid int, names []string, all bool) (*apply.Result, error) {
	which, err := l.applied(ctx, pid, names)
	if all && passOver(err) || err == nil && len(which) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	res, err := l.revertIn(ctx, pid, which, l.options(libcareWait))
	if errors.Is(err, apply.ErrNotApplied) {
		return nil, nil
	}
	return res, err
}

// applied returns what is applied to a process in the objects of the given
// build-ids or base names, in all if there are none.
func (l *libcare) applied(ctx context.Context, pid int, names []string) ([]apply.Selector, error) {
	p, err := l.opener.Open(ctx, pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var which []apply.Selector
	for _, a := range p.Applied() {
		found := len(names) == 0
		for _, name := range names {
			found = found || strings.EqualFold(name, string(a.BuildID)) || name == filepath.Base(a.Object)
		}
		if found {
			which = append(which, apply.Selector{BuildID: a.BuildID, Series: a.Series})
		}
	}
	return which, nil
}

// libcareFolder is where LibCare keeps patches.
const libcareFolder = "/var/lib/libcare"

// exists reports whether there is something at path.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
