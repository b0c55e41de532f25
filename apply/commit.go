package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
)

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
	// Parked are those of Threads that slept all the while and were not stopped.
	Parked int `json:"parked"`
	// Tries is the number of stops, Longest the longest of them and Sum all
	// together.
	Tries   int           `json:"tries"`
	Longest time.Duration `json:"longest_ns"`
	Sum     time.Duration `json:"sum_ns"`
	// began is when Total did.
	began time.Time
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
	if err := p.prepareGates(t); err != nil {
		return stop, err
	}
	p.makeReady(t)
	err := ptrace.Do(func() error {
		start := time.Now()
		g, err := ptrace.Seize(p.PID, ptrace.Options{})
		if err != nil {
			return err
		}
		defer g.Detach() // of what an error left, and of what was parked
		if len(g.Threads()) >= parkFrom {
			end := start.Add(max(o.wait, leastPark))
			if err := g.Park(func() bool { return ctx.Err() == nil && time.Now().Before(end) }); err != nil {
				return err
			}
		}
		in := newInspector(p, t.zones)
		if err := whileServed(g, func() error { return in.know(g.Threads()) }); err != nil {
			return err
		}
		if err := p.rehearse(in, t); err != nil {
			return err
		}
		if err := g.Serve(); err != nil {
			return err
		}
		stop.Seize = time.Since(start)
		return p.tryCommit(ctx, g, in, t, o, &stop)
	})
	p.addSources(err) // when all run again
	return stop, err
}

// parkFrom is the number of threads from which on those that sleep are not stopped
// but parked. It takes several times as long as to stop them, but they have no
// part in the stop.
var parkFrom = 64

// leastPark is how long threads may take to be parked, whatever the commit may wait.
// Those that are not by then are stopped.
const leastPark = time.Second

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
	looks := 0
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
		if len(busy) > 0 && busy[0].TID == 0 { // no thread can be asked whether it has left
			wait = min(2*wait, longWait)
		}
		found, left, err := p.try(g, in, t, o, stop, busy)
		switch {
		case errors.As(err, &stuck) && time.Now().Before(deadline): // the parent of a vfork, say
		case err != nil || left && len(found) == 0:
			return err
		case !left:
			wait = min(2*wait, longWait)
		}
		if left {
			looks++
		}
		busy = found
		if in.prover == nil && in.unproven {
			// Worth another look at once, and more exactly.
			if err := whileServed(g, func() error { in.prover = newProver(p); return nil }); err != nil {
				return err
			}
			in.unproven = false
			busy = nil
			continue
		}
		if len(busy) > 0 && time.Now().After(deadline) {
			return &BusyError{Threads: busy, Waited: time.Since(begin), Attempts: looks}
		}
		if err := serveFor(g, wait); err != nil {
			return err
		}
	}
}

// try looks whether any thread is inside, and if none is makes the commit. It reports
// false if the first of those that were inside has not left: then nothing else was
// looked at. To know of parked threads takes no stop. No thread is left stopped.
func (p *Process) try(g *ptrace.Group, in *inspector, t *transaction, o commitOptions, stop *Stop, busy []Inside) (found []Inside, left bool, err error) {
	var offender *ptrace.Thread
	if len(busy) > 0 {
		offender = threadOf(g, busy[0].TID)
	}
	if offender != nil && offender.Parked() {
		return busy, false, nil
	}
	if found, err = in.parked(g); err != nil || len(found) > 0 {
		return found, true, err
	}
	if err := g.Serve(); err != nil { // who has come back meanwhile is not to wait for the stop
		return nil, true, err
	}
	start := time.Now()
	if offender != nil && !offenderLeft(g, in, offender) {
		return busy, false, nil
	}
	stop.Tries++
	found, err = p.stopOnce(g, in, t, o, stop, start)
	return found, true, err
}

func threadOf(g *ptrace.Group, tid int) *ptrace.Thread {
	for _, t := range g.Threads() {
		if t.TID == tid {
			return t
		}
	}
	return nil
}

// whileServed runs f, which touches no tracee, beside the threads' service. Its
// error comes first.
func whileServed(g *ptrace.Group, f func() error) error {
	const turn = time.Millisecond
	done := make(chan error, 1)
	go func() { done <- f() }()
	var served error
	for tick := time.NewTicker(turn); ; {
		select {
		case err := <-done:
			tick.Stop()
			if err != nil {
				return err
			}
			return served
		case <-tick.C:
			if served == nil {
				served = g.Serve()
			}
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
// left, it stays stopped for the stop of all, which has to follow at once.
func offenderLeft(g *ptrace.Group, in *inspector, t *ptrace.Thread) bool {
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

// stopOnce is one stop. It returns the threads that are inside, in which case
// nothing was written and all run again. Otherwise all were let go, for good.
func (p *Process) stopOnce(g *ptrace.Group, in *inspector, t *transaction, o commitOptions, stop *Stop, start time.Time) (busy []Inside, err error) {
	at := start
	lap := func(d *time.Duration) {
		now := time.Now()
		*d, at = now.Sub(at), now
	}
	done, threads := false, []*ptrace.Thread(nil)
	defer func() {
		if done {
			g.Release()
		} else {
			err = errors.Join(err, ignoreGone(g.Resume()))
		}
		lap(&stop.Resume)
		stop.began, stop.Total = start, at.Sub(start)
		stop.Longest = max(stop.Longest, stop.Total)
		stop.Sum += stop.Total
		if done && o.stacks != nil { // by what was read of the threads
			o.stacks.note(in, threads, slices.DeleteFunc(slices.Concat(t.going(), t.emptied), func(r *record) bool { return slices.Contains(in.left, r) }))
		}
	}()
	if err := g.Stop(); err != nil {
		return nil, err
	}
	lap(&stop.Interrupt)
	threads = g.Threads()
	stop.Threads = len(threads)
	in.fresh, in.left = false, slices.Clone(in.leftParked)
	if busy, err = in.busy(in.unclear(threads)); err == nil && len(busy) == 0 {
		busy, err = p.suspended(in, threads, t)
	}
	lap(&stop.Inspect)
	if err != nil || len(busy) > 0 {
		return busy, err
	}
	for _, th := range threads {
		if th.Parked() {
			stop.Parked++
		}
	}
	done = true
	err = p.switchEntries(t)
	lap(&stop.Write)
	return nil, err
}

func ignoreGone(err error) error {
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}
