package kpack

import (
	"debug/elf"
	"errors"
	"fmt"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// ThreadLocal says what the target knows at run time of a thread-local symbol.
// Addresses are link-time addresses in the target, 0 for what it does not
// have. Source: "ELF Handling For Thread-Local Storage".
type ThreadLocal struct {
	// Fixed is set for a variable of an executable: Offset is then its distance
	// in bytes from the thread pointer. Else it is by how many bytes what Slot
	// stands for lies behind the variable.
	Fixed  bool
	Offset int64
	// Slot is a GOT entry that holds an offset from the thread pointer (initial
	// exec).
	Slot specs.VAddr
	// Pair are two words, for __tls_get_addr, that stand for the symbol itself.
	Pair specs.VAddr
	// Module is a word that holds the module id of the target.
	Module specs.VAddr
	// Descriptor are the two words of the symbol's own TLS descriptor.
	Descriptor specs.VAddr
}

// ThreadPlace says where a thread-local variable is in a process.
type ThreadPlace struct {
	// Module is the dynamic linker's number of the object that defines the
	// variable, and Offset the variable's in each of the object's blocks, in
	// bytes.
	Module, Offset uint64
	// Static is set if all threads have the variable TP bytes from the thread
	// pointer.
	Static bool
	TP     int64
}

// ThreadResolver finds a thread-local symbol in a process. Link asks for
// those to which the target's own GOT entries do not lead; what is not known
// (no module, not static) it refuses.
type ThreadResolver func(sym Symbol) (ThreadPlace, error)

// ThreadOffset returns the distance in bytes from the thread pointer to the
// TLS block of an executable, whose PT_TLS segment is p.
func ThreadOffset(a *arch.Arch, p elf.ProgHeader) (int64, error) {
	m, err := machineOf(a)
	if err != nil {
		return 0, err
	}
	align := max(p.Align, 1)
	if align&(align-1) != 0 || align > maxThreadAlign || p.Memsz > maxMemory || p.Vaddr&(align-1) != 0 {
		return 0, fmt.Errorf("thread-local storage of %#x bytes at %#x, aligned to %#x, is not supported", p.Memsz, p.Vaddr, p.Align)
	}
	return m.tls.block(p.Memsz, align), nil
}

// maxThreadAlign bounds the alignment of thread-local storage, in bytes.
const maxThreadAlign = 1 << 16

// tlsMachine is what the package knows of an architecture's thread-local
// storage.
type tlsMachine struct {
	// offset, module and descriptor are the dynamic relocation types of GOT
	// entries.
	offset, module, descriptor uint32
	// block is the distance from the thread pointer to an executable's block.
	block func(size, align uint64) int64
	// resolver is code for descriptors whose second word is an offset from the
	// thread pointer.
	resolver []byte
	// addend is that of every reference to a GOT entry.
	addend int64
	// call marks the call of a descriptor; it has no field.
	call uint32
	// relax rewrites a sequence of code for a dynamic model, in the target an
	// executable, into one of local exec (own) or initial exec, as linkers do.
	// code is the section that r is in, next the relocation behind it.
	relax func(code []byte, r, next elfobj.Reloc, own bool) (relaxed, error)
}

// relaxed is what becomes of a relocation: the new one, unless it falls away,
// and whether the next one falls away.
type relaxed struct {
	reloc      elfobj.Reloc
	none, next bool
}

const hintThread = "use a variable that all threads share, or a function that the original build has"

var (
	errSequence    = hint("in the next release, build with -ftls-model=initial-exec", errors.New("the code that finds the thread-local variable is not understood"))
	errThreadPlain = hint(hintThread, errors.New("is a thread-local variable, referred to as if all threads had the same"))
	errEntryOffset = hint("in the next release, compile with -fno-section-anchors", errors.New("is thread-local, and a place near it is referred to by its entry"))
	errNotThread   = hint(hintThread, errors.New("is no thread-local variable of the original"))
	errNewKind     = hint(hintThread, errors.New("new indirect functions and thread-local variables are not supported"))
)

// moduleBase is the name by which compilers call the begin of the block.
const moduleBase = "_TLS_MODULE_BASE_"

// tlsIndex finds the GOT entries of a linked file for thread-local symbols.
type tlsIndex struct {
	slots, pairs, descriptors          map[string]specs.VAddr // of dynamic symbols
	ownSlots, ownPairs, ownDescriptors map[uint64]specs.VAddr // by the offset in the file's own block
	module                             specs.VAddr
}

func (x *symbolIndex) readThreads(relocs []elfobj.Reloc, syms []elfobj.Symbol, m *machine) {
	t := &x.threads
	t.slots, t.pairs, t.descriptors = map[string]specs.VAddr{}, map[string]specs.VAddr{}, map[string]specs.VAddr{}
	t.ownSlots, t.ownPairs, t.ownDescriptors = map[uint64]specs.VAddr{}, map[uint64]specs.VAddr{}, map[uint64]specs.VAddr{}
	for _, r := range relocs {
		at, offset := specs.VAddr(r.Offset), uint64(r.Addend)
		named, own := t.slots, t.ownSlots
		switch r.Type {
		case m.tls.offset:
		case m.tls.descriptor:
			named, own = t.descriptors, t.ownDescriptors
		case m.tls.module:
			named, own = t.pairs, t.ownPairs
		default:
			continue
		}
		if r.Symbol > 0 {
			if r.Addend == 0 {
				named[syms[r.Symbol].Name] = at
			}
			continue
		}
		if r.Type == m.tls.module {
			t.module = at
			word, err := x.file.ReadAt(at+8, 8) // the linker writes the offset itself
			if err != nil {
				continue
			}
			offset = get64(word)
		}
		own[offset] = at
	}
}

// segment returns the file's PT_TLS.
func (x *symbolIndex) segment() (elf.ProgHeader, bool) {
	for _, p := range x.file.Segments {
		if p.Type == elf.PT_TLS {
			return p, true
		}
	}
	return elf.ProgHeader{}, false
}

// bindThread returns the patch's symbol for thread-local symbol i of a unit's
// object.
func (b *builder) bindThread(um *unitMerge, i int, h howto) (int, error) {
	s := um.symbols[i]
	name := s.Name
	if h.tls == tlsLocal {
		name = moduleBase // whatever it names, the whole block is meant
	}
	if s.Section != elf.SHN_UNDEF && name != moduleBase {
		return 0, errNewKind
	}
	key := outsideKey{name: name, thread: true}
	if um.unit.Local[name] {
		key.unit = um.number
	}
	at, ok := b.outside[key]
	if !ok {
		symbol, err := b.threadSymbol(um, name, h)
		if err != nil {
			return 0, err
		}
		at = len(b.patch.Symbols)
		b.patch.Symbols = append(b.patch.Symbols, symbol)
		b.outside[key] = at
	}
	symbol := b.patch.Symbols[at]
	if (h.tls == tlsDirect && !symbol.Thread.Fixed) || (h.tls == tlsInBlock && symbol.Binding == Imported) {
		return 0, hint("in the next release, build with -fPIC and without -ftls-model=local-exec", errors.New("is thread-local in another object than this one"))
	}
	return at, nil
}

// threadSymbol finds what a thread-local name means, in the order of
// outsideSymbol.
func (b *builder) threadSymbol(um *unitMerge, name string, h howto) (Symbol, error) {
	if name == moduleBase {
		return b.ownThread(name, 0, 0)
	}
	if um.unit.Local[name] {
		s, offset, err := um.place.find(name)
		if err != nil {
			return Symbol{}, err
		}
		if s.Type != elf.STT_TLS {
			return Symbol{}, errNotThread
		}
		return b.ownThread(name, uint64(offset), s.Size)
	}
	if s, ok := b.definition(um, name); ok && !b.preemptible(name) {
		if s.Type != elf.STT_TLS {
			return Symbol{}, errNotThread
		}
		return b.ownThread(name, s.Value, s.Size)
	}
	x := b.original
	if _, ok := x.dynamic[name]; !ok {
		x = b.patched
	}
	s, ok := x.dynamic[name]
	if !ok || s.Type != elf.STT_TLS {
		return Symbol{}, hint(hintMissing, errors.New("is no thread-local variable of the original, nor an import of the patched build; does the fix add a file or a library?"))
	}
	if x.ambiguous[name] {
		return Symbol{}, hint(hintVersions, errors.New("is imported in several versions"))
	}
	t := &b.original.threads
	return Symbol{
		Name: name, Binding: Imported, Size: s.Size, Import: &Import{Version: s.Version},
		Thread: &ThreadLocal{Slot: t.slots[name], Pair: t.pairs[name], Descriptor: t.descriptors[name]},
	}, nil
}

// ownThread makes the symbol for a variable of the target at the given offset
// of its block.
func (b *builder) ownThread(name string, offset, size uint64) (Symbol, error) {
	x := b.original
	p, ok := x.segment()
	if !ok || offset > p.Memsz {
		return Symbol{}, errNotThread
	}
	b.patch.Target.Threads = p.Memsz
	s := Symbol{Name: name, Binding: Original, Value: offset, Size: size, Thread: &ThreadLocal{}}
	if !x.shared() {
		if x.file.Type == elf.ET_DYN && !x.pie {
			return Symbol{}, hint("in the next release, link it with a newer linker", errors.New("is thread-local in a file that is marked neither as executable nor as library"))
		}
		block, err := ThreadOffset(b.in.Arch, p)
		if err != nil {
			return Symbol{}, err
		}
		s.Thread.Fixed, s.Thread.Offset = true, block+int64(offset)
		if name == moduleBase {
			s.Thread.Offset = 0 // the block's distance is then in each offset
		}
		return s, nil
	}
	t, own := s.Thread, &x.threads
	t.Pair, t.Module, t.Descriptor = own.ownPairs[offset], own.module, own.ownDescriptors[offset]
	if t.Slot = own.ownSlots[offset]; t.Slot != 0 {
		return s, nil
	}
	// Any of the block's entries serves; which one must not depend on chance.
	var lowest uint64
	for other, slot := range own.ownSlots {
		if t.Slot == 0 || other < lowest {
			lowest, t.Slot, t.Offset = other, slot, int64(other)-int64(offset)
		}
	}
	return s, nil
}

// relaxThreads rewrites the thread-local references of a piece of code of the
// unit, if the target is an executable. data is the piece in the patch.
func (b *builder) relaxThreads(um *unitMerge, data []byte, relocs []elfobj.Reloc) (kept []elfobj.Reloc, reasons []error) {
	for i := 0; i < len(relocs); i++ {
		r, x := relocs[i], relaxed{}
		x.reloc = r
		h, s := b.machine.relocs[r.Type], um.symbols[r.Symbol]
		switch {
		case h.tls >= tlsEntry && r.Addend != b.machine.tls.addend:
			reasons = append(reasons, &Refusal{um.unit.Name, "symbol", s.Name, errEntryOffset, nil})
			continue
		case b.original.shared() && r.Type == b.machine.tls.call:
			x.none = true
		case !b.original.shared() && (h.tls != 0 || r.Type == b.machine.tls.call):
			var next elfobj.Reloc
			if i+1 < len(relocs) && relocs[i+1].Symbol < len(um.symbols) && um.symbols[relocs[i+1].Symbol].Name == "__tls_get_addr" {
				next = relocs[i+1]
			}
			_, defined := b.definition(um, s.Name)
			var err error
			if x, err = b.machine.tls.relax(data, r, next, defined || um.unit.Local[s.Name] || s.Name == moduleBase); err != nil {
				reasons = append(reasons, &Refusal{um.unit.Name, "symbol", s.Name, err, nil})
				continue
			}
		}
		if !x.none {
			kept = append(kept, x.reloc)
		}
		if x.next {
			i++
		}
	}
	return kept, reasons
}
