package apply

import (
	"encoding/binary"

	"github.com/fother/fother/specs/arch"
)

// afterCall has, by architecture, a function that reports whether code, whose
// end is an address, may end with a call instruction, so that the address may
// be a return address. Where it says no, the address is a pointer.
var afterCall = map[*arch.Arch]func(code []byte) bool{
	arch.X86_64:  afterCallX86,
	arch.AArch64: afterCallAArch64,
}

// afterCallX86 knows call rel32 (E8) and call r/m64 (FF /2) in all its lengths.
// Source: Intel SDM, volume 2, CALL.
func afterCallX86(code []byte) bool {
	n := len(code)
	if n >= 5 && code[n-5] == 0xe8 {
		return true
	}
	for _, length := range []int{2, 3, 4, 6, 7} {
		if n >= length && code[n-length] == 0xff && code[n-length+1]>>3&7 == 2 {
			return true
		}
	}
	return false
}

// afterCallAArch64 knows BL and BLR with their authenticating forms. Source: Arm
// ARM, C6.2.
func afterCallAArch64(code []byte) bool {
	if len(code) < 4 {
		return false
	}
	w := binary.LittleEndian.Uint32(code[len(code)-4:])
	return w>>26 == 0x25 || w&0xfefff000 == 0xd63f0000
}
