package kpack

import (
	"debug/elf"
	"errors"
	"fmt"

	"github.com/fother/fother/kpack/elfobj"
)

// bind returns the patch's symbol for symbol i of a unit's object, as seen by
// a relocation of the given type.
func (b *builder) bind(um *unitMerge, i int, h howto) (int, error) {
	s := um.symbols[i]
	if s.Section != elf.SHN_UNDEF {
		at, ok := um.symbol[i]
		if !ok {
			return 0, fmt.Errorf("is defined in a section that is not part of the patch")
		}
		return at, nil
	}
	key := outsideKey{0, s.Name}
	if um.unit.Local[s.Name] {
		key.unit = um.number
	}
	if at, ok := b.outside[key]; ok {
		return at, b.checkCopy(b.patch.Symbols[at], h)
	}
	symbol, err := b.outsideSymbol(um, s.Name, h)
	if err != nil {
		return 0, err
	}
	if err := b.checkCopy(symbol, h); err != nil {
		return 0, err
	}
	if symbol.Binding == Carried {
		at := b.carried[symbol.Name]
		b.outside[key] = at
		return at, nil
	}
	at := len(b.patch.Symbols)
	b.patch.Symbols = append(b.patch.Symbols, symbol)
	b.outside[key] = at
	return at, nil
}

// checkCopy refuses direct references to imported data: the linker would have
// made a copy relocation, for which the running program has no room.
func (b *builder) checkCopy(s Symbol, h howto) error {
	if s.Binding == Imported && !s.Func && !h.got && h.value != valueAbs {
		return errors.New("data of another object is referred to directly, which needs a copy relocation; build with -fPIC or -mno-direct-extern-access")
	}
	return nil
}

// outsideSymbol finds what a name means that the patch's assembly does not
// define: a local symbol of the original unit, a symbol of the target, one
// that another unit of the patch brings, or an import, in this order.
func (b *builder) outsideSymbol(um *unitMerge, name string, h howto) (Symbol, error) {
	if um.unit.Local[name] {
		s, addr, err := um.place.find(name)
		if err != nil {
			return Symbol{}, err
		}
		return Symbol{Name: name, Binding: Original, Value: uint64(addr), Size: s.Size, Func: s.Type == elf.STT_FUNC}, nil
	}
	if s, ok := b.definition(um, name); ok {
		if s.Type == elf.STT_TLS {
			return Symbol{}, errors.New("thread-local storage is not supported yet")
		}
		if s.Type == elf.STT_GNU_IFUNC {
			return Symbol{}, errors.New("is an indirect function of the target itself, which is not supported yet")
		}
		if b.preemptible(name) {
			return b.imported(b.original, name, h)
		}
		return Symbol{Name: name, Binding: Original, Value: s.Value, Size: s.Size, Func: s.Type == elf.STT_FUNC}, nil
	}
	if _, ok := b.original.slots[name]; ok {
		return b.imported(b.original, name, h)
	}
	if at, ok := b.carried[name+carriedSuffix]; ok {
		return b.patch.Symbols[at], nil
	}
	return b.imported(b.patched, name, h)
}

// carriedSuffix ends the names of carried symbols (package differ, Suffix).
const carriedSuffix = ".kpatch"

// definition returns the target's own symbol of a global name. A hidden symbol
// is local in a linked file, so the unit that defines it is asked too.
func (b *builder) definition(um *unitMerge, name string) (elfobj.Symbol, bool) {
	if s, ok := b.original.globals[name]; ok {
		return s, true
	}
	if s, addr, err := um.place.find(name); err == nil {
		s.Value = uint64(addr)
		return s, true
	}
	var hidden []localSymbol
	for _, l := range b.original.locals[name] {
		if l.Vis != elf.STV_DEFAULT {
			hidden = append(hidden, l)
		}
	}
	if len(hidden) == 1 {
		return hidden[0].Symbol, true
	}
	return elfobj.Symbol{}, false
}

// preemptible reports whether another object can take the place of the
// target's definition of a name (gABI, "Symbol Visibility"; DF_SYMBOLIC).
func (b *builder) preemptible(name string) bool {
	x := b.original
	s, ok := x.dynamic[name]
	return ok && x.file.Type == elf.ET_DYN && !x.pie && !x.symbolic && s.Defined() && s.Vis == elf.STV_DEFAULT
}

// imported makes the symbol for an import, as the dynamic symbol table of x
// (the original's, or for new imports the patched build's) has it.
func (b *builder) imported(x *symbolIndex, name string, h howto) (Symbol, error) {
	s, ok := x.dynamic[name]
	if !ok {
		return Symbol{}, errors.New("is neither in the original nor an import of the patched build; does the fix add a file or a library?")
	}
	if s.Type == elf.STT_TLS {
		return Symbol{}, errors.New("thread-local storage is not supported yet")
	}
	im := &Import{Version: s.Version}
	if sl, ok := b.original.slots[name]; ok {
		im.Slot, im.Lazy = sl.addr, sl.lazy
	}
	code := s.Type == elf.STT_FUNC || s.Type == elf.STT_GNU_IFUNC || s.Type == elf.STT_NOTYPE && (h.branch || im.Lazy)
	return Symbol{Name: name, Binding: Imported, Func: code, Import: im}, nil
}
