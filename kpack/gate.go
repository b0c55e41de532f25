package kpack

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// Several functions change at once in two steps. First each entry gets a jump
// to a gate, which looks at one word of memory that is the same for all: as long
// as it is not what is waited for, the gate leads where the entry led before. One
// store to that word switches all of them. Then the jumps go to the
// new bodies directly. PROTOCOL.md of package apply has the order of writes.
//
// Where an entry led before may be the original function itself, whose first
// instructions the jump has taken. A patch brings a copy of them, which goes on
// in the original behind the jump.

// SectionGate is the name of the section of the copies, which are code of the
// original and not of the patch.
const SectionGate = ".kpatch.gate"

// Copy is a copy of the instructions that a redirection overwrites.
type Copy struct {
	// Symbol is the index in Patch.Symbols of its first instruction.
	Symbol int
	// Calls is set if it puts a return address on the stack by other means than
	// a call instruction, which a shadow stack does not allow.
	Calls bool
}

// GateCode returns the code of a gate, for an address that is a multiple of 16.
// It goes to open if the 32-bit word at cell is want, and else to shut. It
// changes nothing but what a linker's veneers may, too: the flags on x86-64, x16
// and x17 on aarch64.
func GateCode(a *arch.Arch, cell specs.Addr, want uint32, shut, open specs.Addr) ([]byte, error) {
	m, err := machineOf(a)
	if err != nil {
		return nil, err
	}
	b := m.gate(want)
	for _, v := range []specs.Addr{cell, shut, open} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return append(b, make([]byte, m.gateSize-len(b))...), nil
}

// gateWords is the size in bytes of the three addresses behind a gate's code.
const gateWords = 3 * 8

// moved is code that was moved from its place in the target, with what has to
// be relocated in it.
type moved struct {
	code   []byte
	relocs []movedReloc
	// calls is that of Copy.
	calls bool
	// ended is set if nothing runs on behind the code.
	ended bool
	// words are addresses in the target that stand behind the code, each with
	// the reference to it.
	words []movedWord
}

type movedReloc struct {
	offset int // in code
	typ    uint32
	to     specs.VAddr
	addend int64
}

type movedWord struct {
	to specs.VAddr
	// refer makes the instruction at offset in code refer to the word, which is
	// at offset word.
	offset int
	refer  func(insn []byte, distance int64) error
}

// errMoved says why an instruction cannot be copied.
func errMoved(at specs.VAddr, what string) error {
	return fmt.Errorf("its instruction at %v %s", at, what)
}

// gates makes the copies for all functions of the patch. Why one cannot have any
// is its Alone.
func (b *builder) gates() error {
	s := Section{Name: SectionGate, Kind: Text, Align: 16}
	taken := make([]specs.Range[specs.VAddr], len(b.patch.Functions))
	for i, f := range b.patch.Functions {
		var err error
		if taken[i], err = b.taken(f); err != nil {
			return err
		}
		if f.Through != nil {
			b.placeThrough(&s, &b.patch.Functions[i])
		}
	}
	pointed, err := b.pointedInto(taken)
	if err != nil {
		return err
	}
	for i := range b.patch.Functions {
		f := &b.patch.Functions[i]
		m, err := b.moveEntry(f, taken[i])
		if err == nil && pointed[i] {
			err = errors.New("the address of one of its first instructions is taken")
		}
		if err != nil {
			f.Alone = err.Error()
			continue
		}
		b.placeCopy(&s, f, m)
	}
	if s.Size = uint64(len(s.Data)); s.Size > 0 {
		b.patch.Sections = append(b.patch.Sections, s)
	}
	return alone(b.patch.Functions, taken)
}

// alone refuses a patch with functions that have no copy in several pages: they
// can never change together.
func alone(functions []Function, taken []specs.Range[specs.VAddr]) error {
	var errs []error
	pages := map[specs.VAddr]bool{}
	for i, f := range functions {
		if f.Alone != "" {
			pages[taken[i].Lo/smallestPage] = true
			errs = append(errs, &Refusal{Unit: f.File, Kind: "function", Name: f.Name, Err: hint("make a patch of its own for each, in series of their own",
				errors.New("cannot change together with others like it: "+f.Alone))})
		}
	}
	if len(pages) < 2 {
		return nil
	}
	return refusalError(errs)
}

// taken returns where the jump of f is.
func (b *builder) taken(f Function) (specs.Range[specs.VAddr], error) {
	lo := specs.Addr(f.Original.Lo)
	site, jump, err := b.machine.jumpFrom(f.Entry, f.skip(), lo, lo)
	return specs.Range[specs.VAddr]{Lo: specs.VAddr(site), Hi: specs.VAddr(site) + specs.VAddr(len(jump))}, err
}

