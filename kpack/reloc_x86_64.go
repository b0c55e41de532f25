package kpack

import (
	"debug/elf"
	"encoding/binary"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// machineX86_64 relocates as table 4.9 of the x86-64 psABI says, small code
// model.
var machineX86_64 = &machine{
	arch: arch.X86_64,
	relocs: map[uint32]howto{
		uint32(elf.R_X86_64_64):            {name: "R_X86_64_64", size: 8, put: put64},
		uint32(elf.R_X86_64_PC64):          {name: "R_X86_64_PC64", size: 8, value: valueRel, put: put64},
		uint32(elf.R_X86_64_32):            {name: "R_X86_64_32", size: 4, low: true, put: putU32},
		uint32(elf.R_X86_64_32S):           {name: "R_X86_64_32S", size: 4, low: true, put: putS32},
		uint32(elf.R_X86_64_PC32):          {name: "R_X86_64_PC32", size: 4, value: valueRel, branch: true, put: putS32},
		uint32(elf.R_X86_64_PLT32):         {name: "R_X86_64_PLT32", size: 4, value: valueRel, branch: true, call: true, put: putS32},
		uint32(elf.R_X86_64_GOTPCREL):      {name: "R_X86_64_GOTPCREL", size: 4, value: valueRel, got: true, put: putS32},
		uint32(elf.R_X86_64_GOTPCRELX):     {name: "R_X86_64_GOTPCRELX", size: 4, value: valueRel, got: true, put: putS32},
		uint32(elf.R_X86_64_REX_GOTPCRELX): {name: "R_X86_64_REX_GOTPCRELX", size: 4, value: valueRel, got: true, put: putS32},

		uint32(elf.R_X86_64_TPOFF32):         {name: "R_X86_64_TPOFF32", size: 4, tls: tlsDirect, put: putS32},
		uint32(elf.R_X86_64_TPOFF64):         {name: "R_X86_64_TPOFF64", size: 8, tls: tlsDirect, put: put64},
		uint32(elf.R_X86_64_GOTTPOFF):        {name: "R_X86_64_GOTTPOFF", size: 4, value: valueRel, tls: tlsInitial, put: putS32},
		uint32(elf.R_X86_64_TLSGD):           {name: "R_X86_64_TLSGD", size: 4, value: valueRel, tls: tlsGeneral, put: putS32},
		uint32(elf.R_X86_64_TLSLD):           {name: "R_X86_64_TLSLD", size: 4, value: valueRel, tls: tlsLocal, put: putS32},
		uint32(elf.R_X86_64_DTPOFF32):        {name: "R_X86_64_DTPOFF32", size: 4, tls: tlsInBlock, put: putS32},
		uint32(elf.R_X86_64_DTPOFF64):        {name: "R_X86_64_DTPOFF64", size: 8, tls: tlsInBlock, put: put64},
		uint32(elf.R_X86_64_GOTPC32_TLSDESC): {name: "R_X86_64_GOTPC32_TLSDESC", size: 4, value: valueRel, tls: tlsDescriptor, put: putS32},
	},
	relocName:  func(typ uint32) string { return elf.R_X86_64(typ).String() },
	tls:        tlsX86_64,
	globDat:    uint32(elf.R_X86_64_GLOB_DAT),
	jumpSlot:   uint32(elf.R_X86_64_JMP_SLOT),
	irelative:  uint32(elf.R_X86_64_IRELATIVE),
	relaxed:    relaxedX86_64,
	stubSize:   16,
	stub:       stubX86_64,
	thunkSize:  len(thunkX86_64),
	thunk:      putThunkX86_64,
	countSize:  16,
	count:      countX86_64,
	finderSize: len(finderX86_64),
	finder:     putFinderX86_64,
	hooks:      &hooksX86_64,
	padding:    paddingX86_64,
	redirect:   redirectX86_64,
	jumpsTo:    jumpsToX86_64,
	gateSize:   gateSizeX86_64,
	gate:       gateX86_64,
	move:       moveX86_64,
	undo:       undoX86_64,
	onward: func() ([]byte, int, Reloc) {
		return []byte{0xe9, 0, 0, 0, 0}, 1, Reloc{Type: uint32(elf.R_X86_64_PC32), Addend: -4}
	},
	address:   uint32(elf.R_X86_64_64),
	addresses: addressesX86_64,
	slotCall:  slotCallX86_64,
	pcBias:    pcBiasX86_64,
	maxEntry:  9,
}

func put64(b []byte, v int64) error {
	binary.LittleEndian.PutUint64(b, uint64(v))
	return nil
}

func putU32(b []byte, v int64) error {
	if uint64(v)>>32 != 0 {
		return rangeError(v, 32)
	}
	binary.LittleEndian.PutUint32(b, uint32(v))
	return nil
}

func putS32(b []byte, v int64) error {
	if !fits(v, 32) {
		return rangeError(v, 32)
	}
	binary.LittleEndian.PutUint32(b, uint32(v))
	return nil
}

// relaxedX86_64: ld turns loads from the GOT into lea, mov of an immediate or
// direct calls (psABI B.2), and TLS sequences into shorter models (11.1.2).
func relaxedX86_64(typ uint32) (before, after int) {
	switch elf.R_X86_64(typ) {
	case elf.R_X86_64_GOTPCRELX, elf.R_X86_64_REX_GOTPCRELX, elf.R_X86_64_GOTPCREL, elf.R_X86_64_GOTTPOFF:
		return 3, 1
	case elf.R_X86_64_TLSGD, elf.R_X86_64_TLSLD, elf.R_X86_64_GOTPC32_TLSDESC, elf.R_X86_64_TLSDESC_CALL:
		return 4, 12
	}
	return 0, 0
}

// stubX86_64 is a PLT entry: endbr64; jmp *slot(%rip).
func stubX86_64(dst []byte, at, slot specs.Addr) error {
	n := copy(dst, []byte{0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25})
	for i := n + 4; i < 16; i++ {
		dst[i] = 0xcc
	}
	return putS32(dst[n:], int64(slot-at)-int64(n+4))
}

// thunkX86_64 saves what psABI 3.2.3 lets a caller pass in registers (and r10,
// r11, which are nobody's), calls the resolver, and goes where it says. The
// three gaps are filled by putThunkX86_64.
var thunkX86_64 = []byte{
	0xf3, 0x0f, 0x1e, 0xfa, // endbr64
	0x50, 0x57, 0x56, 0x52, 0x51, // push rax, rdi, rsi, rdx, rcx
	0x41, 0x50, 0x41, 0x51, 0x41, 0x52, 0x41, 0x53, // push r8, r9, r10, r11
	0x48, 0x81, 0xec, 0x80, 0x00, 0x00, 0x00, // sub $128, %rsp
	0x0f, 0x11, 0x04, 0x24, // movups %xmm0, (%rsp)
	0x0f, 0x11, 0x4c, 0x24, 0x10, 0x0f, 0x11, 0x54, 0x24, 0x20, 0x0f, 0x11, 0x5c, 0x24, 0x30, // xmm1 … xmm3
	0x0f, 0x11, 0x64, 0x24, 0x40, 0x0f, 0x11, 0x6c, 0x24, 0x50, 0x0f, 0x11, 0x74, 0x24, 0x60, // xmm4 … xmm6
	0x0f, 0x11, 0x7c, 0x24, 0x70, // xmm7
	0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, // movabs $resolver, %rax
	0xff, 0xd0, // call *%rax
	0x48, 0x89, 0x05, 0, 0, 0, 0, // mov %rax, slot(%rip)
	0x0f, 0x10, 0x04, 0x24, // movups (%rsp), %xmm0
	0x0f, 0x10, 0x4c, 0x24, 0x10, 0x0f, 0x10, 0x54, 0x24, 0x20, 0x0f, 0x10, 0x5c, 0x24, 0x30,
	0x0f, 0x10, 0x64, 0x24, 0x40, 0x0f, 0x10, 0x6c, 0x24, 0x50, 0x0f, 0x10, 0x74, 0x24, 0x60,
	0x0f, 0x10, 0x7c, 0x24, 0x70,
	0x48, 0x81, 0xc4, 0x80, 0x00, 0x00, 0x00, // add $128, %rsp
	0x41, 0x5b, 0x41, 0x5a, 0x41, 0x59, 0x41, 0x58, // pop r11, r10, r9, r8
	0x59, 0x5a, 0x5e, 0x5f, 0x58, // pop rcx, rdx, rsi, rdi, rax
	0xff, 0x25, 0, 0, 0, 0, // jmp *slot(%rip)
	0xcc, 0xcc, 0xcc,
}

// Offsets in thunkX86_64 of the resolver's address and of the two
// displacements to the slot.
const (
	thunkResolver = 65
	thunkStore    = thunkResolver + 8 + 2 + 3
	thunkJump     = thunkStore + 4 + 39 + 7 + 8 + 5 + 2
)

func putThunkX86_64(dst []byte, at, slot, resolver specs.Addr) error {
	copy(dst, thunkX86_64)
	binary.LittleEndian.PutUint64(dst[thunkResolver:], uint64(resolver))
	if err := putS32(dst[thunkStore:], int64(slot-at)-thunkStore-4); err != nil {
		return err
	}
	return putS32(dst[thunkJump:], int64(slot-at)-thunkJump-4)
}

// endbr64 is the landing pad of indirect branches under CET; it stays.
var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

func redirectX86_64(entry []byte, from, to specs.Addr) (specs.Addr, []byte, error) {
	site := from
	if len(entry) >= len(endbr64) && string(entry[:len(endbr64)]) == string(endbr64) {
		site += specs.Addr(len(endbr64))
	}
	if need := int(site-from) + arch.X86_64.JumpSize; len(entry) < need {
		return 0, nil, tooShort(need, len(entry))
	}
	code := make([]byte, arch.X86_64.JumpSize)
	code[0] = 0xe9
	if err := putS32(code[1:], int64(to-site)-int64(len(code))); err != nil {
		return 0, nil, err
	}
	return site, code, nil
}

// paddingX86_64 knows int3, zeros, and the nops of GNU as: any number of 66
// and 2e prefixes, then 90 or 0f 1f with a memory operand.
func paddingX86_64(b []byte) int {
	n := 0
	for n < len(b) {
		if b[n] == 0xcc || b[n] == 0 {
			n++
			continue
		}
		i := n
		for i < len(b) && (b[i] == 0x66 || b[i] == 0x2e) {
			i++
		}
		switch {
		case i < len(b) && b[i] == 0x90:
			i++
		case i+2 < len(b) && b[i] == 0x0f && b[i+1] == 0x1f:
			i += nopOperand(b[i+2:]) + 2
		default:
			return n
		}
		if i > len(b) {
			return n
		}
		n = i
	}
	return n
}

// nopOperand returns the length of the ModRM, SIB and displacement bytes of a
// memory operand based on rax.
func nopOperand(b []byte) int {
	n := 1
	if b[0]&7 == 4 {
		n++
	}
	switch b[0] >> 6 {
	case 1:
		n++
	case 2:
		n += 4
	}
	return n
}
