package kpack

import (
	"debug/elf"
	"encoding/binary"

	"github.com/fother/fother/kpack/elfobj"
)

// tlsAArch64: variant I, in which an executable's block follows the thread
// control block of 16 bytes. Source: AAELF64, "Thread-local storage
// relocations"; "ELF Handling For Thread-Local Storage", variant I.
var tlsAArch64 = tlsMachine{
	offset: uint32(elf.R_AARCH64_TLS_TPREL64), module: uint32(elf.R_AARCH64_TLS_DTPMOD64), descriptor: uint32(elf.R_AARCH64_TLSDESC),
	block:    func(_, align uint64) int64 { return int64(alignUp(16, align)) },
	resolver: []byte{0x5f, 0x24, 0x03, 0xd5, 0x00, 0x04, 0x40, 0xf9, 0xc0, 0x03, 0x5f, 0xd6}, // bti c; ldr x0, [x0, #8]; ret
	call:     uint32(elf.R_AARCH64_TLSDESC_CALL),
	relax:    relaxTLSAArch64,
}

// tlsLELoad is R_AARCH64_TLSLE_LDST8_TPREL_LO12, for which package elf has no
// name. Behind it come the one without a check, and those of 16, 32 and 64 bits.
const tlsLELoad = uint32(elf.R_AARCH64_TLSLE_ADD_TPREL_LO12_NC) + 1

// relaxTLSAArch64 rewrites descriptors and loads from the GOT: each relocation
// is that of one instruction, whose registers the compiler chose so that the
// shorter sequence fits.
func relaxTLSAArch64(code []byte, r, _ elfobj.Reloc, own bool) (relaxed, error) {
	if r.Offset%4 != 0 || r.Offset+4 > uint64(len(code)) {
		return relaxed{}, errSequence
	}
	field := code[r.Offset:]
	insn := binary.LittleEndian.Uint32(field)
	to := func(insn uint32, typ elf.R_AARCH64) (relaxed, error) {
		putWords(field, insn)
		r.Type = uint32(typ)
		return relaxed{reloc: r, none: typ == elf.R_AARCH64_NONE}, nil
	}
	const movz, movk, adrp, load = 0xd2a00000, 0xf2800000, 0x90000000, 0xf9400000
	rd, rn := insn&31, insn>>5&31
	isAdrp, isLoad, isAdd := insn&0x9f000000 == adrp, insn&0xffc00000 == load, insn&0xff800000 == 0x91000000
	high, low := elf.R_AARCH64_TLSLE_MOVW_TPREL_G1, elf.R_AARCH64_TLSLE_MOVW_TPREL_G0_NC
	page, slot := elf.R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21, elf.R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC
	switch typ := elf.R_AARCH64(r.Type); {
	case typ == elf.R_AARCH64_TLSDESC_ADR_PAGE21 && isAdrp && rd == 0 && own, typ == page && isAdrp && own:
		return to(movz|rd, high)
	case typ == elf.R_AARCH64_TLSDESC_ADR_PAGE21 && isAdrp && rd == 0:
		return to(adrp, page)
	case typ == elf.R_AARCH64_TLSDESC_LD64_LO12_NC && isLoad && rn == 0 && own:
		return to(movk, low)
	case typ == elf.R_AARCH64_TLSDESC_LD64_LO12_NC && isLoad && rn == 0:
		return to(load, slot)
	case typ == elf.R_AARCH64_TLSDESC_ADD_LO12_NC && isAdd && rn == 0 && rd == 0, typ == elf.R_AARCH64_TLSDESC_CALL && insn&0xfffffc1f == 0xd63f0000:
		return to(insnNop, elf.R_AARCH64_NONE)
	case typ == slot && isLoad && rn == rd && own:
		return to(movk|rd, low)
	case (typ == page || typ == slot) && !own, typ >= elf.R_AARCH64_TLSLE_MOVW_TPREL_G2 && typ < elf.R_AARCH64_TLSDESC_LD_PREL19,
		typ == elf.R_AARCH64_TLSLE_LDST128_TPREL_LO12, typ == elf.R_AARCH64_TLSLE_LDST128_TPREL_LO12_NC:
		return relaxed{reloc: r}, nil
	}
	return relaxed{}, errSequence
}

