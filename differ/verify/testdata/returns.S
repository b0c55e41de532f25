// A page that is in a register from the entry on, and is used behind a return: in
// code that only a branch behind it leads to.
#ifndef PLANT
#define PLANT 0
#endif
	.bss
#ifdef GROW
	.globl grown
	.type grown, %object
	.size grown, 48
grown:	.zero 48
#endif
	.globl count
	.type count, %object
	.size count, 16
count:	.zero 16
	.globl other
	.type other, %object
	.size other, 16
other:	.zero 16
	.text
	.globl opens
	.type opens, %function
opens:
	adrp	x26, count
	b	2f
1:	cbz	w1, 3f
2:	ldr	w1, [x0], 4
	cbnz	w1, 1b
	mov	w0, 1
	mov	x26, 0
	ret
3:	cbz	w0, 4f
#if PLANT == 1
	add	x0, x26, :lo12:other
#else
	add	x0, x26, :lo12:count
#endif
	ret
4:	mov	w0, 2
	ret
	.size opens, .-opens
	.globl main
	.type main, %function
main:
	adrp	x0, other
	add	x0, x0, :lo12:other
	mov	w0, 0
	ret
	.size main, .-main
	.section .note.GNU-stack,"",%progbits
