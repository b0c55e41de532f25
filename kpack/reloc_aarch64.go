package kpack

import (
	"debug/elf"
	"encoding/binary"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// machineAArch64 relocates as AAELF64 ("Static AArch64 relocations") says: small code
// model, what of the large one has no GOT of its own, and what of the tiny one refers to the patch itself.
// R_AARCH64_LD64_GOTPAGE_LO15 and R_AARCH64_LD64_GOTOFF_LO15 (gcc -fpic) are not there: they count from
// the one GOT that a linked file has, and a patch refers to entries of two.
var machineAArch64 = &machine{
	arch: arch.AArch64,
	relocs: addTLSAArch64(addMovesAArch64(map[uint32]howto{
		uint32(elf.R_AARCH64_ABS64):               {name: "R_AARCH64_ABS64", size: 8, put: put64},
		uint32(elf.R_AARCH64_PREL64):              {name: "R_AARCH64_PREL64", size: 8, value: valueRel, put: put64},
		uint32(elf.R_AARCH64_PREL32):              {name: "R_AARCH64_PREL32", size: 4, value: valueRel, put: putS32},
		uint32(elf.R_AARCH64_CALL26):              {name: "R_AARCH64_CALL26", size: 4, value: valueRel, branch: true, call: true, put: imm(0, 26, 2)},
		uint32(elf.R_AARCH64_JUMP26):              {name: "R_AARCH64_JUMP26", size: 4, value: valueRel, branch: true, call: true, put: imm(0, 26, 2)},
		uint32(elf.R_AARCH64_CONDBR19):            {name: "R_AARCH64_CONDBR19", size: 4, value: valueRel, near: true, put: imm(5, 19, 2)},
		uint32(elf.R_AARCH64_TSTBR14):             {name: "R_AARCH64_TSTBR14", size: 4, value: valueRel, near: true, put: imm(5, 14, 2)},
		uint32(elf.R_AARCH64_LD_PREL_LO19):        {name: "R_AARCH64_LD_PREL_LO19", size: 4, value: valueRel, near: true, put: imm(5, 19, 2)},
		uint32(elf.R_AARCH64_ADR_PREL_LO21):       {name: "R_AARCH64_ADR_PREL_LO21", size: 4, value: valueRel, branch: true, near: true, put: adr(0)},
		uint32(elf.R_AARCH64_ADR_PREL_PG_HI21):    {name: "R_AARCH64_ADR_PREL_PG_HI21", size: 4, value: valuePage, branch: true, put: adr(12)},
		uint32(elf.R_AARCH64_ADR_GOT_PAGE):        {name: "R_AARCH64_ADR_GOT_PAGE", size: 4, value: valuePage, got: true, put: adr(12)},
		uint32(elf.R_AARCH64_ADD_ABS_LO12_NC):     {name: "R_AARCH64_ADD_ABS_LO12_NC", size: 4, branch: true, put: lo12(0)},
		uint32(elf.R_AARCH64_LDST8_ABS_LO12_NC):   {name: "R_AARCH64_LDST8_ABS_LO12_NC", size: 4, put: lo12(0)},
		uint32(elf.R_AARCH64_LDST16_ABS_LO12_NC):  {name: "R_AARCH64_LDST16_ABS_LO12_NC", size: 4, put: lo12(1)},
		uint32(elf.R_AARCH64_LDST32_ABS_LO12_NC):  {name: "R_AARCH64_LDST32_ABS_LO12_NC", size: 4, put: lo12(2)},
		uint32(elf.R_AARCH64_LDST64_ABS_LO12_NC):  {name: "R_AARCH64_LDST64_ABS_LO12_NC", size: 4, put: lo12(3)},
		uint32(elf.R_AARCH64_LDST128_ABS_LO12_NC): {name: "R_AARCH64_LDST128_ABS_LO12_NC", size: 4, put: lo12(4)},
		uint32(elf.R_AARCH64_LD64_GOT_LO12_NC):    {name: "R_AARCH64_LD64_GOT_LO12_NC", size: 4, got: true, put: lo12(3)},
		uint32(elf.R_AARCH64_GOT_LD_PREL19):       {name: "R_AARCH64_GOT_LD_PREL19", size: 4, value: valueRel, got: true, near: true, put: imm(5, 19, 2)},
		relocPLT32AArch64:                         {name: "R_AARCH64_PLT32", size: 4, value: valueRel, branch: true, put: putS32},
	})),
	tls:        tlsAArch64,
	relocName:  func(typ uint32) string { return elf.R_AARCH64(typ).String() },
	globDat:    uint32(elf.R_AARCH64_GLOB_DAT),
	jumpSlot:   uint32(elf.R_AARCH64_JUMP_SLOT),
	irelative:  uint32(elf.R_AARCH64_IRELATIVE),
	relaxed:    func(uint32) (int, int) { return 0, 0 }, // ld rewrites no more than the relocated instruction
	stubSize:   24,
	stub:       stubAArch64,
	thunkSize:  4 * len(thunkAArch64),
	thunk:      putThunkAArch64,
	veneerSize: 16,
	veneer:     veneerAArch64,
	veneered:   veneeredAArch64,
	countSize:  32,
	count:      countAArch64,
	finderSize: 4 * len(finderAArch64),
	finder:     putFinderAArch64,
	padding:    paddingAArch64,
	hooks:      &hooksAArch64,
	redirect:   redirectAArch64,
	jumpsTo:    jumpsToAArch64,
	indirect:   indirectAArch64,
	gateSize:   gateSizeAArch64,
	gate:       gateAArch64,
	move:       moveAArch64,
	undo:       undoAArch64,
	onward: func() ([]byte, int, Reloc) {
		return binary.LittleEndian.AppendUint32(nil, insnB), 0, Reloc{Type: uint32(elf.R_AARCH64_JUMP26)}
	},
	prologue:  prologueAArch64,
	address:   uint32(elf.R_AARCH64_ABS64),
	addresses: addressesAArch64,
	maxEntry:  8,
}

// relocPLT32AArch64 is R_AARCH64_PLT32, for which package elf has no name: the distance of a
// function, in tables of relative addresses.
const relocPLT32AArch64 = 314

// addMovesAArch64 adds the relocations of MOVZ and MOVK for absolute addresses (large
// code model) to the table.
func addMovesAArch64(relocs map[uint32]howto) map[uint32]howto {
	for i, name := range []string{"G0", "G0_NC", "G1", "G1_NC", "G2", "G2_NC", "G3"} {
		lsb, bits := uint(i/2*16), uint(64)
		if i%2 == 0 {
			bits = lsb + 16
		}
		relocs[uint32(elf.R_AARCH64_MOVW_UABS_G0)+uint32(i)] = howto{name: "R_AARCH64_MOVW_UABS_" + name, size: 4, put: movw(lsb, bits)}
	}
	return relocs
}

// imm returns a put that stores v>>scale in bits bits from bit lsb on.
func imm(lsb, bits, scale uint) func([]byte, int64) error {
	return func(b []byte, v int64) error {
		if v&(1<<scale-1) != 0 || !fits(v>>scale, bits) {
			return rangeError(v, int(bits+scale))
		}
		mask := uint32(1<<bits-1) << lsb
		w := binary.LittleEndian.Uint32(b)
		binary.LittleEndian.PutUint32(b, w&^mask|uint32(v>>scale)<<lsb&mask)
		return nil
	}
}

// adr returns a put for ADR (shift 0) and ADRP (shift 12): immlo in bits 29
// and 30, immhi in bits 5 to 23.
func adr(shift uint) func([]byte, int64) error {
	return func(b []byte, v int64) error {
		v >>= shift
		if !fits(v, 21) {
			return rangeError(v<<shift, int(21+shift))
		}
		const mask = 3<<29 | 0x7ffff<<5
		w := binary.LittleEndian.Uint32(b)
		binary.LittleEndian.PutUint32(b, w&^mask|uint32(v&3)<<29|uint32(v>>2)<<5&(0x7ffff<<5))
		return nil
	}
}

// lo12 returns a put for the low twelve bits of an address, scaled by the
// access size.
func lo12(scale uint) func([]byte, int64) error {
	return func(b []byte, v int64) error {
		v &= 0xfff
		if v&(1<<scale-1) != 0 {
			return rangeError(v, 12)
		}
		const mask = 0xfff << 10
		w := binary.LittleEndian.Uint32(b)
		binary.LittleEndian.PutUint32(b, w&^mask|uint32(v>>scale)<<10)
		return nil
	}
}

func putWords(dst []byte, words ...uint32) {
	for i, w := range words {
		binary.LittleEndian.PutUint32(dst[4*i:], w)
	}
}

const (
	btiC    = 0xd503245f
	btiJC   = 0xd50324df
	insnNop = 0xd503201f
	paciasp = 0xd503233f
	pacibsp = 0xd503237f
	insnB   = 0x14000000
)

// putPage fills the ADRP at offset adrp and the LDR or STR (64 bit) at offset
// lo of dst, which lies at address at, with the address target.
func putPage(dst []byte, at specs.Addr, adrp, lo int, target specs.Addr) error {
	h := howto{value: valuePage}
	if err := adr(12)(dst[adrp:], h.compute(uint64(target), 0, uint64(at)+uint64(adrp))); err != nil {
		return err
	}
	return lo12(3)(dst[lo:], int64(target))
}

// stubAArch64 is a PLT entry: bti c; adrp x16, slot; ldr x17, [x16, #lo12];
// add x16, x16, #lo12; br x17. A slot that is not bound yet leads to PLT[0],
// and the dynamic linker tells from x16 which slot it was (AAELF64, "PLT
// sequences").
func stubAArch64(dst []byte, at, slot specs.Addr) error {
	putWords(dst, btiC, 0x90000010, 0xf9400211, 0x91000210, 0xd61f0220, insnNop)
	if err := putPage(dst, at, 4, 8, slot); err != nil {
		return err
	}
	return lo12(0)(dst[12:], int64(slot))
}

// thunkAArch64 saves what AAPCS64 lets a caller pass in registers, calls the
// resolver with x0 = 0 (glibc's own resolvers ask the dynamic linker, not
// their argument), and goes where it says.
var thunkAArch64 = []uint32{
	btiC,
	0xa9b07bfd, // stp x29, x30, [sp, #-256]!
	0xa90107e0, // stp x0, x1, [sp, #16]
	0xa9020fe2, // stp x2, x3, [sp, #32]
	0xa90317e4, // stp x4, x5, [sp, #48]
	0xa9041fe6, // stp x6, x7, [sp, #64]
	0xf9002be8, // str x8, [sp, #80]
	0xad0307e0, // stp q0, q1, [sp, #96]
	0xad040fe2, // stp q2, q3, [sp, #128]
	0xad0517e4, // stp q4, q5, [sp, #160]
	0xad061fe6, // stp q6, q7, [sp, #192]
	0xd2800000, // mov x0, #0
	0x58000270, // ldr x16, resolver
	0xd63f0200, // blr x16
	0xaa0003f1, // mov x17, x0
	0x90000010, // adrp x16, slot
	0xf9000211, // str x17, [x16, #lo12]
	0xad461fe6, // ldp q6, q7, [sp, #192]
	0xad4517e4, // ldp q4, q5, [sp, #160]
	0xad440fe2, // ldp q2, q3, [sp, #128]
	0xad4307e0, // ldp q0, q1, [sp, #96]
	0xf9402be8, // ldr x8, [sp, #80]
	0xa9441fe6, // ldp x6, x7, [sp, #64]
	0xa94317e4, // ldp x4, x5, [sp, #48]
	0xa9420fe2, // ldp x2, x3, [sp, #32]
	0xa94107e0, // ldp x0, x1, [sp, #16]
	0xa8d07bfd, // ldp x29, x30, [sp], #256
	0xd61f0220, // br x17
	insnNop, insnNop, insnNop,
	0, 0, // resolver
	0,
}

const (
	thunkLiteral = 12
	thunkAdrp    = 15
	thunkAddress = 31
)

func putThunkAArch64(dst []byte, at, slot, resolver specs.Addr) error {
	putWords(dst, thunkAArch64...)
	binary.LittleEndian.PutUint64(dst[4*thunkAddress:], uint64(resolver))
	if err := imm(5, 19, 2)(dst[4*thunkLiteral:], 4*(thunkAddress-thunkLiteral)); err != nil {
		return err
	}
	return putPage(dst, at, 4*thunkAdrp, 4*(thunkAdrp+1), slot)
}

// redirectAArch64 keeps a landing pad: behind "bti c" a B follows. paciasp is
// a landing pad too (Arm ARM, "BTI"), but must not run before the new body
// signs the return address itself, so it makes room for "bti c; b".
func redirectAArch64(entry []byte, from, to specs.Addr) (specs.Addr, []byte, error) {
	if len(entry) < 4 {
		return 0, nil, tooShort(4, len(entry))
	}
	site, code := from, make([]byte, 0, 8)
	switch binary.LittleEndian.Uint32(entry) {
	case btiC, btiJC:
		site += 4
	case paciasp, pacibsp:
		code = binary.LittleEndian.AppendUint32(code, btiC)
	}
	jump := len(code)
	code = binary.LittleEndian.AppendUint32(code, insnB)
	if need := int(site-from) + len(code); len(entry) < need {
		return 0, nil, tooShort(need, len(entry))
	}
	err := imm(0, 26, 2)(code[jump:], int64(to-site)-int64(jump))
	return site, code, err
}

// paddingAArch64 knows nop and zeros.
func paddingAArch64(b []byte) int {
	n := 0
	for n+4 <= len(b) {
		if w := binary.LittleEndian.Uint32(b[n:]); w != 0 && w != insnNop {
			break
		}
		n += 4
	}
	return n
}
