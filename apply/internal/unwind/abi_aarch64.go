package unwind

// Sources: AADWARF64, "DWARF register names"; AAPCS64; struct user_pt_regs;
// struct rt_sigframe: siginfo of 128 bytes, then a ucontext with uc_mcontext
// at 176, in which x0 follows fault_address.
var abiAArch64 = &abi{
	sp: 31, ra: 30, pc: columns,
	saved:    1<<30 - 1<<19, // x19-x29; x30 is lost in every call
	all:      1<<32 - 1,
	callSize: 0, insn: 4, signs: true,
	plt: pltAArch64,
	sigreturn: []byte{
		0x68, 0x11, 0x80, 0xd2, // mov x8, #139
		0x01, 0x00, 0x00, 0xd4, // svc #0
	},
	// The vDSO's CFI for it names the frame record only, and so gives
	// neither the stack pointer nor the saved registers (Linux,
	// arch/arm64/kernel/vdso/sigreturn.S).
	sigreturnFirst: true,
	sigcontext:     sequence[uint64](128 + 176 + 8),
	prstatus:       sequence[int](0),
	prsize:         34 * 8,
}

// sequence returns 33 offsets of 8-byte fields from first on: x0 to x30, sp
// and pc are stored in this order everywhere.
func sequence[T int | uint64](first T) (s [columns + 1]T) {
	for n := range s {
		s[n] = first + 8*T(n)
	}
	return s
}
