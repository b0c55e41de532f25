package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// outcome is what --json prints for each process.
type outcome struct {
	PID    int           `json:"pid"`
	Result *apply.Result `json:"result,omitempty"`
	Plan   *plan         `json:"plan,omitempty"`
	Error  string        `json:"error,omitempty"`
	Exit   int           `json:"exit"`
}

type plan struct {
	Apply   []apply.Applied `json:"apply"`
	Replace []apply.Applied `json:"replace,omitempty"`
	Present []specs.PatchID `json:"present,omitempty"`
}

func (t *tool) patch(ctx context.Context) int {
	if len(t.args) == 0 {
		return t.fail(usageError{errors.New("no patch file is named")})
	}
	patches, err := loadPatches(t.args)
	if err != nil {
		return t.fail(err)
	}
	return t.each(ctx, func(pid int, all bool) (*outcome, error) {
		if all && !fits(pid, patches) {
			return nil, nil
		}
		if t.dryRun {
			return t.dry(ctx, pid, patches)
		}
		res, err := apply.Apply(ctx, pid, patches, t.options())
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

func (t *tool) dry(ctx context.Context, pid int, patches []*kpack.Patch) (*outcome, error) {
	pl, err := apply.Prepare(ctx, pid, patches)
	if err != nil {
		return nil, err
	}
	if len(pl.Apply) == 0 {
		return nil, apply.ErrAlreadyApplied
	}
	return &outcome{Plan: &plan{Apply: pl.Apply, Replace: pl.Replace, Present: pl.Present}}, nil
}

func (t *tool) unpatch(ctx context.Context) int {
	var which []apply.Selector
	for _, arg := range t.args {
		id, series, named := strings.Cut(arg, ":")
		s := apply.Selector{BuildID: specs.BuildID(strings.ToLower(id))}
		if _, err := specs.ParseBuildID(id); err != nil {
			return t.fail(usageError{err})
		}
		if named {
			var err error
			if s.Series, err = specs.ParseSeries(series); err != nil {
				return t.fail(usageError{err})
			}
		}
		which = append(which, s)
	}
	return t.each(ctx, func(pid int, all bool) (*outcome, error) {
		if all && !patched(pid) {
			return nil, nil
		}
		res, err := apply.Revert(ctx, pid, which, t.options())
		return &outcome{Result: res}, err
	})
}

func patched(pid int) bool {
	p, err := apply.Open(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	return len(p.Applied()) > 0
}

// each calls f for the processes that -p names, and prints what it did. Of all
// processes those that f has nothing to do with, where it returns nil, are left
// out.
func (t *tool) each(ctx context.Context, f func(pid int, all bool) (*outcome, error)) int {
	pids, all, err := t.pids()
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
		o, err := f(pid, all)
		if o == nil && err == nil || all && (errors.Is(err, apply.ErrGone) || exitCode(err) == exitNothing) {
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
	if t.json {
		t.encode(outcomes)
	}
	if all && len(outcomes) == 0 && !t.json {
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

func (t *tool) encode(v any) {
	e := json.NewEncoder(t.stdout)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
}

// print tells a person what was done to a process.
func (t *tool) print(o *outcome) {
	if t.json {
		return
	}
	if o.Plan != nil {
		for _, a := range o.Plan.Apply {
			fmt.Fprintf(t.stdout, "%d: would apply %s\n", o.PID, title(a))
		}
		for _, a := range o.Plan.Replace {
			fmt.Fprintf(t.stdout, "%d: would replace %s\n", o.PID, title(a))
		}
		return
	}
	r := o.Result
	who := fmt.Sprintf("%d (%s)", r.PID, r.Name)
	for _, a := range r.Recovered {
		fmt.Fprintf(t.stdout, "%s: an earlier run was interrupted; cleared up %s\n", who, title(a))
	}
	for _, a := range r.Applied {
		fmt.Fprintf(t.stdout, "%s: applied %s\n", who, title(a))
	}
	for _, a := range r.Removed {
		fmt.Fprintf(t.stdout, "%s: reverted %s\n", who, title(a))
	}
	for _, a := range r.Freed {
		fmt.Fprintf(t.stdout, "%s: freed %d KiB that %s had left\n", who, a.Size>>10, title(a))
	}
	for _, a := range r.Kept {
		fmt.Fprintf(t.stdout, "%s: %d KiB of %s stay, since something may still refer to them; a later run frees them\n", who, a.Size>>10, title(a))
	}
	if s := r.Stop; s.Tries > 0 {
		fmt.Fprintf(t.stdout, "%s: stopped for %s (%s)", who, micro(s.Total), count(s.Threads, "thread"))
		if s.Tries > 1 {
			fmt.Fprintf(t.stdout, ", %d stops, the longest %s, together %s", s.Tries, micro(s.Longest), micro(s.Sum))
		}
		fmt.Fprintf(t.stdout, "; took %s\n", micro(r.Wall))
	}
	if t.verbose {
		s := r.Stop
		fmt.Fprintf(t.stdout, "%s: interrupt %s, inspect %s, write %s, resume %s; seized ahead in %s, one thread held for %s\n",
			who, micro(s.Interrupt), micro(s.Inspect), micro(s.Write), micro(s.Resume), micro(s.Seize), micro(r.Held))
	}
}

func title(a apply.Applied) string {
	name := a.Name
	if name == "" {
		name = a.BuildID.Short()
	}
	return fmt.Sprintf("%s (series %s, level %d) to %s: %s", name, a.Series, a.Level, filepath.Base(a.Object), functions(a.Functions))
}

func functions(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// micro prints a time in microseconds, or milliseconds where that is shorter.
func micro(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%d µs", d.Microseconds())
}
