package ptrace

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// Options of Seize.
type Options struct {
	// Only, if not empty, are the only threads to seize. Otherwise all are,
	// and those that they create.
	Only []int
	// Calls says that the threads, which Only names, are to make system calls for the
	// tool: a seccomp filter of one of them is suspended while they are held.
	Calls bool
	// Kill has the kernel kill the process if the tool ends before it detaches.
	// It is for a process that has nothing to lose.
	Kill bool
	// StopLimit is how long one thread may take to stop, if it does not wait
	// for a processor; 0 is 200 milliseconds. All others stand still meanwhile.
	// In an uninterruptible sleep it may take less.
	StopLimit time.Duration
}

// Group is the seized threads of one process. It is used by the OS thread that
// made it and by no other.
type Group struct {
	pid     int
	options int
	limit   time.Duration
	threads []*Thread
	// added counts the threads that were taken in.
	added int
	// exec is set once the process has executed another program.
	exec bool
	// served is when all threads were looked at last, serving how long it took.
	served  time.Time
	serving time.Duration
}

// Thread is one tracee.
type Thread struct {
	TID int
	// Regs are the registers at the last stop.
	Regs Regs

	stopped bool
	gone    bool
	hold    bool // is to stay stopped; false while it only runs under supervision
	asked   bool // interrupted since it last ran
	halted  bool // the stop is one of job control
	fresh   bool // Regs are those of this stop
	parking bool // on its way to the entry of a call
	parked  bool // in a call; Regs are those of its entry
	stuck   bool // did not stop to be detached
	// call tells which call it is in, nil if nobody asks, or it is opened when somebody does.
	call *File
}

// Stopped reports whether the thread is held.
func (t *Thread) Stopped() bool { return t.stopped && !t.gone }

// Imagined is a thread of which nothing but the stack pointer is known, to
// rehearse with what is done to stopped ones.
func Imagined(tid int, sp specs.Addr) *Thread {
	t := &Thread{TID: tid}
	t.Regs.setSP(sp)
	return t
}

// Seize takes the threads of process pid. They run on. New threads of seized
// ones are seized by the kernel. The caller has to Detach the group.
//
// Errors: [ErrGone], [ErrPermission], [ErrSeccomp], [*TracedError].
func Seize(pid int, o Options) (*Group, error) {
	g := &Group{pid: pid, limit: o.StopLimit, options: unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESYSGOOD}
	if g.limit == 0 {
		g.limit = 200 * time.Millisecond
	}
	if o.Calls && slices.ContainsFunc(o.Only, func(tid int) bool { return filtered(readStatus(pid, tid)) }) {
		g.options |= unix.PTRACE_O_SUSPEND_SECCOMP
	}
	if o.Kill {
		g.options |= unix.PTRACE_O_EXITKILL
	}
	var err error
	if len(o.Only) > 0 {
		err = g.seizeThese(o.Only)
	} else {
		g.options |= unix.PTRACE_O_TRACECLONE
		err = g.seizeAll()
	}
	if err == nil && len(g.threads) == 0 {
		err = ErrGone
	}
	if err != nil {
		g.Detach()
		return nil, err
	}
	if notesCalls && len(o.Only) == 0 {
		g.openCalls()
	}
	return g, nil
}

// seizeAll looks for threads until the kernel counts no more than are held, or
// two looks in a row find no new one: then every thread that can create another
// is held by TRACECLONE.
func (g *Group) seizeAll() error {
	for stable := 0; stable < 2; {
		tids, err := Threads(g.pid)
		if err != nil {
			return err
		}
		// The first thread comes last. As long as nobody traces it, signals to the process
		// that are ignored are not queued: threads that are not seized yet would have
		// calls ended by them.
		if i := slices.Index(tids, g.pid); i >= 0 {
			tids = append(slices.Delete(tids, i, i+1), g.pid)
		}
		before := g.added
		if err := g.seizeThese(tids); err != nil {
			return err
		}
		if err := g.Serve(); err != nil {
			return err
		}
		if g.complete() {
			return nil
		}
		if g.added == before {
			stable++
		} else {
			stable = 0
		}
	}
	return nil
}

