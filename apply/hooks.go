package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// recordedHooks are the hooks of a patch, in the order in which they run, and
// where what they need is.
type recordedHooks struct {
	kpack.HookPlace
	All []recordedHook `json:",omitempty"`
	// Released are the addresses of variables that those with Release are about.
	Released []specs.Addr `json:",omitempty"`
}

type recordedHook struct {
	Point    kpack.HookPoint `json:"p"`
	Function string          `json:"f"`
	Limit    time.Duration   `json:"l"`
	Release  bool            `json:"r,omitempty"`
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
	if len(h.All) > maxRecordedHooks || !in(0, append(h.Lists[:], h.Handed)...) || len(h.Released) > maxRecordedVariables || !in(1, h.Code, h.Created, h.CodeEnd, h.Exit) || h.Code > h.CodeEnd ||
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
func hooksOf(patch *kpack.Patch, image *kpack.Image) recordedHooks {
	h := recordedHooks{HookPlace: image.Hooks}
	for _, k := range patch.Hooks {
		h.All = append(h.All, recordedHook{k.Point, k.Function, k.Limit, k.Release})
	}
	for _, i := range patch.Releases() {
		h.Released = append(h.Released, image.Variables[i])
	}
	return h
}

// handed reports whether another level that is in use goes on with variables that
// r's hooks would give back.
func (p *Process) handed(r *record) bool {
	return slices.ContainsFunc(p.records, func(o *record) bool {
		used := o.state == committing || o.state == applied || o.state == leaving
		return o != r && used && slices.ContainsFunc(o.Variables, func(v recordedVariable) bool { return slices.Contains(r.Hooks.Released, v.At) })
	})
}

// hooksAt returns the hooks of r that are to run at a point, and whether some are
// left out.
func (p *Process) hooksAt(r *record, point kpack.HookPoint) (hooks []recordedHook, handed bool) {
	hooks = r.Hooks.at(point)
	if handed = point == kpack.PostRevert && p.handed(r); handed {
		hooks = slices.DeleteFunc(hooks, func(h recordedHook) bool { return h.Release })
	}
	return hooks, handed
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
	// Cause is the kind of Why.
	Cause HookCause `json:"cause,omitempty"`
}

// HookCause is a kind of failure of hooks.
type HookCause string

// The causes.
const (
	HookReturned    HookCause = "returned"    // something else than 0
	HookLate        HookCause = "late"        // it took longer than it may
	HookCrashed     HookCause = "crashed"     // it got the signal of a crash
	HookEnded       HookCause = "ended"       // its thread was gone before it returned
	HookInterrupted HookCause = "interrupted" // the run was broken off
	HookNoThread    HookCause = "no_thread"   // the process could not create one
	HookFiltered    HookCause = "filtered"    // seccomp filters do not let their thread be
)

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
	switch e.Cause {
	case HookLate:
		return "try again when the process is less busy; if it happens again, tell the patch's author: the hook is slower, or waits for longer, than it was given time for"
	case HookCrashed, HookEnded:
		return "tell the patch's author: the hook itself has a fault"
	case HookInterrupted:
		return "try again, and let it come to its end"
	case HookNoThread:
		return "the process has reached a limit (ulimit -u, or pids.max of its control group): raise it, or try again when the process has fewer threads"
	}
	if e.Point == kpack.PreRevert {
		return "the patch's author wrote the hook to keep the patch in processes in such a state; try again later"
	}
	return "the patch's author wrote the hook to keep the patch away from processes in such a state; try again later"
}

// FilteredError means that seccomp filters do not let any thread of the process
// create and be the thread of a patch's hooks, or that they could not be read.
type FilteredError struct {
	Object string
	Denied *ptrace.DeniedError
}

func (e *FilteredError) Error() string {
	return fmt.Sprintf("%s: the patch has hooks, which need a thread of their own: %v", e.Object, e.Denied)
}

// Hint says what the user can do.
func (e *FilteredError) Hint() string {
	const instead = "restart the program with the fixed build, or ask for a patch without hooks"
	if e.Denied.Call == "" {
		return "run as root with CAP_SYS_ADMIN, and without a seccomp filter of the tool's own; else " + instead
	}
	return instead
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

// hooksRan reports whether a hook of a staged record may have run, which can
// have given addresses in its memory to the program.
func (p *Process) hooksRan(r *record) bool {
	if !p.hooked(r) {
		return false
	}
	s, err := p.hookState(r)
	// What follows another point was asked for since hooks of that one ran.
	return err == nil && s.Point != 0 && (s.Begun || s.Point != kpack.PreApply)
}

// hooksBefore runs the hooks that can veto t.
func (p *Process) hooksBefore(ctx context.Context, t *transaction, res *Result, o Options) error {
	for _, side := range []struct {
		records []*record
		point   kpack.HookPoint
	}{{t.outs, kpack.PreRevert}, {t.ins, kpack.PreApply}} {
		for _, r := range side.records {
			run, err := p.runHooks(ctx, r, side.point, res)
			if err == nil && run.Cause == HookFiltered {
				o.logger().Warn("hooks did not run", "pid", p.PID, "point", run.Point.String(), "why", run.Why)
			} else if err == nil && run.Why != "" {
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
	hooks, handed := p.hooksAt(r, point)
	run := HookRun{Patch: r.ID, Point: point}
	if len(r.Hooks.at(point)) == 0 {
		return run, nil
	}
	for _, h := range hooks {
		run.Functions = append(run.Functions, h.Function)
	}
	start := time.Now()
	// Its control block and its stack are to be used anew.
	if err := p.awaitHookEnd(r); err != nil {
		return run, fmt.Errorf("hooks: %w", err)
	}
	if len(hooks) == 0 {
		return run, p.passHooks(r, point)
	}
	held, errno, err := p.createHookThread(ctx, r, point, handed)
	res.Held += held
	denied := (*ptrace.DeniedError)(nil)
	switch {
	case errors.As(err, &denied):
		return run, p.filteredHooks(r, point, denied, &run, res)
	case err == nil && errno == 0:
		err = p.attend(ctx, r, hooks, &run, true)
	case err == nil:
		run.Cause, run.Why = HookNoThread, fmt.Sprintf("the process could not create a thread for them: %v", errno)
		err = p.neverRun(r, point)
	}
	run.Took = time.Since(start)
	if err == nil {
		res.Hooks = append(res.Hooks, run)
	}
	return run, err
}

// filteredHooks is runHooks for a process whose seccomp filters do not let them run.
// Only a patch that is not in yet is refused for it: one that is there has
// to be able to go, also to make room for a newer level.
func (p *Process) filteredHooks(r *record, point kpack.HookPoint, denied *ptrace.DeniedError, run *HookRun, res *Result) error {
	if point == kpack.PreApply {
		return &FilteredError{r.Object, denied}
	}
	run.Cause, run.Why = HookFiltered, "did not run: "+denied.Error()
	res.Hooks = append(res.Hooks, *run)
	return p.passHooks(r, point)
}

// passHooks has the control block say that the hooks of a point, which do not run,
// have run, unless they can veto.
func (p *Process) passHooks(r *record, point kpack.HookPoint) error {
	if point.Vetoes() {
		return nil
	}
	s := kpack.HookStart{Point: point, Place: r.Hooks.HookPlace}
	return errors.Join(p.mem.Write(r.Hooks.Control, s.Bytes()), p.neverRun(r, point))
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
