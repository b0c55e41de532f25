package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// change is one entry that is switched. Before and after are as long as each
// other.
type change struct {
	function, object string
	addr             specs.Addr
	before, after    []byte
}

// transaction is what one commit does: all of it, or nothing.
type transaction struct {
	// ins become applied, outs retired, and keeps, which a run that was killed
	// was about to retire, become applied again.
	ins, outs, keeps []*record
	changes          []change
	zones            []zone
	// unwinders are told of the frames of ins, and not any more of those of
	// unhook, which is what a transaction of its own does.
	unwinders *unwinders
	unhook    []*record
}

// leader returns the record whose state decides for all, nil if there is none.
func (t *transaction) leader() *record {
	for _, r := range slices.Concat(t.ins, t.outs, t.keeps) {
		return r
	}
	return nil
}

// Stop is what a commit cost. All times are in nanoseconds.
type Stop struct {
	// Total is from the first interrupt to the last resume of the stop in
	// which the entries were switched; the others are its parts.
	Total     time.Duration `json:"total_ns"`
	Interrupt time.Duration `json:"interrupt_ns"` // until all threads are stopped, with their registers
	Inspect   time.Duration `json:"inspect_ns"`   // until no thread is known to be inside
	Write     time.Duration `json:"write_ns"`     // compare, write, read back, record
	Resume    time.Duration `json:"resume_ns"`
	// Seize is what was done ahead, while the threads ran.
	Seize   time.Duration `json:"seize_ns"`
	Threads int           `json:"threads"`
	// Tries is the number of stops, Longest the longest of them and Sum all
	// together.
	Tries   int           `json:"tries"`
	Longest time.Duration `json:"longest_ns"`
	Sum     time.Duration `json:"sum_ns"`
}

// commitOptions are those of Options that the commit needs.
type commitOptions struct {
	wait time.Duration
	// stacks, if not nil, takes in the stacks at the stop.
	stacks *stackUses
}

// commit carries a transaction out. After an error the process is as it was
// before, unless the error is about the writing itself, and says so.
func (p *Process) commit(ctx context.Context, t *transaction, o commitOptions) (Stop, error) {
	var stop Stop
	p.watchUnwinders(t)
	err := ptrace.Do(func() error {
		start := time.Now()
		g, err := ptrace.Seize(p.PID, ptrace.Options{})
		if err != nil {
			return err
		}
		defer g.Detach() // of what an error left
		in := newInspector(p, t.zones)
		if err := in.know(g.Threads()); err != nil {
			return err
		}
		stop.Seize = time.Since(start)
		return p.tryCommit(ctx, g, in, t, o, &stop)
	})
	return stop, err
}

// Bounds of the waits between tries.
const (
	firstWait = 200 * time.Microsecond
	longWait  = 20 * time.Millisecond
)

// tryCommit stops all threads, again and again until none is inside. Between
// the stops everybody runs; only a thread that was found inside is looked at.
func (p *Process) tryCommit(ctx context.Context, g *ptrace.Group, in *inspector, t *transaction, o commitOptions, stop *Stop) error {
	begin := time.Now()
	deadline := begin.Add(o.wait)
	wait := firstWait
	var busy []Inside
	stuck := (*StuckError)(nil)
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("given up, nothing was changed: %w", ctx.Err())
		}
		if stuck != nil && time.Now().Before(deadline) && ptrace.State(p.PID, stuck.TID) == "D" {
			// It would not stop now either, and hold up all others.
			if err := serveFor(g, time.Millisecond); err != nil {
				return err
			}
			continue
		}
		stuck = nil
		start := time.Now()
		if len(busy) > 0 && !offenderLeft(g, in, busy[0].TID) {
			wait = min(2*wait, longWait)
		} else {
			stop.Tries++
			found, err := p.stopOnce(g, in, t, o, stop, start)
			switch {
			case errors.As(err, &stuck) && time.Now().Before(deadline): // the parent of a vfork, say
			case err != nil || len(found) == 0:
				return err
			}
			busy = found
		}
		if in.prover == nil && in.unproven {
			// Worth another look at once, and more exactly.
			in.prover = newProver(p)
			in.unproven = false
			busy = nil
			if err := serveFor(g, 0); err != nil {
				return err
			}
			continue
		}
		if len(busy) > 0 && time.Now().After(deadline) {
			return &BusyError{Threads: busy, Waited: time.Since(begin), Attempts: stop.Tries}
		}
		if err := serveFor(g, wait); err != nil {
			return err
		}
	}
}

