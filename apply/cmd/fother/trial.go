package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
)

var acceptCommand = &command{
	name:  "accept",
	args:  "-p PID|all [BUILDID[:SERIES]…]",
	brief: "keep patches that are on trial",
	help: `
Ends the trial of patches (fother patch --trial): those of the objects and series
that are named, or all. They stay then. A build-id's first digits are enough.

Options:
  -p PID|all      the process, or all that the caller may trace, but init
` + denyHelp,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &accept{tool: t}
		c.procs.declare(fs)
		c.deny.declare(fs)
		return c.run
	},
}

type accept struct {
	*tool
	procs processes
	deny  deny
}

func (c *accept) run(ctx context.Context, args []string) int {
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
			if some, err := c.onTrial(ctx, pid); !some {
				return nil, err
			}
		}
		accepted, err := fleet.Do(ctx, c.opener.Limiter, pid, c.opener.patching(0), func(ctx context.Context) ([]apply.Applied, error) {
			o := c.options(0)
			o.Check = c.deny.list.Check
			return apply.Accept(ctx, pid, which, o)
		})
		return &outcome{Accepted: accepted}, err
	})
}

func (c *accept) onTrial(ctx context.Context, pid int) (bool, error) {
	trials, err := c.trials(ctx, pid)
	return len(trials) > 0, c.procs.unknown(err)
}

// trials returns the patches of a process that are on trial.
func (t *tool) trials(ctx context.Context, pid int) ([]apply.Applied, error) {
	p, err := t.opener.Open(ctx, pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var all []apply.Applied
	for _, a := range p.Applied() {
		if !a.TrialEnds.IsZero() {
			all = append(all, a)
		}
	}
	return all, nil
}

// trial is the option --trial: a time above 0, 0 for none.
type trial time.Duration

func (d *trial) declare(fs *flag.FlagSet) { fs.Var(d, "trial", "") }

func (d *trial) String() string { return time.Duration(*d).String() }

// Set reads a duration such as 10m.
func (d *trial) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v <= 0 {
		return errors.New("want a time such as 10m or 1h, above 0")
	}
	*d = trial(v)
	return nil
}

// trialOverError means that nobody accepted a patch in time, and that it was
// reverted.
type trialOverError struct{ pid int }

func (e *trialOverError) Error() string {
	return fmt.Sprintf("process %d: nobody accepted the patch: it was reverted", e.pid)
}

// ExitCode says that the patch was not taken.
func (e *trialOverError) ExitCode() int { return exitRefused }

// watch waits until what was put on trial in the given processes is accepted,
// or reverts it in time, and returns the exit code. A terminal that is lost does
// not end it.
func (c *patch) watch(ctx context.Context, pids []int, code int) int {
	signal.Ignore(syscall.SIGHUP)
	if !c.json {
		fmt.Fprintf(c.stdout, "on trial for %v: fother accept -p %s keeps what was applied\n", time.Duration(c.trial), c.procs.text)
	}
	const turn = time.Second
	end := time.Now().Add(time.Duration(c.trial))
	told := make(map[int]bool)
	for len(pids) > 0 {
		select {
		case <-ctx.Done():
			c.note("the trial goes on: the first fother pull after %s reverts what is not accepted", end.Format(time.TimeOnly))
			return c.fail(fmt.Errorf("interrupted: %w", ctx.Err()))
		case <-time.After(min(turn, max(time.Until(end), turn/20))):
		}
		var left []int
		for _, pid := range pids {
			wait, err := c.judge(ctx, pid)
			wait = wait && time.Now().Before(end.Add(trialPatience))
			switch {
			case wait:
				left = append(left, pid)
				if err != nil && !told[pid] {
					told[pid] = true
					c.note("the trial cannot be ended yet, and it is tried again: %v", err)
				}
			case err != nil:
				code = c.worse(code, err)
			}
		}
		pids = left
	}
	return code
}

// trialPatience is how long after the end of a trial it is tried to revert what
// nobody accepted: a thread may be inside, a debugger may have the process, a hook
// may veto. A later pull goes on with it.
const trialPatience = 5 * time.Minute

// judge reverts what is on trial in a process if its time is over. It reports
// whether there is something to wait for; an error beside that may pass.
func (c *patch) judge(ctx context.Context, pid int) (wait bool, err error) {
	trials, err := c.trials(ctx, pid)
	if errors.Is(err, apply.ErrGone) || err == nil && len(trials) == 0 {
		return false, nil // it has ended; or all was accepted, or reverted by another
	}
	if err != nil {
		return mayPass(err), fmt.Errorf("process %d: %w", pid, err)
	}
	res, err := fleet.Do(ctx, c.opener.Limiter, pid, c.opener.patching(c.wait), func(ctx context.Context) (*apply.Result, error) {
		return apply.Expire(ctx, pid, c.applyOptions())
	})
	switch {
	case errors.Is(err, apply.ErrNotApplied): // the time is not over
		return true, nil
	case errors.Is(err, apply.ErrGone):
		return false, nil
	case err != nil:
		return mayPass(err), fmt.Errorf("process %d: %w", pid, err)
	}
	c.print(&outcome{PID: pid, Result: res})
	return false, &trialOverError{pid}
}

// mayPass reports whether what failed with an error may go well a little later.
func mayPass(err error) bool {
	var denied *fleet.DeniedError
	return !errors.Is(err, apply.ErrPermission) && !errors.As(err, &denied) && !errors.Is(err, fleet.ErrLeftOut)
}
