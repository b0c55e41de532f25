package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// hookCalls are what the thread that creates that of the hooks calls, and that one
// itself. Source: package kpack, the code of hooks; clone(2) for the flags.
var hookCalls = []ptrace.Call{
	{Name: "rt_sigprocmask", Number: unix.SYS_RT_SIGPROCMASK, Args: []uint64{setMask}},
	{Name: "clone", Number: unix.SYS_CLONE, Args: []uint64{unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD |
		unix.CLONE_SYSVSEM | unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID}},
	{Name: "nanosleep", Number: unix.SYS_NANOSLEEP},
	{Name: "exit", Number: unix.SYS_EXIT, Args: []uint64{0}},
}

// setMask is SIG_SETMASK.
const setMask = 2

// mayHook returns a [*FilteredError] if a plan has patches with hooks, and seccomp
// filters do not let any thread be that of the hooks. For that one thread is held
// shortly where there is a filter; how long is returned. Nothing is written.
func (p *Process) mayHook(ctx context.Context, plan *Plan) (held time.Duration, err error) {
	i := slices.IndexFunc(plan.steps, func(s *step) bool { return len(s.patch.Hooks) > 0 })
	if i < 0 || !ptrace.Filtered(p.PID) {
		return 0, nil
	}
	err = p.untilOneServes(ctx, func(tid int) (bool, error) {
		h, err := ptrace.Permitted(p.PID, tid, hookCalls)
		held += h
		return err == nil, err
	})
	if denied := (*ptrace.DeniedError)(nil); errors.As(err, &denied) {
		return held, &FilteredError{plan.steps[i].object.Path, denied}
	}
	return held, err
}

// createHookThread has a borrowed thread create that of the hooks, which waits
// to be let go; handed is that of hooksAt. The error of the call is returned apart.
//
// Preconditions: awaitHookEnd has told that r has no such thread, and no
// borrowed one is in the code that makes it.
func (p *Process) createHookThread(ctx context.Context, r *record, point kpack.HookPoint, handed bool) (held time.Duration, errno unix.Errno, err error) {
	h := &r.Hooks
	held, err = p.withPermitted(ctx, hookCalls, specs.Range[specs.Addr]{}, func(a *ptrace.Agent) error {
		if a.Halted() {
			return ErrStopped
		}
		return a.Detour(h.Code, h.Created, func(home []uint64) error {
			s := kpack.HookStart{Point: point, Place: h.HookPlace, Handed: handed}
			copy(s.Home[:], home)
			return p.mem.Write(h.Control, s.Bytes())
		})
	})
	if err != nil {
		return held, 0, fmt.Errorf("hooks: %w", err)
	}
	s, err := p.hookState(r)
	return held, unix.Errno(s.Errno), err
}

// attend waits for the end of the hooks of one point, and ends their thread if
// they take too long, crash, or ctx ends; what became of them is in run. With begin
// the thread is let go first. Afterwards it is gone, unless there is an error.
func (p *Process) attend(ctx context.Context, r *record, hooks []recordedHook, run *HookRun, begin bool) error {
	ended, since, why, cause := -1, time.Now(), "", HookCause("")
	enough := func() (bool, error) {
		s, err := p.hookState(r)
		if err != nil || s.Done {
			return true, err
		}
		if s.Ended > ended { // the process could let it go to and fro for ever
			ended, since = s.Ended, time.Now()
		}
		limit := time.Second // the thread itself takes no time
		if ended < len(hooks) {
			limit = hooks[ended].Limit
		}
		switch {
		case ctx.Err() != nil:
			cause, why = HookInterrupted, fmt.Sprintf("was broken off: %v", ctx.Err())
		case time.Since(since) >= limit:
			cause, why = HookLate, fmt.Sprintf("took longer than %v", limit)
		}
		return why != "", nil
	}
	err := ptrace.Do(func() error {
		sig, err := p.mind(r, begin, enough, func() bool { return why != "" })
		if sig != 0 {
			cause, why = HookCrashed, "crashed: "+unix.SignalName(sig)
		}
		return err
	})
	if err == nil {
		err = p.awaitHookEnd(r)
	}
	if err != nil {
		return fmt.Errorf("hooks: %w", err)
	}
	s, err := p.hookState(r)
	if err != nil {
		return err
	}
	failed := s.Ended
	switch {
	case why != "" && !s.Done:
		run.Cause, run.Why = cause, why
	case !s.Done:
		run.Cause, run.Why = HookEnded, "ended its thread"
	case s.Result != 0:
		run.Cause, run.Why, failed = HookReturned, fmt.Sprintf("returned %d", s.Result), s.Failed
	default:
		return nil
	}
	if failed < len(hooks) {
		run.Failed = hooks[failed].Function
	}
	// So that a later run sees that nothing more is to come of it.
	return p.mem.Write(r.Hooks.Control+kpack.HookDone, []byte{1, 0, 0, 0})
}

