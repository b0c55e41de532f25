package elfobj

import (
	"debug/elf"
	"fmt"
)

// Symbol is an entry of a symbol table.
type Symbol struct {
	// Name is the symbol's name; that of a section symbol without a name is
	// the section's name, as readelf(1) shows it.
	Name string
	Type elf.SymType
	Bind elf.SymBind
	Vis  elf.SymVis
	// Other is st_other: Vis in its two lowest bits, then the processor's,
	// such as STO_AARCH64_VARIANT_PCS (0x80).
	Other byte
	// Section is the index of the section that defines the symbol, or one of
	// elf.SHN_UNDEF, SHN_ABS, SHN_COMMON and the processor's. In files with
	// more than 65279 sections an index may look like one of these: ask
	// [Symbol.InSection].
	Section elf.SectionIndex
	// Extended is set if Section comes from SHT_SYMTAB_SHNDX, and so is an
	// index whatever its value.
	Extended bool
	// Value is an offset in Section in relocatable objects, a link-time
	// address in linked files, a run-time address in a Symbol that
	// [Image.Lookup] returned. That of SHN_COMMON is an alignment, that of
	// STT_TLS an offset in the object's TLS block.
	Value uint64
	Size  uint64 // bytes, 0 if not known

	// Version is the symbol version of a dynamic symbol, such as GLIBC_2.14,
	// or empty. Source: LSB core, "Symbol Versioning".
	Version string
	// VersionHidden is set if the version is not the default one: references
	// without a version do not find it.
	VersionHidden bool
	// Library is the name (DT_NEEDED) of the object that an undefined
	// dynamic symbol's version is expected from, or empty.
	Library string
}

// Defined reports whether the file defines s, rather than refer to it.
func (s *Symbol) Defined() bool { return s.Extended || s.Section != elf.SHN_UNDEF }

// InSection returns the index of the section that defines s, and whether
// there is one: not for undefined, absolute and common symbols.
func (s *Symbol) InSection() (int, bool) {
	if s.Extended || s.Section > elf.SHN_UNDEF && s.Section < elf.SHN_LORESERVE {
		return int(s.Section), true
	}
	return 0, false
}

// decodeSymbol reads an ELF64_Sym but for its name.
func decodeSymbol(b []byte) Symbol {
	return Symbol{
		Type: elf.ST_TYPE(b[4]), Bind: elf.ST_BIND(b[4]), Vis: elf.ST_VISIBILITY(b[5]), Other: b[5],
		Section: elf.SectionIndex(le.Uint16(b[6:])), Value: le.Uint64(b[8:]), Size: le.Uint64(b[16:]),
	}
}

// Symbols returns the symbols of .symtab in file order; index 0 is the empty
// symbol, so that the indices of relocations hold. The error is [ErrNoSymbols]
// if the file has no .symtab (it was stripped).
func (f *File) Symbols() ([]Symbol, error) { return f.symbols() }

// DynSymbols returns the symbols of .dynsym in file order, likewise, with
// their versions.
func (f *File) DynSymbols() ([]Symbol, error) { return f.dynsyms() }

func (f *File) readSymbols() ([]Symbol, error) {
	n := f.find(elf.SHT_SYMTAB)
	if n < 0 {
		return nil, f.wrap(ErrNoSymbols)
	}
	syms, err := f.symbolTable(n)
	return syms, f.wrap(err)
}

func (f *File) readDynSymbols() ([]Symbol, error) {
	n := f.find(elf.SHT_DYNSYM)
	if n < 0 {
		return nil, f.wrap(fmt.Errorf("dynamic symbols: %w", ErrNoSymbols))
	}
	syms, err := f.symbolTable(n)
	if err != nil {
		return nil, f.wrap(err)
	}
	if err := f.addVersions(n, syms); err != nil {
		return nil, f.wrap(err)
	}
	return syms, nil
}

// symbolTable reads the symbol table in section n.
func (f *File) symbolTable(n int) ([]Symbol, error) {
	name := f.sectionName(n)
	data, err := f.entries(n, symSize)
	if err != nil {
		return nil, err
	}
	names, err := f.strings(uint64(f.Sections[n].Link))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	extended, err := f.extendedIndices(n, len(data)/symSize)
	if err != nil {
		return nil, err
	}
	syms := make([]Symbol, len(data)/symSize)
	for i := range syms {
		b := data[i*symSize:]
		syms[i] = decodeSymbol(b)
		s := &syms[i]
		if s.Name, err = names.at(le.Uint32(b)); err != nil {
			return nil, fmt.Errorf("%s: symbol %d: name: %w", name, i, err)
		}
		if err := f.resolveSection(s, extended, i); err != nil {
			return nil, fmt.Errorf("%s: symbol %q (%d): %w", name, s.Name, i, err)
		}
	}
	return syms, nil
}

// resolveSection completes and checks symbol i's section.
func (f *File) resolveSection(s *Symbol, extended []byte, i int) error {
	if s.Section == elf.SHN_XINDEX {
		if extended == nil {
			return fmt.Errorf("extended section index without SHT_SYMTAB_SHNDX")
		}
		s.Section, s.Extended = elf.SectionIndex(le.Uint32(extended[4*i:])), true
	}
	n, ok := s.InSection()
	if !ok {
		return nil
	}
	if n <= 0 || n >= len(f.Sections) {
		return fmt.Errorf("no section %d", n)
	}
	if s.Type == elf.STT_SECTION && s.Name == "" {
		s.Name = f.Sections[n].Name
	}
	return nil
}

// extendedIndices returns the SHT_SYMTAB_SHNDX data of the symbol table in
// section n, which has count symbols, or nil if there is none.
func (f *File) extendedIndices(n, count int) ([]byte, error) {
	for i := range f.Sections {
		if f.Sections[i].Type != elf.SHT_SYMTAB_SHNDX || f.Sections[i].Link != uint32(n) {
			continue
		}
		data, err := f.Sections[i].Data()
		if err == nil && len(data) < 4*count {
			err = fmt.Errorf("%s: %d bytes for %d symbols", f.sectionName(i), len(data), count)
		}
		return data, err
	}
	return nil, nil
}
