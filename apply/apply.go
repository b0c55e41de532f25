package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// Options of Apply and Revert. The zero value is useful.
type Options struct {
	// Wait is how long threads that are inside a function that changes are
	// waited for; 0 is two seconds, less than 0 is not at all.
	Wait time.Duration
	// Count has Apply count how often the patched functions are called, which
	// [Process.Applied] tells.
	Count bool
	// Trial is how long Apply's patches stay unless [Accept] is called: then
	// [Expire] reverts them. 0 is for good.
	Trial time.Duration
	// Revoked are patches that Apply lets a lower level of theirs replace.
	Revoked []specs.PatchID
	// Check is asked, with the process's id, once the process is open and before
	// anything of it is changed: a program that it executes later is another
	// process's, which is never written to. An error ends the run, and is
	// returned. It may be nil.
	Check func(pid int) error
	// Logger hears what is being done; nil is silent.
	Logger *slog.Logger
}

func (o Options) wait() time.Duration {
	if o.Wait == 0 {
		return 2 * time.Second
	}
	return max(o.Wait, 0)
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// Result is what Apply or Revert did to a process.
type Result struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
	// Applied are the patches that went in, Removed those that went out.
	Applied []Applied `json:"applied,omitempty"`
	Removed []Applied `json:"removed,omitempty"`
	// Replaced are the lower levels that made room for Applied.
	Replaced []Applied `json:"replaced,omitempty"`
	// Present are given patches that were there already.
	Present []specs.PatchID `json:"present,omitempty"`
	// Kept are patches that are out of use, but whose memory something may
	// still refer to. A later run frees it, unless Stays says why not.
	Kept []Applied `json:"kept,omitempty"`
	// Freed are patches that an earlier run had kept.
	Freed []Applied `json:"freed,omitempty"`
	// Recovered are patches that an earlier run had left half done.
	Recovered []Applied `json:"recovered,omitempty"`
	// Hooks are those that ran, in this order, also for earlier runs.
	Hooks []HookRun `json:"hooks,omitempty"`

	Stop Stop `json:"stop"`
	// Held is how long single threads were held to make system calls, or to read
	// their seccomp filters, the others running on; Wall is everything. Both in nanoseconds.
	Held time.Duration `json:"held_ns"`
	Wall time.Duration `json:"wall_ns"`
}

