// Command fother patches running processes, takes patches out again and tells
// what is applied. It runs on the host of the processes and reads nothing but
// them and the patch files it is given.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fother/fother/apply"
)

func main() {
	// A tracer's SIGCHLD for each thread that stops doubles the time of a stop.
	// SIGPIPE must not end the tool in the middle of its work.
	signal.Ignore(syscall.SIGCHLD, syscall.SIGPIPE)
	// No collection during a stop: a run allocates little and ends soon.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitDone    = 0
	exitError   = 1
	exitUsage   = 2
	exitNothing = 3
	exitRefused = 4
)

const usage = `usage: fother COMMAND [OPTION…] [ARGUMENT…]

fother patches programs while they run.

  patch -p PID|all FILE|DIR…              apply .kpatch files, all of a folder
  unpatch -p PID|all [BUILDID[:SERIES]…]  take patches out, all if none is named;
                                          a BUILDID's first digits are enough
  info [-p PID|all]                       what is loaded, and the patches in it

Options of all commands:
  -p PID|all      the process, or all that the caller may trace
  -v              say more
  --json          results as JSON on standard output
  -h              this help

Options of patch and unpatch:
  --dry-run       patch only: say what would be done, and change nothing
  --wait TIME     how long to wait for threads that are inside a function that
                  changes, such as 500ms or 10s (2s)

Exit status: 0 done, 1 error, 2 usage, 3 nothing to do, 4 refused.
`

// tool is one run of the command.
type tool struct {
	stdout, stderr io.Writer

	target  string
	dryRun  bool
	verbose bool
	json    bool
	wait    time.Duration
	args    []string
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	out := &output{Writer: stdout}
	t := &tool{stdout: out, stderr: stderr}
	code := t.run(ctx, args)
	// Who closes a pipe has read enough.
	if out.err != nil && !errors.Is(out.err, syscall.EPIPE) && code != exitUsage {
		return t.fail(fmt.Errorf("the results could not be written: %w", out.err))
	}
	return code
}

// output is a writer that keeps its first error.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

func (t *tool) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		io.WriteString(t.stderr, usage)
		return exitUsage
	}
	commands := map[string]func(context.Context) int{"patch": t.patch, "unpatch": t.unpatch, "info": t.info}
	if args[0] == "-h" || args[0] == "--help" || args[0] == "-help" || args[0] == "help" {
		io.WriteString(t.stdout, usage)
		return exitDone
	}
	if strings.HasPrefix(args[0], "-") {
		return t.fail(usageError{fmt.Errorf("%s: options come after the command", args[0])})
	}
	command, ok := commands[args[0]]
	if !ok {
		return t.fail(usageError{fmt.Errorf("%q is not a command", args[0])})
	}
	switch err := t.parse(args[0], args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(t.stdout, usage)
		return exitDone
	case err != nil:
		return t.fail(usageError{err})
	}
	return command(ctx)
}

// parse reads options, which may also follow other arguments.
func (t *tool) parse(name string, args []string) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&t.target, "p", "", "")
	fs.BoolVar(&t.verbose, "v", false, "")
	fs.BoolVar(&t.json, "json", false, "")
	if name == "patch" {
		fs.BoolVar(&t.dryRun, "dry-run", false, "")
	}
	if name != "info" {
		fs.DurationVar(&t.wait, "wait", 2*time.Second, "")
	}
	for {
		if err := fs.Parse(args); err != nil {
			return err
		}
		if args = fs.Args(); len(args) == 0 {
			break
		}
		t.args, args = append(t.args, args[0]), args[1:]
	}
	if t.target == "" && name != "info" {
		return errors.New("-p PID or -p all is missing")
	}
	return nil
}

// pids returns the processes that -p names; all is set for -p all.
func (t *tool) pids() (pids []int, all bool, err error) {
	if t.target == "all" || t.target == "" {
		pids, err = apply.Processes()
		return pids, true, err
	}
	pid, err := strconv.Atoi(t.target)
	if err != nil || pid <= 0 {
		return nil, false, usageError{fmt.Errorf("-p %q: want a process id or all", t.target)}
	}
	return []int{pid}, false, nil
}

func (t *tool) options() apply.Options {
	o := apply.Options{Wait: t.wait}
	if t.wait == 0 {
		o.Wait = -1
	}
	if t.verbose {
		o.Logger = slog.New(slog.NewTextHandler(t.stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

// fail tells an error and what can be done about it, and returns its exit
// code.
func (t *tool) fail(err error) int {
	fmt.Fprintf(t.stderr, "fother: error: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(t.stderr, "fother: hint: %s\n", h)
	}
	return exitCode(err)
}
