package kpack

import (
	"encoding/binary"

	"github.com/fother/fother/specs"
)

// veneerAArch64 is ldr x16, address; ret x16; address. x16 is a veneer's to use (AAPCS64,
// 6.1.1). A function that is only called directly has no landing pad, which br x16 would need
// in a guarded page; ret needs none (Arm ARM, "BTI": RET sets PSTATE.BTYPE to 0). A guarded
// control stack (FEAT_GCS) would not allow it.
func veneerAArch64(dst []byte, to specs.Addr) {
	putWords(dst, 0x58000050, 0xd65f0200)
	binary.LittleEndian.PutUint64(dst[8:], uint64(to))
}

// veneeredAArch64 knows what ld.bfd, gold and lld make: adrp x16; add x16, x16, #lo12; br x16,
// and for code with fixed addresses ldr x16, address; br x16. "bti c" may stand before it.
func veneeredAArch64(branch []byte, at specs.VAddr, read func(specs.VAddr, uint64) ([]byte, error)) (specs.VAddr, bool) {
	const brX16 = 0xd61f0200
	w := binary.LittleEndian.Uint32(branch)
	if w>>26&0x1f != 5 { // B, BL
		return 0, false
	}
	to := at + specs.VAddr(4*signed(w, 0, 26))
	if pad, err := read(to, 4); err == nil && binary.LittleEndian.Uint32(pad) == btiC {
		to += 4
	}
	code, err := read(to, 16)
	if err != nil {
		if code, err = read(to, 12); err != nil {
			return 0, false
		}
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(code[4*i:]) }
	switch {
	case word(0)&0x9f00001f == 0x90000010 && word(1)&0xffc003ff == 0x91000210 && word(2) == brX16:
		page := signed(word(0), 5, 19)<<2 | int64(word(0)>>29&3)
		return to&^0xfff + specs.VAddr(page<<12) + specs.VAddr(word(1)>>10&0xfff), true
	case len(code) == 16 && word(0) == 0x58000050 && word(1) == brX16:
		return specs.VAddr(get64(code[8:])), true
	}
	return 0, false
}