// serveFor lets the threads run for d, passing on their signals.
func serveFor(g *ptrace.Group, d time.Duration) error {
	const turn = time.Millisecond
	for end := time.Now().Add(d); ; {
		if err := g.Serve(); err != nil {
			return err
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		time.Sleep(min(left, turn))
	}
}

// offenderLeft stops one thread that was inside and looks again. If it has
// left, it stays stopped for the stop of all that follows at once.
func offenderLeft(g *ptrace.Group, in *inspector, tid int) bool {
	for _, t := range g.Threads() {
		if t.TID != tid {
			continue
		}
		if g.StopThread(t) != nil || !t.Stopped() {
			return true // the stop of all finds out
		}
		in.fresh = false
		found, err := in.busy([]*ptrace.Thread{t})
		if err != nil || len(found) == 0 {
			return true
		}
		g.ResumeThread(t)
		return false
	}
	return true
}

// stopOnce is one stop. It returns the threads that are inside, in which case
// nothing was written and all run again. Otherwise all were let go, for good.
func (p *Process) stopOnce(g *ptrace.Group, in *inspector, t *transaction, o commitOptions, stop *Stop, start time.Time) (busy []Inside, err error) {
	at := start
	lap := func(d *time.Duration) {
		now := time.Now()
		*d, at = now.Sub(at), now
	}
	done := false
	defer func() {
		if done {
			g.Detach()
		} else {
			err = errors.Join(err, ignoreGone(g.Resume()))
		}
		lap(&stop.Resume)
		stop.Total = at.Sub(start)
		stop.Longest = max(stop.Longest, stop.Total)
		stop.Sum += stop.Total
	}()
	if err := g.Stop(); err != nil {
		return nil, err
	}
	lap(&stop.Interrupt)
	threads := g.Threads()
	stop.Threads = len(threads)
	in.fresh, in.left = false, nil
	busy, err = in.busy(threads)
	lap(&stop.Inspect)
	if err != nil || len(busy) > 0 {
		return busy, err
	}
	done = true
	err = p.switchEntries(t)
	lap(&stop.Write)
	if o.stacks != nil {
		o.stacks.note(in, threads, slices.DeleteFunc(slices.Clone(t.outs), func(r *record) bool { return slices.Contains(in.left, r) }))
	}
	return nil, err
}

func ignoreGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

// switchEntries is the commit itself; PROTOCOL.md explains the order.
//
// Preconditions: all threads are stopped and none is inside a zone.
func (p *Process) switchEntries(t *transaction) error {
	if err := p.compare(t.changes, before); err != nil {
		return err // nothing was written
	}
	lead := t.leader()
	if lead == nil { // it was only to be known that no thread is inside
		return p.readChain(t.unwinders, t).remove(t.unhook...)
	}
	for _, r := range t.ins {
		if err := p.setState(r, committing, lead.Base); err != nil {
			return err
		}
	}
	for _, r := range t.outs {
		if err := p.setState(r, leaving, lead.Base); err != nil {
			return err
		}
	}
	finders := p.readChain(t.unwinders, t)
	err := finders.add(slices.Concat(t.ins, t.keeps)...)
	if err == nil {
		err = p.writeAll(t.changes)
	}
	if err == nil {
		err = p.compare(t.changes, after)
	}
	if err != nil {
		return p.undo(t, finders, err)
	}
	return p.settle(t, lead)
}

// settle records that the entries are switched, the leader's first.
func (p *Process) settle(t *transaction, lead *record) error {
	final := func(r *record) state {
		if slices.Contains(t.outs, r) {
			return retired
		}
		return applied
	}
	if err := p.setState(lead, final(lead), lead.Base); err != nil {
		return fmt.Errorf("the patch is in place, but not recorded as such: %w", err)
	}
	for _, r := range slices.Concat(t.ins, t.outs, t.keeps) {
		if r == lead {
			continue
		}
		if err := p.setState(r, final(r), lead.Base); err != nil {
			return fmt.Errorf("the patch is in place, but not recorded as such: %w", err)
		}
	}
	return nil
}

func before(c *change) []byte { return c.before }
func after(c *change) []byte  { return c.after }

// compare checks that memory holds one side of all changes.
func (p *Process) compare(changes []change, side func(*change) []byte) error {
	spans := make([]ptrace.Span, len(changes))
	for i, c := range changes {
		spans[i] = ptrace.Span{Addr: c.addr, Buf: make([]byte, len(c.before))}
	}
	if err := p.mem.ReadSpans(spans); err != nil {
		return err
	}
	for i := range changes {
		c := &changes[i]
		if spans[i].N != len(c.before) || !bytes.Equal(spans[i].Buf, side(c)) {
			return &MismatchError{Object: c.object, Function: c.function, Addr: c.addr,
				Why: fmt.Sprintf("it begins with % x: want % x", spans[i].Buf[:spans[i].N], side(c))}
		}
	}
	return nil
}

func (p *Process) writeAll(changes []change) error {
	for _, c := range changes {
		if err := p.mem.Write(c.addr, c.after); err != nil {
			return err
		}
	}
	return nil
}

// undo puts everything back after a write that failed, and says how the
// process was left.
func (p *Process) undo(t *transaction, finders *chain, cause error) error {
	var errs []error
	if err := finders.restore(); err != nil {
		errs = append(errs, err)
	}
	for _, c := range slices.Backward(t.changes) {
		if err := p.mem.Write(c.addr, c.before); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		for _, r := range t.ins {
			errs = append(errs, p.setState(r, staged, r.Base))
		}
		for _, r := range t.outs {
			errs = append(errs, p.setState(r, applied, r.Base))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; the process may be left half patched, run the same command again: %w", cause, err)
	}
	return fmt.Errorf("%w; all functions are as they were", cause)
}
