package apply

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// A patch that is on trial has a word in its record, apart from what the
// record's checksum covers: when the trial ends. That a run has to revert it
// then is written nowhere else, and so survives the tool. The clock is
// CLOCK_BOOTTIME, which nobody sets, and which goes on while the machine
// sleeps.

// Values of the word that are no time.
const (
	trialNone   = 0          // accepted, or never on trial
	trialFailed = ^uint64(0) // to be reverted, or reverted: not accepted in time
)

// trialSize is the size of the word, in bytes.
const trialSize = 8

// ErrNoTrial means that no patch that was named is on trial.
var ErrNoTrial = errors.New("no such patch is on trial")

// TrialError means that a patch on trial would replace a lower level that the end
// of the trial could not bring back.
type TrialError struct {
	Object   string
	Replaced specs.PatchID
	Why      string
}

func (e *TrialError) Error() string {
	return fmt.Sprintf("%s: level %d of series %s is applied, and the end of a trial could not bring it back: %s", e.Object, e.Replaced.Level, e.Replaced.Series, e.Why)
}

// Hint says what the user can do.
func (e *TrialError) Hint() string {
	return "revert the lower level first, then put the new one in on trial; or put it in without --trial"
}

// checkTrial sets the step's word about its trial. What it replaces has to be able
// to come back: hooks have made way for the newer level by then, and converted or
// freed what they had.
func (s *step) checkTrial(p *Process, o Options) error {
	s.trial = trialWord(o.Trial)
	old := s.replaced
	if old == nil || s.trial == trialNone {
		return nil
	}
	refuse := func(why string) error { return &TrialError{s.object.Path, old.ID, why} }
	switch {
	case old.onTrial():
		return refuse("it is on trial itself")
	case len(old.Hooks.All) > 0:
		return refuse("it has hooks, which would have run as for its end")
	case len(s.patch.Hooks) > 0:
		return refuse("the new level has hooks, which take for granted that they are the last")
	}
	return nil
}

// awaited returns the record at whose end retired r comes back, nil if there is
// none: the level that replaced it is on trial.
func (p *Process) awaited(r *record) *record {
	for _, o := range p.records {
		trial := o.state == committing || o.state == applied || o.state == leaving
		if o.Fallback == r.Base && o.Fallback != 0 && trial && o.trial != trialNone && o.ID.BuildID == r.ID.BuildID && o.ID.Series == r.ID.Series {
			return o
		}
	}
	return nil
}

// fallback returns the record that comes back at the end of r, nil if none does.
func (p *Process) fallback(r *record) *record {
	for _, o := range p.records {
		if r.Fallback == o.Base && o.state == retired && p.awaited(o) == r && p.inForce(o) {
			return o
		}
	}
	return nil
}

// bootTime is the time in nanoseconds since the machine was booted.
func bootTime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return uint64(ts.Nano())
}

// trialWord is what is written for a trial of the given length, 0 for none.
func trialWord(trial time.Duration) uint64 {
	if trial <= 0 {
		return trialNone
	}
	return bootTime() + uint64(trial)
}

// readTrial reads the word of a record that has one.
func (r *record) readTrial(mem memory) {
	var b [trialSize]byte
	if r.Trial != 0 && readFull(mem, r.Trial, b[:]) == nil {
		r.trial = binary.LittleEndian.Uint64(b[:])
	}
}

// setTrial writes the word, in one piece.
func (p *Process) setTrial(r *record, word uint64) error {
	if err := p.mem.Write(r.Trial, binary.LittleEndian.AppendUint64(nil, word)); err != nil {
		return fmt.Errorf("record at %v: %w", r.Base, err)
	}
	r.trial = word
	return nil
}

// onTrial reports whether r is applied and still to be accepted.
func (r *record) onTrial() bool { return r.state == applied && r.trial != trialNone }

// trialOver reports whether r is to be reverted, since nobody accepted it.
func (r *record) trialOver() bool {
	return r.onTrial() && (r.trial == trialFailed || bootTime() >= r.trial)
}

// rejected reports whether r was reverted so.
func (r *record) rejected() bool { return r.state == retired && r.trial == trialFailed }

// trialEnds returns when the trial ends by the clock on the wall, zero if there
// is none.
func (r *record) trialEnds() time.Time {
	switch {
	case !r.onTrial():
		return time.Time{}
	case r.trial == trialFailed:
		return r.Time
	}
	return time.Now().Add(time.Duration(r.trial - bootTime())).UTC().Truncate(time.Second)
}

// TrialOver reports whether a patch's trial has ended, so that [Expire] has
// something to do.
func (p *Process) TrialOver() bool { return slices.ContainsFunc(p.records, (*record).trialOver) }

// Rejected reports whether a patch of id's BuildID and series, at id's level or
// a higher one, was reverted since nobody accepted it, and is not applied: then
// only a person should put it in again.
func (p *Process) Rejected(id specs.PatchID) bool {
	return !p.Has(id) && slices.ContainsFunc(p.records, func(r *record) bool {
		return r.rejected() && r.ID.BuildID == id.BuildID && r.ID.Series == id.Series && r.ID.Level >= id.Level && p.inForce(r)
	})
}

// Accept ends the trial of the patches that a selector names, without selectors
// of all, and returns them.
//
// Errors: [ErrNoTrial]; [ErrGone], [ErrPermission], [ErrLocked].
func Accept(ctx context.Context, pid int, which []Selector, o Options) (_ []Applied, err error) {
	defer func() { err = orGone(pid, err) }()
	p, res, err := begin(ctx, pid, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var accepted []Applied
	var released []*record
	for _, r := range p.records {
		if !r.onTrial() || r.trial == trialFailed || !selected(which, r) {
			continue
		}
		if back := p.fallback(r); back != nil {
			released = append(released, back)
		}
		if err := p.setTrial(r, trialNone); err != nil {
			return accepted, err
		}
		accepted = append(accepted, r.describe())
	}
	if len(accepted) == 0 {
		return nil, ErrNoTrial
	}
	_, err = p.free(ctx, released, &stackUses{}, res)
	return accepted, err
}

// Expire reverts the patches of a process whose trial has ended, and brings back
// the levels that they replaced, in the same commit. What it reverts, [Process.Rejected] tells until it is applied again: that memory is
// kept.
//
// Errors: [ErrNotApplied] if there is none; else those of Apply.
func Expire(ctx context.Context, pid int, o Options) (_ *Result, err error) {
	defer func() { err = orGone(pid, err) }()
	start := time.Now()
	p, res, err := begin(ctx, pid, o)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var ins, outs []*record
	for _, r := range p.records {
		if !r.trialOver() {
			continue
		}
		if err := p.setTrial(r, trialFailed); err != nil {
			return nil, err
		}
		outs = append(outs, r)
		if back := p.fallback(r); back != nil {
			ins = append(ins, back)
		}
	}
	if len(outs) == 0 {
		return res, ErrNotApplied
	}
	t := exchange(ins, outs)
	t.returning = ins
	if err := p.revert(ctx, t, res, o); err != nil {
		return nil, err
	}
	res.Wall = time.Since(start)
	return res, nil
}

// forget takes the mark from reverted patches that are applied again. Their
// memory can be freed then, by a later run.
func (p *Process) forget(ins []*record) error {
	for _, r := range p.records {
		again := func(in *record) bool { return in.ID.BuildID == r.ID.BuildID && in.ID.Series == r.ID.Series }
		if r.rejected() && slices.ContainsFunc(ins, again) {
			if err := p.setTrial(r, trialNone); err != nil {
				return err
			}
		}
	}
	return nil
}
