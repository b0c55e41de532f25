package unwind

import "debug/elf"

// Entries as GNU ld, gold, lld and mold make them. PLT0 pushes 16 bytes and
// goes to the function for lazy binding, whose address is in the third word from
// DT_PLTGOT; the others have one word each:
//
//	[bti c]                         [bti c]
//	stp x16, x30, [sp, #-16]!
//	adrp x16, page                  adrp x16, page
//	ldr x17, [x16, #offset]         ldr x17, [x16, #offset]
//	add x16, x16, #offset           [add x16, x16, #offset]
//	                                [autia1716]
//	br x17                          br x17
//
// Nothing between the first instruction and the branch, but PLT0's push, changes
// the stack pointer or x30, so that the caller of the function that is
// branched to is the caller of the entry. The entries for TLS descriptors are
// not among them.
//
// Sources: AAELF64, "PLT sequences and usage models"; Arm Architecture
// Reference Manual, C6.2.
var pltAArch64 = &pltABI{
	types:     []uint32{uint32(elf.R_AARCH64_JUMP_SLOT), uint32(elf.R_AARCH64_IRELATIVE), uint32(elf.R_AARCH64_GLOB_DAT)},
	irelative: uint32(elf.R_AARCH64_IRELATIVE),
	resolver:  16,
	rules:     pltRulesAArch64,
}

// Instructions of entries, and the bits of those that have an operand.
const (
	a64BTIC      = 0xd503245f // bti c
	a64Push      = 0xa9bf7bf0 // stp x16, x30, [sp, #-16]!
	a64ADRP      = 0x90000010 // adrp x16, …
	a64ADRPMask  = 0x9f00001f
	a64LDR       = 0xf9400211 // ldr x17, [x16, #…]
	a64ADD       = 0x91000210 // add x16, x16, #…
	a64Imm12Mask = 0xffc003ff // of ldr and add
	a64AUTIA1716 = 0xd503219f // autia1716
	a64BR        = 0xd61f0220 // br x17

	a64MaxEntry = 6 // instructions
)

// pltEntryAArch64 is a decoded entry.
type pltEntryAArch64 struct {
	page   uint64 // address of the adrp
	slot   uint64 // of the word with the address that is branched to
	adds   bool   // x16 gets slot
	authed bool
}

func pltRulesAArch64(c *pltCode, at uint64) *rules {
	br := at
	for n := 0; ; n++ {
		if w, ok := c.insn(br); !ok || n == a64MaxEntry {
			return nil
		} else if w == a64BR {
			break
		}
		br += 4
	}
	e, ok := decodePLTAArch64(c, br)
	if !ok {
		return nil
	}
	// A table without PLT0 may have a function's address in the third word.
	first, pushed := e.page, br+4
	before, ok := c.insn(e.page - 4)
	switch pushes := ok && before == a64Push; {
	case pushes && c.resolver != 0 && e.slot == c.resolver && e.adds && !e.authed:
		first, pushed = e.page-4, e.page
	case pushes, !c.function(e.slot):
		return nil
	}
	if w, ok := c.insn(first - 4); ok && w == a64BTIC {
		first -= 4
	}
	if at < first {
		return nil
	}
	r := &rules{cfaSet: true, cfaReg: uint8(c.abi.sp), raColumn: uint8(c.abi.ra), ra: rule{kind: sameValue}}
	if at >= pushed {
		r.cfaOff, r.ra = 16, rule{kind: offset, off: -8}
	}
	return r
}

// decodePLTAArch64 decodes the entry that ends with the branch at br, from its
// adrp on.
func decodePLTAArch64(c *pltCode, br uint64) (e pltEntryAArch64, ok bool) {
	at := br - 4
	w, ok := c.insn(at)
	if e.authed = ok && w == a64AUTIA1716; e.authed {
		at -= 4
		w, ok = c.insn(at)
	}
	var added uint64
	if e.adds = ok && w&a64Imm12Mask == a64ADD; e.adds {
		added = uint64(w >> 10 & 0xfff)
		at -= 4
		w, ok = c.insn(at)
	}
	if !ok || w&a64Imm12Mask != a64LDR {
		return e, false
	}
	loaded := uint64(w>>10&0xfff) * 8
	if e.page = at - 4; e.adds && added != loaded {
		return e, false
	}
	if w, ok = c.insn(e.page); !ok || w&a64ADRPMask != a64ADRP {
		return e, false
	}
	pages := int64(int32(w<<8)&^0x1fff)>>11 | int64(w>>29&3) // immhi (bits 23 to 5), immlo
	e.slot = e.page&^0xfff + uint64(pages)<<12 + loaded
	return e, true
}
