package kpack

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// ErrNotLinked is the class of symbols of a unit that the linker left out of
// the target: unused sections (--gc-sections), folded functions (--icf),
// archive members that nothing needed.
var ErrNotLinked = errors.New("is not in the linked file")

// symbolIndex finds the symbols of a linked file by name. Local symbols are
// kept with the STT_FILE symbol that precedes them (gABI, "Symbol Table").
type symbolIndex struct {
	file    *elfobj.File
	globals map[string]elfobj.Symbol
	locals  map[string][]localSymbol
	// functions are the names at each address of a function.
	functions map[specs.VAddr][]string
	// groups are the numbers of the STT_FILE symbols of each name, last is that
	// of the last one. members are the functions and variables of each group.
	groups  map[string][]int
	last    int
	members map[int][]string
	// dynamic are the dynamic symbols: of several versions of a name the
	// default one. ambiguous are the names imported in several versions.
	dynamic   map[string]elfobj.Symbol
	ambiguous map[string]bool
	// slots are the GOT entries that the dynamic linker fills for them, bound
	// the names that it looks up for the file's own references.
	slots map[string]slot
	bound map[string]bool
	// lazy is set if JUMP_SLOT entries may be bound at the first call.
	lazy, pie bool
}

// shared reports whether the file is a shared library.
func (x *symbolIndex) shared() bool { return x.file.Type == elf.ET_DYN && !x.pie && len(x.dynamic) > 0 }

type localSymbol struct {
	elfobj.Symbol
	source string // name of the STT_FILE group, "" before the first
	group  int    // number of the group
}

// wasGlobal reports whether l was a global symbol in the unit that defines it.
// ld puts those after the symbols of all units, behind an STT_FILE symbol
// without a name.
func (x *symbolIndex) wasGlobal(l localSymbol) bool {
	return l.Vis != elf.STV_DEFAULT || l.source == "" && l.group > 0 && l.group == x.last
}

type slot struct {
	addr specs.VAddr
	lazy bool
}

func newSymbolIndex(f *elfobj.File, m *machine) (*symbolIndex, error) {
	x := &symbolIndex{
		file: f, globals: map[string]elfobj.Symbol{}, locals: map[string][]localSymbol{}, groups: map[string][]int{}, members: map[int][]string{}, functions: map[specs.VAddr][]string{},
		dynamic: map[string]elfobj.Symbol{}, ambiguous: map[string]bool{}, slots: map[string]slot{}, bound: map[string]bool{},
	}
	if err := x.readDynamic(m); err != nil {
		return nil, err
	}
	syms, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	source, group := "", 0
	for _, s := range syms {
		if s.Type == elf.STT_FUNC && s.Defined() && s.Size > 0 {
			x.functions[specs.VAddr(s.Value)] = append(x.functions[specs.VAddr(s.Value)], s.Name)
		}
		switch {
		case s.Type == elf.STT_FILE:
			source = s.Name
			group++
			x.groups[source] = append(x.groups[source], group)
		case !s.Defined() || s.Type == elf.STT_SECTION || s.Name == "":
		case s.Bind == elf.STB_LOCAL:
			x.locals[s.Name] = append(x.locals[s.Name], localSymbol{s, source, group})
			if named(s) {
				x.members[group] = append(x.members[group], s.Name)
			}
		default:
			// ld appends the version: NAME@@VERSION for the default one, and
			// NAME@VERSION for copy relocations and for versions that only
			// references made to an older library have.
			name, version, versioned := strings.Cut(s.Name, "@")
			if !versioned || strings.HasPrefix(version, "@") {
				x.globals[name] = s
			} else if _, taken := x.globals[name]; !taken && !x.shared() {
				x.globals[name] = s
			}
		}
	}
	x.last = group
	return x, nil
}

