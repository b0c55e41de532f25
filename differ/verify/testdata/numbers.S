// A function that asks for the address of an absolute symbol, which is a
// distance once it is assembled, into a function that changes.
#ifndef PLANT
#define PLANT 0
#endif
#if PLANT == 2
	.set span, 13
#elif PLANT != 3
	.set span, 12
#endif
	.text
	.balign 16
	.globl asks
	.type asks, @function
asks:
#if PLANT == 3
	.byte 0x48, 0x8d, 0x05, 12, 0, 0, 0
#else
	leaq span(%rip), %rax
#endif
	ret
	.size asks, .-asks
	.balign 16
	.globl changes
	.type changes, @function
changes:
#if PLANT > 0
	leal 1(%rdi), %eax
#else
	movl %edi, %eax
#endif
	ret
	.size changes, .-changes
	.balign 16
	.globl main
	.type main, @function
main:
	call asks
	xorl %eax, %eax
	ret
	.size main, .-main
	.section .note.GNU-stack,"",@progbits
