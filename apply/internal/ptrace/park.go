package ptrace

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// parkTogether is how many sleeping threads are disturbed at once.
const parkTogether = 32

// Park sees to it that the threads that sleep in system calls need not be
// stopped: each is stopped by itself, sent back into its call, and traced at that
// call's entry. From there on it cannot come back to user mode without the
// group: the kernel holds it at the call's exit (ptrace(2), "Syscall-stops"),
// whatever ends the call, until [Group.Serve] lets it go on. So its registers,
// which were read at the entry, and what it has on its stack stay as they are as
// long as it is [Thread.Parked]. If the tool dies the kernel lets it go on, as all.
//
// Threads that run, that sleep uninterruptibly, or in a call that would show that it
// was interrupted, are left alone.
//
// Errors: [ErrGone].
func (g *Group) Park() error {
	for batch := range slices.Chunk(g.Threads(), parkTogether) {
		batch = slices.DeleteFunc(batch, func(t *Thread) bool { return t.stopped || t.gone || t.parked || !sleeps(g.pid, t.TID) })
		for _, t := range batch {
			g.interrupt(t)
		}
		for _, t := range batch {
			if err := g.sendBack(t); err != nil {
				return err
			}
		}
		for _, t := range batch {
			if err := g.awaitParked(t); err != nil {
				return err
			}
		}
		if err := g.Serve(); err != nil {
			return err
		}
	}
	return nil
}

// sendBack lets a thread that was interrupted go on up to the entry of its next
// call.
func (g *Group) sendBack(t *Thread) error {
	stuck := (*StuckError)(nil)
	if err := g.await(t); errors.As(err, &stuck) {
		t.hold = false // Serve lets it run when it stops at last
		return nil
	} else if err != nil {
		return err
	}
	if !t.Stopped() {
		return nil
	}
	if t.halted {
		g.ResumeThread(t)
		return nil
	}
	g.mend(t)
	_ = request(unix.PTRACE_SYSCALL, t.TID, 0, 0) // if it was killed, wait tells
	t.stopped, t.fresh, t.asked, t.hold = false, false, false, false
	t.parking = true
	return nil
}

// awaitParked waits for a thread that is on its way, but not for long: it is
// taken in whenever it comes.
func (g *Group) awaitParked(t *Thread) error {
	var p pause
	for t.parking && !t.gone {
		told, err := g.serve(t)
		if err != nil {
			return err
		}
		if t.Stopped() {
			g.ResumeThread(t)
			return nil
		}
		if !told && (!p.once(g.limit) || p.nap > shortNap) {
			return nil
		}
	}
	return nil
}

// callStop handles a stop at the entry or the exit of a system call.
func (g *Group) callStop(t *Thread) {
	parking := t.parking && !t.asked
	t.parking, t.parked = false, false
	if parking && entersSleep(t.TID) && t.Regs.get(t.TID) == nil && !t.Regs.foreign() && request(unix.PTRACE_SYSCALL, t.TID, 0, 0) == nil {
		t.parked = true
		return
	}
	g.onward(t, 0)
}

// syscallInfo is the beginning of struct ptrace_syscall_info.
type syscallInfo struct {
	op     uint8
	_      [3]byte
	_      uint32
	ip, sp uint64
	nr     uint64
	args   [6]uint64
}

// entersSleep reports whether a thread is stopped at the entry of a call in which
// threads sleep.
func entersSleep(tid int) bool {
	const getSyscallInfo, entry = 0x420e, 1
	var info syscallInfo
	n, err := requestInto(getSyscallInfo, tid, unsafe.Sizeof(info), unsafe.Pointer(&info))
	return err == nil && n >= int(unsafe.Offsetof(info.args)) && info.op == entry && sleepCalls[info.nr]
}

// sleeps reports whether a thread is asleep in a call of [sleepCalls]. Source:
// proc_pid_syscall(5): "running", or the call's number, its arguments, stack
// pointer and program counter.
func sleeps(pid, tid int) bool {
	if len(sleepCalls) == 0 {
		return false
	}
	fields := bytes.Fields(taskFile(pid, tid, "syscall"))
	if len(fields) != 9 {
		return false
	}
	nr, err := strconv.ParseUint(string(fields[0]), 10, 64)
	if err != nil || !sleepCalls[nr] {
		return false
	}
	var args [6]uint64
	for i := range args {
		if args[i], err = strconv.ParseUint(string(fields[1+i]), 0, 64); err != nil {
			return false
		}
	}
	return !maskedCall(nr, args) && State(pid, tid) == "S"
}

// Parked reports whether the thread is in a system call that it cannot come
// back from unless the group lets it.
func (t *Thread) Parked() bool { return t.parked && !t.gone }

// Release lets all go that a stop has held, for good: those that were stopped, and
// parked ones that would have gone on meanwhile. The others are still to be detached.
func (g *Group) Release() {
	for _, t := range g.threads {
		if t.Stopped() {
			g.detachStopped(t)
		}
	}
	g.releaseWoken()
}

// releaseWoken lets parked threads go that are held at the exit of their call.
func (g *Group) releaseWoken() {
	for _, t := range g.threads {
		if !t.Parked() || t.asked {
			continue
		}
		ws, got, err := poll(t.TID)
		if err == nil && got && ws.Stopped() && ws.StopSignal() == unix.SIGTRAP|0x80 {
			t.gone = request(unix.PTRACE_DETACH, t.TID, 0, 0) == nil
		} else {
			_, _ = g.report(t, ws, got, err) // Detach finds out
		}
	}
}