// moveEntry copies the instructions in taken, and what belongs to the last one.
func (b *builder) moveEntry(f *Function, taken specs.Range[specs.VAddr]) (*moved, error) {
	if at, found, err := b.backInto(*f, taken); err != nil {
		return nil, err
	} else if found {
		return nil, fmt.Errorf("what is at %v may lead back to its first instructions", at)
	}
	m := &moved{}
	err := b.machine.move(m, f.Entry[taken.Lo-f.Original.Lo:], taken.Lo, int(taken.Size()))
	return m, err
}

// backInto looks for a way from the function's code to an instruction in taken
// that is not the first there.
func (b *builder) backInto(f Function, taken specs.Range[specs.VAddr]) (specs.VAddr, bool, error) {
	inner := specs.Range[specs.VAddr]{Lo: taken.Lo + specs.VAddr(b.in.Arch.MinInsn), Hi: taken.Hi}
	if inner.Lo >= inner.Hi {
		return 0, false, nil
	}
	c := &comesBack{file: b.in.Original, bodies: []specs.Range[specs.VAddr]{f.Original}, taken: inner}
	if f.Cold.Size() > 0 {
		c.bodies = append(c.bodies, f.Cold)
	}
	for _, body := range c.bodies {
		code, err := c.file.ReadAt(body.Lo, body.Size())
		if err != nil {
			return 0, false, err
		}
		at, found := b.machine.jumpsTo(code, body.Lo, inner)
		if !found {
			at, found = c.tables(code, body.Lo)
		}
		if !found && b.machine.indirect != nil && !b.machine.prologue(f.Entry[inner.Lo-f.Original.Lo:]) {
			at, found = b.machine.indirect(code, body.Lo)
		}
		if found {
			return at, true, nil
		}
	}
	return 0, false, nil
}

// pointedInto reports for each range whether the address of an instruction in
// it that is not the first is somewhere in the target's data, as that of a
// computed goto is.
func (b *builder) pointedInto(ranges []specs.Range[specs.VAddr]) ([]bool, error) {
	order := make([]int, len(ranges))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(x, y int) int { return compareVAddr(ranges[x].Lo, ranges[y].Lo) })
	found := make([]bool, len(ranges))
	note := func(v uint64) {
		i := sort.Search(len(order), func(i int) bool { return ranges[order[i]].Hi > specs.VAddr(v) })
		if i < len(order) && ranges[order[i]].Lo < specs.VAddr(v) {
			found[order[i]] = true
		}
	}
	err := dataWords(b.in.Original, note)
	return found, err
}

// dataWords calls note with all that may be addresses in a file's data.
func dataWords(f *elfobj.File, note func(uint64)) error {
	relocs, err := f.DynRelocs()
	if err != nil && !errors.Is(err, elfobj.ErrNoDynamic) {
		return err
	}
	for _, r := range relocs {
		if r.Symbol == 0 {
			note(uint64(r.Addend))
		}
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Flags&elf.SHF_ALLOC == 0 || s.Flags&elf.SHF_EXECINSTR != 0 || s.Type != elf.SHT_PROGBITS {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		for ; len(data) >= 8; data = data[8:] {
			note(binary.LittleEndian.Uint64(data))
		}
	}
	return nil
}

func compareVAddr(a, b specs.VAddr) int {
	if a < b {
		return -1
	}
	return int(min(a-b, 1))
}

// placeCopy appends a copy to the section s, with symbols and relocations.
func (b *builder) placeCopy(s *Section, f *Function, m *moved) {
	m.code = append(m.code, make([]byte, -len(m.code)&7)...)
	for _, w := range m.words {
		at := len(m.code)
		// The distance within a copy is a few bytes: it always fits.
		_ = w.refer(m.code[w.offset:], int64(at-w.offset))
		m.relocs = append(m.relocs, movedReloc{offset: at, typ: b.machine.address, to: w.to})
		m.code = append(m.code, make([]byte, 8)...)
	}
	s.Data = append(s.Data, make([]byte, -len(s.Data)&15)...)
	base := len(s.Data)
	s.Data = append(s.Data, m.code...)
	section := len(b.patch.Sections)
	f.Copy = &Copy{Symbol: len(b.patch.Symbols), Calls: m.calls}
	origin := f.Copy.Symbol + 1
	b.patch.Symbols = append(b.patch.Symbols,
		Symbol{Name: f.Name + ".original", Binding: Carried, Section: section, Value: uint64(base), Func: true},
		Symbol{Name: f.Name, Binding: Original, Value: uint64(f.Original.Lo), Func: true})
	slices.SortFunc(m.relocs, func(x, y movedReloc) int { return x.offset - y.offset })
	for _, r := range m.relocs {
		s.Relocs = append(s.Relocs, Reloc{
			Offset: uint64(base + r.offset), Type: r.typ, Symbol: origin, Addend: int64(r.to-f.Original.Lo) + r.addend,
		})
	}
}
