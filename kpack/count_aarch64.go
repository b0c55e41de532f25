package kpack

import (
	"encoding/binary"

	"github.com/fother/fother/specs"
)

// countAArch64 adds 1 to a counter, atomically, and goes to an address. It
// changes nothing but x16 and x17, as a linker's veneer may (AAPCS64, 6.1.1):
// the exclusive store needs a third register, which it puts back. The atomic
// instructions of ARMv8.1 would not, but not all processors have them.
func countAArch64(dst []byte, at, counter, to specs.Addr) error {
	const jump, word = 7 * 4, 8 * 4
	putWords(dst,
		0xf81f0fef, // str x15, [sp, #-16]!
		0x580000f0, // ldr x16, word
		0xc85f7e11, // 1: ldxr x17, [x16]
		0x91000631, // add x17, x17, #1
		0xc80f7e11, // stxr w15, x17, [x16]
		0x35ffffaf, // cbnz w15, 1b
		0xf84107ef, // ldr x15, [sp], #16
		0x14000000, // b to
	)
	binary.LittleEndian.PutUint64(dst[word:], uint64(counter))
	return imm(0, 26, 2)(dst[jump:], int64(to-at)-jump)
}
