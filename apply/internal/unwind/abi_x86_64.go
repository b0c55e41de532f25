package unwind

// Sources: psABI for x86-64, figures 3.4 and 3.36; struct user_regs_struct;
// struct rt_sigframe, whose ucontext is at the stack pointer once the handler
// has returned, with uc_mcontext at 40.
var abiX86_64 = &abi{
	sp: 7, ra: 16, pc: 16,
	saved:    1<<3 | 1<<6 | 1<<12 | 1<<13 | 1<<14 | 1<<15, // rbx rbp r12-r15
	all:      1<<16 - 1,
	callSize: 8, insn: 1,
	sigreturn: []byte{
		0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, // mov $15, %rax
		0x0f, 0x05, // syscall
	},
	sigcontext: [columns + 1]uint64{
		0: 144, 1: 136, 2: 152, 3: 128, 4: 112, 5: 104, 6: 120, 7: 160, // rax rdx rcx rbx rsi rdi rbp rsp
		8: 40, 9: 48, 10: 56, 11: 64, 12: 72, 13: 80, 14: 88, 15: 96, // r8-r15
		columns: 168,
	},
	prstatus: [columns + 1]int{
		0: 80, 1: 96, 2: 88, 3: 40, 4: 104, 5: 112, 6: 32, 7: 152,
		8: 72, 9: 64, 10: 56, 11: 48, 12: 24, 13: 16, 14: 8, 15: 0,
		columns: 128,
	},
	prsize: 216,
}
