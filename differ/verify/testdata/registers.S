// Functions with a register that has the page of count, which something happens to before
// an address is made of it: what changes it (changes_) or leaves it alone (keeps_).
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
	.text
	.arch armv8.7-a+sve+memtag+ls64+mops
	.macro begin name
	.globl \name
	.type \name, %function
\name:
	.cfi_startproc
	stp	x29, x30, [sp, -64]!
	adrp	x19, count
	ldrb	w1, [x19, :lo12:count]
	mov	x11, x19
	.endm
	.macro finish name
	add	x0, x19, :lo12:count
	ldp	x29, x30, [sp], 64
	ret
	.cfi_endproc
	.size \name, .-\name
	.endm
	.macro table name
	.cfi_personality 0x1b, main
	.cfi_lsda 0x1b, .Ltable_\name
	.pushsection .gcc_except_table,"a",%progbits
.Ltable_\name:
	.byte	0xff, 0xff, 1
	.uleb128 2f-1f
1:	.uleb128 .Lcall_\name-\name
	.uleb128 .Lcalled_\name-.Lcall_\name
	.uleb128 .Lpad_\name-\name
	.uleb128 0
2:
	.popsection
	.endm
	.type exit, %function
exit:
	ret
	.size exit, .-exit
	.globl __assert_fail
	.type __assert_fail, %function
__assert_fail:
	ret
	.size __assert_fail, .-__assert_fail
	.type literal, %function
literal:
	ldr	x11, .Lpool
	ret
	.size literal, .-literal
.Lpool:	.xword	0x123456789abcdef

	begin	changes_literal
	ldr	x19, .Lpool
	finish	changes_literal

	begin	changes_alloca
	str	x19, [sp, 16]
	sub	sp, sp, x2
	ldr	x19, [sp, 16]
	finish	changes_alloca

	begin	changes_falls_into_pad
	table	changes_falls_into_pad
.Lcall_changes_falls_into_pad:	bl	main
.Lcalled_changes_falls_into_pad:
	mov	x19, x3
.Lpad_changes_falls_into_pad:
	finish	changes_falls_into_pad

	begin	changes_local_exit
	cbz	w0, 1f
	mov	x19, x3
	bl	exit
1:
	finish	changes_local_exit

	begin	changes_sve_count
	cntd	x19
	finish	changes_sve_count

	begin	changes_frame_pointer
	mov	x29, sp
	str	x19, [sp, 16]
	str	x3, [x29, 16]
	ldr	x19, [sp, 16]
	finish	changes_frame_pointer

	begin	changes_call_with_literal
	bl	literal
	mov	x19, x11
	finish	changes_call_with_literal

	begin	changes_authenticated_load
	ldraa	x19, [x3]
	finish	changes_authenticated_load

	begin	changes_sve_frame
	str	x19, [sp, 16]
	addvl	sp, sp, -1
	ldr	x19, [sp, 16]
	finish	changes_sve_frame

	begin	changes_literal_signed
	ldrsw	x19, .Lpool
	finish	changes_literal_signed

	begin	changes_tag_load
	ldg	x19, [x3]
	finish	changes_tag_load

	begin	changes_tag_store
	str	x19, [sp, 16]
	stzg	x3, [sp, 16]
	ldr	x19, [sp, 16]
	finish	changes_tag_store

	begin	changes_copy_forward
	cpyfp	[x19]!, [x3]!, x4!
	finish	changes_copy_forward

	begin	changes_load_64
	ld64b	x18, [x3]
	finish	changes_load_64

	begin	changes_shadow_pop
	.inst	0xd52b7733 // gcspopm x19
	finish	changes_shadow_pop

	begin	changes_pair_swap
	casp	x18, x19, x4, x5, [x3]
	finish	changes_pair_swap

	begin	changes_pair_clear
	.inst	0x19331072 // ldclrp x18, x19, [x3]
	finish	changes_pair_clear

	begin	changes_pair_ordered
	.inst	0xd9531872 // ldiapp x18, x19, [x3]
	finish	changes_pair_ordered

	begin	changes_swap
	swpal	x4, x19, [x3]
	finish	changes_swap

	begin	changes_ordered_written_back
	.inst	0xd9c00a72 // ldapr x18, [x19], 8
	finish	changes_ordered_written_back

	begin	changes_pair_exclusive
	ldxp	x18, x19, [x3]
	finish	changes_pair_exclusive

	begin	changes_vector_written_back
	ld1	{v0.16b}, [x19], 16
	finish	changes_vector_written_back

	begin	changes_from_vector
	fmov	x19, d0
	finish	changes_from_vector

	begin	changes_fill
	setp	[x3]!, x19!, x5
	finish	changes_fill

	begin	changes_ordered_offset
	ldapur	x19, [x3]
	finish	changes_ordered_offset

	begin	changes_authenticated_written_back
	ldraa	x3, [x19, 8]!
	finish	changes_authenticated_written_back

	begin	changes_pair_written_back
	ldp	x3, x4, [x19], 16
	finish	changes_pair_written_back

	begin	changes_status
	stlxr	w19, x3, [x4]
	finish	changes_status

	begin	changes_float_written_back
	ldr	d0, [x19], 8
	finish	changes_float_written_back

	begin	changes_system_call
	mov	x16, 3
	svc	0
	mov	x19, x0
	finish	changes_system_call

	begin	changes_own_assert
	cbz	w0, 1f
	mov	x19, x3
	bl	__assert_fail
1:
	finish	changes_own_assert

	begin	changes_pad_behind_a_call
	table	changes_pad_behind_a_call
.Lcall_changes_pad_behind_a_call:	bl	main
	mov	x19, x3
.Lcalled_changes_pad_behind_a_call:
.Lpad_changes_pad_behind_a_call:
	finish	changes_pad_behind_a_call

	begin	changes_derived_address
	str	x19, [sp, 16]
	add	x4, sp, 8
	add	x5, x4, x2
	str	x3, [x5]
	ldr	x19, [sp, 16]
	finish	changes_derived_address

	begin	changes_address_in_memory
	str	x19, [sp, 16]
	add	x4, sp, 8
	stp	x4, x4, [sp, 32]
	str	x19, [sp, 16]
	ldr	x6, [sp, 40]
	str	x3, [x6, 8]
	ldr	x19, [sp, 16]
	finish	changes_address_in_memory

	begin	changes_unknown
	.inst	0xc0000000
	finish	changes_unknown

	begin	keeps_frame_pointer_read
	str	x19, [sp, 16]
	mov	x29, sp
	mov	x19, x3
	str	x3, [x1]
	ldr	x4, [x29, 32]
	ldr	x19, [sp, 16]
	finish	keeps_frame_pointer_read

	begin	keeps_abort
	cbz	w0, 1f
	mov	x19, x3
	bl	abort
1:
	finish	keeps_abort

	begin	keeps_other_registers
	prfm	pldl1keep, [x3]
	dmb	ish
	mrs	x3, fpcr
	msr	fpcr, x3
	ldaxr	x4, [x3]
	stlxr	w5, x4, [x3]
	ldp	x4, x5, [x3], 16
	ldr	q0, [x3, 16]!
	ld1	{v0.16b}, [x3], 16
	fmov	x4, d0
	madd	x4, x5, x6, x7
	ccmp	x4, x5, 0, eq
	finish	keeps_other_registers

	.globl main
	.type main, %function
main:
	adrp	x0, count
	add	x0, x0, :lo12:count
	mov	w0, 0
	ret
	.size main, .-main
	.section .note.GNU-stack,"",%progbits
