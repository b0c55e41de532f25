package ptrace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// unbreak lets a thread whose system call was ended by the stop itself enter
// it again, unless a signal waits that would have ended it anyway. The kernel
// gets the registers when the thread is resumed.
func (g *Group) unbreak(t *Thread) {
	if !t.Regs.eintr() || signalWaits(t.TID) {
		return
	}
	t.Regs.redo()
	t.fixed = true
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
func signalWaits(tid int) bool {
	var blocked uint64
	if _, err := requestInto(unix.PTRACE_GETSIGMASK, tid, unsafe.Sizeof(blocked), unsafe.Pointer(&blocked)); err != nil {
		return true
	}
	for _, flags := range []uint32{0, unix.PTRACE_PEEKSIGINFO_SHARED} {
		var infos [64]siginfo
		args := peekArgs{flags: flags, nr: int32(len(infos))}
		n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_PEEKSIGINFO, uintptr(tid),
			uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&infos)), 0, 0)
		if e != 0 {
			return true
		}
		for _, info := range infos[:n] {
			if info.signo > 0 && blocked&(1<<(info.signo-1)) == 0 {
				return true
			}
		}
	}
	return false
}
