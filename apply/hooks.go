package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// recordedHooks are the hooks of a patch, in the order in which they run, and
// where what they need is.
type recordedHooks struct {
	kpack.HookPlace
	All []recordedHook `json:",omitempty"`
}

type recordedHook struct {
	Point    kpack.HookPoint `json:"p"`
	Function string          `json:"f"`
	Limit    time.Duration   `json:"l"`
}

// at returns the hooks of one point.
func (h *recordedHooks) at(point kpack.HookPoint) []recordedHook {
	return slices.DeleteFunc(slices.Clone(h.All), func(o recordedHook) bool { return o.Point != point })
}

// launch is the code in which a borrowed thread may be.
func (h *recordedHooks) launch() specs.Range[specs.Addr] {
	return specs.Range[specs.Addr]{Lo: h.Code, Hi: h.CodeEnd}
}

// maxRecordedHooks bounds the hooks of one record.
const maxRecordedHooks = 64

// check reports what cannot be hooks of r.
func (h *recordedHooks) check(r *record) error {
	if len(h.All) == 0 {
		return nil
	}
	in := func(part int, all ...specs.Addr) bool {
		return !slices.ContainsFunc(all, func(a specs.Addr) bool { return !r.part(part).Contains(a) })
	}
	if len(h.All) > maxRecordedHooks || !in(0, h.Lists[:]...) || !in(1, h.Code, h.Created, h.CodeEnd, h.Exit) || h.Code > h.CodeEnd ||
		!in(2, h.Control, h.Control+kpack.HookControl-1, h.Thread, h.Stack) {
		return errors.New("its hooks are not in its memory")
	}
	for _, o := range h.All {
		if o.Limit <= 0 || o.Limit > kpack.MaxHookLimit {
			return fmt.Errorf("hook %q may take %v", o.Function, o.Limit)
		}
	}
	return nil
}

// hooksOf are those of a patch, for its record.
func hooksOf(patch *kpack.Patch, place kpack.HookPlace) recordedHooks {
	h := recordedHooks{HookPlace: place}
	for _, k := range patch.Hooks {
		h.All = append(h.All, recordedHook{k.Point, k.Function, k.Limit})
	}
	return h
}

// HookRun is what came of a patch's hooks of one point.
type HookRun struct {
	Patch     specs.PatchID   `json:"patch"`
	Point     kpack.HookPoint `json:"point"`
	Functions []string        `json:"functions"`
	Took      time.Duration   `json:"took_ns"`
	// Failed is the function that did not return 0, and Why what it did instead.
	// Of hooks that can veto, those after it did not run.
	Failed string `json:"failed,omitempty"`
	Why    string `json:"why,omitempty"`
}

// HookError means that a hook vetoed the change, or could not be asked. All
// functions are as they were.
type HookError struct{ HookRun }

func (e *HookError) Error() string {
	if e.Failed == "" {
		return fmt.Sprintf("hooks %s (%v): %s; nothing was changed", strings.Join(e.Functions, ", "), e.Point, e.Why)
	}
	return fmt.Sprintf("hook %s (%v) %s; nothing was changed", e.Failed, e.Point, e.Why)
}

// Hint says what the user can do.
func (e *HookError) Hint() string {
	return "the patch's author wrote the hook to keep the patch away from processes in such a state; try again later"
}

// FilteredError means that a seccomp filter may end the process for what the
// thread of a patch's hooks does.
type FilteredError struct{ Object string }

func (e *FilteredError) Error() string {
	return fmt.Sprintf("%s: the patch has hooks, and the process a seccomp filter, which may not let their thread sleep and end", e.Object)
}

// Hint says what the user can do.
func (e *FilteredError) Hint() string {
	return "restart the program with the fixed build, or ask for a patch without hooks"
}

// hookState reads the control block of r.
func (p *Process) hookState(r *record) (kpack.HookState, error) {
	b := make([]byte, kpack.HookControl)
	if err := readFull(p.mem, r.Hooks.Control, b); err != nil {
		return kpack.HookState{}, err
	}
	return kpack.ReadHookState(b)
}

