package ptrace

import (
	"bytes"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mend lets a thread that is about to go on enter its system call again if the
// stop itself has ended it. A signal that arrives during the stop ends the call
// as it would have without the stop, which is why it is looked for last.
func (g *Group) mend(t *Thread) {
	if !t.fresh {
		t.fresh = t.Regs.get(t.TID) == nil
	}
	if !t.fresh || !t.Regs.eintr() {
		return
	}
	again := t.Regs
	again.redo()
	_ = again.set(t.TID) // fails only if the thread was killed
	if signalWaits(g.pid, t.TID) {
		_ = t.Regs.set(t.TID)
	}
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

// signalWaits reports whether a signal that is not blocked waits for the
// stopped thread tid, by itself or for the process. In doubt it does.
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
	return waiting != 0 && waiting&^blocked(pid, tid) != 0
}

// blocked returns the signals that tid blocks. PTRACE_GETSIGMASK does not tell:
// inside epoll_pwait and its like it returns the mask that holds afterwards.
func blocked(pid, tid int) uint64 {
	for line := range bytes.Lines(taskFile(pid, tid, "status")) {
		if rest, ok := bytes.CutPrefix(line, []byte("SigBlk:")); ok {
			mask, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 16, 64)
			if err == nil {
				return mask
			}
		}
	}
	return 0
}
