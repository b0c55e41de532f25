package kpack

import (
	"encoding/binary"

	"github.com/fother/fother/specs"
)

// The thread pointer of this architecture has the C library's structure of the
// thread below it, and the thread control block and all thread-local variables above.
// Source: AAELF64, "Thread Local Storage"; glibc, TLS_DTV_AT_TP.
var hooksAArch64 = hookMachine{
	code: wordsOf(hookCodeAArch64), created: 0x64, home: 0x6c, exit: 0x100, put: putHooksAArch64, below: 4 << 10, above: 16 << 10,
}

// hookCodeAArch64 leaves the flags, the stack and the vectors of the borrowed thread as
// they are; the registers that it uses, x0 to x5, x8, x9 and x16, are put back where it
// goes home to. The offsets are those in the control block. The new thread waits until
// it is let go, and not for ever.
var hookCodeAArch64 = []uint32{
	0xd50324df, // bti jc
	0x90000009, // adrp x9, control
	0x91000129, // add x9, x9, :lo12:control
	0xd28010e8, // mov x8, #135
	0xd2800040, // mov x0, #2
	0x91016121, // add x1, x9, mask
	0x91018122, // add x2, x9, oldMask
	0xd2800103, // mov x3, #8
	0xd4000001, // svc #0
	0xd2801b88, // mov x8, #220
	0x5281e000, // mov w0, #0x0f00
	0x72a007a0, // movk w0, #0x3d, lsl #16
	0xf9401d21, // ldr x1, [x9, stackAt]
	0x9100c122, // add x2, x9, thread
	0xf9402123, // ldr x3, [x9, tp]
	0xaa0203e4, // mov x4, x2
	0xd4000001, // svc #0
	0xb4000140, // cbz x0, child
	0xf9001520, // str x0, [x9, created]
	0xd28010e8, // mov x8, #135
	0xd2800040, // mov x0, #2
	0x91018121, // add x1, x9, oldMask
	0xd2800002, // mov x2, #0
	0xd2800103, // mov x3, #8
	0xd4000001, // svc #0
	// created:
	0xf9403530, // ldr x16, [x9, home]
	0xd61f0200, // br x16
	// child:
	0xaa0903f3, // mov x19, x9
	0xd280001d, // mov x29, #0
	0xd280001e, // mov x30, #0
	0xd51b441f, // msr fpcr, xzr
	0xd51b443f, // msr fpsr, xzr
	// wait:
	0xb9400a60, // ldr w0, [x19, go]
	0x35000140, // cbnz w0, run
	0xb9401e60, // ldr w0, [x19, turns]
	0x71000400, // subs w0, w0, #1
	0xb9001e60, // str w0, [x19, turns]
	0x54000364, // b.mi exit
	0xd2800ca8, // mov x8, #101
	0x91012260, // add x0, x19, nap
	0xd2800001, // mov x1, #0
	0xd4000001, // svc #0
	0x17fffff6, // b wait
	// run:
	0xd5033bbf, // dmb ish
	0xf9401274, // ldr x20, [x19, list]
	// next:
	0xf9400281, // ldr x1, [x20]
	0xb40001e1, // cbz x1, done
	0xd63f0020, // blr x1
	0x91002294, // add x20, x20, #8
	0x34000100, // cbz w0, good
	0xb9401261, // ldr w1, [x19, result]
	0x35000081, // cbnz w1, told
	0xb9401a61, // ldr w1, [x19, count]
	0xb9001661, // str w1, [x19, failed]
	0xb9001260, // str w0, [x19, result]
	// told:
	0xb9400e61, // ldr w1, [x19, stops]
	0x350000a1, // cbnz w1, done
	// good:
	0xb9401a61, // ldr w1, [x19, count]
	0x11000421, // add w1, w1, #1
	0xb9001a61, // str w1, [x19, count]
	0x17fffff1, // b next
	// done:
	0x52800021, // mov w1, #1
	0xd5033bbf, // dmb ish
	0xb9000661, // str w1, [x19, done]
	// exit:
	0xd2800ba8, // mov x8, #93
	0xd2800000, // mov x0, #0
	0xd4000001, // svc #0
	0x00000000, // udf #0
}

// wordsOf returns instructions as bytes.
func wordsOf(words []uint32) []byte {
	b := make([]byte, 4*len(words))
	putWords(b, words...)
	return b
}

func putHooksAArch64(dst []byte, at, control specs.Addr) error {
	for i, w := range hookCodeAArch64 {
		binary.LittleEndian.PutUint32(dst[4*i:], w)
	}
	const adrp, add = 4, 8
	h := howto{value: valuePage}
	if err := adr(12)(dst[adrp:], h.compute(uint64(control), 0, uint64(at)+adrp)); err != nil {
		return err
	}
	return lo12(0)(dst[add:], int64(control))
}
