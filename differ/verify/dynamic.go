package verify

import (
	"debug/elf"
	"fmt"
	"math/bits"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/arch"
)

// relocKind says what the dynamic linker puts in a place.
type relocKind uint8

const (
	relocRelative relocKind = iota // the address addend
	relocSymbol                    // the address of a symbol, plus addend
	relocIndirect                  // what the function at addend returns
	relocCopy                      // the initial content of an imported object
	relocTLS                       // something of thread-local storage
)

// relocNone is R_X86_64_NONE and R_AARCH64_NONE, which does nothing: linkers
// leave it where they set aside more room than they needed.
const relocNone = 0

// dynReloc is a dynamic relocation.
type dynReloc struct {
	kind   relocKind
	typ    uint32
	sym    string // NAME or NAME@VERSION
	addend uint64
}

// isa is what the package knows of an architecture.
type isa struct {
	arch *arch.Arch
	// decode reads the instruction at the start of code, which is not empty.
	decode func(code []byte, addr uint64, in *insn)
	// track finds addresses that take more than one instruction, or is nil.
	track func(code []insn, e *entity)
	// fuse joins instructions that stand for one of another build, or is nil.
	fuse  func(code []insn, im *image) []insn
	kinds map[uint32]relocKind
	// tlsModule is the relocation for the number of an object's TLS block,
	// which in the GOT comes before an offset in it.
	tlsModule uint32
	// tlsOffset is the relocation for an offset from the thread pointer,
	// tlsDescriptor that for a descriptor.
	tlsOffset, tlsDescriptor uint32
	// tlsStatic is the code of descriptors whose second word is an offset from
	// the thread pointer: it returns that word.
	tlsStatic []byte
	// veneer returns where the code at addr leads, if it is what a linker makes for
	// code that a branch does not reach; nil where linkers make none.
	veneer func(code []byte, addr uint64) (to uint64, ok bool)
	// stub returns the GOT slot through which the code at addr jumps at once.
	stub func(code []byte, addr uint64) (slot uint64, ok bool)
	// tpOffset is the offset in the TLS block of what lies at offset v from
	// the thread pointer.
	tpOffset func(t *tlsBlock, v uint64) uint64
	// direct is the shape of an instruction with via set when the GOT is not
	// gone through.
	direct func(in *insn) [maxInsn + 1]byte
	text   func(code []byte, addr uint64) string
}

var isas = []*isa{isaX86_64, isaAArch64}

var isaX86_64 = &isa{
	arch:   arch.X86_64,
	decode: decodeX86_64,
	fuse:   fuseX86_64,
	kinds: map[uint32]relocKind{
		uint32(elf.R_X86_64_RELATIVE): relocRelative, uint32(elf.R_X86_64_64): relocSymbol,
		uint32(elf.R_X86_64_GLOB_DAT): relocSymbol, uint32(elf.R_X86_64_JMP_SLOT): relocSymbol,
		uint32(elf.R_X86_64_IRELATIVE): relocIndirect, uint32(elf.R_X86_64_COPY): relocCopy,
		uint32(elf.R_X86_64_TPOFF64): relocTLS, uint32(elf.R_X86_64_DTPMOD64): relocTLS,
		uint32(elf.R_X86_64_DTPOFF64): relocTLS, uint32(elf.R_X86_64_TLSDESC): relocTLS,
	},
	tlsModule:     uint32(elf.R_X86_64_DTPMOD64),
	tlsOffset:     uint32(elf.R_X86_64_TPOFF64),
	tlsDescriptor: uint32(elf.R_X86_64_TLSDESC),
	tlsStatic:     []byte("\xf3\x0f\x1e\xfa\x48\x8b\x40\x08\xc3"), // endbr64; mov 8(%rax), %rax; ret
	stub:          stubX86_64,
	tpOffset:      func(t *tlsBlock, v uint64) uint64 { return v + t.size },
	direct:        directX86_64,
	text:          textX86_64,
}

// readRelocs reads all relocation sections that are loaded.
func (im *image) readRelocs(f *elfobj.File) error {
	im.relocs = map[uint64]dynReloc{}
	var syms []elfobj.Symbol
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Flags&elf.SHF_ALLOC == 0 || s.Type != elf.SHT_RELA && s.Type != shtRelr {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		if s.Type == shtRelr {
			im.readRelr(data)
			continue
		}
		if syms == nil && f.Section(".dynsym") != nil {
			if syms, err = f.DynSymbols(); err != nil {
				return err
			}
		}
		for ; len(data) >= 24; data = data[24:] {
			if err := im.reloc(data, syms); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
	}
	return nil
}

// reloc notes one relocation.
func (im *image) reloc(b []byte, syms []elfobj.Symbol) error {
	info := le.Uint64(b[8:])
	r := dynReloc{typ: uint32(info), addend: le.Uint64(b[16:])}
	if r.typ == relocNone {
		return nil
	}
	kind, ok := im.isa.kinds[r.typ]
	if !ok {
		return fmt.Errorf("relocation type %d is not known", r.typ)
	}
	r.kind = kind
	if n := info >> 32; n != 0 {
		if n >= uint64(len(syms)) {
			return fmt.Errorf("no dynamic symbol %d", n)
		}
		s := &syms[n]
		if r.sym = s.Name; s.Version != "" {
			r.sym += "@" + s.Version
		}
	}
	im.relocs[le.Uint64(b)] = r
	return nil
}

// shtRelr is SHT_RELR.
const shtRelr = 19

// readRelr reads relative relocations in their short form: an address, then
// bit maps of the 63 words that follow. Source: gABI, "Relative Relocations".
func (im *image) readRelr(data []byte) {
	var where uint64
	note := func(at uint64) {
		if v, ok := im.word(at); ok {
			im.relocs[at] = dynReloc{kind: relocRelative, addend: v}
		}
	}
	for ; len(data) >= 8; data = data[8:] {
		e := le.Uint64(data)
		if e&1 == 0 {
			note(e)
			where = e + 8
			continue
		}
		for m := e >> 1; m != 0; m &= m - 1 {
			note(where + 8*uint64(bits.TrailingZeros64(m)))
		}
		where += 63 * 8
	}
}

// stubX86_64 returns the slot through which the code at addr jumps at once.
func stubX86_64(code []byte, addr uint64) (uint64, bool) {
	var in insn
	for at := 0; at < len(code); at += int(in.size) {
		decodeX86_64(code[at:], addr+uint64(at), &in)
		if in.via && in.flow == flowStop {
			return in.ref[0].value, true
		}
		number := in.shape[0] == 0x41 && in.shape[1] == 0xbb // mov $n, %r11d in mold's entries
		if !in.nop && in.shape[0] != 0xf3 && !number {
			break // more than a landing pad
		}
	}
	return 0, false
}
