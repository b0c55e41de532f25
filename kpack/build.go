package kpack

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// BuildInput is what a patch for one target is built from.
type BuildInput struct {
	Arch *arch.Arch
	Name string // base name of the target
	Meta Meta
	// Original is the target as it was linked, with symbols. Patched is the
	// same deliverable of the patched build: it says which version of a new
	// import the linker chose.
	Original, Patched *elfobj.File
	Units             []BuildUnit
	// Fresh are the names of variables that are not to go on with those of an
	// older level. One that the patch does not bring counts for nothing.
	Fresh []string
}

// BuildUnit is one unit's share of the patch.
type BuildUnit struct {
	Name string
	// Object is the assembled patch assembly, OriginalObject the object of the
	// same unit in the original build, nil if that has none.
	Object, OriginalObject *elfobj.File
	// Functions are the carried functions that replace one of the original.
	Functions []BuildFunction
	// Local holds the undefined symbols of Object that name a local symbol of
	// the original unit; all others are global.
	Local map[string]bool
	// Variables tells more of the writable objects that Object defines.
	Variables []BuildVariable
}

// BuildFunction is a function whose entry is to be redirected.
type BuildFunction struct {
	Original string // its symbol in the original unit
	Label    string // the symbol of the new body in the patch's object
	Reason   string
}

// Build makes the patch for one target. It refuses what cannot work with every
// reason at once, each naming unit and symbol: a [*RefusalError].
func Build(in BuildInput) (*Patch, error) {
	m, err := machineOf(in.Arch)
	if err != nil {
		return nil, err
	}
	id, err := in.Original.BuildID()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Name, err)
	}
	b := &builder{in: in, machine: m, carried: map[string]int{}, weak: map[string]bool{}, labels: map[string]bool{}, outside: map[outsideKey]int{}, origins: map[int]origin{}, undos: map[specs.VAddr][]byte{}}
	b.patch = &Patch{Arch: in.Arch, Target: Target{BuildID: id, Name: in.Name, Image: in.Original.Image()}, Meta: in.Meta}
	if b.original, err = newSymbolIndex(in.Original, m); err != nil {
		return nil, fmt.Errorf("%s: %w", in.Name, err)
	}
	if b.patched, err = newSymbolIndex(in.Patched, m); err != nil {
		return nil, fmt.Errorf("%s (patched): %w", in.Name, err)
	}
	var units []*unitMerge
	var reasons []error
	for _, u := range in.Units {
		for _, f := range u.Functions {
			b.labels[f.Label] = true
		}
	}
	for i, u := range in.Units {
		um, err := b.merge(u, i+1)
		if isRefusal(err) {
			reasons = append(reasons, err)
			continue
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Name, err)
		}
		units = append(units, um)
	}
	for _, um := range units {
		reasons = append(reasons, b.relocs(um)...)
		reasons = append(reasons, b.functions(um)...)
		reasons = append(reasons, b.declared(um)...)
	}
	reasons = append(reasons, b.moved()...)
	if err := b.spread(); err != nil {
		reasons = append(reasons, err)
	}
	if err := b.unwinder(); err != nil {
		reasons = append(reasons, &Refusal{Err: err})
	}
	if err := b.sortHooks(); err != nil {
		reasons = append(reasons, &Refusal{Err: err})
	}
	if len(reasons) == 0 && len(b.patch.Functions) == 0 {
		reasons = append(reasons, &Refusal{Err: errNothing})
	}
	if err := refusalError(reasons); err != nil {
		return nil, err
	}
	if err := b.gates(); err != nil {
		return nil, fmt.Errorf("%s: %w", in.Name, err)
	}
	if err := b.variables(); err != nil {
		return nil, err
	}
	b.prune()
	b.patch.Meta.AddressTaken = b.patch.addressesTaken(m)
	return b.patch, nil
}

