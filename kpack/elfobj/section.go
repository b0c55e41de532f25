package elfobj

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"

	"github.com/fother/fother/specs"
)

// Section is one section of a [File].
type Section struct {
	Name string
	Type elf.SectionType
	// Flags has the bits of elf.SectionFlag, and those of the processor.
	Flags elf.SectionFlag
	// Addr is the link-time address, 0 in relocatable objects.
	Addr specs.VAddr
	// Offset is the file offset of the data.
	Offset uint64
	// Size is the number of bytes in memory; those of SHT_NOBITS sections are
	// not in the file.
	Size    uint64
	Align   uint64 // a power of two, or 0
	Entsize uint64
	Link    uint32
	Info    uint32

	data []byte
}

// Data returns the section's bytes, nil for SHT_NOBITS. It refuses compressed
// sections (SHF_COMPRESSED), which only debug information uses: see
// [Section.Uncompressed].
func (s *Section) Data() ([]byte, error) {
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		return nil, fmt.Errorf("%s: compressed sections are not supported", s.Name)
	}
	return s.data, nil
}

// Section returns the first section called name, or nil.
func (f *File) Section(name string) *Section {
	for i := range f.Sections {
		if f.Sections[i].Name == name {
			return &f.Sections[i]
		}
	}
	return nil
}

// sectionName names section n for errors.
func (f *File) sectionName(n int) string {
	if n < 0 || n >= len(f.Sections) || f.Sections[n].Name == "" {
		return fmt.Sprintf("section %d", n)
	}
	return f.Sections[n].Name
}

func (f *File) parseSections(h *header) error {
	if h.shoff == 0 {
		return nil
	}
	first, ok := f.slice(h.shoff, shdrSize)
	if !ok {
		return fmt.Errorf("section headers at offset %#x: outside the file", h.shoff)
	}
	// gABI, "Sections": counts that do not fit the header are in section 0.
	count, names := uint64(h.shnum), uint64(h.shstrndx)
	if count == 0 {
		count = le.Uint64(first[32:])
	}
	if names == uint64(elf.SHN_XINDEX) {
		names = uint64(le.Uint32(first[40:]))
	}
	if count > uint64(len(f.data))/shdrSize {
		return fmt.Errorf("section headers: %d of them: outside the file", count)
	}
	table, ok := f.slice(h.shoff, count*shdrSize)
	if !ok {
		return fmt.Errorf("section headers: %d at offset %#x: outside the file", count, h.shoff)
	}
	f.Sections = make([]Section, count)
	for i := range f.Sections {
		if err := f.parseSection(i, table[i*shdrSize:]); err != nil {
			return fmt.Errorf("section %d: %w", i, err)
		}
	}
	if err := f.nameSections(table, names); err != nil {
		return err
	}
	return f.indexRelocs()
}

func (f *File) parseSection(n int, b []byte) error {
	s := &f.Sections[n]
	s.Type, s.Flags = elf.SectionType(le.Uint32(b[4:])), elf.SectionFlag(le.Uint64(b[8:]))
	s.Addr, s.Offset, s.Size = specs.VAddr(le.Uint64(b[16:])), le.Uint64(b[24:]), le.Uint64(b[32:])
	s.Link, s.Info = le.Uint32(b[40:]), le.Uint32(b[44:])
	s.Align, s.Entsize = le.Uint64(b[48:]), le.Uint64(b[56:])
	if s.Type == elf.SHT_NULL {
		return nil // its fields have other meanings
	}
	if s.Align&(s.Align-1) != 0 {
		return fmt.Errorf("alignment %#x is not a power of two", s.Align)
	}
	if uint64(s.Addr)+s.Size < s.Size {
		return errors.New("extent wraps around")
	}
	if s.Type == elf.SHT_NOBITS {
		return nil
	}
	data, ok := f.slice(s.Offset, s.Size)
	if !ok {
		return fmt.Errorf("%#x bytes at offset %#x: outside the file", s.Size, s.Offset)
	}
	s.data = data
	return nil
}

func (f *File) nameSections(table []byte, strndx uint64) error {
	if strndx == 0 {
		return nil
	}
	names, err := f.strings(strndx)
	if err != nil {
		return fmt.Errorf("section names: %w", err)
	}
	for i := range f.Sections {
		if f.Sections[i].Name, err = names.at(le.Uint32(table[i*shdrSize:])); err != nil {
			return fmt.Errorf("section %d: name: %w", i, err)
		}
	}
	return nil
}

// stringTable is the content of a SHT_STRTAB section.
type stringTable string

// strings returns the string table in section n.
func (f *File) strings(n uint64) (stringTable, error) {
	if n >= uint64(len(f.Sections)) {
		return "", fmt.Errorf("string table: no section %d", n)
	}
	s := &f.Sections[n]
	if s.Type != elf.SHT_STRTAB {
		return "", fmt.Errorf("%s: %v is not a string table", f.sectionName(int(n)), s.Type)
	}
	data, err := s.Data()
	return stringTable(data), err
}

// at returns the string at offset off.
func (t stringTable) at(off uint32) (string, error) {
	if off == 0 && len(t) == 0 {
		return "", nil
	}
	if uint64(off) >= uint64(len(t)) {
		return "", fmt.Errorf("string at %#x: outside the string table", off)
	}
	s := string(t[off:])
	n := strings.IndexByte(s, 0)
	if n < 0 {
		return "", fmt.Errorf("string at %#x: not terminated", off)
	}
	return s[:n], nil
}

// entries returns the data of section n, which must consist of entries of
// size bytes each.
func (f *File) entries(n int, size int) ([]byte, error) {
	s := &f.Sections[n]
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	if s.Type == elf.SHT_NOBITS || s.Entsize != uint64(size) || len(data)%size != 0 {
		return nil, fmt.Errorf("%s: %d bytes in entries of %d: want entries of %d", f.sectionName(n), len(data), s.Entsize, size)
	}
	return data, nil
}

// find returns the index of the first section of type t, or -1.
func (f *File) find(t elf.SectionType) int {
	for i := range f.Sections {
		if f.Sections[i].Type == t {
			return i
		}
	}
	return -1
}
