package kpack

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// ErrNotLinked is the class of symbols of a unit that the linker left out of
// the target: unused sections (--gc-sections), folded functions (--icf),
// archive members that nothing needed.
var ErrNotLinked = hint("the link left it out, as with --gc-sections, or folded it into another: change those that use it instead",
	errors.New("is not in the linked file"))

// placement says where the sections of one unit's object lie in the linked
// file.
type placement struct {
	index      *symbolIndex
	machine    *machine
	object     *elfobj.File
	symbols    []elfobj.Symbol
	byName     map[string]int
	source     string // the object's STT_FILE name
	bases      map[elf.SectionIndex]base
	references map[elf.SectionIndex][]reference
	// group is the number of the symbol group that is this unit's, or -1 if
	// several could be.
	group int
}

type base struct {
	addr specs.VAddr
	err  error
}

// newPlacement finds out where the unit of that object lies; nil stands for a
// unit that the original does not have.
func newPlacement(x *symbolIndex, m *machine, object *elfobj.File) (*placement, error) {
	if object == nil {
		return &placement{index: x, machine: m, byName: map[string]int{}, bases: map[elf.SectionIndex]base{}, group: -1}, nil
	}
	syms, err := object.Symbols()
	if err != nil {
		return nil, err
	}
	p := &placement{index: x, machine: m, object: object, symbols: syms, byName: map[string]int{}, bases: map[elf.SectionIndex]base{}, group: -1}
	for i, s := range syms {
		switch {
		case s.Type == elf.STT_FILE:
			p.source = s.Name
		case s.Name != "" && s.Type != elf.STT_SECTION && s.Defined():
			p.byName[s.Name] = i
		}
	}
	if p.source == ltoSource && len(x.groups[p.source]) == 0 {
		p.source = "" // ld.bfd leaves it out
	}
	p.group, err = p.findGroup()
	return p, err
}

// ltoSource is the STT_FILE name of the units that gcc makes of a whole program
// (-flto).
const ltoSource = "<artificial>"

// findGroup picks the unit's symbol group among those that have the name of
// its source file: the only one that nothing speaks against, or that the unit's
// code refers to. Any of them may lack symbols, in sections that were dropped.
func (p *placement) findGroup() (int, error) {
	places := map[int]map[elf.SectionIndex]specs.VAddr{}
	for _, group := range p.index.groups[p.source] {
		places[group] = map[elf.SectionIndex]specs.VAddr{}
	}
	own := map[string]bool{}
	for _, s := range p.symbols {
		if _, ok := s.InSection(); !ok || s.Bind != elf.STB_LOCAL || !named(s) {
			continue
		}
		own[s.Name] = true
		for _, l := range p.index.locals[s.Name] {
			if at, ok := places[l.group]; ok && l.Type == s.Type && l.Size == s.Size {
				at[s.Section] = specs.VAddr(l.Value - s.Value)
			}
		}
	}
	var possible, proven []int
	for _, group := range p.index.groups[p.source] {
		if slices.ContainsFunc(p.index.members[group], func(name string) bool { return !own[name] }) {
			continue
		}
		fits, err := p.fits(places[group])
		if err != nil {
			return -1, err
		}
		agree, disagree, err := p.referredAll(places[group])
		if err != nil {
			return -1, err
		}
		if fits && !disagree {
			possible = append(possible, group)
		}
		if fits && !disagree && agree {
			proven = append(proven, group)
		}
	}
	switch {
	case len(proven) == 1:
		return proven[0], nil
	case len(possible) == 1:
		return possible[0], nil
	}
	return -1, nil
}

// named reports whether s is a function or a variable.
func named(s elfobj.Symbol) bool { return s.Type == elf.STT_FUNC || s.Type == elf.STT_OBJECT }

func (p *placement) referredAll(sections map[elf.SectionIndex]specs.VAddr) (agree, disagree bool, err error) {
	for section, at := range sections {
		a, d, err := p.referred(section, at)
		if err != nil {
			return false, false, err
		}
		agree, disagree = agree || a, disagree || d
	}
	return agree, disagree, nil
}

// referred asks the unit's code whether a section is at address at: what the
// linker made of references to it, in sections that are found by their global
// symbols, agrees or disagrees. With neither, nothing refers to it.
func (p *placement) referred(section elf.SectionIndex, at specs.VAddr) (agree, disagree bool, err error) {
	if p.object.Sections[section].Flags&elf.SHF_MERGE != 0 {
		return false, false, nil // its pieces are moved one by one
	}
	if p.references == nil {
		if err := p.findReferences(); err != nil {
			return false, false, err
		}
	}
	for _, r := range p.references[section] {
		linked, err := p.index.file.ReadAt(r.place, uint64(r.howto.size))
		if err != nil {
			return false, false, err
		}
		want := bytes.Clone(linked)
		if r.howto.put(want, r.howto.compute(uint64(at)+r.value, r.addend, uint64(r.place))) == nil && bytes.Equal(want, linked) || p.veneered(r, linked, uint64(at)+r.value) {
			agree = true
		} else {
			disagree = true
		}
	}
	return agree, disagree, nil
}

