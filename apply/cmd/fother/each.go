package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/specs"
)

// outcome is what --json prints for each process.
type outcome struct {
	PID    int           `json:"pid"`
	Result *apply.Result `json:"result,omitempty"`
	Plan   *plan         `json:"plan,omitempty"`
	// Accepted are the patches whose trial was ended.
	Accepted []apply.Applied `json:"accepted,omitempty"`
	Error    string          `json:"error,omitempty"`
	Exit     int             `json:"exit"`
}

type plan struct {
	Apply   []apply.Applied `json:"apply"`
	Replace []apply.Applied `json:"replace,omitempty"`
	Present []specs.PatchID `json:"present,omitempty"`
}

// each calls f for the processes that -p names, and prints what it did. Of all
// processes those that f has nothing to do with, where it returns nil, are left
// out.
func (t *tool) each(ctx context.Context, which processes, f func(pid int) (*outcome, error)) int {
	pids, err := which.list()
	if err != nil {
		return t.fail(err)
	}
	outcomes := []*outcome{}
	code, done := exitNothing, false
	for _, pid := range pids {
		if ctx.Err() != nil { // what was done before is still told
			code = t.worse(code, fmt.Errorf("interrupted: %w", ctx.Err()))
			break
		}
		t.tidy()
		o, err := f(pid)
		if o == nil && err == nil || which.all && (errors.Is(err, apply.ErrGone) || errors.Is(err, fleet.ErrLeftOut) || exitCode(err) == exitNothing) {
			continue
		}
		if o == nil {
			o = &outcome{}
		}
		o.PID, o.Exit = pid, exitCode(err)
		if err != nil {
			o.Error = err.Error()
			code = t.worse(code, fmt.Errorf("process %d: %w", pid, err))
		} else {
			done = true
			t.print(o)
		}
		outcomes = append(outcomes, o)
	}
	t.noteLeftOut()
	if t.json {
		t.encode(outcomes)
	}
	if which.all && len(outcomes) == 0 && !t.json {
		fmt.Fprintln(t.stdout, "nothing to do in any process that may be traced")
	}
	if code == exitNothing && done {
		return exitDone
	}
	return code
}

// worse tells an error and returns the exit code of the whole: an error goes
// before a refusal, that before nothing to do.
func (t *tool) worse(code int, err error) int {
	c := exitCode(err)
	if c == exitNothing {
		if !t.json {
			fmt.Fprintf(t.stdout, "%v\n", err)
		}
		return code
	}
	t.fail(err)
	if code == exitError {
		return code
	}
	return c
}