// mind traces the thread of r's hooks until enough says so, and ends it if it
// crashed or late says so.
func (p *Process) mind(r *record, begin bool, enough func() (bool, error), late func() bool) (unix.Signal, error) {
	tid, err := p.hookThread(r)
	if err != nil || tid == 0 {
		return 0, err
	}
	g, err := ptrace.Seize(p.PID, ptrace.Options{Only: []int{tid}})
	if errors.Is(err, ErrGone) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer g.Detach()
	if begin {
		if err := p.mem.Write(r.Hooks.Control+kpack.HookGo, []byte{1, 0, 0, 0}); err != nil {
			return 0, err
		}
	}
	sig, err := g.Mind(enough)
	if err == nil && (sig != 0 || late()) {
		_, err = g.Divert(r.Hooks.Exit)
	}
	if errors.Is(err, ErrGone) {
		err = nil // the thread; the process is seen to
	}
	return sig, err
}

// hookThread returns the id of the thread of r's hooks, 0 if there is none.
func (p *Process) hookThread(r *record) (int, error) {
	s, err := p.hookState(r)
	if err != nil || s.Thread == 0 {
		return 0, err
	}
	// A child that was forked meanwhile has the word, but not the thread.
	tid, err := ptrace.Innermost(p.PID, s.Thread, p.hookTIDs[r.Base])
	if err != nil {
		return 0, err
	}
	if p.hookTIDs == nil {
		p.hookTIDs = make(map[specs.Addr]int)
	}
	p.hookTIDs[r.Base] = tid
	return tid, nil
}

// hookEnd is how long a thread may take to end.
const hookEnd = 2 * time.Second

// awaitHookEnd waits until the thread of r's hooks has left the patch's memory
// for good. An error means that this is not proved.
func (p *Process) awaitHookEnd(r *record) error {
	for begin := time.Now(); ; time.Sleep(50 * time.Microsecond) {
		tid, err := p.hookThread(r)
		late := time.Since(begin) > hookEnd
		switch {
		case errors.Is(err, ptrace.ErrUnsettled) && !late:
		case err != nil || tid == 0:
			return err
		case late:
			return &StuckError{TID: tid, Name: ptrace.Comm(p.PID, tid), State: ptrace.State(p.PID, tid)}
		}
	}
}

// hooksLeft sees to hooks of runs that were killed or gave up: those that run
// are waited for, and a thread that was never let go is ended.
func (p *Process) hooksLeft(ctx context.Context, res *Result, o Options) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.endUnbegun(ctx, p.records, o); err != nil {
		return err
	}
	for _, r := range p.records {
		if !p.hooked(r) {
			continue
		}
		s, err := p.hookState(r)
		switch {
		case err != nil:
			return err
		case s.Done: // a few instructions before the thread's end
			err = p.awaitHookEnd(r)
		case s.Begun:
			err = p.hookLeft(ctx, r, s.Point, res)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endUnbegun ends threads of hooks that were made, or are about to be, and that
// nobody has let go.
func (p *Process) endUnbegun(ctx context.Context, records []*record, o Options) error {
	t := &transaction{}
	var made []*record
	for _, r := range records {
		if !p.hooked(r) {
			continue
		}
		s, err := p.hookState(r)
		if err != nil {
			return err
		}
		if s.Point != 0 && !s.Begun && !s.Done {
			made = append(made, r)
			t.zones = append(t.zones, zone{Range: r.Hooks.launch(), object: r.Object, function: "what begins hooks of patch " + r.Name, going: true})
		}
	}
	if len(made) == 0 {
		return nil
	}
	// A borrowed thread may still be about to create one.
	if _, err := p.commit(ctx, t, commitOptions{wait: o.wait()}); err != nil {
		return err
	}
	for _, r := range made {
		// It looks there before each of its naps.
		if err := p.mem.Write(r.Hooks.Control+kpack.HookTurns, []byte{0, 0, 0, 0}); err != nil {
			return err
		}
		if err := p.awaitHookEnd(r); err != nil {
			return err
		}
	}
	return nil
}

// settleHooks proves that no thread is in what the hooks of records need, neither
// their own nor a borrowed one. After an error that memory is neither to be
// rewritten nor freed: the next run sees to it.
func (p *Process) settleHooks(ctx context.Context, records []*record, o Options) error {
	if err := p.endUnbegun(ctx, records, o); err != nil {
		return fmt.Errorf("hooks: %w", err)
	}
	for _, r := range records {
		if !p.hooked(r) {
			continue
		}
		if err := p.awaitHookEnd(r); err != nil {
			return fmt.Errorf("hooks: %w", err)
		}
	}
	return nil
}

// hookLeft goes on with hooks of an earlier run that were let go.
func (p *Process) hookLeft(ctx context.Context, r *record, point kpack.HookPoint, res *Result) error {
	hooks, _ := p.hooksAt(r, point)
	run := HookRun{Patch: r.ID, Point: point}
	for _, h := range hooks {
		run.Functions = append(run.Functions, h.Function)
	}
	start := time.Now()
	err := p.attend(ctx, r, hooks, &run, false)
	run.Took = time.Since(start)
	res.Hooks = append(res.Hooks, run)
	return err
}