// veneered reports whether the linked branch of r goes to a veneer of the linker that leads
// to the address to.
func (p *placement) veneered(r reference, linked []byte, to uint64) bool {
	if p.machine.veneered == nil || !r.howto.call {
		return false
	}
	led, ok := p.machine.veneered(linked, r.place, p.index.file.ReadAt)
	return ok && uint64(led) == to+uint64(r.addend)
}

// reference is a relocation in a section whose address is known.
type reference struct {
	place  specs.VAddr
	howto  howto
	value  uint64 // of its symbol, in its section
	addend int64
}

// findReferences collects, by the section that they refer to, the relocations
// of the unit's code that is found by its global symbols.
func (p *placement) findReferences() error {
	p.references = map[elf.SectionIndex][]reference{}
	done := map[elf.SectionIndex]bool{}
	for _, s := range p.symbols {
		i, ok := s.InSection()
		g, linked := p.index.globals[s.Name]
		if !ok || !linked || done[s.Section] || s.Bind == elf.STB_LOCAL || p.object.Sections[i].Flags&elf.SHF_EXECINSTR == 0 {
			continue
		}
		at := specs.VAddr(g.Value - s.Value)
		same, err := p.sameBytes(s.Section, at)
		if err != nil {
			return err
		}
		if !same {
			continue
		}
		done[s.Section] = true
		relocs, err := p.object.Relocs(i)
		if err != nil {
			return err
		}
		for _, r := range relocs {
			to := p.symbols[r.Symbol]
			if _, global := p.index.globals[to.Name]; global && to.Bind != elf.STB_LOCAL {
				continue // a library may refer to it by its PLT, and it is found by its name
			}
			if to.Type == elf.STT_GNU_IFUNC {
				continue // it goes to its PLT entry
			}
			if h, ok := p.machine.relocs[r.Type]; ok && !h.got && h.tls == tlsNone {
				p.references[to.Section] = append(p.references[to.Section], reference{at + specs.VAddr(r.Offset), h, to.Value, r.Addend})
			}
		}
	}
	return nil
}

