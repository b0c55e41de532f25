package kpack

import (
	"encoding/binary"

	"github.com/fother/fother/specs"
)

// jumpsToAArch64 looks for a branch into taken in code at at: B, B.cond, CBZ,
// CBNZ, TBZ and TBNZ. Source: Arm ARM, C4.1, "Branches".
func jumpsToAArch64(code []byte, at specs.VAddr, taken specs.Range[specs.VAddr]) (specs.VAddr, bool) {
	for i := 0; i+4 <= len(code); i += 4 {
		w := binary.LittleEndian.Uint32(code[i:])
		var bits, low uint
		switch {
		case w>>26 == 0x05: // B
			bits, low = 26, 0
		case w>>24 == 0x54, w>>25&0x3f == 0x1a: // B.cond, CBZ and CBNZ
			bits, low = 19, 5
		case w>>25&0x3f == 0x1b: // TBZ, TBNZ
			bits, low = 14, 5
		default:
			continue
		}
		distance := int64(int32(w<<(32-bits-low))>>(32-bits)) * 4
		if taken.Contains(at + specs.VAddr(i) + specs.VAddr(distance)) {
			return at + specs.VAddr(i), true
		}
	}
	return 0, false
}

// indirectAArch64 looks for a branch to a register, BR, BRAA, BRAB, BRAAZ or
// BRABZ: its table is reached by ADRP and ADD or LDR, and has distances of 1, 2
// or 4 bytes, in instructions and from anywhere. Source: Arm ARM, C4.1,
// "Unconditional branch (register)".
func indirectAArch64(code []byte, at specs.VAddr) (specs.VAddr, bool) {
	for i := 0; i+4 <= len(code); i += 4 {
		w := binary.LittleEndian.Uint32(code[i:])
		plain := w&^(0x1f<<5) == 0xd61f0000
		signed := w&^(1<<24|1<<10|0x3ff) == 0xd61f0800
		if plain || signed {
			return at + specs.VAddr(i), true
		}
	}
	return 0, false
}
