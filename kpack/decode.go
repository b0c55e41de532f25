package kpack

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

var (
	// ErrNotPatch is the class of files that are not .kpatch files at all.
	ErrNotPatch = errors.New("not a .kpatch file")
	// ErrDamaged is the class of .kpatch files whose content is not what was
	// written.
	ErrDamaged = errors.New("damaged")
)

// Bounds of a patch's texts, in bytes.
const (
	maxVersionName = 255
	maxText        = 64 << 10
)

// libcareMagic begins the patch files of LibCare and LibcarePlus.
var libcareMagic = []byte("KPATCH1")

// Decode reads a .kpatch file. It checks the digest over the whole file first,
// and then every index, offset and size, so that a patch that it returns can
// be laid out and linked without further checks.
func Decode(data []byte) (*Patch, error) {
	if bytes.HasPrefix(data, libcareMagic) {
		return nil, fmt.Errorf("%w: it was made for LibCare; make it again with fother-make", ErrNotPatch)
	}
	f, err := elfobj.Parse(data)
	if errors.Is(err, elfobj.ErrNotELF) {
		return nil, fmt.Errorf("%w: %w", ErrNotPatch, err)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if f.Type != elf.ET_REL || f.Section(sectionNote) == nil {
		return nil, fmt.Errorf("%w: it has no section %s", ErrNotPatch, sectionNote)
	}
	p, err := decode(f, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return p, nil
}

func decode(f *elfobj.File, data []byte) (*Patch, error) {
	d := &decoder{file: f, data: data, patch: &Patch{Arch: f.Arch}}
	for _, step := range []func() error{d.notes, d.sections, d.symbols, d.imports, d.threads, d.relocs, d.functions, d.hooks} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d.patch, nil
}

// decoder holds the state of one Decode.
type decoder struct {
	file     *elfobj.File
	data     []byte
	patch    *Patch
	section  map[int]int // ELF section index -> index in Patch.Sections
	original int         // ELF section index of .kpatch.original
	block    int         // that of .kpatch.tls, or 0
	elf      []elfobj.Symbol
}

// content returns the bytes of a section that has to be there.
func (d *decoder) content(name string) ([]byte, error) {
	s := d.file.Section(name)
	if s == nil {
		return nil, fmt.Errorf("section %s is missing", name)
	}
	return s.Data()
}

func (d *decoder) notes() error {
	b, err := d.content(sectionNote)
	if err != nil {
		return err
	}
	start := d.file.Section(sectionNote).Offset
	notes := map[uint32][]byte{}
	for at := 0; at+noteHeaderSize <= len(b); {
		size, typ := binary.LittleEndian.Uint32(b[at+4:]), binary.LittleEndian.Uint32(b[at+8:])
		at += noteHeaderSize
		if uint64(size) > uint64(len(b)-at) {
			return fmt.Errorf("section %s: note %d is longer than the section", sectionNote, typ)
		}
		notes[typ] = b[at : at+int(size)]
		if typ == noteDigest {
			if err := d.digest(start+uint64(at), notes[typ]); err != nil {
				return err
			}
		}
		at += int(alignUp(uint64(size), 4))
	}
	if v := notes[noteVersion]; len(v) != 4 || binary.LittleEndian.Uint32(v) != Version {
		return fmt.Errorf("format version %x: this program reads version %d", v, Version)
	}
	if notes[noteDigest] == nil {
		return errors.New("has no digest")
	}
	if d.patch.Target.BuildID, err = specs.NewBuildID(notes[noteBuildID]); err != nil {
		return err
	}
	image := notes[noteImage]
	if len(image) != 16 {
		return errors.New("has no image range")
	}
	d.patch.Target.Image.Lo = specs.VAddr(binary.LittleEndian.Uint64(image))
	d.patch.Target.Image.Hi = specs.VAddr(binary.LittleEndian.Uint64(image[8:]))
	return nil
}

// digest checks the SHA-256 of the whole file, with the digest itself zeroed.
func (d *decoder) digest(at uint64, want []byte) error {
	h := sha256.New()
	h.Write(d.data[:at])
	h.Write(make([]byte, len(want)))
	h.Write(d.data[at+uint64(len(want)):])
	if len(want) != sha256.Size || !bytes.Equal(h.Sum(nil), want) {
		return errors.New("the digest does not match the content")
	}
	return nil
}

// maxSections bounds the sections of memory in a patch; Build makes at most one
// of each name in kinds.
const maxSections = 16

func (d *decoder) sections() error {
	d.section = map[int]int{}
	total := uint64(0)
	for i := range d.file.Sections {
		s := &d.file.Sections[i]
		if s.Name == sectionOriginal {
			d.original = i
		}
		if s.Name == sectionTLS && s.Flags&elf.SHF_ALLOC == 0 {
			d.block, d.patch.Target.Threads = i, s.Size
		}
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		kind := ROData
		switch {
		case s.Flags&elf.SHF_EXECINSTR != 0:
			kind = Text
		case s.Flags&elf.SHF_WRITE != 0 && s.Type == elf.SHT_NOBITS:
			kind = BSS
		case s.Flags&elf.SHF_WRITE != 0:
			kind = Data
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		total += s.Size
		writable := s.Flags&elf.SHF_WRITE != 0
		if kind == Text && writable || s.Flags&elf.SHF_TLS != 0 || s.Align > maxAlign || s.Size > maxMemory || total > maxMemory || kind != BSS && uint64(len(data)) != s.Size {
			return fmt.Errorf("section %s: flags %v, alignment %d or size %d is not allowed", s.Name, s.Flags, s.Align, s.Size)
		}
		if s.Name == SectionGate && kind != Text {
			return fmt.Errorf("section %s: is not code", s.Name)
		}
		if slices.ContainsFunc(d.patch.Sections, func(have Section) bool { return have.Name == s.Name }) {
			return fmt.Errorf("section %s: there are two", s.Name)
		}
		if len(d.patch.Sections) == maxSections {
			return fmt.Errorf("more than %d sections of memory", maxSections)
		}
		d.section[i] = len(d.patch.Sections)
		d.patch.Sections = append(d.patch.Sections, Section{Name: s.Name, Kind: kind, Align: max(1, s.Align), Size: s.Size, Data: data})
	}
	if d.original == 0 {
		return fmt.Errorf("section %s is missing", sectionOriginal)
	}
	return nil
}

func (d *decoder) symbols() error {
	var err error
	if d.elf, err = d.file.Symbols(); err != nil {
		return err
	}
	for _, s := range d.elf[min(1, len(d.elf)):] {
		out := Symbol{Name: s.Name, Value: s.Value, Size: s.Size, Func: s.Type == elf.STT_FUNC}
		i, ok := s.InSection()
		switch {
		case !s.Defined():
			out.Binding = Imported
		case ok && i == d.block && d.block != 0 && s.Type == elf.STT_TLS:
			out.Binding = Original
			if s.Value > d.patch.Target.Threads || s.Value > maxMemory {
				return fmt.Errorf("symbol %q: offset %#x is outside the target's thread-local storage", s.Name, s.Value)
			}
		case ok && i == d.original && s.Type != elf.STT_TLS:
			out.Binding = Original
			if v := specs.VAddr(s.Value); v < d.patch.Target.Image.Lo || v > d.patch.Target.Image.Hi {
				return fmt.Errorf("symbol %q: address %v is outside the target", s.Name, v)
			}
		default:
			section, known := d.section[i]
			if !ok || !known || s.Value > d.patch.Sections[section].Size {
				return fmt.Errorf("symbol %q: lies outside the patch's sections", s.Name)
			}
			out.Section = section
		}
		d.patch.Symbols = append(d.patch.Symbols, out)
	}
	return nil
}

func (d *decoder) imports() error {
	b, err := d.content(sectionImports)
	if err != nil {
		return err
	}
	strtab, err := d.content(".strtab")
	if err != nil {
		return err
	}
	if len(b)%importSize != 0 {
		return fmt.Errorf("section %s: %d bytes", sectionImports, len(b))
	}
	for ; len(b) > 0; b = b[importSize:] {
		i := int(binary.LittleEndian.Uint32(b)) - 1
		version := binary.LittleEndian.Uint32(b[16:])
		if i < 0 || i >= len(d.patch.Symbols) || d.patch.Symbols[i].Binding != Imported || uint64(version) >= uint64(len(strtab)) {
			return fmt.Errorf("section %s: entry for symbol %d", sectionImports, i+1)
		}
		name, _, ok := strings.Cut(string(strtab[version:min(len(strtab), int(version)+maxVersionName+1)]), "\x00")
		if !ok {
			return fmt.Errorf("symbol %q: version of more than %d bytes", d.patch.Symbols[i].Name, maxVersionName)
		}
		d.patch.Symbols[i].Import = &Import{
			Version: name,
			Slot:    specs.VAddr(binary.LittleEndian.Uint64(b[8:])),
			Lazy:    binary.LittleEndian.Uint32(b[4:])&importLazy != 0,
		}
	}
	for _, s := range d.patch.Symbols {
		if s.Binding == Imported && s.Import == nil {
			return fmt.Errorf("symbol %q: undefined, and not in %s", s.Name, sectionImports)
		}
		if s.Import == nil || s.Import.Slot == 0 {
			continue
		}
		if slot := s.Import.Slot; !d.patch.Target.Image.Contains(slot) || d.patch.Target.Image.Hi-slot < 8 || slot%8 != 0 {
			return fmt.Errorf("symbol %q: slot %v is outside the target or not aligned", s.Name, slot)
		}
	}
	return nil
}

func (d *decoder) relocs() error {
	m, err := machineOf(d.file.Arch)
	if err != nil {
		return err
	}
	for i, section := range d.section {
		relocs, err := d.file.Relocs(i)
		if err != nil {
			return err
		}
		s := &d.patch.Sections[section]
		for _, r := range relocs {
			h, ok := m.relocs[r.Type]
			size := uint64(h.size)
			if !ok || s.Kind == BSS || size > s.Size || r.Offset > s.Size-size || r.Symbol <= 0 || r.Symbol > len(d.patch.Symbols) {
				return fmt.Errorf("section %s: relocation at %#x: type %d, symbol %d", s.Name, r.Offset, r.Type, r.Symbol)
			}
			if err := checkThread(d.patch.Symbols[r.Symbol-1], h); err != nil {
				return fmt.Errorf("section %s: relocation at %#x: symbol %q: %w", s.Name, r.Offset, d.patch.Symbols[r.Symbol-1].Name, err)
			}
			s.Relocs = append(s.Relocs, Reloc{Offset: r.Offset, Type: r.Type, Symbol: r.Symbol - 1, Addend: r.Addend})
		}
	}
	return nil
}

func (d *decoder) functions() error {
	raw, err := d.content(sectionMeta)
	if err != nil {
		return err
	}
	var meta metadata
	if err := json.Unmarshal(raw, &meta); err != nil {
		return fmt.Errorf("section %s: %w", sectionMeta, err)
	}
	d.patch.Meta, d.patch.Target.Name = meta.Meta, meta.Target
	if err := meta.check(); err != nil {
		return fmt.Errorf("section %s: %w", sectionMeta, err)
	}
	b, err := d.content(sectionFunctions)
	if err != nil {
		return err
	}
	if len(b) != functionSize*len(meta.Functions) || len(b) == 0 {
		return fmt.Errorf("section %s: %d bytes for %d functions", sectionFunctions, len(b), len(meta.Functions))
	}
	for i, f := range meta.Functions {
		if err := d.function(&f, b[i*functionSize:]); err != nil {
			return fmt.Errorf("function %q: %w", f.Name, err)
		}
		d.patch.Functions = append(d.patch.Functions, f)
	}
	if err := d.readVariables(meta.Variables); err != nil {
		return fmt.Errorf("section %s: %w", sectionMeta, err)
	}
	return d.overlap()
}

// overlap refuses two functions that would overwrite each other's entry.
func (d *decoder) overlap() error {
	byAddress := slices.SortedFunc(slices.Values(d.patch.Functions), func(x, y Function) int { return cmp.Compare(x.Original.Lo, y.Original.Lo) })
	for i := 1; i < len(byAddress); i++ {
		if x, y := byAddress[i-1], byAddress[i]; x.Original.Lo+specs.VAddr(x.Room) > y.Original.Lo {
			return fmt.Errorf("functions %q and %q overlap", x.Name, y.Name)
		}
	}
	return nil
}

// check refuses what people cannot read on a terminal, or what is beyond
// measure.
func (m *metadata) check() error {
	if _, err := specs.ParseSeries(string(m.Meta.Series)); err != nil {
		return err
	}
	if m.Meta.Level == 0 {
		return errors.New("level 0: want 1 or more")
	}
	if strings.ContainsRune(m.Target, '/') {
		return fmt.Errorf("target %q: want a base name", m.Target)
	}
	c := m.Meta.Consistency
	if (c.Reason == "") != (len(c.NextCall) == 0) {
		return errors.New("consistency: want functions and a reason, or neither")
	}
	texts := []string{m.Target, m.Meta.Name, m.Meta.Producer}
	texts = slices.Concat(texts, m.Meta.CVEs, c.NextCall, m.Meta.AddressTaken, m.Meta.Unchecked)
	lines := append(strings.Split(m.Meta.Description, "\n"), strings.Split(c.Reason, "\n")...)
	for _, f := range m.Functions {
		if f.NextCall != slices.Contains(c.NextCall, f.Name) {
			return fmt.Errorf("consistency of function %q: the spec's is not that of the function", f.Name)
		}
		texts = append(texts, f.Name, f.File, f.Alone)
		lines = append(lines, strings.Split(f.Reason, "\n")...)
	}
	for _, t := range append(texts, lines...) {
		if err := checkText(t); err != nil {
			return err
		}
	}
	return nil
}

// checkText refuses one line of text that is not for a terminal.
func checkText(t string) error {
	control := func(r rune) bool { return r != '\t' && unicode.IsControl(r) }
	if len(t) > maxText || strings.ContainsFunc(t, control) {
		return fmt.Errorf("text %.40q has control characters or is longer than %d bytes", t, maxText)
	}
	return nil
}

func (d *decoder) function(f *Function, b []byte) error {
	lo, size := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	f.Room = binary.LittleEndian.Uint64(b[16:])
	image := d.patch.Target.Image
	if !image.Contains(specs.VAddr(lo)) || size == 0 || size > uint64(image.Hi)-lo || f.Room < size || f.Room > uint64(image.Hi)-lo {
		return fmt.Errorf("[%#x, +%d), room %d is outside the target", lo, size, f.Room)
	}
	f.Original = specs.Range[specs.VAddr]{Lo: specs.VAddr(lo), Hi: specs.VAddr(lo + size)}
	if lo, size := binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[32:]); size != 0 {
		if !image.Contains(specs.VAddr(lo)) || size > uint64(image.Hi)-lo {
			return fmt.Errorf("cold part [%#x, +%d) is outside the target", lo, size)
		}
		f.Cold = specs.Range[specs.VAddr]{Lo: specs.VAddr(lo), Hi: specs.VAddr(lo + size)}
	}
	copy(f.Digest[:], b[40:])
	b = b[40+sha256.Size:]
	f.Symbol = int(binary.LittleEndian.Uint32(b)) - 1
	n := binary.LittleEndian.Uint32(b[4:])
	if uint64(n) != min(maxEntryBytes, f.Room) {
		return fmt.Errorf("entry of %d bytes", n)
	}
	f.Entry = b[8 : 8+n : 8+n]
	b = b[8+maxEntryBytes:]
	if symbol := binary.LittleEndian.Uint32(b); symbol != 0 {
		f.Copy = &Copy{Symbol: int(symbol) - 1, Calls: binary.LittleEndian.Uint32(b[4:])&copyCalls != 0}
		if err := d.code(f.Copy.Symbol, SectionGate); err != nil {
			return err
		}
	}
	if symbol, skip := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:]); symbol != 0 {
		f.Through = &Through{Symbol: int(symbol) - 1, Skip: int(skip)}
		if skip == 0 || uint64(skip) >= uint64(len(f.Entry)) || skip%uint32(d.patch.Arch.MinInsn) != 0 {
			return fmt.Errorf("jump after %d bytes", skip)
		}
		if err := d.code(f.Through.Symbol, SectionGate); err != nil {
			return err
		}
	}
	return d.code(f.Symbol, "")
}

// code checks that a symbol is that of an instruction in the named section, or
// in any other than that of the copies.
func (d *decoder) code(symbol int, section string) error {
	if symbol < 0 || symbol >= len(d.patch.Symbols) {
		return fmt.Errorf("symbol %d of %d", symbol, len(d.patch.Symbols))
	}
	s := d.patch.Symbols[symbol]
	if s.Binding != Carried || s.Value%uint64(d.patch.Arch.MinInsn) != 0 {
		return fmt.Errorf("symbol %q is not code of the patch", s.Name)
	}
	in := d.patch.Sections[s.Section]
	if in.Kind != Text || s.Value >= in.Size || (in.Name == SectionGate) != (section == SectionGate) {
		return fmt.Errorf("symbol %q is not code of the patch", s.Name)
	}
	return nil
}