// Prepare says what Apply would do, and changes nothing.
func Prepare(ctx context.Context, pid int, patches []*kpack.Patch) (_ *Plan, err error) {
	defer func() { err = orGone(pid, err) }()
	p, err := Open(pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if p.Headless() {
		return nil, ErrHeadless
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	plan, err := makePlan(p, patches, Options{})
	if err == nil {
		_, err = p.mayHook(ctx, plan)
	}
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// Apply puts the patches that fit into process pid, in one stop, all or none.
// A higher level of a series replaces a lower one.
//
// Errors: [ErrAlreadyApplied] if all that fit are there, [*NoFitError] if none
// fits, [*MismatchError], [*ConflictError], [*BusyError], [ErrNoMemory],
// [*TrialError], [*StateError], [ErrPermission], [ErrGone], [ErrLocked], [*TracedError],
// [*StuckError], [*HookError], [*FilteredError].
func Apply(ctx context.Context, pid int, patches []*kpack.Patch, o Options) (*Result, error) {
	return whileObjectsChange(ctx, func() (*Result, error) { return applyOnce(ctx, pid, patches, o) })
}

func applyOnce(ctx context.Context, pid int, patches []*kpack.Patch, o Options) (_ *Result, err error) {
	defer func() { err = orGone(pid, err) }()
	start := time.Now()
	p, res, err := begin(ctx, pid, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	defer func() { err = p.orGone(err) }()
	plan, err := makePlan(p, patches, o)
	if err != nil {
		return nil, err
	}
	res.Present = plan.Present
	if len(plan.steps) == 0 {
		return res, ErrAlreadyApplied
	}
	if err := p.carryOut(ctx, plan, res, o); err != nil {
		return nil, err
	}
	res.Wall = time.Since(start)
	return res, nil
}

// begin opens the process for changes and clears up after earlier runs. The
// caller closes the process.
func begin(ctx context.Context, pid int, o Options) (*Process, *Result, error) {
	p, err := open(pid, true)
	if err != nil {
		return nil, nil, err
	}
	if o.Check != nil {
		if err := o.Check(pid); err != nil {
			p.Close()
			return nil, nil, err
		}
	}
	res := &Result{PID: pid, Name: p.Name}
	if err := p.orGone(p.recover(ctx, res, o)); err != nil {
		p.Close()
		return nil, nil, fmt.Errorf("finish what an earlier run began: %w", err)
	}
	return p, res, nil
}

// carryOut stages and commits a plan.
func (p *Process) carryOut(ctx context.Context, plan *Plan, res *Result, o Options) error {
	held, err := p.mayHook(ctx, plan)
	res.Held += held
	if err != nil {
		return err
	}
	held, err = p.stageAll(ctx, plan.steps)
	res.Held += held
	if err != nil {
		return err
	}
	p.announce(plan, o)
	o.logger().Debug("staged", "pid", p.PID, "patches", len(plan.steps), "held", held)
	t := plan.transaction()
	var stacks stackUses
	if err = p.hooksBefore(ctx, t, res, o); err == nil {
		res.Stop, err = p.commit(ctx, t, commitOptions{wait: o.wait(), stacks: &stacks})
	}
	if err == nil {
		p.records = append(p.records, t.ins...)
	}
	if e := p.hooksAfter(ctx, slices.Concat(t.outs, t.ins), res, o); err != nil {
		if e == nil {
			e = p.withdraw(ctx, plan.unused(), res, o)
		}
		if ignoreGone(e) != nil {
			err = fmt.Errorf("%w; memory that was mapped for it is left: %w", err, e)
		}
		return err
	} else if e != nil {
		return fmt.Errorf("the patch is in use, but not all hooks have run: %w", e)
	}
	for _, r := range t.ins {
		res.Applied = append(res.Applied, r.describe())
	}
	for _, r := range t.outs {
		res.Replaced = append(res.Replaced, r.describe())
	}
	if err := p.forget(t.ins); err != nil {
		return err
	}
	return p.freeOuts(ctx, t, &stacks, res)
}

// announce says what of a plan is worth a word before it is carried out.
func (p *Process) announce(plan *Plan, o Options) {
	if p.unwinders != nil {
		for _, e := range p.unwinders.unread {
			o.logger().Warn("not searched for an unwinder", "pid", p.PID, "error", e)
		}
	}
	for _, s := range plan.steps {
		if len(s.fresh) > 0 {
			o.logger().Info("variables begin anew", "pid", p.PID, "level", s.record.ID.Level, "variables", s.fresh)
		}
	}
}

// unused are the records to whose memory no entry leads.
func (plan *Plan) unused() []*record {
	var all []*record
	for _, s := range plan.steps {
		if s.record.state == staged {
			all = append(all, s.record)
		}
	}
	return all
}

// withdraw frees what was staged for a commit that was not made, as far as
// nothing runs in it or refers to it. ctx may have ended.
func (p *Process) withdraw(ctx context.Context, records []*record, res *Result, o Options) error {
	ctx, done := clearing(ctx, clearingTime)
	defer done()
	if err := p.settleHooks(ctx, records, o); err != nil {
		return err
	}
	freed, err := p.free(ctx, records, &stackUses{}, res)
	if err == nil && len(freed) < len(records) {
		o.logger().Warn("memory is kept: something may refer to it since the hooks ran", "pid", p.PID, "patches", len(records)-len(freed))
	}
	return err
}

// Selector names patches to revert. The zero value names all.
type Selector struct {
	BuildID specs.BuildID // or a prefix of it, or empty
	Series  specs.Series  // or empty
	Level   specs.Level   // or 0
}

func (s Selector) matches(id specs.PatchID) bool {
	return (s.Level == 0 || s.Level == id.Level) && (s.BuildID == "" || len(id.BuildID) >= len(s.BuildID) && id.BuildID[:len(s.BuildID)] == s.BuildID) &&
		(s.Series == "" || s.Series == id.Series)
}

// selected reports whether r is one of those that are named.
func selected(which []Selector, r *record) bool {
	return len(which) == 0 || slices.ContainsFunc(which, func(s Selector) bool { return s.matches(r.ID) })
}

// Revert takes the patches that a selector names out of process pid, in one
// stop, all or none; without selectors all.
//
// Errors: [ErrNotApplied] if there is none; else those of Apply.
func Revert(ctx context.Context, pid int, which []Selector, o Options) (*Result, error) {
	return whileObjectsChange(ctx, func() (*Result, error) { return revertOnce(ctx, pid, which, o) })
}

func revertOnce(ctx context.Context, pid int, which []Selector, o Options) (_ *Result, err error) {
	defer func() { err = orGone(pid, err) }()
	start := time.Now()
	p, res, err := begin(ctx, pid, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	defer func() { err = p.orGone(err) }()
	t := &transaction{}
	for _, r := range p.records {
		if r.state == applied && selected(which, r) {
			t.remove(r)
		}
	}
	if len(t.outs) == 0 {
		if err := p.freeRetired(ctx, res, o); err != nil {
			return nil, err
		}
		res.Wall = time.Since(start)
		if len(res.Recovered)+len(res.Freed) > 0 {
			return res, nil
		}
		return res, ErrNotApplied
	}
	if err := p.compare(t.changes, before); err != nil { // hooks are not to run for it
		return nil, err
	}
	if err := p.revert(ctx, t, res, o); err != nil {
		return nil, err
	}
	res.Wall = time.Since(start)
	return res, nil
}

// freeRetired frees what earlier runs had to keep, as far as nothing refers to
// it any more. It stops the threads, to see which part of their stacks is in
// use; a thread that still returns into a patch only keeps it longer.
func (p *Process) freeRetired(ctx context.Context, res *Result, o Options) error {
	t := &transaction{}
	for _, r := range p.records {
		if r.state == retired && !r.stays() && p.awaited(r) == nil {
			t.outs = append(t.outs, r)
			t.zones = append(t.zones, goingZones(r, nextCall)...)
		}
	}
	if len(t.outs) == 0 {
		return nil
	}
	var stacks stackUses
	stop, err := p.commit(ctx, t, commitOptions{wait: o.wait(), stacks: &stacks})
	if busy := (*BusyError)(nil); errors.As(err, &busy) {
		return nil
	} else if err != nil {
		return err
	}
	res.Stop, res.Kept = stop, nil
	freed, err := p.free(ctx, t.outs, &stacks, res)
	for _, r := range freed {
		res.Freed = append(res.Freed, r.describe())
	}
	return err
}

func (p *Process) revert(ctx context.Context, t *transaction, res *Result, o Options) error {
	var stacks stackUses
	err := p.hooksBefore(ctx, t, res, o)
	if err == nil {
		res.Stop, err = p.commit(ctx, t, commitOptions{wait: o.wait(), stacks: &stacks})
	}
	if e := p.hooksAfter(ctx, slices.Concat(t.outs, t.ins), res, o); err != nil {
		return errors.Join(err, e)
	} else if e != nil {
		return fmt.Errorf("the functions are as they were, but not all hooks have run: %w", e)
	}
	for _, r := range t.outs {
		res.Removed = append(res.Removed, r.describe())
	}
	for _, r := range t.ins {
		res.Applied = append(res.Applied, r.describe())
	}
	return p.freeOuts(ctx, t, &stacks, res)
}

// freeOuts frees the memory of what went by t, and that of earlier levels that was
// kept for its sake alone, as far as nothing refers to it.
func (p *Process) freeOuts(ctx context.Context, t *transaction, stacks *stackUses, res *Result) error {
	outs := slices.DeleteFunc(slices.Clone(t.outs), func(r *record) bool { return p.awaited(r) != nil })
	if _, err := p.free(ctx, outs, stacks, res); err != nil {
		return err
	}
	for _, r := range slices.Backward(p.records) {
		kept := func(out *record) bool { return out.Fallback == r.Base || shares(out, r) }
		if r.state != retired || r.stays() || p.awaited(r) != nil || slices.Contains(outs, r) || !slices.ContainsFunc(outs, kept) {
			continue
		}
		res.Kept = slices.DeleteFunc(res.Kept, func(a Applied) bool { return a.Base == r.Base })
		freed, err := p.free(ctx, []*record{r}, &stackUses{}, res)
		if err != nil {
			return err
		}
		for _, f := range freed {
			res.Freed = append(res.Freed, f.describe())
		}
	}
	return nil
}
