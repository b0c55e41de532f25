// Pages that are in a register from the entry on: one is used behind a return, in code
// that only a branch behind it leads to; one behind calls of functions that leave the
// register alone; one that two instructions put there, by two ways; one that is copied and
// put on the stack; one where another way ends in a call that does not return; and one that
// the unwinder restores. And a place that a linker makes one instruction for, if it is near.
#ifndef PLANT
#define PLANT 0
#endif
	.bss
#ifdef GROW
	.globl grown
	.type grown, %object
#ifdef FAR
	.size grown, 8192
grown:	.zero 8192
#else
	.size grown, 48
grown:	.zero 48
#endif
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
	.type helper, %function
helper:
	ldr	w1, [x0]
	str	w1, [x0, 4]
#if PLANT == 2
	mov	x11, x0
#endif
	ret
	.size helper, .-helper
	.globl keeps
	.type keeps, %function
keeps:
	stp	x29, x30, [sp, -16]!
	adrp	x11, count
	bl	helper
	bl	nested
#if PLANT == 3
	add	x0, x11, :lo12:other
#else
	add	x0, x11, :lo12:count
#endif
	ldp	x29, x30, [sp], 16
	ret
	.size keeps, .-keeps
	.type nested, %function
nested:
	stp	x29, x30, [sp, -16]!
	bl	helper
#if PLANT == 4
	blr	x3
#endif
	ldp	x29, x30, [sp], 16
	ret
	.size nested, .-nested
	.globl joins
	.type joins, %function
joins:
	adrp	x9, count
	cbz	w0, 1f
	adrp	x9, count
	ldrb	w1, [x9, :lo12:count]
	cbz	w1, 1f
	nop
1:
#if PLANT == 5
	add	x0, x9, :lo12:other
#else
	add	x0, x9, :lo12:count
#endif
	ret
	.size joins, .-joins
	.globl parts
	.type parts, %function
parts:
	adrp	x9, count
	cbz	w0, 1f
#if PLANT == 6
	adrp	x9, main
#endif
1:	add	x0, x9, :lo12:count
	ret
	.size parts, .-parts
	.globl thirds
	.type thirds, %function
thirds:
	adrp	x9, count
	ldrb	w1, [x9, :lo12:count]
	cbz	w0, 1f
	adrp	x9, count
1:	add	x0, x9, :lo12:count
#if PLANT == 7
	mov	x9, x3
	cbz	w1, 1b
#endif
	ret
	.size thirds, .-thirds
	.globl copies
	.type copies, %function
copies:
	stp	x29, x30, [sp, -32]!
	adrp	x9, count
	mov	x10, x9
	str	x10, [sp, 16]
	mov	x9, 0
	mov	x10, 0
#if PLANT == 9
	str	w3, [sp, 16]
#endif
	ldr	x11, [sp, 16]
#if PLANT == 8
	add	x0, x11, :lo12:other
#else
	add	x0, x11, :lo12:count
#endif
	ldp	x29, x30, [sp], 32
	ret
	.size copies, .-copies
	.globl ends
	.type ends, %function
ends:
	adrp	x19, count
	cbz	w0, 1f
	mov	x19, x3
#if PLANT == 10
	bl	helper
#else
	bl	abort
#endif
#if PLANT == 11
1:	add	x0, x19, :lo12:other
#else
1:	add	x0, x19, :lo12:count
#endif
	ret
	.size ends, .-ends
	.globl catches
	.type catches, %function
catches:
	nop
	.cfi_startproc
	.cfi_personality 0x1b, main
	.cfi_lsda 0x1b, .Ltable
.Lcatches:
	adrp	x19, count
.Lcall:	bl	helper
.Lcalled:
	mov	x19, x3
	ret
#if PLANT == 12
.Lpad:	add	x0, x19, :lo12:other
#else
.Lpad:	add	x0, x19, :lo12:count
#endif
	ret
	.cfi_endproc
	.size catches, .-catches
	.section .gcc_except_table,"a",%progbits
.Ltable:
	.byte	0xff, 0xff, 1
	.uleb128 2f-1f
1:	.uleb128 .Lcall-.Lcatches
	.uleb128 .Lcalled-.Lcall
	.uleb128 .Lpad-.Lcatches
	.uleb128 0
2:
	.text
	.globl near
	.type near, %function
near:
#if PLANT == 13 // as lld and mold write it
	nop
	adr	x0, count
#elif PLANT == 14
	nop
	adr	x0, other
#else
	adrp	x0, count
	add	x0, x0, :lo12:count
#endif
	ret
	.size near, .-near
	.globl main
	.type main, %function
main:
	adrp	x0, other
	add	x0, x0, :lo12:other
	mov	w0, 0
	ret
	.size main, .-main
	.section .note.GNU-stack,"",%progbits
