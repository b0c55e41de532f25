package elfobj

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// Sizes of ELF64 structures, in bytes. Source: gABI, "ELF-64 Object File
// Format".
const (
	ehdrSize = 64
	phdrSize = 56
	shdrSize = 64
	symSize  = 24
	relaSize = 24
	dynSize  = 16
)

// pnXNum in e_phnum says that the count is in section 0's sh_info.
const pnXNum = 0xffff

// ErrNotELF is returned for data that does not begin with the ELF magic.
var ErrNotELF = errors.New("not an ELF file")

var le = binary.LittleEndian

// header is what is needed of an ELF header.
type header struct {
	arch             *arch.Arch
	typ              elf.Type
	entry            specs.VAddr
	flags            uint32
	phoff, shoff     uint64
	phnum, shnum     int
	phentsz, shentsz int
	shstrndx         int
}

// parseHeader reads the ELF header at the start of b.
func parseHeader(b []byte) (header, error) {
	if len(b) < len(elf.ELFMAG) || !bytes.Equal(b[:4], []byte(elf.ELFMAG)) {
		return header{}, ErrNotELF
	}
	if len(b) < ehdrSize {
		return header{}, fmt.Errorf("ELF header: %d bytes: want %d", len(b), ehdrSize)
	}
	if c := elf.Class(b[elf.EI_CLASS]); c != elf.ELFCLASS64 {
		return header{}, fmt.Errorf("%v is not supported: want a 64-bit file", c)
	}
	if d := elf.Data(b[elf.EI_DATA]); d != elf.ELFDATA2LSB {
		return header{}, fmt.Errorf("%v is not supported: want a little-endian file", d)
	}
	if v := b[elf.EI_VERSION]; v != byte(elf.EV_CURRENT) {
		return header{}, fmt.Errorf("ELF version %d is not supported", v)
	}
	a, err := arch.ByMachine(elf.Machine(le.Uint16(b[18:])))
	if err != nil {
		return header{}, err
	}
	h := header{
		arch:  a,
		typ:   elf.Type(le.Uint16(b[16:])),
		entry: specs.VAddr(le.Uint64(b[24:])),
		phoff: le.Uint64(b[32:]), shoff: le.Uint64(b[40:]),
		flags:   le.Uint32(b[48:]),
		phentsz: int(le.Uint16(b[54:])), phnum: int(le.Uint16(b[56:])),
		shentsz: int(le.Uint16(b[58:])), shnum: int(le.Uint16(b[60:])),
		shstrndx: int(le.Uint16(b[62:])),
	}
	return h, h.check()
}

func (h *header) check() error {
	switch h.typ {
	case elf.ET_REL, elf.ET_EXEC, elf.ET_DYN:
	default:
		return fmt.Errorf("file type %v is not supported", h.typ)
	}
	if h.phnum > 0 && h.phentsz != phdrSize {
		return fmt.Errorf("program headers of %d bytes: want %d", h.phentsz, phdrSize)
	}
	if h.shoff > 0 && h.shentsz != shdrSize {
		return fmt.Errorf("section headers of %d bytes: want %d", h.shentsz, shdrSize)
	}
	return nil
}

// parseSegment reads one program header and checks that its extents do not
// wrap around.
func parseSegment(b []byte) (elf.ProgHeader, error) {
	p := elf.ProgHeader{
		Type: elf.ProgType(le.Uint32(b)), Flags: elf.ProgFlag(le.Uint32(b[4:])),
		Off: le.Uint64(b[8:]), Vaddr: le.Uint64(b[16:]), Paddr: le.Uint64(b[24:]),
		Filesz: le.Uint64(b[32:]), Memsz: le.Uint64(b[40:]), Align: le.Uint64(b[48:]),
	}
	if p.Type == elf.PT_LOAD && p.Filesz > p.Memsz {
		return p, fmt.Errorf("%#x bytes in the file, but only %#x in memory", p.Filesz, p.Memsz)
	}
	if p.Vaddr+p.Memsz < p.Vaddr || p.Off+p.Filesz < p.Off {
		return p, errors.New("extent wraps around")
	}
	return p, nil
}

// loadRange returns the range of link-time addresses that the PT_LOAD
// segments take up, and whether there is any.
func loadRange(segs []elf.ProgHeader) (specs.Range[specs.VAddr], bool) {
	var r specs.Range[specs.VAddr]
	found := false
	for _, p := range segs {
		if p.Type != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		lo, hi := specs.VAddr(p.Vaddr), specs.VAddr(p.Vaddr+p.Memsz)
		if !found {
			r, found = specs.Range[specs.VAddr]{Lo: lo, Hi: hi}, true
			continue
		}
		r.Lo, r.Hi = min(r.Lo, lo), max(r.Hi, hi)
	}
	return r, found
}
