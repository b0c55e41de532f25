package ptrace

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

const (
	// insnSVC is svc #0.
	insnSVC = 0xd4000001
	// btypeMask are the bits of PSTATE that say how the last branch was made.
	btypeMask = 3 << 10
	// alwaysFits is what any stub takes, 0 since that depends on the thread.
	alwaysFits = 0
	// callSize is the length of the system call instruction.
	callSize = 4
)

// prepare writes the stub to the zero tail of an executable page, and takes the
// thread out of a system call that it may be in. A stub that a killed tool left
// behind is no zero, and so is never used again.
//
// A thread that was stopped in a call stands on the call's instruction, and
// only the kernel knows whether it is to enter it anew or through
// restart_syscall. So it is let into the call once more, which is broken off at
// once, and the result at its exit tells.
func (a *Agent) prepare() error {
	a.raw, a.home = a.t.Regs, a.t.Regs
	inCall := a.home.eintr()
	if inCall {
		a.home.redo()
	}
	word, err := a.mem.Read(a.home.PC(), callSize)
	if !inCall && err == nil && binary.LittleEndian.Uint32(word) == insnSVC {
		signal := false
		if inCall, signal, err = a.enterAgain(); signal || err != nil {
			return err
		}
	}
	if abort, ok := a.rseqAbort(a.home.PC()); ok {
		a.home.Pc = uint64(abort)
		a.raw.Pc = a.home.Pc
	}
	if a.stub != nil { // its length may be another now
		if err := a.mem.Write(a.site, make([]byte, len(a.stub))); err != nil {
			return err
		}
		a.stub = nil
	}
	a.home.vectors = nil
	if inCall && a.place(branchSize, a.inReach) == nil {
		a.stub = newBranchStub(a.site, &a.home, a.intent)
		return a.mem.Write(a.site, a.stub)
	}
	f, err := readFrame(a.t.TID, &a.home)
	if err != nil {
		return err
	}
	if err := a.place(f.size(), func(specs.Addr) bool { return true }); err != nil {
		return err
	}
	a.stub = f.stub(a.site, a.intent)
	return a.mem.Write(a.site, a.stub)
}

// place looks for size zero bytes at an address that suits.
func (a *Agent) place(size int, suits func(specs.Addr) bool) (err error) {
	for i := range a.code {
		var at specs.Addr
		if at, err = findTail(a.mem, a.code[i:i+1], size); err == nil && suits(at) {
			a.site = at
			return nil
		}
	}
	return fmt.Errorf("no executable page of the process has %d free bytes at its end", size)
}

// inReach reports whether the branch home of a stub at an address reaches.
func (a *Agent) inReach(site specs.Addr) bool {
	const reach = 1 << 27 // bytes; Arm ARM, C6.2.26
	d := int64(a.home.PC() - (site + branchAt))
	return d >= -reach && d < reach
}

// enterAgain takes the thread into the system call that it stands before, and
// out of it again. Nothing is skipped, so nothing is lost if the tool dies: a
// call that comes to its end is at its end, and else home enters it as the kernel
// would, and raw is what a signal handler finds. It reports whether the thread was in
// a call, or a signal came first, after which the agent was prepared anew.
func (a *Agent) enterAgain() (inCall, signal bool, err error) {
	deadline := time.Now().Add(a.g.limit)
	var entry, exit Regs
	for {
		sig, err := a.toCall(deadline, 0)
		if err != nil {
			return false, false, err
		}
		if sig != 0 {
			return false, true, a.pass(sig)
		}
		if err := entry.get(a.t.TID); err != nil {
			return false, false, a.g.lost(a.t, err)
		}
		if entry.PC() == a.home.PC()+callSize && entry.Regs[7] == 0 { // 0 is an entry
			break
		}
	}
	if err := request(unix.PTRACE_INTERRUPT, a.t.TID, 0, 0); err != nil {
		return false, false, a.g.lost(a.t, err)
	}
	if sig, err := a.toCall(deadline, 0); err != nil || sig != 0 {
		return false, sig != 0, a.passUnless(err, sig)
	}
	if err := exit.get(a.t.TID); err != nil {
		return false, false, a.g.lost(a.t, err)
	}
	a.t.stopped, a.t.fresh, a.t.asked, a.t.hold = false, false, true, true
	a.g.onward(a.t, 0)
	if err := a.g.await(a.t); err != nil {
		return false, false, err
	}
	if a.t.gone {
		return false, false, fmt.Errorf("%w: thread %d has ended", ErrUnsuitable, a.t.TID)
	}
	if err := a.g.readThread(a.t); err != nil {
		return false, false, err
	}
	a.raw, a.home = a.t.Regs, a.t.Regs
	a.interrupted(&entry, int64(exit.result()))
	return true, false, nil
}

// passUnless passes a signal on, unless there is an error.
func (a *Agent) passUnless(err error, sig unix.Signal) error {
	if err != nil {
		return err
	}
	return a.pass(sig)
}

// The kernel's internal results that ask for a restart. Source: linux/errno.h.
const (
	restartNoHand = -514
	restartBlock  = -516
)

// interrupted fills in how a call goes on that was entered with the registers
// entry and broken off with a result. The kernel has the thread stand before the
// call already; it would put the number of restart_syscall there only now.
// Source: linux, arch/arm64/kernel/signal.c, do_signal.
func (a *Agent) interrupted(entry *Regs, result int64) {
	broken := func(r *Regs) {
		e := unix.EINTR
		r.Regs[0] = -uint64(e)
		r.Pc = entry.Pc
	}
	switch {
	case result == restartBlock:
		a.home.Regs[8] = unix.SYS_RESTART_SYSCALL
		broken(&a.raw)
	case result == restartNoHand:
		broken(&a.raw)
	case result == -int64(unix.EINTR) && restarts[entry.Regs[8]] && !entry.masked():
		a.home.Regs[0], a.home.Pc = entry.Regs[0], entry.Pc-callSize
	}
}

// forSignal returns the registers with which a signal is delivered: a call that
// is broken by a handler returns, one that is not goes on.
func (a *Agent) forSignal(sig unix.Signal) *Regs {
	if caught(a.g.pid, a.t.TID)&(1<<(sig-1)) != 0 {
		return &a.raw
	}
	return &a.home
}

// caught returns the signals for which a thread's process has handlers.
func caught(pid, tid int) uint64 {
	text, _ := field(taskFile(pid, tid, "status"), "SigCgt")
	mask, _ := strconv.ParseUint(text, 16, 64)
	return mask
}

// aim makes regs those of a thread that is about to make a call.
func (a *Agent) aim(regs *Regs, nr uint64, args []uint64) {
	regs.divert(a.site)
	regs.Regs[8] = nr
	copy(regs.Regs[:6], args)
}

// homeWords are the registers that code of a detour restores: none but the
// program counter, since the stub restores them all.
func (a *Agent) homeWords() []uint64 { return []uint64{uint64(a.site + stubHome)} }

// divert makes the thread go on elsewhere.
func (r *Regs) divert(to specs.Addr) {
	r.Pc = uint64(to)
	r.Pstate &^= btypeMask
}
