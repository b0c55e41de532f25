package verify

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/arch"
)

// section is a part of memory with one purpose. Addresses are link-time.
type section struct {
	name   string
	lo, hi uint64
	data   []byte // nil if all is zero
	exec   bool
	write  bool
	got    bool
	plt    bool
}

// image is one side of a comparison: a linked file, or the memory of a patch.
type image struct {
	name string // for messages
	isa  *isa
	// fixed is set if addresses are written as they are, without dynamic
	// relocations: executables that are not position independent, patches.
	fixed bool
	secs  []section // by address, not overlapping

	funcs, objs []*entity // by address
	// veneers are where the linker's veneers lead, by address.
	veneers map[uint64]uint64
	// labels are the symbols that are neither, by address.
	labels map[uint64][]string
	// numbers are the absolute symbols, by value.
	numbers map[uint64][]string
	// relocs are the dynamic relocations by place.
	relocs map[uint64]dynReloc
	// imports are pretend addresses of imported symbols, for patches, sorted.
	imports []pretend
	tls     tlsBlock
	// marks are addresses outside code at which something begins or ends,
	// sorted.
	marks []uint64
	// refs are the addresses outside code that code holds, by function.
	users map[uint64][]*entity
	// lsda has the exception table of each function, by addresses.
	lsda map[uint64]uint64
	// frames has the functions with call frame information, by addresses.
	frames map[uint64]bool
	// outer is what addresses that are not in this image mean: the target of
	// a patch.
	outer *image
	// changed are the registers that functions may change, see changes.
	changed map[*entity]uint32
	// endings has whether what is at an address never returns, as far as that was asked.
	endings map[uint64]bool
	// bodies are decoded functions that were asked for more than once.
	bodies map[*entity]*body
}

// pretend is the place that an import of a patch is said to have.
type pretend struct {
	addr uint64
	name string
}

// imported returns the import that v is in, and how far.
func (im *image) imported(v uint64) (name string, off uint64, ok bool) {
	i, found := slices.BinarySearchFunc(im.imports, v, func(p pretend, v uint64) int { return cmp.Compare(p.addr, v) })
	if !found {
		i--
	}
	if i < 0 || v-im.imports[i].addr >= ImportRoom {
		return "", 0, false
	}
	return im.imports[i].name, v - im.imports[i].addr, true
}

// entity is a function or a named object: something at one address, with one
// or several names.
type entity struct {
	img        *image
	addr, size uint64
	fn         bool
	names      []symName
	parent     *entity   // of a cold part
	cold       []*entity // parts of the function that lie elsewhere
	pairs      []*entity // on the other side
	// content is set for constants that are known by their content only.
	content bool
	mangled bool // pairs were found while comparing code, see bind
	// gap is set for what is between functions.
	gap bool
}

func (e *entity) end() uint64 { return e.addr + e.size }

// name returns the name to call the entity by.
func (e *entity) name() string { return e.names[0].name }

// symName is one name of an entity.
type symName struct {
	name string
	file string // of local symbols: STT_FILE and its number
	// local symbols can be referred to by their own unit only.
	local bool
	weak  bool
}

// Limits for hostile files.
const maxSymbols = 1 << 24

// newImage reads a linked file.
func newImage(f *elfobj.File, name string) (*image, error) {
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("%s: %v is not a linked file", name, f.Type)
	}
	im := &image{name: name, fixed: f.Type == elf.ET_EXEC, labels: map[uint64][]string{}, numbers: map[uint64][]string{}, bodies: map[*entity]*body{}}
	var err error
	if im.isa, err = isaOf(f.Arch); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := im.readSections(f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := im.readRelocs(f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := im.readSymbols(f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	im.readFrames()
	im.survey()
	return im, nil
}

func isaOf(a *arch.Arch) (*isa, error) {
	for _, i := range isas {
		if i.arch == a {
			return i, nil
		}
	}
	return nil, fmt.Errorf("architecture %v: its instructions are not known", a)
}

// readSections notes the sections that are loaded, but not .tbss, which takes
// no room.
func (im *image) readSections(f *elfobj.File) error {
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Flags&elf.SHF_ALLOC == 0 || s.Size == 0 || s.Type == elf.SHT_NOBITS && s.Flags&elf.SHF_TLS != 0 {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		im.secs = append(im.secs, section{
			name: s.Name, lo: uint64(s.Addr), hi: uint64(s.Addr) + s.Size, data: data,
			exec: s.Flags&elf.SHF_EXECINSTR != 0, write: s.Flags&elf.SHF_WRITE != 0 && !strings.HasPrefix(s.Name, ".data.rel.ro"),
			got: strings.HasPrefix(s.Name, ".got"), plt: strings.HasPrefix(s.Name, ".plt") || s.Name == ".iplt",
		})
	}
	slices.SortFunc(im.secs, func(a, b section) int { return cmp.Compare(a.lo, b.lo) })
	for i := range im.secs[:max(0, len(im.secs)-1)] {
		if im.secs[i].hi > im.secs[i+1].lo {
			return fmt.Errorf("sections %s and %s overlap", im.secs[i].name, im.secs[i+1].name)
		}
	}
	if len(im.secs) == 0 {
		return fmt.Errorf("has no sections: was it stripped?")
	}
	return nil
}

// section returns the section that v lies in, or nil.
func (im *image) section(v uint64) *section {
	lo, hi := 0, len(im.secs)
	for lo < hi {
		m := (lo + hi) / 2
		if im.secs[m].hi <= v {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo < len(im.secs) && im.secs[lo].lo <= v {
		return &im.secs[lo]
	}
	return nil
}

// bytes returns up to n bytes at v, fewer if the section ends before. Those
// that are not in the file are zeros.
func (im *image) bytes(v, n uint64) []byte {
	s := im.section(v)
	if s == nil {
		return nil
	}
	n = min(n, s.hi-v)
	if s.data == nil {
		return make([]byte, min(n, maxContent))
	}
	return s.data[v-s.lo:][:n]
}

// word returns the 8 bytes at v.
func (im *image) word(v uint64) (uint64, bool) {
	b := im.bytes(v, 8)
	if len(b) < 8 {
		return 0, false
	}
	return le.Uint64(b), true
}

// within returns the last entity of list that begins at v or before it and
// takes it in, or nil. With several, the one that begins last.
func within(list []*entity, v uint64) *entity {
	i, found := slices.BinarySearchFunc(list, v, func(e *entity, v uint64) int { return cmp.Compare(e.addr, v) })
	if found {
		return list[i]
	}
	for n := 0; i > 0 && n < 4; n++ { // objects within objects are rare
		i--
		if v < list[i].end() {
			return list[i]
		}
	}
	return nil
}
