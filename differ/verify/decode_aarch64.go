package verify

import (
	"debug/elf"

	"github.com/fother/fother/specs/arch"
)

var isaAArch64 = &isa{
	arch:   arch.AArch64,
	decode: decodeAArch64,
	track:  trackAArch64,
	fuse:   fuseAArch64,
	kinds: map[uint32]relocKind{
		uint32(elf.R_AARCH64_RELATIVE): relocRelative, uint32(elf.R_AARCH64_ABS64): relocSymbol,
		uint32(elf.R_AARCH64_GLOB_DAT): relocSymbol, uint32(elf.R_AARCH64_JUMP_SLOT): relocSymbol,
		uint32(elf.R_AARCH64_IRELATIVE): relocIndirect, uint32(elf.R_AARCH64_COPY): relocCopy,
		uint32(elf.R_AARCH64_TLS_TPREL64): relocTLS, uint32(elf.R_AARCH64_TLS_DTPMOD64): relocTLS,
		uint32(elf.R_AARCH64_TLS_DTPREL64): relocTLS, uint32(elf.R_AARCH64_TLSDESC): relocTLS,
	},
	tlsModule:     uint32(elf.R_AARCH64_TLS_DTPMOD64),
	tlsOffset:     uint32(elf.R_AARCH64_TLS_TPREL64),
	tlsDescriptor: uint32(elf.R_AARCH64_TLSDESC),
	tlsStatic:     []byte("\x5f\x24\x03\xd5\x00\x04\x40\xf9\xc0\x03\x5f\xd6"), // bti c; ldr x0, [x0, #8]; ret
	stub:          stubAArch64,
	veneer:        veneerAArch64,
	tpOffset:      func(t *tlsBlock, v uint64) uint64 { return v - (16+t.align-1)/t.align*t.align },
	direct:        directAArch64,
	text:          textAArch64,
}

// word is the encoding of an AArch64 instruction.
type word uint32

func (w word) bits(lsb, n uint) uint64 { return uint64(w) >> lsb & (1<<n - 1) }

// signed returns a field as a signed number.
func (w word) signed(lsb, n uint) uint64 {
	return uint64(int64(w.bits(lsb, n)) << (64 - n) >> (64 - n))
}

func (w word) rd() int { return int(w.bits(0, 5)) }
func (w word) rn() int { return int(w.bits(5, 5)) }

// setWord stores the encoding without the bits of mask.
func (in *insn) setWord(w, mask word) { le.PutUint32(in.shape[:], uint32(w&^mask)) }

// decodeAArch64 reads one instruction. What takes a page and an offset in it
// is left to trackAArch64. Source: Arm ARM, C4.1.
func decodeAArch64(code []byte, addr uint64, in *insn) {
	*in = insn{addr: addr, size: 4}
	if len(code) < 4 {
		*in = insn{addr: addr, size: uint8(len(code)), bad: true}
		copy(in.shape[:], code)
		return
	}
	w := word(le.Uint32(code))
	in.setWord(w, 0)
	branch := func(mask word, offset uint64) {
		in.add(ref{use: useBranch, value: addr + offset<<2})
		in.setWord(w, mask)
	}
	switch {
	case w == 0xd503201f:
		in.nop = true
	case w&0x7c000000 == 0x14000000: // b, bl
		branch(0x03ffffff, w.signed(0, 26))
		if w>>31 == 0 {
			in.flow = flowStop
		} else {
			in.ref[0].use = useCall
		}
	case w&0xff000000 == 0x54000000, w&0x7e000000 == 0x34000000: // b.cond, cbz, cbnz
		branch(0x00ffffe0, w.signed(5, 19))
	case w&0x7e000000 == 0x36000000: // tbz, tbnz
		branch(0x0007ffe0, w.signed(5, 14))
	case w&0x3b000000 == 0x18000000: // ldr, literal
		in.add(ref{use: useAccess, size: [4]uint8{4, 8, 4, 0}[w>>30], value: addr + w.signed(5, 19)<<2})
		if w>>26&1 == 1 {
			in.ref[0].size = 4 << (w >> 30 & 3)
		}
		in.setWord(w, 0x00ffffe0)
	case w&0x9f000000 == 0x10000000: // adr
		in.add(ref{use: useTake, value: addr + w.signed(5, 19)<<2 + w.bits(29, 2)})
		in.setWord(w, 0x60ffffe0)
	case w&0x9f000000 == 0x90000000: // adrp
		in.setWord(w, 0x60ffffe0)
	case w&0xfe1ffc1f == 0xd61f0000 && w.bits(21, 2) != 1, w&0xfffff800 == 0xd71f0800, w&0xfffffbff == 0xd65f0bff: // br, ret, braa, retaa
		in.flow = flowStop
	case w>>16 == 0: // udf
		in.flow = flowStop
	}
}

// stubAArch64: adrp x16, page; ldr x17, [x16, offset]. Or what the linker of patches makes for
// code out of reach: ldr x16, word; ret x16; word.
func stubAArch64(code []byte, addr uint64) (uint64, bool) {
	if len(code) >= 16 && le.Uint64(code) == 0xd65f0200_58000050 {
		return addr + 8, true
	}
	for at := uint64(0); at+8 <= uint64(len(code)) && at < 8; at += 4 {
		w, next := word(le.Uint32(code[at:])), word(le.Uint32(code[at+4:]))
		if w&0x9f00001f == 0x90000010 && next&0xffc003ff == 0xf9400211 {
			return page(w, addr+at) + next.bits(10, 12)<<3, true
		}
		if w&0xffffff3f != 0xd503241f { // bti
			break
		}
	}
	return 0, false
}

// veneerAArch64: what ld.bfd, gold and lld make, adrp x16, page; add x16, x16, offset; br x16, or
// ldr x16, word; br x16; word.
func veneerAArch64(code []byte, addr uint64) (uint64, bool) {
	const brX16 = 0xd61f0200
	if len(code) < 12 {
		return 0, false
	}
	first, second := word(le.Uint32(code)), word(le.Uint32(code[4:]))
	switch {
	case first&0x9f00001f == 0x90000010 && second&0xffc003ff == 0x91000210 && le.Uint32(code[8:]) == brX16:
		return page(first, addr) + second.bits(10, 12), true
	case len(code) >= 16 && first == 0x58000050 && second == brX16:
		return le.Uint64(code[8:]), true
	}
	return 0, false
}

// page is what an adrp at addr yields.
func page(w word, addr uint64) uint64 {
	return addr&^0xfff + w.signed(5, 19)<<14 + w.bits(29, 2)<<12
}

// directAArch64 makes add of a load.
func directAArch64(in *insn) (shape [maxInsn + 1]byte) {
	le.PutUint32(shape[:], 0x91000000|le.Uint32(in.shape[:])&0x3ff)
	return shape
}
