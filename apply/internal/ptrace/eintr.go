package ptrace

import (
	"bytes"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openCalls opens ahead what [Regs.note] reads of threads while others stand still
// already. It leaves most of the descriptors that the tool may have to others.
func (g *Group) openCalls() {
	const share = 4
	var most unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &most) != nil {
		return
	}
	for i, t := range g.threads {
		if uint64(i) >= most.Cur/share {
			return
		}
		if f, err := OpenFile(callName(g.pid, t.TID)); err == nil {
			t.call = &f
		}
	}
}

// closeCalls closes what openCalls has opened.
func (g *Group) closeCalls() {
	for _, t := range g.threads {
		t.close()
	}
}

// close closes the thread's file, if it has one.
func (t *Thread) close() {
	if t.call != nil {
		_ = t.call.Close()
		t.call = nil
	}
}

// callName is the file that tells which call a thread is in: proc_pid_syscall(5).
func callName(pid, tid int) string {
	return "/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid) + "/syscall"
}

// mend lets a thread that is about to go on enter its system call again if the
// stop itself has ended it. A signal that arrives during the stop ends the call
// as it would have without the stop, which is why it is looked for last.
func (g *Group) mend(t *Thread) {
	if !t.fresh {
		t.fresh = t.Regs.get(t.TID) == nil
	}
	if t.fresh {
		g.reenter(t.TID, t.Regs)
	}
}

// reenter has the stopped thread tid, whose registers are given, enter its system
// call again if that has ended with EINTR and no signal waits.
func (g *Group) reenter(tid int, regs Regs) {
	if !regs.eintr() {
		return
	}
	again := regs
	again.redo()
	_ = again.set(tid) // fails only if the thread was killed
	if signalWaits(g.pid, tid) {
		_ = regs.set(tid)
	}
}

// mendCall is mend for a thread at a call's exit, or at the delivery of sig, which
// are no stops of the group. Signals that the program ignores are not even queued
// for a thread that is not traced, so no call would end with them.
func (g *Group) mendCall(t *Thread, sig unix.Signal) {
	regs := t.Regs // what was noted of the call, too
	if regs.get(t.TID) != nil || !regs.eintr() || sig > 0 && disposed(g.pid, t.TID).heard(1<<(sig-1)) != 0 {
		return
	}
	g.reenter(t.TID, regs)
}

// peekArgs is struct ptrace_peeksiginfo_args.
type peekArgs struct {
	off   uint64
	flags uint32
	nr    int32
}

// siginfo is siginfo_t; only the number is of interest.
type siginfo struct {
	signo int32
	_     [124]byte
}

// signalWaits reports whether a signal that is neither blocked nor ignored waits
// for the stopped thread tid, by itself or for the process. In doubt it does.
func signalWaits(pid, tid int) bool {
	var waiting uint64
	for _, flags := range []uint32{0, unix.PTRACE_PEEKSIGINFO_SHARED} {
		var infos [64]siginfo
		args := peekArgs{flags: flags, nr: int32(len(infos))}
		n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_PEEKSIGINFO, uintptr(tid),
			uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&infos)), 0, 0)
		if e != 0 {
			return true
		}
		for _, info := range infos[:n] {
			if info.signo > 0 {
				waiting |= 1 << (info.signo - 1)
			}
		}
	}
	return waiting != 0 && disposed(pid, tid).heard(waiting) != 0
}

// dispositions say what becomes of signals. Signal n is bit n-1.
type dispositions struct{ blocked, ignored, caught uint64 }

// disposed returns those of a thread, none if they cannot be read.
// PTRACE_GETSIGMASK does not tell: inside epoll_pwait and its like it returns the
// mask that holds afterwards.
func disposed(pid, tid int) (d dispositions) {
	masks := map[string]*uint64{"SigBlk": &d.blocked, "SigIgn": &d.ignored, "SigCgt": &d.caught}
	for line := range bytes.Lines(taskFile(pid, tid, "status")) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		if mask := masks[string(name)]; mask != nil {
			*mask, _ = strconv.ParseUint(string(bytes.TrimSpace(rest)), 16, 64)
		}
	}
	return d
}

// quiet are the signals that do nothing unless they are caught. Source: signal(7).
const quiet = 1<<(unix.SIGCHLD-1) | 1<<(unix.SIGCONT-1) | 1<<(unix.SIGURG-1) | 1<<(unix.SIGWINCH-1)

// heard returns those of some signals that end a system call.
func (d dispositions) heard(signals uint64) uint64 {
	return signals &^ d.blocked &^ d.ignored &^ (quiet &^ d.caught)
}