func (g *Group) seizeThese(tids []int) error {
	for _, tid := range tids {
		if t := g.find(tid); t != nil && !t.gone {
			continue
		}
		ok, err := g.seizeOne(tid)
		if err != nil {
			return err
		}
		if ok {
			g.add(&Thread{TID: tid})
		}
	}
	return nil
}

// seizeOne reports false for a thread that has ended. A tracer that is ending is
// waited for, and so is another thread of the tool, which ends with what it was
// for (see Do); the threads that are seized already are served meanwhile.
func (g *Group) seizeOne(tid int) (bool, error) {
	const patience, nap = time.Second, time.Millisecond
	for end := time.Now().Add(patience); ; {
		ok, tracer, err := g.trySeize(tid)
		if ok || err == nil || tracer == 0 || !ending(tracer) && !errors.Is(err, ErrGone) || time.Now().After(end) {
			return ok, err
		}
		if err := g.tend(); err != nil {
			return false, err
		}
		time.Sleep(nap)
	}
}

// trySeize is seizeOne without patience. With a [*TracedError] comes the thread
// that traces.
func (g *Group) trySeize(tid int) (ok bool, tracer int, err error) {
	const tries = 3
	for range tries {
		err = request(unix.PTRACE_SEIZE, tid, 0, uintptr(g.options))
		switch {
		case err == nil:
			return true, 0, nil
		case dead(g.pid, tid):
			return false, 0, nil
		case errors.Is(err, unix.ESRCH):
			return false, 0, nil
		case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL):
			return false, 0, fmt.Errorf("seize thread %d: %w", tid, err)
		}
		if tracer, _ := statusField(g.pid, tid, "TracerPid"); tracer != 0 {
			if tracer == unix.Getpid() || tracer == unix.Gettid() {
				return false, 0, nil // TRACECLONE was faster
			}
			return false, tracer, traced(tid, tracer)
		}
		// Nobody traces it now, but a tracer that has just ended may have then.
	}
	if g.options&unix.PTRACE_O_SUSPEND_SECCOMP != 0 {
		err = request(unix.PTRACE_SEIZE, tid, 0, uintptr(g.options&^unix.PTRACE_O_SUSPEND_SECCOMP))
		if err == nil {
			g.add(&Thread{TID: tid}) // to be detached
			return false, 0, ErrSeccomp
		}
	}
	return false, 0, ErrPermission
}

// traced is the error for a thread that another thread traces, whose process it
// names. If that is the tool itself it is ErrGone, and true once the tracer had its
// time to end.
func traced(tid, tracer int) error {
	if tgid, ok := statusField(tracer, tracer, "Tgid"); ok {
		tracer = tgid
	}
	if tracer == unix.Getpid() {
		// A thread of the tool that is about to end held another one, which has
		// executed a program since, and has the first one's id now.
		return ErrGone
	}
	return &TracedError{TID: tid, Tracer: tracer, Name: Comm(tracer, tracer)}
}

func (g *Group) find(tid int) *Thread {
	i, ok := slices.BinarySearchFunc(g.threads, tid, func(t *Thread, tid int) int { return t.TID - tid })
	if !ok {
		return nil
	}
	return g.threads[i]
}

// add takes a thread in. It may have the id of one that has ended since: where
// many come and go the kernel soon gives ids anew.
func (g *Group) add(t *Thread) {
	i, reused := slices.BinarySearchFunc(g.threads, t.TID, func(t *Thread, tid int) int { return t.TID - tid })
	g.added++
	if reused {
		g.threads[i].close()
		g.threads[i] = t
		return
	}
	g.threads = slices.Insert(g.threads, i, t)
}

