package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/fleet"
)

var pullCommand = &command{
	name:  "pull",
	args:  "[OPTION…]",
	brief: "apply what a registry has for this host",
	help: `
Makes one pass: looks which builds run, asks the registry for patches that are
for them, and applies those that are missing. For cron and timers: a pass with
nothing to do is done (exit status 0), and says nothing but to a terminal. What
was revoked since it was applied is taken out: the highest level that is not
revoked goes in its place, if there is one.

Options:
  --registry URL  the registry: a folder, or an address with http, https, s3 or
                  oci ($FOTHER_REGISTRY)
  --root FILE     the root.json that says whose signatures are trusted
                  (/etc/fother/root.json)
  --channel NAME  which releases: of edge, beta and stable those in this one and
                  above it (stable; $FOTHER_CHANNEL)
  --state DIR     private folder for what was fetched (/var/lib/fother; else
                  $XDG_STATE_HOME/fother)
  -p PID|all      only this process, or all that the caller may trace, but
                  init (all)
  --dry-run       say what would be done, and change no process
  --wait TIME     how long to wait for threads that are inside a function that
                  changes, such as 500ms or 10s (2s)
` + denyHelp,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &pull{tool: t}
		c.registry.declare(fs)
		c.procs.declare(fs)
		c.wait.declare(fs)
		c.deny.declare(fs)
		fs.StringVar(&c.state, "state", "", "")
		fs.BoolVar(&c.dryRun, "dry-run", false, "")
		return c.run
	},
}

type pull struct {
	*tool
	registry registryFlags
	state    string
	procs    processes
	wait     wait
	deny     deny
	dryRun   bool
}

func (c *pull) run(ctx context.Context, args []string) int {
	if len(args) > 0 {
		return c.fail(usageError{fmt.Errorf("pull takes no argument %q", args[0])})
	}
	if c.registry.url == "" {
		c.registry.url = os.Getenv("FOTHER_REGISTRY")
	}
	if err := c.registry.handOver(c.tool); err != nil {
		return c.fail(err)
	}
	if err := c.deny.read(); err != nil {
		return c.fail(err)
	}
	if c.procs.pid == 0 {
		c.noteCapabilities()
	}
	report, err := c.pass(ctx)
	if err != nil {
		return c.fail(pullError(err))
	}
	return c.tell(report)
}

// pass makes one pass. Errors: why there was none.
func (c *pull) pass(ctx context.Context) (*fleet.Report, error) {
	state, err := stateFolder(c.state)
	if err != nil {
		return nil, err
	}
	o := fleet.Options{State: state, DryRun: c.dryRun, Wait: c.options(c.wait).Wait, Logger: c.logger(), Ready: makeRoom, Deny: c.deny.list}
	if c.procs.pid != 0 {
		o.PIDs = []int{c.procs.pid}
	}
	client, err := c.registry.open(c.tool, state)
	if err != nil {
		return nil, err
	}
	o.Registry, o.Address = client, client.Address()
	var end func()
	o.Progress, end = c.progress()
	defer end()
	return fleet.Pull(ctx, o)
}

// tell prints the report and returns the exit code.
func (c *pull) tell(r *fleet.Report) int {
	code := exitDone
	var hints []string
	for f := range r.Failures() {
		err := pullError(f.Err)
		f.Exit, f.Hint = exitCode(err), hint(err)
		if code != exitError {
			code = f.Exit
		}
		if f.Hint != "" && !slices.Contains(hints, f.Hint) {
			hints = append(hints, f.Hint)
		}
	}
	c.errors(r)
	for _, h := range hints { // each once, for however many processes
		fmt.Fprintf(c.stderr, "fother: hint: %s\n", clean(h))
	}
	if c.json {
		c.encode(r)
		return code
	}
	c.results(r)
	return code
}

// errors tells all errors of a report on standard error.
func (c *pull) errors(r *fleet.Report) {
	tell := func(prefix string, fs []fleet.Failure) {
		for _, f := range fs {
			fmt.Fprintf(c.stderr, "fother: error: %s%s\n", prefix, flat(f.Message))
		}
	}
	tell("", r.Errors)
	for _, rel := range r.Releases {
		tell("", rel.Errors)
	}
	for _, p := range r.Processes {
		tell(fmt.Sprintf("process %d (%s): ", p.PID, clean(p.Name)), p.Errors)
	}
}

