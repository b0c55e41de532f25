package apply

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fother/fother/specs"
)

// Symbol is a new function in a process.
type Symbol struct {
	// Name is that of the original with ".kpatch" behind it, by which the two can
	// be told apart.
	Name  string                  `json:"name"`
	Range specs.Range[specs.Addr] `json:"range"`
	Patch specs.PatchID           `json:"patch"`
}

// symbolSuffix is what tells the new function from the original.
const symbolSuffix = ".kpatch"

// Symbols are the functions of the patches that a selector names, without
// selectors of all. Those of patches that are out of use are among them as long
// as their memory is there: threads may be inside.
func (p *Process) Symbols(which ...Selector) []Symbol {
	var all []Symbol
	for _, r := range p.records {
		if selected(which, r) {
			all = append(all, r.symbols()...)
		}
	}
	return all
}

func (r *record) symbols() []Symbol {
	var all []Symbol
	for _, f := range r.Functions {
		end := max(f.Entry+1, f.Entry+specs.Addr(f.Size)) // of unknown size
		all = append(all, Symbol{f.Name + symbolSuffix, specs.Range[specs.Addr]{Lo: f.Entry, Hi: end}, r.ID})
	}
	return all
}

// errSeveral is an error of SymbolFile.
var errSeveral = errors.New("several patches are applied: a symbol file is for one; name its build-id and series")

// SymbolFile returns an ELF file for debuggers that describes the code of one
// patch where it lies in the process: symbols, and call frame information, by
// which a debugger finds the callers. It holds no code.
//
// Errors: [ErrNotApplied]; that several patches are named.
func (p *Process) SymbolFile(which ...Selector) ([]byte, error) {
	var one *record
	for _, r := range p.records {
		if r.state != applied || !selected(which, r) {
			continue
		}
		if one != nil {
			return nil, errSeveral
		}
		one = r
	}
	if one == nil || len(p.objects) == 0 {
		return nil, ErrNotApplied
	}
	frames := make([]byte, one.Frames.Size)
	if err := readFull(p.mem, one.Base+specs.Addr(one.Frames.Offset), frames); err != nil {
		return nil, fmt.Errorf("record at %v: %w", one.Base, err)
	}
	return symbolFile(p.objects[0].image.Arch.Machine, one, frames), nil
}

// symbolFile writes the sections .text (without contents), .eh_frame, .symtab
// and .strtab. Source: gABI, chapter 4.
func symbolFile(machine elf.Machine, r *record, frames []byte) []byte {
	const header, section = 64, 64
	text := r.text()
	names := []byte("\x00.text\x00.eh_frame\x00.symtab\x00.strtab\x00")
	name := func(s string) uint32 { return uint32(bytes.Index(names, []byte("\x00"+s+"\x00")) + 1) }
	sections := []elf.Section64{{},
		{Name: name(".text"), Type: uint32(elf.SHT_NOBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: uint64(text.Lo), Off: header, Size: text.Size(), Addralign: 16},
		{Name: name(".eh_frame"), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Addr: uint64(r.Base) + r.Frames.Offset, Off: header, Size: uint64(len(frames)), Addralign: 8},
		{Name: name(".symtab"), Type: uint32(elf.SHT_SYMTAB), Link: 4, Info: 1, Addralign: 8, Entsize: elf.Sym64Size},
		{Name: name(".strtab"), Type: uint32(elf.SHT_STRTAB), Addralign: 1},
	}
	symbols := []elf.Sym64{{}}
	for _, s := range r.symbols() {
		symbols = append(symbols, elf.Sym64{
			Name: uint32(len(names)), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1, Value: uint64(s.Range.Lo), Size: s.Range.Size(),
		})
		names = append(append(names, s.Name...), 0)
	}
	contents := append([]byte{}, frames...)
	contents = append(contents, make([]byte, -len(contents)&7)...)
	sections[3].Off, sections[3].Size = header+uint64(len(contents)), elf.Sym64Size*uint64(len(symbols))
	for _, s := range symbols {
		contents, _ = binary.Append(contents, binary.LittleEndian, s)
	}
	sections[4].Off, sections[4].Size = header+uint64(len(contents)), uint64(len(names))
	contents = append(contents, names...)
	contents = append(contents, make([]byte, -len(contents)&7)...)
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Shoff: header + uint64(len(contents)),
		Ehsize: header, Shentsize: section, Shnum: uint16(len(sections)), Shstrndx: 4,
	}
	copy(h.Ident[:], []byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)})
	b, _ := binary.Append(nil, binary.LittleEndian, h) // fixed sizes: no error
	b = append(b, contents...)
	for _, s := range sections {
		b, _ = binary.Append(b, binary.LittleEndian, s)
	}
	return b
}
