package kpack

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// bindAny returns the patch's symbol for symbol i of a unit's object.
func (b *builder) bindAny(um *unitMerge, i int, h howto) (int, error) {
	s := um.symbols[i]
	switch {
	case h.tls != tlsNone && s.Type != elf.STT_TLS:
		return 0, errNotThread
	case h.tls != tlsNone:
		return b.bindThread(um, i, h)
	case s.Type == elf.STT_TLS:
		return 0, errThreadPlain
	}
	return b.bind(um, i, h)
}

func tlsHint(s elfobj.Symbol) string {
	if s.Type == elf.STT_TLS {
		return " (thread-local storage)"
	}
	return ""
}

// bind returns the patch's symbol for symbol i of a unit's object, as seen by
// a relocation of the given type.
func (b *builder) bind(um *unitMerge, i int, h howto) (int, error) {
	s := um.symbols[i]
	if name, ok := strings.CutSuffix(s.Name, carriedSuffix); ok && h.call && s.Bind != elf.STB_LOCAL && b.preemptible(name) {
		// Another object may stand in for the function; else the call comes
		// back to the new body through the old entry.
		s = elfobj.Symbol{Name: name}
	} else if ok && s.Bind == elf.STB_WEAK && !b.labels[s.Name] {
		// New in this unit, but another one had it before: an inline function,
		// a static member of a template, a vtable.
		if _, had := b.original.globals[name]; had {
			s = elfobj.Symbol{Name: name}
		}
	}
	if s.Section != elf.SHN_UNDEF {
		at, ok := um.symbol[i]
		if !ok {
			return 0, fmt.Errorf("is defined in a section that is not part of the patch")
		}
		return at, nil
	}
	key := outsideKey{name: s.Name}
	if um.unit.Local[s.Name] {
		key.unit = um.number
	} else if plt, ok := b.canonicalPLT(s.Name, h); ok {
		key.plt = true
		if _, ok := b.outside[key]; !ok {
			b.outside[key] = len(b.patch.Symbols)
			b.patch.Symbols = append(b.patch.Symbols, plt)
		}
		return b.outside[key], nil
	}
	if at, ok := b.outside[key]; ok {
		symbol := &b.patch.Symbols[at]
		symbol.Func = symbol.Func || symbol.Binding == Imported && h.call
		if symbol.Binding == Imported && symbol.Func && !h.call && !h.got && !b.dynamic(s.Name) {
			return 0, hint(hintIndirect, errIndirectAddress)
		}
		return at, checkDirect(*symbol, h)
	}
	symbol, err := b.outsideSymbol(um, s.Name, h)
	if s.Bind == elf.STB_WEAK && errors.Is(err, errMissing) {
		return 0, hint(hintNowhere, errNowhere)
	}
	if err != nil {
		return 0, err
	}
	if err := checkDirect(symbol, h); err != nil {
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

// checkDirect refuses direct references to imported data, in anything but a
// whole address: the linker would have made a copy relocation, for which the
// running program has no room.
func checkDirect(s Symbol, h howto) error {
	if s.Binding == Imported && !s.Func && !h.got && (h.value != valueAbs || h.size != 8) {
		return hint(hintCopy, errCopy)
	}
	return nil
}

// checkNear refuses fields that reach no further than the patch for what is in the target.
func checkNear(s Symbol, h howto) error {
	if s.Binding == Original && h.near && !h.got {
		return hint("build with -mcmodel=small in the next release", fmt.Errorf("is in the target, and %s reaches no further than a megabyte", h.name))
	}
	return nil
}

const hintCopy = "use data that the original build uses already, or have a function return its address, such as dlsym; in the next release, build with -fPIC"

var errCopy = errors.New("data of another object is referred to directly, which needs a copy relocation")

var errInterposed = hint("give the new one another name",
	errors.New("is defined by the fix, but the original imports it from another object, as unchanged code goes on doing"))

// canonicalPLT returns the PLT entry that stands for the address of an imported
// function in the whole process, if the target has one (x86-64 psABI, "Function
// Addresses": undefined, with a value) and the relocation is not of a call.
func (b *builder) canonicalPLT(name string, h howto) (Symbol, bool) {
	s, ok := b.original.dynamic[name]
	if !ok || s.Defined() || s.Value == 0 || h.call {
		return Symbol{}, false
	}
	return Symbol{Name: name, Binding: Original, Value: s.Value, Func: true}, true
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
		s.Value = uint64(addr)
		return b.originalSymbol(name, s, h)
	}
	if s, ok := b.definition(um, name); ok {
		if b.preemptible(name) && s.Type != elf.STT_TLS && s.Type != elf.STT_GNU_IFUNC {
			return b.imported(b.original, name, h)
		}
		return b.originalSymbol(name, s, h)
	}
	at, carried := b.carried[name+carriedSuffix]
	_, slot := b.original.slots[name]
	s, known := b.original.dynamic[name]
	switch {
	case carried && known && !s.Defined():
		return Symbol{}, errInterposed
	case carried:
		return b.patch.Symbols[at], nil
	case slot:
		return b.imported(b.original, name, h)
	}
	return b.imported(b.patched, name, h)
}

// dynamic reports whether the dynamic linker knows a name: it is one of the
// original, or an import that is new.
func (b *builder) dynamic(name string) bool {
	_, known := b.original.dynamic[name]
	s, imported := b.patched.dynamic[name]
	return known || imported && !s.Defined()
}

// originalSymbol makes the symbol for s of the target, whose value is a
// link-time address.
func (b *builder) originalSymbol(name string, s elfobj.Symbol, h howto) (Symbol, error) {
	image := b.patch.Target.Image
	switch {
	case s.Type == elf.STT_TLS:
		return Symbol{}, errThreadPlain
	case s.Type == elf.STT_GNU_IFUNC:
		return b.indirect(name, s, h)
	case s.Section == elf.SHN_ABS && !s.Extended, specs.VAddr(s.Value) < image.Lo, specs.VAddr(s.Value) > image.Hi:
		return Symbol{}, hint(hintNumber, errors.New("is a number, not an address in the target"))
	}
	return Symbol{Name: name, Binding: Original, Value: s.Value, Size: s.Size, Func: s.Type == elf.STT_FUNC}, nil
}

// indirect makes the symbol for an indirect function of the target: it is
// reached by the GOT entry that holds the implementation which its resolver
// chose. Code that takes its address without that entry gets the address of a
// PLT entry of the target, which is not known.
func (b *builder) indirect(name string, s elfobj.Symbol, h howto) (Symbol, error) {
	at, ok := b.original.indirect[specs.VAddr(s.Value)]
	switch {
	case !ok:
		return Symbol{}, hint("call another function, or build the fix into the next release",
			errors.New("is an indirect function (ifunc) of the target that nothing in it calls by its global offset table"))
	case !h.call && !h.got:
		return Symbol{}, hint(hintIndirect, errIndirectAddress)
	}
	return Symbol{Name: name, Binding: Imported, Func: true, Import: &Import{Slot: at}}, nil
}

const hintIndirect = "call the function instead of taking its address; in the next release, build with -fPIC"

const hintNumber = "let the new code use a constant of its own"

const (
	hintMissing  = "use only what the original has or imports; --gc-sections leaves out what it did not use"
	hintVersions = "use another function or variable: which version the original means cannot be told"
)

var errMissing = errors.New("is neither in the original nor an import of the patched build; does the fix add a file or a library?")

// A weak symbol that nothing defines is zero for good where the linker of a
// program that is no PIE left no reference to it (gABI, "Symbol Table", STB_WEAK).
const hintNowhere = "take it that nobody defines it, and leave out what the changed functions do with it; in the next release, build with -fPIE"

var errNowhere = errors.New("is weak and defined nowhere: the link made it zero for good, and code with it cannot be moved")

var errIndirectAddress = errors.New("is an indirect function (ifunc) of the target, whose address is taken")

// carriedSuffix ends the names of carried symbols (package differ, Suffix).
const carriedSuffix = ".kpatch"

// definition returns the target's own symbol of a global name. One that is
// hidden, or that a version script hides, is local in a linked file, so the
// unit that defines it is asked too.
func (b *builder) definition(um *unitMerge, name string) (elfobj.Symbol, bool) {
	if s, ok := b.original.globals[name]; ok {
		return s, true
	}
	if s, addr, err := um.place.find(name); err == nil && s.Bind != elf.STB_LOCAL {
		s.Value = uint64(addr)
		return s, true
	}
	var hidden []localSymbol
	for _, l := range b.original.locals[name] {
		if b.original.wasGlobal(l) {
			hidden = append(hidden, l)
		}
	}
	if len(hidden) == 1 {
		return hidden[0].Symbol, true
	}
	return elfobj.Symbol{}, false
}

// preemptible reports whether another object can take the place of the
// target's definition of a name (gABI, "Symbol Visibility"). The linker knows
// it best, for there are -Bsymbolic, -Bsymbolic-functions and --dynamic-list
// too: it leaves references to such names to the dynamic linker, in one of
// the builds at least, for the patched one has all references of the patch.
func (b *builder) preemptible(name string) bool {
	x := b.original
	s, ok := x.dynamic[name]
	return ok && x.shared() && s.Defined() && s.Vis == elf.STV_DEFAULT && (x.bound[name] || b.patched.bound[name])
}

// imported makes the symbol for an import, as the dynamic symbol table of x
// (the original's, or for new imports the patched build's) has it.
func (b *builder) imported(x *symbolIndex, name string, h howto) (Symbol, error) {
	s, ok := x.dynamic[name]
	if !ok {
		return Symbol{}, hint(hintMissing, errMissing)
	}
	if s.Type == elf.STT_TLS {
		return Symbol{}, errThreadPlain
	}
	if x.ambiguous[name] {
		return Symbol{}, hint(hintVersions, errors.New("is imported in several versions"))
	}
	im := &Import{Version: s.Version}
	if sl, ok := b.original.slots[name]; ok {
		im.Slot, im.Lazy = sl.addr, sl.lazy
	}
	code := s.Type == elf.STT_FUNC || s.Type == elf.STT_GNU_IFUNC || s.Type == elf.STT_NOTYPE && (h.call || im.Lazy)
	return Symbol{Name: name, Binding: Imported, Func: code, Import: im}, nil
}
