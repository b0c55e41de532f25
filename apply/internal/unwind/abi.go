package unwind

import (
	"fmt"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// columns is how many registers are followed: DWARF numbers 0 to 31. All
// general registers of all architectures are among them.
const columns = 32

// abi is what unwinding needs to know of an architecture.
type abi struct {
	sp uint64 // DWARF number of the stack pointer
	// ra is the usual column of the return address. A CIE may name another.
	ra uint64
	// pc is the DWARF number of the program counter, which expressions may
	// use, or columns if it has none.
	pc uint64
	// saved are the registers that a call preserves, a bit each.
	saved uint32
	// all are the registers that exist, a bit each.
	all uint32
	// callSize is how many bytes a call instruction puts on the stack, so
	// that a caller's frame begins at least that much higher.
	callSize uint64
	insn     uint64 // what instruction addresses are multiples of
	signs    bool   // return addresses may be signed

	// plt is for procedure linkage tables without call frame information.
	plt *pltABI

	// sigreturn is the code that returns from a signal handler, as the C
	// library or the kernel provides it.
	sigreturn []byte
	// sigcontext gives, for each register, the distance in bytes from the
	// stack pointer at sigreturn to where the kernel saved it; the last is
	// that of the program counter.
	sigcontext [columns + 1]uint64
	// sigreturnFirst says that the CFI of the kernel's own sigreturn code
	// does not tell all registers.
	sigreturnFirst bool

	// prstatus gives, for each register, its offset in the NT_PRSTATUS
	// register set; the last is that of the program counter.
	prstatus [columns + 1]int
	prsize   int // size of NT_PRSTATUS in bytes
}

// follows reports whether there are rules for register reg.
func (a *abi) follows(reg uint64) bool {
	return reg < columns && (a.all|1<<a.ra)>>reg&1 != 0
}

var abis = map[*arch.Arch]*abi{arch.X86_64: abiX86_64, arch.AArch64: abiAArch64}

// Registers are those of a stopped thread.
type Registers struct {
	PC specs.Addr
	// R are the general registers by DWARF number. The stack pointer is among
	// them: R[7] on x86_64, R[31] on aarch64.
	R [columns]uint64
	// PACMask has the bits of a return address that a pointer authentication
	// code takes up (insn_mask of NT_ARM_PAC_MASK), 0 if there is none.
	PACMask uint64
}

// FromPRStatus returns the registers in the register set NT_PRSTATUS of a
// (struct user_regs_struct, struct user_pt_regs), as PTRACE_GETREGSET gives
// it. Source: Linux, arch/*/include/uapi/asm/ptrace.h.
func FromPRStatus(a *arch.Arch, regset []byte) (Registers, error) {
	abi, ok := abis[a]
	if !ok {
		return Registers{}, fmt.Errorf("%v: no unwinder", a)
	}
	if len(regset) < abi.prsize {
		return Registers{}, fmt.Errorf("register set of %d bytes: want %d", len(regset), abi.prsize)
	}
	var r Registers
	for n := range r.R {
		if abi.all>>n&1 != 0 {
			r.R[n] = le.Uint64(regset[abi.prstatus[n]:])
		}
	}
	r.PC = specs.Addr(le.Uint64(regset[abi.prstatus[columns]:]))
	return r, nil
}