// hooked reports whether r has hooks, and what they need is there: a run that was killed
// may not have mapped it yet, or may have freed it already.
func (p *Process) hooked(r *record) bool {
	if len(r.Hooks.All) == 0 {
		return false
	}
	_, err := p.hookState(r)
	return err == nil || r.state != staged && r.state != retired
}

// hooksBefore runs the hooks that can veto t.
func (p *Process) hooksBefore(ctx context.Context, t *transaction, res *Result) error {
	for _, side := range []struct {
		records []*record
		point   kpack.HookPoint
	}{{t.outs, kpack.PreRevert}, {t.ins, kpack.PreApply}} {
		for _, r := range side.records {
			run, err := p.runHooks(ctx, r, side.point, res)
			if err == nil && run.Why != "" {
				err = &HookError{run}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// hooksAfter runs the hooks that records owe after a change, whether it came
// about or not. What they fail in is only told: it changes nothing any more.
func (p *Process) hooksAfter(ctx context.Context, records []*record, res *Result, o Options) error {
	var errs []error
	for _, r := range records {
		point, err := p.owed(r)
		if err == nil && point != 0 {
			var run HookRun
			run, err = p.runHooks(context.WithoutCancel(ctx), r, point, res)
			if run.Why != "" {
				o.logger().Warn("hook failed", "pid", p.PID, "hook", run.Failed, "point", run.Point.String(), "why", run.Why)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// owed returns the point whose hooks a record's state asks for, and that have
// not run since it is in this state; 0 if there is none. PROTOCOL.md has the
// table.
func (p *Process) owed(r *record) (kpack.HookPoint, error) {
	if !p.hooked(r) || !p.inForce(r) {
		return 0, nil
	}
	s, err := p.hookState(r)
	if err != nil {
		return 0, err
	}
	want, undone := kpack.PostRevert, kpack.PreApply
	switch r.state {
	case applied:
		want, undone = kpack.PostApply, kpack.PreRevert
	case staged:
		if s.Point == 0 {
			return 0, nil
		}
	case retired:
		undone = 0
	default:
		return 0, nil
	}
	if s.Point == want && (s.Done || s.Begun) || s.Point == undone && undone != 0 && !s.Begun {
		return 0, nil
	}
	return want, nil
}

// runHooks runs a patch's hooks of one point, and waits for their end.
func (p *Process) runHooks(ctx context.Context, r *record, point kpack.HookPoint, res *Result) (HookRun, error) {
	hooks := r.Hooks.at(point)
	run := HookRun{Patch: r.ID, Point: point}
	if len(hooks) == 0 {
		return run, nil
	}
	for _, h := range hooks {
		run.Functions = append(run.Functions, h.Function)
	}
	start := time.Now()
	held, errno, err := p.createHookThread(r, point)
	res.Held += held
	switch {
	case err == nil && errno == 0:
		err = p.attend(ctx, r, hooks, &run, true)
	case err == nil:
		run.Why = fmt.Sprintf("the process could not create a thread for them: %v", errno)
		err = p.neverRun(r, point)
	}
	run.Took = time.Since(start)
	if err == nil {
		res.Hooks = append(res.Hooks, run)
	}
	return run, err
}

// neverRun gives hooks up for which there is no thread. What can veto was not
// begun, and nothing is owed for it; all else is not tried again, so that a patch
// can go out of a process that has reached its limits.
func (p *Process) neverRun(r *record, point kpack.HookPoint) error {
	if point.Vetoes() {
		return nil
	}
	return errors.Join(p.mem.Write(r.Hooks.Control+kpack.HookGo, []byte{1, 0, 0, 0}), p.mem.Write(r.Hooks.Control+kpack.HookDone, []byte{1, 0, 0, 0}))
}

// createHookThread has a borrowed thread create that of the hooks, which waits
// to be let go. The error of the call is returned apart. Under a seccomp filter
// none is created.
func (p *Process) createHookThread(r *record, point kpack.HookPoint) (held time.Duration, errno unix.Errno, err error) {
	h := &r.Hooks
	filtered := ptrace.Filtered(p.PID)
	if filtered && point.Vetoes() {
		return 0, 0, &FilteredError{r.Object}
	} else if filtered {
		s := kpack.HookStart{Point: point, Place: h.HookPlace}
		return 0, unix.EPERM, p.mem.Write(h.Control, s.Bytes())
	}
	held, err = p.withAgent(specs.Range[specs.Addr]{}, func(a *ptrace.Agent) error {
		return a.Detour(h.Code, h.Created, func(home []uint64) error {
			s := kpack.HookStart{Point: point, Place: h.HookPlace}
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
	ended, since, why := -1, time.Now(), ""
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
			why = fmt.Sprintf("was broken off: %v", ctx.Err())
		case time.Since(since) >= limit:
			why = fmt.Sprintf("took longer than %v", limit)
		}
		return why != "", nil
	}
	err := ptrace.Do(func() error {
		sig, err := p.mind(r, begin, enough, func() bool { return why != "" })
		if sig != 0 {
			why = "crashed: " + unix.SignalName(sig)
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
		run.Why = why
	case !s.Done:
		run.Why = "ended its thread"
	case s.Result != 0:
		run.Why, failed = fmt.Sprintf("returned %d", s.Result), s.Failed
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
	return ptrace.Innermost(p.PID, s.Thread)
}

// hookEnd is how long a thread may take to end.
const hookEnd = 2 * time.Second

// awaitHookEnd waits until the thread of r's hooks has left the patch's memory
// for good.
func (p *Process) awaitHookEnd(r *record) error {
	for begin := time.Now(); ; time.Sleep(50 * time.Microsecond) {
		tid, err := p.hookThread(r)
		if err != nil || tid == 0 {
			return err
		}
		if time.Since(begin) > hookEnd {
			return &StuckError{TID: tid, Name: ptrace.Comm(p.PID, tid), State: ptrace.State(p.PID, tid)}
		}
	}
}

// hooksLeft sees to hooks of runs that were killed: those that run are waited
// for, and a thread that was never let go is ended.
func (p *Process) hooksLeft(ctx context.Context, res *Result, o Options) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := &transaction{}
	var left []*record
	for _, r := range p.records {
		if !p.hooked(r) {
			continue
		}
		s, err := p.hookState(r)
		if err != nil {
			return err
		}
		if s.Point == 0 || s.Done {
			continue
		}
		left = append(left, r)
		if !s.Begun {
			t.zones = append(t.zones, zone{Range: r.Hooks.launch(), object: r.Object, function: "what begins hooks of patch " + r.Name, going: true})
		}
	}
	if len(t.zones) > 0 { // a borrowed thread may still be about to create one
		if _, err := p.commit(ctx, t, commitOptions{wait: o.wait()}); err != nil {
			return err
		}
	}
	for _, r := range left {
		if err := p.hookLeft(ctx, r, res); err != nil {
			return err
		}
	}
	return nil
}

func (p *Process) hookLeft(ctx context.Context, r *record, res *Result) error {
	s, err := p.hookState(r)
	if err != nil {
		return err
	}
	if !s.Begun {
		// It looks there before each of its naps.
		if err := p.mem.Write(r.Hooks.Control+kpack.HookTurns, []byte{0, 0, 0, 0}); err != nil {
			return err
		}
		return p.awaitHookEnd(r)
	}
	hooks := r.Hooks.at(s.Point)
	run := HookRun{Patch: r.ID, Point: s.Point}
	for _, h := range hooks {
		run.Functions = append(run.Functions, h.Function)
	}
	start := time.Now()
	err = p.attend(ctx, r, hooks, &run, false)
	run.Took = time.Since(start)
	res.Hooks = append(res.Hooks, run)
	return err
}