// fits reports whether the bytes of all sections are at the given addresses.
func (p *placement) fits(sections map[elf.SectionIndex]specs.VAddr) (bool, error) {
	for section, at := range sections {
		if same, err := p.sameBytes(section, at); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// find returns the link-time address of the symbol that the unit defines under
// the given name.
func (p *placement) find(name string) (elfobj.Symbol, specs.VAddr, error) {
	i, ok := p.byName[name]
	if !ok {
		return elfobj.Symbol{}, 0, fmt.Errorf("is not defined in the unit")
	}
	s := p.symbols[i]
	if s.Section == elf.SHN_COMMON {
		g, ok := p.index.globals[name]
		if !ok {
			return s, 0, ErrNotLinked
		}
		return s, specs.VAddr(g.Value), nil
	}
	if _, ok := s.InSection(); !ok {
		return s, 0, hint(hintNumber, errors.New("is a number, not an address in the target"))
	}
	b, ok := p.bases[s.Section]
	if !ok {
		b.addr, b.err = p.locate(s.Section)
		p.bases[s.Section] = b
	}
	return s, b.addr + specs.VAddr(s.Value), b.err
}

const hintPlaces = "give static functions and variables of one name different names, or link with another linker"

// locate finds the address of a section of the object. Every symbol that the
// section defines votes for the addresses it could have; the section's bytes
// decide between candidates, and contradict a wrong only one.
func (p *placement) locate(section elf.SectionIndex) (specs.VAddr, error) {
	candidates, byGlobal := p.candidates(section)
	certain := byGlobal || p.group >= 0 || len(p.index.groups[p.source]) <= 1
	var found []specs.VAddr
	for c := range candidates {
		same, err := p.sameBytes(section, c)
		if err != nil {
			return 0, err
		}
		agree, disagree, err := p.referred(section, c)
		if err != nil {
			return 0, err
		}
		if same && !disagree {
			found, certain = append(found, c), certain || agree
		}
	}
	switch {
	case len(found) == 0:
		return 0, ErrNotLinked
	case len(found) > 1:
		return 0, hint(hintPlaces, fmt.Errorf("could be at %d places of the linked file: file name, symbol names and bytes are the same", len(found)))
	case !certain:
		return 0, hint(hintPlaces, fmt.Errorf("may belong to another of the %d files called %s: this one has nothing else in the linked file to tell it by", len(p.index.groups[p.source]), p.source))
	}
	return found[0], nil
}

// candidates returns the addresses that all symbols of a section agree on, and
// whether a global symbol is among those. Weak symbols are not asked if others
// are there: another unit's definition may have won.
func (p *placement) candidates(section elf.SectionIndex) (at map[specs.VAddr]bool, byGlobal bool) {
	var weak map[specs.VAddr]bool
	for _, s := range p.symbols {
		// Symbols that begin with a dollar sign say where code and data are
		// (AAELF64, "Mapping symbols").
		if s.Section != section || s.Type == elf.STT_SECTION || s.Type == elf.STT_FILE || s.Name == "" || s.Name[0] == '$' {
			continue
		}
		votes := p.votes(s)
		switch {
		case len(votes) == 0: // discarded by name, such as .L symbols; others decide
		case s.Bind == elf.STB_WEAK:
			weak = both(weak, votes)
		default:
			at, byGlobal = both(at, votes), byGlobal || s.Bind != elf.STB_LOCAL
		}
	}
	if at == nil {
		return weak, weak != nil
	}
	return at, byGlobal
}

// both returns what is in both sets; nil stands for everything.
func both(a, b map[specs.VAddr]bool) map[specs.VAddr]bool {
	if a == nil {
		return b
	}
	maps.DeleteFunc(a, func(v specs.VAddr, _ bool) bool { return !b[v] })
	return a
}

// votes returns the addresses where s's section would begin if s were one of
// the linked file's symbols of that name.
func (p *placement) votes(s elfobj.Symbol) map[specs.VAddr]bool {
	v := map[specs.VAddr]bool{}
	if s.Bind != elf.STB_LOCAL {
		if g, ok := p.index.globals[s.Name]; ok {
			if s.Bind == elf.STB_WEAK && g.Bind == elf.STB_GLOBAL {
				return v // another unit's, which the linker took instead
			}
			v[specs.VAddr(g.Value-s.Value)] = true
			return v
		}
	}
	// Hidden symbols, and those that a version script hides, become local.
	for _, l := range p.index.locals[s.Name] {
		if l.Type == s.Type && (p.mine(l) || s.Bind != elf.STB_LOCAL && p.index.wasGlobal(l)) {
			v[specs.VAddr(l.Value-s.Value)] = true
		}
	}
	return v
}

// mine reports whether a local symbol of the linked file can be the unit's.
func (p *placement) mine(l localSymbol) bool {
	if p.group >= 0 {
		return l.group == p.group
	}
	return p.source == "" || l.source == p.source
}

// sameBytes compares a section of the object with the linked file at address
// at, but for the fields that relocations change.
func (p *placement) sameBytes(section elf.SectionIndex, at specs.VAddr) (bool, error) {
	s := p.object.Sections[section]
	if s.Type == elf.SHT_NOBITS {
		return true, nil
	}
	data, err := s.Data()
	if err != nil {
		return false, err
	}
	if s.Flags&elf.SHF_TLS != 0 { // at is an offset in the block
		block, _ := p.index.segment()
		at += specs.VAddr(block.Vaddr)
	}
	linked, err := p.index.file.ReadAt(at, uint64(len(data)))
	if err != nil {
		return false, nil // a candidate outside the file is none
	}
	relocs, err := p.object.Relocs(int(section))
	if err != nil {
		return false, err
	}
	relocs = slices.SortedFunc(slices.Values(relocs), func(a, b elfobj.Reloc) int { return cmp.Compare(a.Offset, b.Offset) })
	from := 0
	for _, r := range relocs {
		lo, hi := p.field(r)
		lo, hi = max(lo, from), min(hi, len(data))
		if lo = min(lo, len(data)); from < lo && !bytes.Equal(data[from:lo], linked[from:lo]) {
			return false, nil
		}
		from = max(from, hi)
	}
	return from >= len(data) || bytes.Equal(data[from:], linked[from:]), nil
}

// field returns the bytes of a section that the linker may have changed for r.
func (p *placement) field(r elfobj.Reloc) (lo, hi int) {
	size := 8 // of a type that patches do not use
	if h, ok := p.machine.relocs[r.Type]; ok {
		size = h.size
	}
	before, after := p.machine.relaxed(r.Type)
	return max(0, int(r.Offset)-before), int(r.Offset) + size + after
}
