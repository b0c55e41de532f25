package elfobj

import (
	"debug/elf"
	"fmt"
)

// Reloc is an ELF RELA relocation.
type Reloc struct {
	// Offset is the place: an offset in the section in relocatable objects, a
	// link-time address in linked files.
	Offset uint64
	Type   uint32 // R_X86_64_*, R_AARCH64_*
	// Symbol is an index in [File.Symbols], for dynamic relocations in
	// [File.DynSymbols]. 0 is no symbol.
	Symbol int
	Addend int64
}

func decodeReloc(b []byte) Reloc {
	info := le.Uint64(b[8:])
	return Reloc{
		Offset: le.Uint64(b), Type: uint32(info),
		Symbol: int(info >> 32), Addend: int64(le.Uint64(b[16:])),
	}
}

// indexRelocs notes which relocation sections apply to which section.
func (f *File) indexRelocs() error {
	f.relocs = map[int][]int{}
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Type != elf.SHT_RELA && s.Type != elf.SHT_REL || s.Info == 0 || s.Flags&elf.SHF_ALLOC != 0 {
			continue
		}
		if uint64(s.Info) >= uint64(len(f.Sections)) {
			return fmt.Errorf("%s: relocates section %d: no such section", f.sectionName(i), s.Info)
		}
		f.relocs[int(s.Info)] = append(f.relocs[int(s.Info)], i)
	}
	return nil
}

// Relocs returns the relocations that apply to section n, in file order: all
// of a relocatable object, those that ld kept (--emit-relocs) of a linked file.
func (f *File) Relocs(n int) ([]Reloc, error) {
	if n < 0 || n >= len(f.Sections) {
		return nil, f.wrap(fmt.Errorf("relocations of section %d: no such section", n))
	}
	var all []Reloc
	for _, r := range f.relocs[n] {
		relocs, err := f.relocSection(r, n)
		if err != nil {
			return nil, f.wrap(err)
		}
		if all == nil {
			all = relocs
		} else {
			all = append(all, relocs...)
		}
	}
	return all, nil
}

// relocSection reads section r, whose relocations apply to section n.
func (f *File) relocSection(r, n int) ([]Reloc, error) {
	name, s := f.sectionName(r), &f.Sections[r]
	if s.Type == elf.SHT_REL {
		return nil, fmt.Errorf("%s: relocations without addends are not supported", name)
	}
	symtab := f.find(elf.SHT_SYMTAB)
	if symtab < 0 || s.Link != uint32(symtab) {
		return nil, fmt.Errorf("%s: section %d is not the symbol table", name, s.Link)
	}
	data, err := f.entries(r, relaSize)
	if err != nil {
		return nil, err
	}
	symbols := int(f.Sections[symtab].Size / symSize)
	target := &f.Sections[n]
	relocs := make([]Reloc, len(data)/relaSize)
	for i := range relocs {
		relocs[i] = decodeReloc(data[i*relaSize:])
		off := relocs[i].Offset
		if f.Type != elf.ET_REL {
			off -= uint64(target.Addr)
		}
		if off >= target.Size {
			return nil, fmt.Errorf("%s: relocation %d: offset %#x: outside %s", name, i, relocs[i].Offset, f.sectionName(n))
		}
		if relocs[i].Symbol >= symbols {
			return nil, fmt.Errorf("%s: relocation %d: no symbol %d", name, i, relocs[i].Symbol)
		}
	}
	return relocs, nil
}

// DynRelocs returns the relocations that the dynamic linker applies, those of
// DT_RELA before those of DT_JMPREL. Relative relocations in DT_RELR, which
// have no symbol, are not among them. In a file without PT_DYNAMIC they are
// those that a static program's start-up code applies, which have none either
// (x86-64 psABI, R_X86_64_IRELATIVE; likewise AAELF64).
func (f *File) DynRelocs() ([]Reloc, error) {
	t, err := f.dynamic()
	if err != nil {
		return nil, err
	}
	if t == nil {
		return f.startRelocs()
	}
	symbols := 0
	if n := f.find(elf.SHT_DYNSYM); n >= 0 {
		symbols = int(f.Sections[n].Size / symSize)
	}
	rela, err := f.dynRelocs(t, elf.DT_RELA, elf.DT_RELASZ, symbols)
	if err != nil {
		return nil, f.wrap(err)
	}
	// Some linkers let DT_RELASZ take in the PLT's relocations as well.
	lo, hi := t.get(elf.DT_RELA), t.get(elf.DT_RELA)+t.get(elf.DT_RELASZ)
	if plt := t.get(elf.DT_JMPREL); lo <= plt && plt < hi {
		return rela, nil
	}
	plt, err := f.dynRelocs(t, elf.DT_JMPREL, elf.DT_PLTRELSZ, symbols)
	if err != nil {
		return nil, f.wrap(err)
	}
	return append(rela, plt...), nil
}

// startRelocs returns the relocations in the loaded part of a file that is not
// linked dynamically.
func (f *File) startRelocs() (all []Reloc, err error) {
	for i, s := range f.Sections {
		if s.Type != elf.SHT_RELA || s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		data, err := f.entries(i, relaSize)
		if err != nil {
			return nil, f.wrap(err)
		}
		for ; len(data) >= relaSize; data = data[relaSize:] {
			r := decodeReloc(data)
			if r.Symbol != 0 {
				return nil, f.wrap(fmt.Errorf("%s: relocation with symbol %d: there is no dynamic symbol table", f.sectionName(i), r.Symbol))
			}
			all = append(all, r)
		}
	}
	return all, nil
}

func (f *File) dynRelocs(t *dynamicTable, addr, size elf.DynTag, symbols int) ([]Reloc, error) {
	n := t.get(size)
	if n == 0 {
		return nil, nil
	}
	data, ok := f.loaded(t.get(addr), n)
	if !ok || n%relaSize != 0 {
		return nil, fmt.Errorf("%v: %#x bytes at %#x: outside the file", addr, n, t.get(addr))
	}
	relocs := make([]Reloc, n/relaSize)
	for i := range relocs {
		relocs[i] = decodeReloc(data[i*relaSize:])
		if s := relocs[i].Symbol; s != 0 && s >= symbols {
			return nil, fmt.Errorf("%v: relocation %d: no dynamic symbol %d", addr, i, s)
		}
	}
	return relocs, nil
}
