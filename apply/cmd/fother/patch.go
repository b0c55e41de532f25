package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

var patchCommand = &command{
	name:  "patch",
	args:  "-p PID|all FILE|DIR…",
	brief: "apply .kpatch files, bundles, folders",
	help: `
Applies patches to running processes. FILE is a .kpatch file or a bundle
(.kpatch.tar.zst), DIR a folder that holds any of

  *.kpatch.tar.zst, *.kpatch    bundles and patches
  BUILDID.kpatch                patches; only those that fit are read
  BUILDID/latest -> N           LibCare's layout: BUILDID/N/kpatch.bin is level N
                                of the series "default"

Only root and the caller may be able to change the files, the folders and links
on the way to them. LibCare's scripts before and after are never run. Hooks that
a patch brings run inside the process, and may refuse the patch; fother show
lists them.

Of one series the highest level goes in and replaces what was there; series
coexist. A process that is named and that nothing fits is refused; of all
processes such are left out. One whose first thread has ended is refused if
something fits.

Options:
  -p PID|all      the process, or all that the caller may trace, but init
  --count         count the calls of the patched functions, which info tells
  --trial TIME    put the patches in for a time such as 10m, and revert them unless
                  fother accept keeps them. The command waits for that; if it
                  is killed, fother pull reverts
  --dry-run       say what would be done, and change nothing
  --wait TIME     how long to wait for threads that are inside a function that
                  changes, such as 500ms or 10s (2s)
` + denyHelp,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &patch{tool: t}
		c.procs.declare(fs)
		c.wait.declare(fs)
		c.deny.declare(fs)
		c.trial.declare(fs)
		fs.BoolVar(&c.count, "count", false, "")
		fs.BoolVar(&c.dryRun, "dry-run", false, "")
		return c.run
	},
}

type patch struct {
	*tool
	procs  processes
	wait   wait
	deny   deny
	count  bool
	trial  trial
	dryRun bool
	store  *store
	// silent are, of all processes, those that did not answer.
	silent map[int]error
}

func (c *patch) run(ctx context.Context, args []string) int {
	if c.procs.text == "" {
		return c.fail(errNoTarget)
	}
	if len(args) == 0 {
		return c.fail(usageError{errors.New("no patch file is named")})
	}
	var err error
	if err = c.deny.read(); err == nil {
		c.store, err = openStore(args)
	}
	if err == nil {
		err = c.store.empty()
	}
	if err != nil {
		return c.fail(err)
	}
	c.noteScripts()
	makeRoom()
	var tried []int
	if c.procs.all {
		c.noteCapabilities()
		if err := c.choose(ctx); err != nil {
			return c.fail(err)
		}
	}
	defer c.deny.note(c.tool)
	code := c.each(ctx, c.procs, func(pid int) (*outcome, error) {
		if refused, err := c.deny.refuses(c.tool, c.procs, pid); refused {
			return nil, err
		}
		if err := c.silent[pid]; err != nil {
			return nil, err
		}
		patches, err := c.fitting(ctx, pid)
		if err != nil || len(patches) == 0 {
			return nil, err
		}
		if c.dryRun {
			return c.dry(ctx, pid, patches)
		}
		res, err := c.applyTo(ctx, pid, patches, c.applyOptions())
		if errors.Is(err, apply.ErrAlreadyApplied) && res != nil {
			err = there(res.Present)
		}
		if err == nil && c.trial > 0 {
			tried = append(tried, pid)
		}
		return &outcome{Result: res}, err
	})
	if len(tried) == 0 {
		return code
	}
	return c.watch(ctx, tried, code)
}

// choose leaves those of all processes that the patches may concern: most have
// nothing to do with any. Those that could not be read in their time are left too,
// for the error that is in c.silent, and those that the deny list has, to be counted.
func (c *patch) choose(ctx context.Context) error {
	pids, err := c.procs.list()
	if err != nil {
		return err
	}
	type look struct {
		pid      int
		concerns bool
		ids      []specs.BuildID
		err      error
	}
	c.procs.chosen, c.silent = []int{}, make(map[int]error)
	for l := range ahead(ctx, pids, func(ctx context.Context, pid int) look {
		if c.deny.list.Check(pid) != nil {
			return look{pid: pid, concerns: true}
		}
		ids, err := c.opener.BuildIDs(ctx, pid)
		return look{pid: pid, ids: ids, err: err}
	}) {
		c.tidy()
		if err := c.procs.unknown(l.err); err != nil {
			c.silent[l.pid] = err
		}
		if l.concerns || c.silent[l.pid] != nil || c.store.concerns(l.ids) {
			c.procs.chosen = append(c.procs.chosen, l.pid)
		}
	}
	if ctx.Err() != nil { // which is told with the first
		c.procs.chosen = pids
	}
	return nil
}

// applyOptions are the command's options for package apply.
func (c *patch) applyOptions() apply.Options {
	o := c.options(c.wait)
	o.Count, o.Trial, o.Check = c.count, time.Duration(c.trial), c.deny.list.Check
	return o
}

// noteScripts tells of scripts that LibCare would have run around the patching.
func (c *patch) noteScripts() {
	for _, script := range c.store.scripts() {
		c.note("%s: scripts are never run", clean(script))
	}
}

// mostTold is the number of patches up to which an error names what all are
// for.
const mostTold = 8

// fitting returns the patches to give to a process: those for what it runs, or
// none where that is no error, of all processes. It takes no lock and holds
// nothing.
func (c *patch) fitting(ctx context.Context, pid int) ([]*kpack.Patch, error) {
	if !c.procs.all && len(c.store.folders) == 0 {
		return c.store.given(), nil // apply says what is wrong if they do not fit
	}
	p, err := c.opener.Open(ctx, pid)
	if err != nil {
		return nil, c.procs.unknown(err)
	}
	defer p.Close()
	patches, err := c.store.patches(p.Objects())
	switch {
	case err != nil || len(patches) > 0 || c.procs.all:
		return patches, err
	case c.store.indexed() || len(c.store.loaded) > mostTold:
		return nil, c.store.noneFit(p.Objects())
	}
	return c.store.given(), nil
}

// there is ErrAlreadyApplied with what is applied: it may be a higher level than
// the one given.
func there(present []specs.PatchID) error {
	var names []string
	for _, id := range present {
		if name := fmt.Sprintf("series %s, level %d", id.Series, id.Level); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return apply.ErrAlreadyApplied
	}
	return fmt.Errorf("%w: %s", apply.ErrAlreadyApplied, strings.Join(names, "; "))
}

func (c *patch) dry(ctx context.Context, pid int, patches []*kpack.Patch) (*outcome, error) {
	pl, err := c.opener.Prepare(ctx, pid, patches)
	if err != nil {
		return nil, err
	}
	if len(pl.Apply) == 0 {
		return nil, there(pl.Present)
	}
	return &outcome{Plan: &plan{Apply: pl.Apply, Replace: pl.Replace, Present: pl.Present}}, nil
}
