package kpack

import (
	"encoding/binary"

	"github.com/fother/fother/specs"
)

// countAArch64 adds 1 to a counter and goes to an address. It changes nothing
// but x16 and x17, as a linker's veneer may (AAPCS64, 6.1.1). The addition is
// not atomic, as on x86-64.
func countAArch64(dst []byte, at, counter, to specs.Addr) error {
	const jump, word = 4 * 4, 6 * 4
	putWords(dst,
		0x580000d0, // ldr x16, word
		0xf9400211, // ldr x17, [x16]
		0x91000631, // add x17, x17, #1
		0xf9000211, // str x17, [x16]
		0x14000000, // b to
		insnNop,
	)
	binary.LittleEndian.PutUint64(dst[word:], uint64(counter))
	return imm(0, 26, 2)(dst[jump:], int64(to-at)-jump)
}