var errNothing = hint("let a function that the original build has use what is new", errors.New("no function of the original changes: nothing leads to what the fix adds"))

// builder holds the state of one Build.
type builder struct {
	in                BuildInput
	machine           *machine
	original, patched *symbolIndex
	patch             *Patch
	// carried finds the global symbols that the units define; weak has those
	// of them that are weak.
	carried map[string]int
	weak    map[string]bool
	// labels are the new bodies of functions that are redirected.
	labels map[string]bool
	// undos is the code of Function.Through, but for the jump, by the function's
	// address.
	undos map[specs.VAddr][]byte
	hooks []hookDeclaration
	// origins are those of the carried symbols, by index.
	origins map[int]origin
	// outside finds bound symbols, so that each stands once in the patch.
	outside map[outsideKey]int
}

type outsideKey struct {
	unit int // 0 for global symbols, else the unit's number from 1 on
	name string
	plt  bool // its canonical PLT entry
	// thread is set for references to thread-local storage.
	thread bool
}

// unitMerge remembers where the pieces of a unit's object went.
type unitMerge struct {
	unit    BuildUnit
	number  int
	place   *placement
	symbols []elfobj.Symbol
	section map[elf.SectionIndex]merged
	symbol  map[int]int // symbol index in the object -> in the patch
	hooks   int         // the section of the object that declares hooks, or 0
}

type merged struct {
	section int    // index in Patch.Sections
	offset  uint64 // of the unit's piece in it
}

// kinds says what becomes of an object's sections, by name.
var kinds = map[string]Kind{
	".kpatch.text": Text, ".kpatch.rodata": ROData, ".kpatch.data": Data, ".kpatch.bss": BSS, ehFrame: ROData,
}

const ehFrame = ".eh_frame"

// merge appends the sections of a unit's object to those of the patch, and
// adds the symbols that the object defines.
func (b *builder) merge(u BuildUnit, number int) (*unitMerge, error) {
	if u.Object.Arch != b.in.Arch || u.OriginalObject != nil && u.OriginalObject.Arch != b.in.Arch {
		return nil, fmt.Errorf("object for %v in a patch for %v", u.Object.Arch, b.in.Arch)
	}
	syms, err := u.Object.Symbols()
	if err != nil {
		return nil, err
	}
	place, err := newPlacement(b.original, b.machine, u.OriginalObject)
	if err != nil {
		return nil, err
	}
	um := &unitMerge{
		unit: u, number: number, place: place, symbols: syms,
		section: map[elf.SectionIndex]merged{}, symbol: map[int]int{},
	}
	for i, s := range u.Object.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Size == 0 || s.Type == elf.SHT_NOTE {
			continue
		}
		if s.Name == sectionHooks {
			um.hooks = i
			continue
		}
		kind, ok := kinds[s.Name]
		if !ok {
			return nil, &Refusal{u.Name, "section", s.Name, hint("compile the function in a file of its own, or write it without that inline assembly", errors.New("cannot be part of a patch")), nil}
		}
		if um.section[elf.SectionIndex(i)], err = b.append(kind, s); err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
	}
	for i, s := range syms {
		if at, ok := um.section[s.Section]; ok && i > 0 {
			if um.symbol[i], err = b.define(s, at, number); err != nil {
				return nil, &Refusal{u.Name, "symbol", strings.TrimSuffix(s.Name, carriedSuffix), err, nil}
			}
		}
	}
	return um, nil
}