// Threads are the threads that have not ended, by rising id. The slice is the
// caller's, the threads are the group's.
func (g *Group) Threads() []*Thread {
	live := make([]*Thread, 0, len(g.threads))
	for _, t := range g.threads {
		if !t.gone {
			live = append(live, t)
		}
	}
	return live
}

// Stop stops all threads but parked ones and reads their registers.
//
// Errors: [ErrGone], [*StuckError] with the first thread that did not stop; in
// both cases some threads may be stopped, and the caller resumes or detaches.
func (g *Group) Stop() error {
	for _, t := range g.threads {
		if !t.parked {
			g.interrupt(t)
		}
	}
	for i := 0; i < len(g.threads); i++ {
		t := g.threads[i]
		if t.stopped || t.gone || t.parked {
			continue
		}
		n := g.added
		if err := g.await(t); err != nil {
			return err
		}
		if g.added != n {
			i = -1 // a new thread may have taken a place before this one
		}
	}
	return g.readRegs()
}

// StopThread stops one thread and reads its registers. The others are served
// meanwhile.
func (g *Group) StopThread(t *Thread) error {
	g.interrupt(t)
	if err := g.awaitMeanwhile(t, g.tend); err != nil || t.gone {
		return err
	}
	return g.readThread(t)
}

// complete reports whether the kernel knows of no thread but the group's.
func (g *Group) complete() bool {
	live := 0
	for _, t := range g.threads {
		if !t.gone {
			live++
		}
	}
	if leader := g.find(g.pid); leader == nil || leader.gone {
		live++ // stays as a zombie until all others have ended
	}
	n, ok := statusField(g.pid, g.pid, "Threads")
	return !ok || n <= live
}

func (g *Group) interrupt(t *Thread) {
	t.hold = true
	if t.stopped || t.gone || t.asked {
		return
	}
	t.asked = true
	t.Regs.note(g.pid, t.TID, t.call)
	// ESRCH is told by wait, too.
	_ = request(unix.PTRACE_INTERRUPT, t.TID, 0, 0)
}

// Resume lets all stopped threads run. They stay seized.
func (g *Group) Resume() error {
	for _, t := range g.threads {
		t.hold = false // one that was stuck must not stay when it stops at last
		g.ResumeThread(t)
	}
	return g.ended()
}

// ResumeThread lets one stopped thread run.
func (g *Group) ResumeThread(t *Thread) {
	if !t.Stopped() {
		return
	}
	g.mend(t)
	how := unix.PTRACE_CONT
	if t.halted {
		how = unix.PTRACE_LISTEN // stays halted, and is woken by SIGCONT
	}
	_ = request(how, t.TID, 0, 0)
	t.stopped, t.fresh, t.asked, t.hold = false, false, false, false
}

// ended returns ErrGone if no thread is left, or the program is another.
func (g *Group) ended() error {
	if g.exec {
		return fmt.Errorf("%w: it has executed another program", ErrGone)
	}
	for _, t := range g.threads {
		if !t.gone && (t.TID != g.pid || len(g.threads) == 1) {
			return nil
		}
	}
	if dead(g.pid, g.pid) {
		return ErrGone
	}
	return nil
}

// readRegs reads the registers of all stopped threads.
func (g *Group) readRegs() error {
	for _, t := range g.threads {
		if !t.Stopped() {
			continue
		}
		if err := g.readThread(t); err != nil {
			return err
		}
	}
	return g.ended()
}

func (g *Group) readThread(t *Thread) error {
	if err := t.Regs.get(t.TID); err != nil {
		return g.lost(t, err)
	}
	t.fresh = true
	return nil
}

// lost takes note of a thread that was killed while it was stopped.
func (g *Group) lost(t *Thread, err error) error {
	if !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("thread %d: %w", t.TID, err)
	}
	t.stopped, t.fresh = false, false
	if err := g.await(t); err != nil {
		return err
	}
	return g.ended()
}
