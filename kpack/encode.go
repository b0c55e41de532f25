package kpack

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/fother/fother/kpack/elfobj"
)

// The sections of a .kpatch file beside the carried ones and their
// relocations. FORMAT.md describes their content.
const (
	sectionOriginal  = ".kpatch.original"
	sectionNote      = ".note.kpatch"
	sectionFunctions = ".kpatch.functions"
	sectionImports   = ".kpatch.imports"
	sectionMeta      = ".kpatch.meta"
)

// Version is the format version that this package writes and reads.
const Version = 2

// Notes of .note.kpatch, all with the owner noteOwner.
const (
	noteOwner   = "Fother"
	noteVersion = 1 // uint32
	noteBuildID = 2 // the target's build-id
	noteDigest  = 3 // SHA-256 of the file with this descriptor zeroed
	noteImage   = 4 // two uint64: the target's link-time range
)

const (
	functionSize = 40 + sha256.Size + 8 + maxEntryBytes + 16
	importSize   = 24
	// maxEntryBytes bounds Function.Entry.
	maxEntryBytes = 32
	importLazy    = 1
	copyCalls     = 1
)

// metadata is the content of .kpatch.meta. Functions are in the order of the
// table in .kpatch.functions.
type metadata struct {
	Target    string     `json:"target"`
	Meta      Meta       `json:"meta"`
	Functions []Function `json:"functions"`
	Variables []Variable `json:"variables,omitempty"`
}

// Encode returns the patch as a .kpatch file. The same patch gives the same
// bytes. Imported symbols have to come last. It fails for a patch that [Decode]
// would refuse.
func (p *Patch) Encode() ([]byte, error) {
	w := &elfWriter{order: binary.LittleEndian, symbols: []elf.Sym64{{}}}
	w.strings.add("")
	w.add(elf.Section64{}, "", nil)
	for _, s := range p.Sections {
		w.carried(s)
	}
	original := w.add(elf.Section64{Type: uint32(elf.SHT_NOBITS), Size: uint64(p.Target.Image.Hi), Addralign: 1}, sectionOriginal, nil)
	block := 0
	if p.Target.Threads != 0 {
		block = w.add(elf.Section64{Type: uint32(elf.SHT_NOBITS), Flags: uint64(elf.SHF_TLS), Size: p.Target.Threads, Addralign: 1}, sectionTLS, nil)
	}
	if err := w.symbolTable(p, original, block); err != nil {
		return nil, err
	}
	threads := p.threadTable()
	symtab := len(w.sections) + len(p.withRelocs()) + 4
	if threads != nil {
		symtab++
	}
	if len(p.Hooks) > 0 {
		symtab++
	}
	for _, i := range p.withRelocs() {
		w.relocs(p.Sections[i], i+1, symtab)
	}
	notes, digest := p.notes()
	note := w.add(elf.Section64{Type: uint32(elf.SHT_NOTE), Addralign: 4}, sectionNote, notes)
	w.add(elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 8, Entsize: functionSize}, sectionFunctions, p.functionTable())
	w.add(elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 8, Entsize: importSize}, sectionImports, p.importTable(w))
	if threads != nil {
		w.add(elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 8, Entsize: threadSize}, sectionThreads, threads)
	}
	if len(p.Hooks) > 0 {
		w.add(elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 8, Entsize: hookSize}, sectionHooks, p.hookTable())
	}
	meta, err := json.Marshal(metadata{Target: p.Target.Name, Meta: p.Meta, Functions: p.Functions, Variables: p.Variables})
	if err != nil {
		return nil, err
	}
	w.add(elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 1}, sectionMeta, meta)
	w.finish()
	out := w.file(p.Arch.Machine)
	sum := sha256.Sum256(out)
	copy(out[w.sections[note].Off+uint64(digest):], sum[:])
	f, err := elfobj.Parse(out)
	if err == nil {
		_, err = decode(f, out)
	}
	if err != nil {
		return nil, fmt.Errorf("patch of %s cannot be written: %w", p.Target.Name, err)
	}
	return out, nil
}

// withRelocs returns the indices of the sections that have relocations.
func (p *Patch) withRelocs() []int {
	var with []int
	for i, s := range p.Sections {
		if len(s.Relocs) > 0 {
			with = append(with, i)
		}
	}
	return with
}

