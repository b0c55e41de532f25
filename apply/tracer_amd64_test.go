package apply

import (
	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs/arch"
)

// testArch is the architecture of the processes that run here.
var testArch = arch.X86_64

// harmlessHere are calls that only this architecture has.
var harmlessHere = []uint64{unix.SYS_ARCH_PRCTL, unix.SYS_NEWFSTATAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_POLL}

// skipCall has the kernel leave out the system call that a tracee is about to make.
func skipCall(tid int) bool {
	var r unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &r) != nil {
		return false
	}
	r.Orig_rax = ^uint64(0)
	return unix.PtraceSetRegs(tid, &r) == nil
}

// setResult gives a tracee at the exit of a system call an error.
func setResult(tid int, e unix.Errno) {
	var r unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &r) == nil {
		r.Rax = -uint64(e)
		_ = unix.PtraceSetRegs(tid, &r)
	}
}
