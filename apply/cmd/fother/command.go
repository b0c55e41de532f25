package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
)

// command is one of the tool's commands.
type command struct {
	name string
	// args are its options and arguments, for usage texts.
	args string
	// brief says what it does, in lines of at most 38 columns.
	brief string
	// help is the rest of what -h prints: the options other than those of all
	// commands, and what there is to know.
	help string
	// tail is set if the arguments behind "--" are a command of their own, which
	// goes into tool.tail.
	tail bool
	// start declares the options in fs, and returns what runs the command with
	// the arguments that are no options, once the options are read.
	start func(t *tool, fs *flag.FlagSet) action
}

// action does a command's work and returns the exit code.
type action func(ctx context.Context, args []string) int

// commands are all commands, in the order of the usage text.
func commands() []*command {
	return []*command{patchCommand, unpatchCommand, acceptCommand, infoCommand, runCommand, pullCommand, showCommand, symbolsCommand}
}

func findCommand(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return c
		}
	}
	return nil
}

// usageError is a mistake on the command line.
type usageError struct{ error }

const commonHelp = `Options of all commands:
  -v              say more
  --json          results as JSON on standard output
  -h              this help

Exit status: 0 done, 1 error, 2 usage, 3 nothing to do, 4 refused.
`

// usage is what fother -h prints.
func usage() string {
	var b strings.Builder
	b.WriteString("usage: fother COMMAND [OPTION…] [ARGUMENT…]\n\nfother patches programs while they run.\n\n")
	const column = 42
	for _, c := range commands() {
		head := fmt.Sprintf("  %s %s", c.name, c.args)
		pad := column - len([]rune(head))
		if pad < 2 {
			head, pad = head+"\n", column
		}
		brief := strings.ReplaceAll(c.brief, "\n", "\n"+strings.Repeat(" ", column))
		fmt.Fprintf(&b, "%s%s%s\n", head, strings.Repeat(" ", pad), brief)
	}
	b.WriteString("\nfother COMMAND -h lists the command's own options.\n\n" + commonHelp)
	return b.String()
}

// usage is what fother COMMAND -h prints.
func (c *command) usage() string {
	return fmt.Sprintf("usage: fother %s %s\n\n%s\n\n%s", c.name, c.args, strings.Trim(c.help, "\n"), commonHelp)
}

func (t *tool) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		io.WriteString(t.stderr, usage())
		return exitUsage
	}
	switch name := args[0]; name {
	case "-h", "--help", "-help":
		io.WriteString(t.stdout, usage())
		return exitDone
	case "help":
		return t.help(args[1:])
	default:
		if strings.HasPrefix(name, "-") {
			return t.fail(usageError{fmt.Errorf("%s: options come after the command", name)})
		}
	}
	c := findCommand(args[0])
	if c == nil {
		return t.fail(usageError{fmt.Errorf("%q is not a command", args[0])})
	}
	return t.start(ctx, c, args[1:])
}

// help is "fother help [COMMAND]".
func (t *tool) help(args []string) int {
	text := usage()
	if len(args) > 0 {
		c := findCommand(args[0])
		if c == nil {
			return t.fail(usageError{fmt.Errorf("%q is not a command", args[0])})
		}
		text = c.usage()
	}
	io.WriteString(t.stdout, text)
	return exitDone
}

// start reads the options of c, which may also follow other arguments, and
// runs it.
func (t *tool) start(ctx context.Context, c *command, args []string) int {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&t.verbose, "v", false, "")
	fs.BoolVar(&t.json, "json", false, "")
	do := c.start(t, fs)
	if i := slices.Index(args, "--"); c.tail && i >= 0 {
		args, t.tail = args[:i], args[i+1:]
	}
	rest, err := parse(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(t.stdout, c.usage())
		return exitDone
	case err != nil:
		return t.fail(usageError{fmt.Errorf("%s: %w", c.name, err)})
	}
	return do(ctx, rest)
}

// parse reads options that may stand before, between and after other
// arguments, which it returns. After "--" there are no options.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		n := len(args) - fs.NArg()
		if n > 0 && args[n-1] == "--" {
			return append(rest, fs.Args()...), nil
		}
		if args = fs.Args(); len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// processes is the option -p.
type processes struct {
	text string
	all  bool
	pid  int
	// chosen are those of all that are left, nil if none were left out.
	chosen []int
}

func (p *processes) declare(fs *flag.FlagSet) { fs.Var(p, "p", "") }

func (p *processes) String() string { return p.text }

// Set reads "all" or a process id.
func (p *processes) Set(s string) error {
	p.text, p.all = s, s == "all"
	pid, err := strconv.Atoi(s)
	if !p.all && (err != nil || pid <= 0) {
		return errors.New("want a process id or all")
	}
	p.pid = pid
	return nil
}

// list returns the processes.
func (p *processes) list() ([]int, error) {
	switch {
	case p.chosen != nil:
		return p.chosen, nil
	case p.all:
		return apply.Processes()
	}
	return []int{p.pid}, nil
}

// unknown returns err, met where a process is read. Of all processes only those
// are news that keep who reads them waiting: whatever the others are, it cannot
// be said that there is anything to do in them.
func (p *processes) unknown(err error) error {
	if p.all && !errors.Is(err, fleet.ErrSilent) {
		return nil
	}
	return err
}

// errNoTarget is the mistake of a command that changes processes and is not
// told which.
var errNoTarget = usageError{errors.New("-p PID or -p all is missing")}

// wait is the option --wait: a time that is not negative.
type wait time.Duration

func (w *wait) declare(fs *flag.FlagSet) { *w = wait(2 * time.Second); fs.Var(w, "wait", "") }

func (w *wait) String() string { return time.Duration(*w).String() }

// Set reads a duration such as 500ms.
func (w *wait) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return errors.New("want a time such as 500ms or 10s, not below 0")
	}
	*w = wait(d)
	return nil
}

// options are those of package apply. There, 0 stands for the default, and
// a negative time for none.
func (t *tool) options(w wait) apply.Options {
	o := apply.Options{Wait: time.Duration(w), Logger: t.logger()}
	if w == 0 {
		o.Wait = -1
	}
	return o
}