// noteHeaderSize is the length of a note up to its descriptor: three words and
// the owner, padded to four bytes (gABI, "Note Section").
const noteHeaderSize = 12 + 8

// notes returns the content of .note.kpatch and the offset in it of the
// digest, still zero.
func (p *Patch) notes() (b []byte, digest int) {
	note := func(typ uint32, desc []byte) int {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(noteOwner)+1))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
		b = binary.LittleEndian.AppendUint32(b, typ)
		b = append(b, noteOwner+"\x00\x00"...)
		at := len(b)
		b = append(b, desc...)
		b = append(b, make([]byte, -len(b)&3)...)
		return at
	}
	note(noteVersion, binary.LittleEndian.AppendUint32(nil, Version))
	note(noteBuildID, p.Target.BuildID.Bytes())
	digest = note(noteDigest, make([]byte, sha256.Size))
	image := binary.LittleEndian.AppendUint64(nil, uint64(p.Target.Image.Lo))
	note(noteImage, binary.LittleEndian.AppendUint64(image, uint64(p.Target.Image.Hi)))
	return b, digest
}

func (p *Patch) functionTable() []byte {
	var b []byte
	for _, f := range p.Functions {
		b = binary.LittleEndian.AppendUint64(b, uint64(f.Original.Lo))
		b = binary.LittleEndian.AppendUint64(b, f.Original.Size())
		b = binary.LittleEndian.AppendUint64(b, f.Room)
		b = binary.LittleEndian.AppendUint64(b, uint64(f.Cold.Lo))
		b = binary.LittleEndian.AppendUint64(b, f.Cold.Size())
		b = append(b, f.Digest[:]...)
		b = binary.LittleEndian.AppendUint32(b, uint32(f.Symbol+1))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Entry)))
		b = append(b, f.Entry...)
		b = append(b, make([]byte, maxEntryBytes-len(f.Entry))...)
		symbol, flags := uint32(0), uint32(0)
		if f.Copy != nil {
			symbol = uint32(f.Copy.Symbol + 1)
			if f.Copy.Calls {
				flags = copyCalls
			}
		}
		b = binary.LittleEndian.AppendUint32(b, symbol)
		b = binary.LittleEndian.AppendUint32(b, flags)
		through := uint32(0)
		if f.Through != nil {
			through = uint32(f.Through.Symbol + 1)
		}
		b = binary.LittleEndian.AppendUint32(b, through)
		b = binary.LittleEndian.AppendUint32(b, uint32(f.skip()))
	}
	return b
}

func (p *Patch) importTable(w *elfWriter) []byte {
	var b []byte
	for i, s := range p.Symbols {
		if s.Binding != Imported {
			continue
		}
		flags := uint32(0)
		if s.Import.Lazy {
			flags |= importLazy
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(i+1))
		b = binary.LittleEndian.AppendUint32(b, flags)
		b = binary.LittleEndian.AppendUint64(b, uint64(s.Import.Slot))
		b = binary.LittleEndian.AppendUint32(b, w.strings.add(s.Import.Version))
		b = binary.LittleEndian.AppendUint32(b, 0)
	}
	return b
}

// stringTable collects the strings of an SHT_STRTAB section.
type stringTable struct {
	data  []byte
	index map[string]uint32
}

func (t *stringTable) add(s string) uint32 {
	if at, ok := t.index[s]; ok {
		return at
	}
	if t.index == nil {
		t.index = map[string]uint32{}
	}
	at := uint32(len(t.data))
	t.index[s] = at
	t.data = append(append(t.data, s...), 0)
	return at
}

// elfWriter lays out an ELFCLASS64 relocatable file.
type elfWriter struct {
	order    binary.ByteOrder
	sections []elf.Section64
	contents [][]byte
	names    stringTable
	strings  stringTable
	symbols  []elf.Sym64
	locals   int
}

func (w *elfWriter) add(h elf.Section64, name string, data []byte) int {
	h.Name = w.names.add(name)
	if h.Type != uint32(elf.SHT_NOBITS) {
		h.Size = uint64(len(data))
	}
	w.sections, w.contents = append(w.sections, h), append(w.contents, data)
	return len(w.sections) - 1
}

