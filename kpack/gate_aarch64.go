package kpack

import (
	"debug/elf"
	"encoding/binary"

	"github.com/fother/fother/specs"
)

// gateSizeAArch64 is the length in bytes of a gate, a multiple of 16.
const gateSizeAArch64 = 64

// gateAArch64 uses x16 and x17, which any call may lose to a veneer (AAPCS64,
// 6.1.1). A branch to a register other than these would need "bti j" where it
// leads.
func gateAArch64(want uint32) []byte {
	words := []uint32{
		0x58000150, // ldr x16, cell
		0xb9400210, // ldr w16, [x16]
		0x180000f1, // ldr w17, want
		0x4a110210, // eor w16, w16, w17
		0x34000070, // cbz w16, 1f
		0x580000f1, // ldr x17, shut
		0xd61f0220, // br x17
		0x580000f1, // 1: ldr x17, open
		0xd61f0220, // br x17
		want,
	}
	b := make([]byte, 4*len(words))
	putWords(b, words...)
	return b
}

// moveAArch64 copies the n bytes of instructions at the start of code, which
// lies at at. Source: Arm ARM, C4.1.
func moveAArch64(m *moved, code []byte, at specs.VAddr, n int) error {
	done := 0
	for ; done < n && !m.ended; done += 4 {
		if err := moveOneAArch64(m, binary.LittleEndian.Uint32(code[done:]), at+specs.VAddr(done)); err != nil {
			return err
		}
	}
	if !m.ended {
		m.branch(at + specs.VAddr(done))
	}
	return nil
}

func (m *moved) word(w uint32) { m.code = binary.LittleEndian.AppendUint32(m.code, w) }

// branch appends a B to an address of the target.
func (m *moved) branch(to specs.VAddr) {
	m.relocs = append(m.relocs, movedReloc{len(m.code), uint32(elf.R_AARCH64_JUMP26), to, 0})
	m.word(insnB)
}

// load appends an LDR of register r with an address of the target.
func (m *moved) load(r uint32, to specs.VAddr) {
	m.words = append(m.words, movedWord{to, len(m.code), imm(5, 19, 2)})
	m.word(0x58000000 | r) // ldr xr, literal
}

// signed returns the value of bits [lsb, lsb+bits) of w.
func signed(w uint32, lsb, bits uint) int64 { return int64(int32(w<<(32-lsb-bits)) >> (32 - bits)) }

func moveOneAArch64(m *moved, w uint32, at specs.VAddr) error {
	const lr, ip0 = 30, 16
	place := func(lsb, bits uint) specs.VAddr { return at + specs.VAddr(4*signed(w, lsb, bits)) }
	// conditional keeps the condition of a branch whose distance has the given
	// bits, but turns it to the second instruction from it.
	conditional := func(bits uint) {
		to := place(5, bits)
		m.word(w&^((1<<bits-1)<<5) | 2<<5)
		m.word(insnB | 2) // past the next
		m.branch(to)
	}
	switch {
	case w>>26 == 0x05: // B
		m.branch(place(0, 26))
		m.ended = true
	case w>>26 == 0x25: // BL
		m.load(lr, at+4)
		m.branch(place(0, 26))
		m.ended = true
	case w>>24 == 0x54, w>>25&0x3f == 0x1a: // B.cond, CBZ and CBNZ
		conditional(19)
	case w>>25&0x3f == 0x1b: // TBZ, TBNZ
		conditional(14)
	case w>>24&0x9f == 0x10: // ADR
		m.load(w&31, at+specs.VAddr(signed(w, 5, 19)<<2|int64(w>>29&3)))
	case w>>24&0x9f == 0x90: // ADRP
		m.load(w&31, at&^0xfff+specs.VAddr((signed(w, 5, 19)<<2|int64(w>>29&3))<<12))
	case w>>27&7 == 3 && w>>24&3 == 0: // LDR (literal) and its kin
		return errMoved(at, "loads from near it")
	case w&^(0x1f<<5) == 0xd63f0000: // BLR
		m.word(0xaa0003e0 | w>>5&31<<16 | ip0) // mov x16, xn
		m.load(lr, at+4)
		m.word(0xd61f0000 | ip0<<5) // br x16
		m.ended = true
	case w>>25 == 0x6b: // other branches to a register
		const br, ret, braa = 0, 2, 8
		if op := w >> 21 & 15; op != br && op != ret && op != braa {
			return errMoved(at, "is a call of a signed pointer, or returns from an exception")
		}
		m.word(w)
		m.ended = true
	case w>>24 == 0xd4: // SVC, BRK and the like
		return errMoved(at, "enters the kernel or another mode")
	default:
		m.word(w)
	}
	return nil
}

// prologueAArch64 reports whether code begins with an instruction that takes
// space on the stack. No table of a switch leads there: it would be taken twice.
func prologueAArch64(code []byte) bool {
	if len(code) < 4 {
		return false
	}
	w := binary.LittleEndian.Uint32(code)
	pair := w&0xffc003e0 == 0xa98003e0   // stp x, y, [sp, #n]!
	single := w&0xffe00fe0 == 0xf8000fe0 // str x, [sp, #n]!
	sub := w&0xff8003ff == 0xd10003ff    // sub sp, sp, #n
	return pair || single || sub
}

// undoAArch64 knows paciasp and pacibsp, behind which the jump is one instruction.
func undoAArch64(_, code []byte) (int, []byte, bool) {
	if len(code) < 4 {
		return 0, nil, false
	}
	switch binary.LittleEndian.Uint32(code) {
	case paciasp:
		return 4, binary.LittleEndian.AppendUint32(nil, 0xd50323bf), true // autiasp
	case pacibsp:
		return 4, binary.LittleEndian.AppendUint32(nil, 0xd50323ff), true // autibsp
	}
	return 0, nil, false
}