// results tells a person what was done.
func (c *pull) results(r *fleet.Report) {
	done := 0
	for _, e := range r.Expired {
		if e.Result == nil {
			fmt.Fprintf(c.stdout, "%d (%s): would take out a patch whose trial has ended\n", e.PID, clean(e.Name))
		} else {
			c.print(&outcome{PID: e.PID, Result: e.Result})
		}
	}
	for _, v := range r.Revoked {
		c.recalled(v, r.DryRun)
	}
	for _, p := range r.Processes {
		for _, s := range p.Steps {
			done++
			o := &outcome{PID: p.PID, Result: s.Result}
			if s.Result == nil {
				o.Plan = &plan{Apply: s.Apply, Replace: s.Replace}
			}
			c.print(o)
		}
		if c.verbose {
			for _, id := range p.Present {
				fmt.Fprintf(c.stdout, "%d (%s): has series %s, level %d of %s already\n", p.PID, clean(p.Name), id.Series, id.Level, id.BuildID)
			}
			for _, id := range p.Rejected {
				fmt.Fprintf(c.stdout, "%d (%s): series %s, level %d of %s was on trial and was not accepted\n", p.PID, clean(p.Name), id.Series, id.Level, id.BuildID)
			}
		}
	}
	if done == 0 && !c.verbose && terminal(c.stdout) == nil {
		return // cron sends mail whenever there is output
	}
	what := "applied"
	if r.DryRun {
		what = "to apply"
	}
	fmt.Fprintf(c.stdout, "looked at %s: %s for %s, %s %s\n", count(r.Scanned, "process"),
		count(len(r.Releases), "release"), count(len(r.Processes), "process"), count(done, "bundle"), what)
	if c.verbose {
		for _, l := range r.LeftAlone {
			fmt.Fprintf(c.stdout, "%d (%s): left alone: the deny list has %q\n", l.PID, clean(l.Name), l.Rule)
		}
	}
	if r.Denied > 0 && c.verbose {
		fmt.Fprintf(c.stdout, "%s may not be traced by this user\n", count(r.Denied, "process"))
	}
}

// recalled tells of a patch that was revoked.
func (c *pull) recalled(v fleet.Recalled, dryRun bool) {
	what := "stays for now"
	switch {
	case dryRun:
		what = "would be taken out"
	case v.Result != nil:
		c.print(&outcome{PID: v.PID, Result: v.Result})
		what = "is taken out"
	case v.Out:
		what = "is replaced"
	}
	fmt.Fprintf(c.stdout, "%d (%s): %s (series %s, level %d) %s, since it was revoked: %s\n",
		v.PID, clean(v.Name), clean(v.Package), v.Patch.Series, v.Patch.Level, what, clean(v.Reason))
}

// flat returns an error's text as one line: joined errors stand in lines of
// their own.
func flat(s string) string { return clean(strings.ReplaceAll(s, "\n", "; ")) }

// terminal returns the terminal behind an output, nil if there is none.
func terminal(w io.Writer) *os.File {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return f
}

// progress returns what shows a line that changes, if a person looks on, and
// what takes the line away.
func (c *pull) progress() (show func(string), end func()) {
	tty := terminal(c.stderr)
	if tty == nil || c.verbose {
		return nil, func() {}
	}
	const width, erase = 78, "\r\x1b[K"
	show = func(what string) {
		line := []rune(clean(what))
		_, _ = io.WriteString(tty, erase+string(line[:min(width, len(line))]))
	}
	return show, func() { _, _ = io.WriteString(tty, erase) }
}

// stateFolder returns where a pull keeps what it has fetched.
func stateFolder(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/fother", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "fother"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usageError{fmt.Errorf("no state folder: name one with --state: %w", err)}
	}
	return filepath.Join(home, ".local", "state", "fother"), nil
}

// registryFlags are the options that name a registry and whom to trust there.
type registryFlags struct{ url, root, channel string }

func (r *registryFlags) declare(fs *flag.FlagSet) {
	fs.StringVar(&r.url, "registry", "", "")
	fs.StringVar(&r.root, "root", "/etc/fother/root.json", "")
	fs.StringVar(&r.channel, "channel", "", "")
}

// wholeName is the program with all commands, and with the code that reads
// registries, beside one that was built with -tags split and has none.
const wholeName = "fother-registry"

// client reads a registry.
type client interface {
	fleet.Registry
	// Address is where the registry is, as it may be shown.
	Address() string
}

// open returns a client that keeps its metadata in the given folder.
func (r *registryFlags) open(t *tool, state string) (client, error) {
	if r.url == "" {
		return nil, usageError{errors.New("no registry is named: use --registry or FOTHER_REGISTRY")}
	}
	return r.client(t, state)
}

// hinted is an error with what a user can do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint says what a user can do.
func (h hinted) Hint() string { return h.hint }

// pullError adds what a user can do about errors of package fleet.
func pullError(err error) error {
	var private *fleet.PrivateError
	switch {
	case errors.Is(err, fleet.ErrLocked):
		return hinted{err, "it ends by itself; a timer's next pass does what is left"}
	case errors.As(err, &private):
		return hinted{err, "name a folder of your own with --state, or chmod go-w and chown this one"}
	}
	return err
}