// sectionFlags are the types and flags that say a section's kind in the file.
var sectionFlags = map[Kind]struct {
	typ   elf.SectionType
	flags elf.SectionFlag
}{
	Text:   {elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_EXECINSTR},
	ROData: {elf.SHT_PROGBITS, elf.SHF_ALLOC},
	Data:   {elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_WRITE},
	BSS:    {elf.SHT_NOBITS, elf.SHF_ALLOC | elf.SHF_WRITE},
}

func (w *elfWriter) carried(s Section) {
	k := sectionFlags[s.Kind]
	w.add(elf.Section64{Type: uint32(k.typ), Flags: uint64(k.flags), Size: s.Size, Addralign: s.Align}, s.Name, s.Data)
}

func (w *elfWriter) relocs(s Section, target, symtab int) {
	var b []byte
	for _, r := range s.Relocs {
		b = w.order.(binary.AppendByteOrder).AppendUint64(b, r.Offset)
		b = w.order.(binary.AppendByteOrder).AppendUint64(b, uint64(r.Symbol+1)<<32|uint64(r.Type))
		b = w.order.(binary.AppendByteOrder).AppendUint64(b, uint64(r.Addend))
	}
	w.add(elf.Section64{
		Type: uint32(elf.SHT_RELA), Flags: uint64(elf.SHF_INFO_LINK), Link: uint32(symtab),
		Info: uint32(target), Addralign: 8, Entsize: 24,
	}, ".rela"+s.Name, b)
}

// symbolTable fills the symbols: carried and original ones are local, imports
// are undefined and global, as the gABI asks of a relocatable file. original and
// block are the sections of those of the target.
func (w *elfWriter) symbolTable(p *Patch, original, block int) error {
	imports := false
	for _, s := range p.Symbols {
		bind, section := elf.STB_LOCAL, s.Section+1
		switch s.Binding {
		case Original:
			section = original
			if s.Thread != nil {
				section = block
			}
		case Imported:
			bind, section, imports = elf.STB_GLOBAL, int(elf.SHN_UNDEF), true
		}
		if imports && s.Binding != Imported {
			return fmt.Errorf("symbol %q: defined symbols must precede imports", s.Name)
		}
		if !imports {
			w.locals = len(w.symbols) + 1
		}
		typ := elf.STT_NOTYPE
		if s.Func {
			typ = elf.STT_FUNC
		}
		if s.Thread != nil {
			typ = elf.STT_TLS
		}
		w.symbols = append(w.symbols, elf.Sym64{
			Name: w.strings.add(s.Name), Info: elf.ST_INFO(bind, typ), Shndx: uint16(section), Value: s.Value, Size: s.Size,
		})
	}
	w.locals = max(w.locals, 1)
	return nil
}

// finish adds the symbol and string tables.
func (w *elfWriter) finish() {
	var b bytes.Buffer
	_ = binary.Write(&b, w.order, w.symbols) // a Buffer never fails
	strtab := len(w.sections) + 1
	w.add(elf.Section64{Type: uint32(elf.SHT_SYMTAB), Link: uint32(strtab), Info: uint32(w.locals), Addralign: 8, Entsize: 24}, ".symtab", b.Bytes())
	w.add(elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1}, ".strtab", w.strings.data)
	w.names.add(".shstrtab")
	w.add(elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1}, ".shstrtab", w.names.data)
}

// file writes header, contents and section table.
func (w *elfWriter) file(m elf.Machine) []byte {
	out := make([]byte, 64)
	for i := range w.sections {
		h := &w.sections[i]
		if h.Type == uint32(elf.SHT_NULL) {
			continue
		}
		out = append(out, make([]byte, int(alignUp(uint64(len(out)), h.Addralign))-len(out))...)
		h.Off = uint64(len(out))
		out = append(out, w.contents[i]...)
	}
	out = append(out, make([]byte, -len(out)&7)...)
	h := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(m), Version: uint32(elf.EV_CURRENT), Shoff: uint64(len(out)),
		Ehsize: 64, Shentsize: 64, Shnum: uint16(len(w.sections)), Shstrndx: uint16(len(w.sections) - 1),
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	_ = binary.Write(&b, w.order, h)
	copy(out, b.Bytes())
	b.Reset()
	_ = binary.Write(&b, w.order, w.sections)
	return append(out, b.Bytes()...)
}
