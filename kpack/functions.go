package kpack

import (
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// functions adds the unit's redirected functions to the table.
func (b *builder) functions(um *unitMerge) (reasons []error) {
	for _, f := range um.unit.Functions {
		if err := b.function(um, f); err != nil {
			reasons = append(reasons, &Refusal{um.unit.Name, "function", f.Original, err, nil})
		}
	}
	return reasons
}

const hintFolded = "link without --icf, or give the function something of its own"

// function adds one function to the table, unless it is there.
func (b *builder) function(um *unitMerge, f BuildFunction) error {
	symbol, err := um.labelled(f.Label)
	if err != nil {
		return err
	}
	s, addr, err := um.place.find(f.Original)
	copied := errors.Is(err, ErrNotLinked)
	if copied {
		s, addr, err = b.linkedCopy(um, s)
	}
	if err != nil {
		return err
	}
	if s.Type != elf.STT_FUNC || s.Size == 0 {
		return hint("declare it with .type NAME, @function and .size NAME, .-NAME", errors.New("is not a function with a size"))
	}
	fn := Function{
		Name: f.Original, File: um.unit.Name, Reason: f.Reason, Symbol: symbol,
		Original: specs.Range[specs.VAddr]{Lo: addr, Hi: addr + specs.VAddr(s.Size)},
		NextCall: slices.Contains(b.in.Meta.Consistency.NextCall, f.Original),
	}
	undo, err := b.entry(&fn)
	if err != nil {
		return err
	}
	if known, err := b.shared(um, s, &fn); known || err != nil {
		return err
	}
	if fn.Cold, err = b.cold(um, f.Original, copied); err != nil {
		return err
	}
	if fn.Through != nil {
		b.undos[addr] = undo
	}
	if fn.NextCall {
		if err := b.reentry(fn); err != nil {
			return err
		}
	}
	b.patch.Functions = append(b.patch.Functions, fn)
	return nil
}

// labelled returns the index, in the patch, of the symbol that the unit's
// assembly gives a name.
func (um *unitMerge) labelled(label string) (int, error) {
	symbol := -1
	for i, s := range um.symbols {
		if at, ok := um.symbol[i]; ok && s.Name == label {
			symbol = at
		}
	}
	if symbol < 0 {
		return symbol, fmt.Errorf("the patch's assembly does not define %s", label)
	}
	return symbol, nil
}

// entry reads the function's code, and finds how its entry can be redirected.
// Undo is what around says of it.
func (b *builder) entry(fn *Function) (undo []byte, err error) {
	addr, size := fn.Original.Lo, fn.Original.Size()
	body, err := b.in.Original.ReadAt(addr, size)
	if err != nil {
		return nil, err
	}
	fn.Digest = specs.DigestOf(body)
	if fn.Room, err = b.room(addr, size); err != nil {
		return nil, err
	}
	if fn.Entry, err = b.in.Original.ReadAt(addr, min(fn.Room, maxEntryBytes)); err != nil {
		return nil, err
	}
	skip, undo, err := b.machine.around(fn.Entry, addr)
	if errors.Is(err, ErrTooShort) {
		return nil, hint("leave the function as it is and change its callers; in the next release, build with -fpatchable-function-entry=16", err)
	}
	if skip > 0 {
		fn.Through = &Through{Skip: skip}
	}
	return undo, err
}

// shared refuses a function, the unit's symbol s, that has code in common with
// another one. It reports whether it is in the table already.
func (b *builder) shared(um *unitMerge, s elfobj.Symbol, fn *Function) (known bool, err error) {
	addr := fn.Original.Lo
	for _, have := range b.patch.Functions {
		if have.Original.Lo == addr && s.Bind == elf.STB_WEAK && have.Symbol == fn.Symbol {
			return true, nil // an inline function that several units define
		}
		if have.Original.Lo < addr+specs.VAddr(fn.Room) && addr < have.Original.Lo+specs.VAddr(have.Room) {
			return false, hint(hintFolded, fmt.Errorf("shares its code with %s: identical code was folded", have.Name))
		}
	}
	if other := b.folded(um, s, addr); other != "" {
		return false, hint(hintFolded, fmt.Errorf("shares its code with %s, which would change too", other))
	}
	return false, nil
}

// linkedCopy finds the function that is in the target in place of symbol s of a
// COMDAT group of the unit: another unit's, of which the linker kept one (gABI,
// "Section Groups"). What is not weak in the target is none of them.
func (b *builder) linkedCopy(um *unitMerge, s elfobj.Symbol) (elfobj.Symbol, specs.VAddr, error) {
	g, ok := b.original.globals[s.Name]
	i, in := s.InSection()
	if !ok || !in || um.unit.OriginalObject.Sections[i].Flags&elf.SHF_GROUP == 0 || s.Bind != elf.STB_WEAK || g.Bind != elf.STB_WEAK {
		return s, 0, ErrNotLinked
	}
	return g, specs.VAddr(g.Value), nil
}

// cold returns where the cold part of a function of the unit lies, which gcc
// calls NAME.cold, or an empty range. That of a function that was copied from
// another unit is found by its name: the linker keeps the group of one unit
// only, so that no other has it, but for static functions.
func (b *builder) cold(um *unitMerge, name string, copied bool) (specs.Range[specs.VAddr], error) {
	name += ".cold"
	if _, own := um.place.byName[name]; !own && !copied {
		return specs.Range[specs.VAddr]{}, nil
	}
	if s, addr, err := um.place.find(name); err == nil && !copied {
		return specs.Range[specs.VAddr]{Lo: addr, Hi: addr + specs.VAddr(s.Size)}, nil
	}
	switch parts := b.original.locals[name]; len(parts) {
	case 0:
		return specs.Range[specs.VAddr]{}, nil
	case 1:
		at := specs.VAddr(parts[0].Value)
		return specs.Range[specs.VAddr]{Lo: at, Hi: at + specs.VAddr(parts[0].Size)}, nil
	default:
		return specs.Range[specs.VAddr]{}, hint("in the next release, compile it with -fno-reorder-blocks-and-partition",
			fmt.Errorf("its cold part is one of %d that the target has under the name %s", len(parts), name))
	}
}

// folded returns the name of a function that the linker put at the address of
// the unit's function s though it is another one, or "".
func (b *builder) folded(um *unitMerge, s elfobj.Symbol, addr specs.VAddr) string {
	own := map[string]bool{}
	for _, t := range um.place.symbols {
		if t.Section == s.Section && t.Value == s.Value {
			name, _, _ := strings.Cut(t.Name, "@")
			own[name] = true
		}
	}
	for _, t := range b.original.functions[addr] {
		if name, _, _ := strings.Cut(t, "@"); !own[name] {
			return t
		}
	}
	return ""
}

// room returns how many bytes from addr on belong to the function or to the
// padding behind it: no more than up to the next symbol's address.
func (b *builder) room(addr specs.VAddr, size uint64) (uint64, error) {
	room := size
	if room >= uint64(b.machine.maxEntry) {
		return room, nil
	}
	end := addr + specs.VAddr(size)
	limit := end + 16
	syms, err := b.in.Original.Symbols()
	if err != nil {
		return 0, err
	}
	for _, s := range syms {
		if v := specs.VAddr(s.Value); s.Section != elf.SHN_UNDEF && s.Type != elf.STT_FILE && v >= end && v < limit {
			limit = v
		}
	}
	pad, err := b.in.Original.ReadAt(end, uint64(limit-end))
	if err != nil {
		return room, nil // the function is the last of its segment
	}
	return room + uint64(b.machine.padding(pad)), nil
}