// append adds the content of s to the patch's section of the same name.
func (b *builder) append(kind Kind, s elfobj.Section) (merged, error) {
	i := slices.IndexFunc(b.patch.Sections, func(have Section) bool { return have.Name == s.Name })
	if i < 0 {
		i = len(b.patch.Sections)
		b.patch.Sections = append(b.patch.Sections, Section{Name: s.Name, Kind: kind, Align: 1})
	}
	to := &b.patch.Sections[i]
	align := max(1, s.Align)
	to.Align = max(to.Align, align)
	offset := alignUp(to.Size, align)
	if align > maxAlign || offset+s.Size > maxMemory || offset < to.Size {
		return merged{}, fmt.Errorf("alignment %d or size %d is too large for a patch", align, s.Size)
	}
	if s.Name == ehFrame && offset != to.Size {
		// What fills the gap would end the list (LSB core, "Exception Frames").
		return merged{}, fmt.Errorf("its %d bytes do not go on where those of the unit before end", s.Size)
	}
	if kind != BSS {
		data, err := s.Data()
		if err != nil {
			return merged{}, err
		}
		to.Data = append(append(to.Data, make([]byte, offset-to.Size)...), data...)
	}
	to.Size = offset + s.Size
	return merged{i, offset}, nil
}

// define adds a symbol that the object of a unit defines. Of weak symbols, which
// several units may define, the first definition is everybody's. Internal ones
// are the unit's own (package differ).
func (b *builder) define(s elfobj.Symbol, at merged, unit int) (int, error) {
	i, name := len(b.patch.Symbols), s.Name
	if s.Type == elf.STT_GNU_IFUNC || s.Type == elf.STT_TLS {
		return 0, errNewKind
	}
	if s.Type == elf.STT_SECTION {
		name = ""
	}
	if first, taken := b.carried[name]; taken && s.Bind == elf.STB_WEAK {
		return first, nil
	}
	b.patch.Symbols = append(b.patch.Symbols, Symbol{
		Name: name, Binding: Carried, Section: at.section, Value: at.offset + s.Value, Size: s.Size, Func: s.Type == elf.STT_FUNC,
	})
	own := s.Bind == elf.STB_LOCAL || s.Vis == elf.STV_INTERNAL
	b.origins[i] = origin{unit, s.Name, !own}
	if own {
		return i, nil
	}
	if first, taken := b.carried[name]; taken && !b.weak[name] {
		return first, hint("give one of the two another name", errors.New("is defined by two units"))
	}
	b.carried[name], b.weak[name] = i, s.Bind == elf.STB_WEAK
	return i, nil
}

// relocs converts the relocations of a unit's object.
func (b *builder) relocs(um *unitMerge) (reasons []error) {
	refused := &symbolRefusals{unit: um.unit.Name}
	for _, i := range slices.Sorted(maps.Keys(um.section)) {
		at := um.section[i]
		relocs, err := um.unit.Object.Relocs(int(i))
		if err != nil {
			return []error{fmt.Errorf("%s: %w", um.unit.Name, err)}
		}
		for _, r := range relocs {
			if r.Symbol < 0 || r.Symbol >= len(um.symbols) {
				return []error{fmt.Errorf("%s: relocation at %#x names symbol %d of %d", um.unit.Name, r.Offset, r.Symbol, len(um.symbols))}
			}
		}
		to := &b.patch.Sections[at.section]
		if to.Kind != BSS {
			var bad []error
			if relocs, bad = b.relaxThreads(um, to.Data[at.offset:], relocs); bad != nil {
				reasons = append(reasons, bad...)
				continue
			}
		}
		for _, r := range relocs {
			name := um.symbols[r.Symbol].Name
			h, ok := b.machine.relocs[r.Type]
			if !ok {
				refused.add(name, um.function(i, r.Offset), hint("build with -fPIC in the next release, or use another function or variable",
					fmt.Errorf("%s is not supported%s", b.machine.relocName(r.Type), tlsHint(um.symbols[r.Symbol]))))
				continue
			}
			symbol, err := b.bindAny(um, r.Symbol, h)
			if err == nil {
				err = checkNear(b.patch.Symbols[symbol], h)
			}
			if err != nil {
				refused.add(name, um.function(i, r.Offset), err)
				continue
			}
			to.Relocs = append(to.Relocs, Reloc{Offset: at.offset + r.Offset, Type: r.Type, Symbol: symbol, Addend: r.Addend})
		}
	}
	for i := range b.patch.Sections {
		slices.SortStableFunc(b.patch.Sections[i].Relocs, func(x, y Reloc) int { return cmp.Compare(x.Offset, y.Offset) })
	}
	return append(reasons, refused.all...)
}