// addTLSAArch64 adds the relocations of thread-local storage to the table.
func addTLSAArch64(relocs map[uint32]howto) map[uint32]howto {
	add := func(typ elf.R_AARCH64, name string, t threadUse, v value, put func([]byte, int64) error) {
		relocs[uint32(typ)] = howto{name: name, size: 4, value: v, tls: t, put: put}
	}
	add(elf.R_AARCH64_TLSGD_ADR_PAGE21, "R_AARCH64_TLSGD_ADR_PAGE21", tlsGeneral, valuePage, adr(12))
	add(elf.R_AARCH64_TLSGD_ADD_LO12_NC, "R_AARCH64_TLSGD_ADD_LO12_NC", tlsGeneral, valueAbs, lo12(0))
	add(elf.R_AARCH64_TLSDESC_ADR_PAGE21, "R_AARCH64_TLSDESC_ADR_PAGE21", tlsDescriptor, valuePage, adr(12))
	add(elf.R_AARCH64_TLSDESC_LD64_LO12_NC, "R_AARCH64_TLSDESC_LD64_LO12", tlsDescriptor, valueAbs, lo12(3))
	add(elf.R_AARCH64_TLSDESC_ADD_LO12_NC, "R_AARCH64_TLSDESC_ADD_LO12", tlsDescriptor, valueAbs, lo12(0))
	add(elf.R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21, "R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21", tlsInitial, valuePage, adr(12))
	add(elf.R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC, "R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC", tlsInitial, valueAbs, lo12(3))
	add(elf.R_AARCH64_TLSLE_MOVW_TPREL_G2, "R_AARCH64_TLSLE_MOVW_TPREL_G2", tlsDirect, valueAbs, movw(32, 48))
	add(elf.R_AARCH64_TLSLE_MOVW_TPREL_G1_NC, "R_AARCH64_TLSLE_MOVW_TPREL_G1_NC", tlsDirect, valueAbs, movw(16, 63))
	add(elf.R_AARCH64_TLSLE_MOVW_TPREL_G1, "R_AARCH64_TLSLE_MOVW_TPREL_G1", tlsDirect, valueAbs, movw(16, 32))
	add(elf.R_AARCH64_TLSLE_MOVW_TPREL_G0, "R_AARCH64_TLSLE_MOVW_TPREL_G0", tlsDirect, valueAbs, movw(0, 16))
	add(elf.R_AARCH64_TLSLE_MOVW_TPREL_G0_NC, "R_AARCH64_TLSLE_MOVW_TPREL_G0_NC", tlsDirect, valueAbs, movw(0, 63))
	add(elf.R_AARCH64_TLSLE_ADD_TPREL_HI12, "R_AARCH64_TLSLE_ADD_TPREL_HI12", tlsDirect, valueAbs, tprel(24, func(b []byte, v int64) error { return lo12(0)(b, v>>12) }))
	add(elf.R_AARCH64_TLSLE_ADD_TPREL_LO12, "R_AARCH64_TLSLE_ADD_TPREL_LO12", tlsDirect, valueAbs, tprel(12, lo12(0)))
	add(elf.R_AARCH64_TLSLE_ADD_TPREL_LO12_NC, "R_AARCH64_TLSLE_ADD_TPREL_LO12_NC", tlsDirect, valueAbs, lo12(0))
	names := []string{"R_AARCH64_TLSLE_LDST8_TPREL_LO12", "R_AARCH64_TLSLE_LDST16_TPREL_LO12", "R_AARCH64_TLSLE_LDST32_TPREL_LO12", "R_AARCH64_TLSLE_LDST64_TPREL_LO12"}
	for i, name := range names {
		typ := elf.R_AARCH64(tlsLELoad + uint32(2*i))
		add(typ, name, tlsDirect, valueAbs, tprel(12, lo12(uint(i))))
		add(typ+1, name+"_NC", tlsDirect, valueAbs, lo12(uint(i)))
	}
	add(elf.R_AARCH64_TLSLE_LDST128_TPREL_LO12, "R_AARCH64_TLSLE_LDST128_TPREL_LO12", tlsDirect, valueAbs, tprel(12, lo12(4)))
	add(elf.R_AARCH64_TLSLE_LDST128_TPREL_LO12_NC, "R_AARCH64_TLSLE_LDST128_TPREL_LO12_NC", tlsDirect, valueAbs, lo12(4))
	return relocs
}

// tprel returns a put for an offset from the thread pointer of the given
// number of bits, which is never negative in variant I. An address is no number with a
// sign either, and may have all 64.
func tprel(bits uint, put func([]byte, int64) error) func([]byte, int64) error {
	return func(b []byte, v int64) error {
		if uint64(v)>>bits != 0 {
			return rangeError(v, int(bits))
		}
		return put(b, v)
	}
}

// movw returns a put for the immediate of MOVZ and MOVK: the 16 bits of a value
// of the given number of bits from bit lsb on.
func movw(lsb, bits uint) func([]byte, int64) error {
	return tprel(bits, func(b []byte, v int64) error {
		const mask = 0xffff << 5
		w := binary.LittleEndian.Uint32(b)
		binary.LittleEndian.PutUint32(b, w&^mask|uint32(v>>lsb&0xffff)<<5)
		return nil
	})
}
