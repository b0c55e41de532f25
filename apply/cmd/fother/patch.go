package main

import (
	"context"
	"errors"
	"flag"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
)

var patchCommand = &command{
	name:  "patch",
	args:  "-p PID|all FILE|DIR…",
	brief: "apply .kpatch files, all of a folder",
	help: `
Applies patches to running processes.

Options:
  -p PID|all      the process, or all that the caller may trace
  --dry-run       say what would be done, and change nothing
  --wait TIME     how long to wait for threads that are inside a function that
                  changes, such as 500ms or 10s (2s)
`,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &patch{tool: t}
		c.procs.declare(fs)
		c.wait.declare(fs)
		fs.BoolVar(&c.dryRun, "dry-run", false, "")
		return c.run
	},
}

type patch struct {
	*tool
	procs  processes
	wait   wait
	dryRun bool
}

func (c *patch) run(ctx context.Context, args []string) int {
	if c.procs.text == "" {
		return c.fail(errNoTarget)
	}
	if len(args) == 0 {
		return c.fail(usageError{errors.New("no patch file is named")})
	}
	patches, err := loadPatches(args)
	if err != nil {
		return c.fail(err)
	}
	return c.each(ctx, c.procs, func(pid int) (*outcome, error) {
		if c.procs.all && !fits(pid, patches) {
			return nil, nil
		}
		if c.dryRun {
			return dry(ctx, pid, patches)
		}
		res, err := apply.Apply(ctx, pid, patches, c.options(c.wait))
		return &outcome{Result: res}, err
	})
}

// fits reports whether any patch may be for process pid. It takes no lock and
// holds nothing.
func fits(pid int, patches []*kpack.Patch) bool {
	p, err := apply.Open(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	for _, o := range p.Objects() {
		for _, patch := range patches {
			if o.BuildID != "" && o.BuildID == patch.Target.BuildID {
				return true
			}
		}
	}
	return false
}

func dry(ctx context.Context, pid int, patches []*kpack.Patch) (*outcome, error) {
	pl, err := apply.Prepare(ctx, pid, patches)
	if err != nil {
		return nil, err
	}
	if len(pl.Apply) == 0 {
		return nil, apply.ErrAlreadyApplied
	}
	return &outcome{Plan: &plan{Apply: pl.Apply, Replace: pl.Replace, Present: pl.Present}}, nil
}
