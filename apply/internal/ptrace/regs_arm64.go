package ptrace

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// Regs are the general registers of a stopped thread (struct user_pt_regs) and
// its pointer authentication mask.
type Regs struct {
	unix.PtraceRegsArm64
	// pac has the bits of an instruction address that hold a signature.
	pac uint64
	// tls is tpidr_el0.
	tls uint64
	// vectors are those that a system call spoils, of a thread that was prepared to
	// make some, as NT_ARM_SVE has them; nil for none.
	vectors []byte
	// call is one that the thread slept in before it was stopped, or nil.
	call *callNote
}

// PC returns the program counter.
func (r *Regs) PC() specs.Addr { return specs.Addr(r.Pc) }

// SP returns the stack pointer.
func (r *Regs) SP() specs.Addr { return specs.Addr(r.Sp) }

func (r *Regs) setSP(sp specs.Addr) { r.Sp = uint64(sp) }

// General returns the registers that may hold a pointer, x0 to x30. The
// program counter and the stack pointer are not among them.
func (r *Regs) General() []uint64 {
	all := make([]uint64, len(r.Regs))
	for i, v := range r.Regs {
		all[i] = r.StripPC(v)
	}
	return all
}

// DWARF returns the registers by their DWARF numbers: x0 to x30, sp (31), pc
// (32). Source: DWARF for the Arm 64-bit Architecture, section 4.1.
func (r *Regs) DWARF() []uint64 {
	return append(append(make([]uint64, 0, 33), r.Regs[:]...), r.Sp, r.Pc)
}

// StripPC removes the signature from a return address of the lower, user's,
// half of the address space.
func (r *Regs) StripPC(word uint64) uint64 { return word &^ r.pac }

// PACMask returns the bits of a return address that hold a signature.
func (r *Regs) PACMask() uint64 { return r.pac }

// Link returns the return address that a register holds, x30.
func (r *Regs) Link() (specs.Addr, bool) { return specs.Addr(r.StripPC(r.Regs[30])), true }

// ThreadPointer returns the address of the thread control block.
func (r *Regs) ThreadPointer() (specs.Addr, bool) { return specs.Addr(r.tls), r.tls != 0 }

func regset(req, tid, kind int, p unsafe.Pointer, size uintptr) error {
	iov := unix.Iovec{Base: (*byte)(p), Len: uint64(size)}
	_, err := requestInto(req, tid, uintptr(kind), unsafe.Pointer(&iov))
	return err
}

func (r *Regs) get(tid int) error {
	err := regset(unix.PTRACE_GETREGSET, tid, unix.NT_PRSTATUS, unsafe.Pointer(&r.PtraceRegsArm64), unsafe.Sizeof(r.PtraceRegsArm64))
	if err != nil {
		return err
	}
	// Both are pieces that older kernels and processors do not have.
	if regset(unix.PTRACE_GETREGSET, tid, unix.NT_ARM_TLS, unsafe.Pointer(&r.tls), unsafe.Sizeof(r.tls)) != nil {
		r.tls = 0
	}
	r.pac, err = pacMask(tid)
	return err
}

// pacBits is the mask of instruction addresses, once it is known: it is the same
// for all processes, and never 0. Source: linux, arch/arm64/kernel/ptrace.c, pac_mask_get.
var pacBits atomic.Uint64

// pacMask returns the bits of an instruction address that hold a signature, 0 on
// processors without pointer authentication. The thread is stopped.
func pacMask(tid int) (uint64, error) {
	if known := pacBits.Load(); known != 0 {
		return known, nil
	}
	var mask struct{ data, insn uint64 } // struct user_pac_mask
	err := regset(unix.PTRACE_GETREGSET, tid, unix.NT_ARM_PAC_MASK, unsafe.Pointer(&mask), unsafe.Sizeof(mask))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) {
		return 0, nil
	}
	pacBits.Store(mask.insn)
	return mask.insn, err
}

func (r *Regs) set(tid int) error {
	regs := r.PtraceRegsArm64
	return regset(unix.PTRACE_SETREGSET, tid, unix.NT_PRSTATUS, unsafe.Pointer(&regs), unsafe.Sizeof(regs))
}

// restore is set for a thread that has made system calls for the tool.
func (r *Regs) restore(tid int) error {
	if err := setVectors(tid, r.vectors); err != nil {
		return err
	}
	return r.set(tid)
}

// result returns what a system call returned, at its exit.
func (r *Regs) result() uint64 { return r.Regs[0] }

// errno returns the error of a system call's result.
func errno(result uint64) error {
	if result > ^uint64(4095) {
		return unix.Errno(-result)
	}
	return nil
}

// sleepCalls is empty: parking a thread takes a stop before the stop, and each may
// show EINTR here (see eintr).
var sleepCalls, readCalls map[uint64]bool

const auditArch = unix.AUDIT_ARCH_AARCH64

func maskedCall(uint64, [6]uint64) bool { return false }

func partial(uint64, [6]uint64) bool { return false }
