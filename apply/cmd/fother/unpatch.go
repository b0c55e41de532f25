package main

import (
	"context"
	"flag"
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
named, or all. A build-id's first digits are enough, an even number of them.

Options:
  -p PID|all      the process, or all that the caller may trace
  --wait TIME     how long to wait for threads that are inside a function that
                  changes, such as 500ms or 10s (2s)
`,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &unpatch{tool: t}
		c.procs.declare(fs)
		c.wait.declare(fs)
		return c.run
	},
}

type unpatch struct {
	*tool
	procs processes
	wait  wait
}

func (c *unpatch) run(ctx context.Context, args []string) int {
	if c.procs.text == "" {
		return c.fail(errNoTarget)
	}
	which, err := selectors(args)
	if err != nil {
		return c.fail(usageError{err})
	}
	return c.each(ctx, c.procs, func(pid int) (*outcome, error) {
		if c.procs.all && !patched(pid) {
			return nil, nil
		}
		res, err := apply.Revert(ctx, pid, which, c.options(c.wait))
		return &outcome{Result: res}, err
	})
}

// selectors reads arguments BUILDID[:SERIES].
func selectors(args []string) ([]apply.Selector, error) {
	var which []apply.Selector
	for _, arg := range args {
		id, series, named := strings.Cut(arg, ":")
		if _, err := specs.ParseBuildID(id); err != nil {
			return nil, err
		}
		s := apply.Selector{BuildID: specs.BuildID(strings.ToLower(id))}
		if named {
			var err error
			if s.Series, err = specs.ParseSeries(series); err != nil {
				return nil, err
			}
		}
		which = append(which, s)
	}
	return which, nil
}

func patched(pid int) bool {
	p, err := apply.Open(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	return len(p.Applied()) > 0
}