// readDynamic fills dynamic, slots and bound. A static executable has none.
func (x *symbolIndex) readDynamic(m *machine) error {
	dynamic, err := x.file.Dynamic()
	if errors.Is(err, elfobj.ErrNoDynamic) {
		return nil
	} else if err != nil {
		return err
	}
	x.lazy, x.pie = !dynamic.Now, dynamic.Flags1&elf.DF_1_PIE != 0
	syms, err := x.file.DynSymbols()
	if err != nil {
		return err
	}
	chosen := map[string]int{}
	for i, s := range syms {
		if s.Name == "" {
			continue
		}
		old, taken := x.dynamic[s.Name]
		if taken && !old.Defined() && !s.Defined() {
			x.ambiguous[s.Name] = true
		}
		if !taken || s.Defined() && (!old.Defined() || !s.VersionHidden) {
			x.dynamic[s.Name], chosen[s.Name] = s, i
		}
	}
	relocs, err := x.file.DynRelocs()
	if err != nil {
		return err
	}
	for _, r := range relocs {
		if r.Symbol <= 0 || r.Symbol >= len(syms) || chosen[syms[r.Symbol].Name] != r.Symbol {
			continue
		}
		name, lazy := syms[r.Symbol].Name, r.Type == m.jumpSlot && x.lazy
		x.bound[name] = true
		if r.Type != m.globDat && r.Type != m.jumpSlot {
			continue
		}
		if old, ok := x.slots[name]; !ok || old.lazy {
			x.slots[name] = slot{specs.VAddr(r.Offset), lazy}
		}
	}
	return nil
}

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

func newPlacement(x *symbolIndex, m *machine, object *elfobj.File) (*placement, error) {
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
	p.group, err = p.findGroup()
	return p, err
}

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
		if r.howto.put(want, r.howto.compute(uint64(at)+r.value, r.addend, uint64(r.place))) == nil && bytes.Equal(want, linked) {
			agree = true
		} else {
			disagree = true
		}
	}
	return agree, disagree, nil
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
			if h, ok := p.machine.relocs[r.Type]; ok && !h.got {
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
		return s, 0, errors.New("is a number, not an address in the target")
	}
	b, ok := p.bases[s.Section]
	if !ok {
		b.addr, b.err = p.locate(s.Section)
		p.bases[s.Section] = b
	}
	return s, b.addr + specs.VAddr(s.Value), b.err
}

// locate finds the address of a section of the object. Every symbol that the
// section defines votes for the addresses it could have; the section's bytes
// decide between candidates, and contradict a wrong only one.
func (p *placement) locate(section elf.SectionIndex) (specs.VAddr, error) {
	var candidates map[specs.VAddr]bool
	certain := p.group >= 0 || len(p.index.groups[p.source]) <= 1
	for _, s := range p.symbols {
		// Symbols that begin with a dollar sign say where code and data are
		// (AAELF64, "Mapping symbols").
		if s.Section != section || s.Type == elf.STT_SECTION || s.Type == elf.STT_FILE || s.Name == "" || s.Name[0] == '$' {
			continue
		}
		votes := p.votes(s)
		if len(votes) == 0 {
			continue // discarded by name, such as .L symbols; others decide
		}
		certain = certain || s.Bind != elf.STB_LOCAL
		if candidates == nil {
			candidates = votes
			continue
		}
		for c := range candidates {
			if !votes[c] {
				delete(candidates, c)
			}
		}
	}
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
		return 0, fmt.Errorf("could be at %d places of the linked file: file name, symbol names and bytes are the same", len(found))
	case !certain:
		return 0, fmt.Errorf("may belong to another of the %d files called %s: this one has nothing else in the linked file to tell it by", len(p.index.groups[p.source]), p.source)
	}
	return found[0], nil
}

// votes returns the addresses where s's section would begin if s were one of
// the linked file's symbols of that name.
func (p *placement) votes(s elfobj.Symbol) map[specs.VAddr]bool {
	v := map[specs.VAddr]bool{}
	if s.Bind != elf.STB_LOCAL {
		if g, ok := p.index.globals[s.Name]; ok {
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
