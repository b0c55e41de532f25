// A function that refers to the end of a string alone, as g++ does where it
// copies one, and another string behind it.
#ifndef PLANT
#define PLANT 0
#endif
	.section .rodata
#if PLANT == 2
.Lgreeting: .string "jello"
#else
.Lgreeting: .string "hello"
#endif
	.balign 8
.Lother: .string "another"
	.balign 8
.Lnumber: .quad 5
	.text
	.globl copies
	.type copies, @function
copies:
	leaq .Lgreeting+5(%rip), %rdx
	leaq -5(%rdx), %rsi
	ret
	.size copies, .-copies
	.balign 16
	.globl user
	.type user, @function
user:
#if PLANT > 0
	leaq .Lother(%rip), %rax
#endif
	movq .Lnumber(%rip), %rax
	ret
	.size user, .-user
	.balign 16
	.globl main
	.type main, @function
main:
	call copies
	call user
	xorl %eax, %eax
	ret
	.size main, .-main
	.section .note.GNU-stack,"",@progbits
