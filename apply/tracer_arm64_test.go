package apply

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs/arch"
)

// testArch is the architecture of the processes that run here.
var testArch = arch.AArch64

// harmlessHere are calls that only this architecture has: newfstatat.
var harmlessHere = []uint64{79}

// skipCall has the kernel leave out the system call that a tracee is about to make:
// its number is a register set of its own.
func skipCall(tid int) bool {
	const systemCall = 0x404
	none := int32(-1)
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(&none)), Len: 4}
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(tid), systemCall, uintptr(unsafe.Pointer(&v)), 0, 0)
	return e == 0
}

// setResult gives a tracee at the exit of a system call an error.
func setResult(tid int, e unix.Errno) {
	var r unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &r) == nil {
		r.Regs[0] = -uint64(e)
		_ = unix.PtraceSetRegs(tid, &r)
	}
}