// function returns the name of the function that has an offset in a section of
// the unit's object, or "".
func (um *unitMerge) function(section elf.SectionIndex, offset uint64) string {
	for _, s := range um.symbols {
		if s.Section == section && s.Type == elf.STT_FUNC && offset >= s.Value && offset-s.Value < s.Size {
			return strings.TrimSuffix(s.Name, carriedSuffix)
		}
	}
	return ""
}

// moved refuses what is new in its unit, but has the name of something that
// another unit of the original defines, or that the original imports:
// unchanged code would go on using that.
// Weak functions and variables are in every unit that uses them.
func (b *builder) moved() (reasons []error) {
	type place struct {
		section int
		value   uint64
	}
	bodies := map[place]bool{} // of redirected functions, which may have several names
	for _, s := range b.patch.Symbols {
		if s.Binding == Carried && b.labels[s.Name] {
			bodies[place{s.Section, s.Value}] = true
		}
	}
	for _, label := range slices.Sorted(maps.Keys(b.carried)) {
		name, own := strings.TrimSuffix(label, carriedSuffix), b.patch.Symbols[b.carried[label]]
		if _, ok := b.original.globals[name]; ok && name != label && !bodies[place{own.Section, own.Value}] && !b.weak[label] {
			reasons = append(reasons, &Refusal{Kind: "symbol", Name: name, Err: hint("leave it where it was", errors.New("the fix moves it to another file, or defines it once more"))})
		}
		if s, known := b.original.dynamic[name]; known && !s.Defined() && name != label && !b.weak[label] {
			reasons = append(reasons, &Refusal{Kind: "symbol", Name: name, Err: errInterposed})
		}
	}
	return reasons
}

// idle reports whether a carried symbol that nothing refers to is a variable of
// an inline function or a template that another unit of the original has: all
// use that one, and the copy lies idle.
func (b *builder) idle(s Symbol) bool {
	_, had := b.original.globals[strings.TrimSuffix(s.Name, carriedSuffix)]
	return had && !s.Func && b.weak[s.Name]
}

// prune drops symbols that nothing refers to, puts imports last, and renumbers
// the references. Carried symbols with a name stay, for debuggers.
func (b *builder) prune() {
	p := b.patch
	used := p.used()
	renumber := make([]int, len(p.Symbols))
	var keep []Symbol
	for _, imports := range []bool{false, true} {
		for i, s := range p.Symbols {
			if (s.Binding == Imported) == imports && (used[i] || s.Binding == Carried && s.Name != "" && !b.idle(s)) {
				renumber[i] = len(keep)
				keep = append(keep, s)
			}
		}
	}
	p.Symbols = keep
	for i := range p.Sections {
		for j := range p.Sections[i].Relocs {
			r := &p.Sections[i].Relocs[j]
			r.Symbol = renumber[r.Symbol]
		}
	}
	for i := range p.Hooks {
		p.Hooks[i].Symbol = renumber[p.Hooks[i].Symbol]
	}
	for i := range p.Variables {
		p.Variables[i].Symbol = renumber[p.Variables[i].Symbol]
	}
	for i := range p.Functions {
		f := &p.Functions[i]
		f.Symbol = renumber[f.Symbol]
		if f.Copy != nil {
			f.Copy.Symbol = renumber[f.Copy.Symbol]
		}
		if f.Through != nil {
			f.Through.Symbol = renumber[f.Through.Symbol]
		}
	}
	slices.SortFunc(p.Functions, func(x, y Function) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.File, y.File), cmp.Compare(x.Original.Lo, y.Original.Lo))
	})
}
