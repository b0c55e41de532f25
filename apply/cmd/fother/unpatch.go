package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/specs"
)

var unpatchCommand = &command{
	name:  "unpatch",
	args:  "-p PID|all [BUILDID[:SERIES]…]",
	brief: "take patches out, all if none is named",
	help: `
Takes patches out of running processes: those of the objects and series that are
named, or all. A build-id's first digits are enough.

Options:
  -p PID|all      the process, or all that the caller may trace, but init
  --wait TIME     how long to wait for threads that are inside a function that
                  changes, such as 500ms or 10s (2s)
` + denyHelp,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &unpatch{tool: t}
		c.procs.declare(fs)
		c.wait.declare(fs)
		c.deny.declare(fs)
		return c.run
	},
}

type unpatch struct {
	*tool
	procs processes
	wait  wait
	deny  deny
}

func (c *unpatch) run(ctx context.Context, args []string) int {
	which, err := c.procs.selected(args, &c.deny)
	if err != nil {
		return c.fail(err)
	}
	defer c.deny.note(c.tool)
	return c.each(ctx, c.procs, func(pid int) (*outcome, error) {
		if refused, err := c.deny.refuses(c.tool, c.procs, pid); refused {
			return nil, err
		}
		if c.procs.all {
			if some, err := c.patched(ctx, pid); !some {
				return nil, err
			}
		}
		o := c.options(c.wait)
		o.Check = c.deny.list.Check
		res, err := c.revertIn(ctx, pid, which, o)
		return &outcome{Result: res}, err
	})
}

// selected reads what accept and unpatch are told: of the processes, the patches
// that arguments name, and the deny list. Errors are ready for fail.
func (p *processes) selected(args []string, d *deny) ([]apply.Selector, error) {
	if p.text == "" {
		return nil, errNoTarget
	}
	which, err := selectors(args)
	if err != nil {
		return nil, usageError{err}
	}
	return which, d.read()
}

// selectors reads arguments BUILDID[:SERIES].
func selectors(args []string) ([]apply.Selector, error) {
	var which []apply.Selector
	for _, arg := range args {
		id, series, named := strings.Cut(arg, ":")
		prefix, err := parsePrefix(id)
		if err != nil {
			return nil, err
		}
		s := apply.Selector{BuildID: prefix}
		if named {
			if s.Series, err = specs.ParseSeries(series); err != nil {
				return nil, err
			}
		}
		which = append(which, s)
	}
	return which, nil
}

// parsePrefix reads the first digits of a build-id, at least four.
func parsePrefix(s string) (specs.BuildID, error) {
	full := s
	if len(s)%2 == 1 {
		full += "0"
	}
	if _, err := specs.ParseBuildID(full); err != nil {
		return "", fmt.Errorf("build-id %q: want 4 to 128 hexadecimal digits", s)
	}
	return specs.BuildID(strings.ToLower(s)), nil
}

// patched reports whether a process has patches.
func (c *unpatch) patched(ctx context.Context, pid int) (bool, error) {
	p, err := c.opener.Open(ctx, pid)
	if err != nil {
		return false, c.procs.unknown(err)
	}
	defer p.Close()
	return len(p.Applied()) > 0, nil
}
