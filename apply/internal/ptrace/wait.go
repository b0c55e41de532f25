package ptrace

import (
	"errors"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pause is how a wait for a stop passes its time. It polls a few times, which
// is enough where the thread stops on another processor, and goes on with
// sleeps that grow: a sleeper that wakes goes before what spins, whereas a
// yield may cost a whole time slice of each spinning thread.
type pause struct {
	turn     int
	rounds   int
	nap      time.Duration
	deadline time.Time
	asleep   time.Time // since when each look found an uninterruptible sleep
}

const (
	pollTurns = 16
	firstNap  = 5 * time.Microsecond
	shortNap  = 100 * time.Microsecond
	longNap   = 2 * time.Millisecond

	// sleepLimit is how long a thread may be in an uninterruptible sleep. Most
	// are for a disk and shorter; the others last until a child of vfork
	// executes a program, or a file server answers.
	sleepLimit = 20 * time.Millisecond
)

// once waits a little. It reports false when limit has passed since the first
// sleep.
func (p *pause) once(limit time.Duration) bool {
	if p.turn++; p.turn <= pollTurns {
		return true
	}
	now := time.Now()
	if p.nap == 0 {
		p.deadline, p.nap = now.Add(limit), firstNap
	}
	if p.nap < shortNap {
		ts := unix.NsecToTimespec(int64(p.nap))
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
	} else {
		time.Sleep(p.nap)
	}
	p.nap = min(p.nap+p.nap/2, longNap)
	return now.Before(p.deadline)
}

// How many times longer than the limit a wait for a thread lasts that has got no
// processor. On a crowded machine one of a low weight waits for seconds.
const (
	patience = 20
	// agentPatience is that of a wait in which no other thread is held.
	agentPatience = 300
)

// starved prolongs the wait for a thread that could run (R) if there were a
// processor for it, sleeps for a moment on its way (D, see deep), or has stopped
// (t) just now. It does so up to most times, for a sleep up to patience times.
func (p *pause) starved(pid, tid int, limit time.Duration, most int) bool {
	states := "RDt"
	if p.rounds++; p.rounds > patience {
		states = "Rt"
	}
	if p.rounds > most || !strings.Contains(states, State(pid, tid)) {
		return false
	}
	p.deadline = time.Now().Add(limit)
	return true
}

// deep reports whether the thread is in an uninterruptible sleep and was at each
// look for longer than those are allowed to last. One that waits for a processor
// may be in a short one whenever it is looked at.
func (p *pause) deep(pid, tid int) bool {
	if p.nap != longNap || State(pid, tid) != "D" {
		p.asleep = time.Time{}
		return false
	}
	if p.asleep.IsZero() {
		p.asleep = time.Now()
	}
	return time.Since(p.asleep) > sleepLimit
}

// sleeping reports whether the wait has got past the polls.
func (p *pause) sleeping() bool { return p.turn > pollTurns+4 }

// await waits until t is stopped or gone, or until the limit has passed.
func (g *Group) await(t *Thread) error { return g.awaitMeanwhile(t, func() error { return nil }) }

// awaitMeanwhile is await, and calls meanwhile now and then if it takes longer.
func (g *Group) awaitMeanwhile(t *Thread, meanwhile func() error) error {
	var p pause
	var stuck error
	for !t.stopped && !t.gone {
		told, err := g.serve(t)
		if err != nil {
			return err
		}
		if told {
			stuck = nil
			continue
		}
		if stuck != nil {
			return stuck
		}
		if p.sleeping() && g.zombieLeader(t) {
			t.gone = true // its exit is told only after all others'
			return nil
		}
		if p.nap >= shortNap {
			if err := meanwhile(); err != nil {
				return err
			}
		}
		if !p.once(g.limit) && !p.starved(g.pid, t.TID, g.limit, patience) || p.deep(g.pid, t.TID) {
			stuck = g.stuck(t)
		}
	}
	return nil
}

// stuck is the error for a thread that is waited for no longer. The thread may
// stop just then, so there is one more look at it before the error is returned.
func (g *Group) stuck(t *Thread) error {
	return &StuckError{TID: t.TID, Name: Comm(g.pid, t.TID), State: State(g.pid, t.TID)}
}

// zombieLeader reports whether t is the first thread and has ended before the
// others: wait does not tell.
func (g *Group) zombieLeader(t *Thread) bool { return t.TID == g.pid && State(g.pid, t.TID) == "Z" }

// serveTurns is how much longer than a look at all threads the next one is put off,
// by those who have many other things to do: it takes a fifth of their time.
const serveTurns = 4

// tend is Serve, unless the last one was just now.
func (g *Group) tend() error {
	if !g.due() {
		return nil
	}
	return g.Serve()
}

// due reports whether it is time for another look at all threads.
func (g *Group) due() bool { return time.Since(g.served) >= serveTurns*g.serving }

// looked takes down that a look at all threads, which began at start, is over.
func (g *Group) looked(start time.Time) {
	g.served = time.Now()
	g.serving = g.served.Sub(start)
}

// Serve handles what running tracees have to tell: signals that are to be
// passed on, new threads, ends. It does not wait. Seized threads need it
// called at least every few milliseconds.
func (g *Group) Serve() error {
	defer g.looked(time.Now())
	for i := 0; i < len(g.threads); i++ {
		t := g.threads[i]
		n := g.added
		for !t.stopped && !t.gone {
			told, err := g.serve(t)
			if err != nil {
				return err
			}
			if !told {
				break
			}
			if t.stopped && !t.hold {
				g.ResumeThread(t)
				break
			}
		}
		if g.added != n {
			i = -1
		}
	}
	return g.ended()
}

// serve handles at most one report of t and says whether there was one.
func (g *Group) serve(t *Thread) (bool, error) {
	ws, got, err := poll(t.TID)
	return g.report(t, ws, got, err)
}

// report handles what poll has returned.
func (g *Group) report(t *Thread, ws unix.WaitStatus, got bool, err error) (bool, error) {
	switch {
	case errors.Is(err, unix.ECHILD), errors.Is(err, unix.ESRCH):
		t.gone = true
		return true, g.ended()
	case err != nil:
		return false, err
	case !got:
		return false, nil
	case ws.Exited(), ws.Signaled():
		t.gone = true
		return true, g.ended()
	case !ws.Stopped():
		return false, nil
	}
	return true, g.stopEvent(t, ws)
}

// stopEvent handles a ptrace-stop. Source: ptrace(2), "Stopped states".
func (g *Group) stopEvent(t *Thread, ws unix.WaitStatus) error {
	sig := ws.StopSignal()
	if ws>>16 == 0 && sig == unix.SIGTRAP|0x80 {
		g.callStop(t)
		return nil
	}
	t.parking, t.parked = false, false
	switch event := int(ws>>16) & 0xff; {
	case event == unix.PTRACE_EVENT_STOP:
		t.stopped = true
		t.halted = sig != unix.SIGTRAP
	case event == unix.PTRACE_EVENT_EXEC:
		g.exec = true
		t.stopped = true
		return g.ended()
	case event == unix.PTRACE_EVENT_CLONE:
		g.born(t)
		g.onward(t, 0)
	case event != 0:
		g.onward(t, 0)
	default:
		g.mendCall(t, sig)
		g.onward(t, sig)
	}
	return nil
}

// onward lets t go on from a stop that nobody asked for, with the signal that
// was to be delivered. Such a stop swallows an interrupt that was under way
// (kernel/signal.c, ptrace_stop: "any trap clears pending STOP trap"), so it
// is asked for anew: the thread then stops before the signal handler's first
// instruction.
func (g *Group) onward(t *Thread, sig unix.Signal) {
	if t.asked {
		_ = request(unix.PTRACE_INTERRUPT, t.TID, 0, 0)
	}
	_ = request(unix.PTRACE_CONT, t.TID, 0, uintptr(sig))
}

// born takes in the thread that t created. clone may also make a process: that
// one is let go.
func (g *Group) born(t *Thread) {
	var msg uint64
	if _, err := requestInto(unix.PTRACE_GETEVENTMSG, t.TID, 0, unsafe.Pointer(&msg)); err != nil {
		return
	}
	tid := int(msg)
	if t := g.find(tid); t != nil && !t.gone {
		return
	}
	// The child begins with a stop of its own.
	child := &Thread{TID: tid}
	tgid, ok := statusField(tid, tid, "Tgid")
	if ok && tgid != g.pid {
		if g.await(child) == nil && child.Stopped() {
			_ = request(unix.PTRACE_DETACH, tid, 0, 0)
		}
		return
	}
	g.add(child)
}
