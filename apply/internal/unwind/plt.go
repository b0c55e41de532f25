package unwind

import (
	"debug/elf"
	"io"
	"slices"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// pltABI says what linkers make of procedure linkage tables. Those of some
// architectures have no call frame information; abi.plt is nil for the others.
type pltABI struct {
	// types are the relocations that put a function's address into the place
	// that an entry takes it from.
	types []uint32
	// irelative is the one of them that programs without a dynamic section
	// have too, for functions that are chosen at start.
	irelative uint32
	// resolver is the distance in bytes from DT_PLTGOT to the place of the
	// dynamic linker's function for lazy binding.
	resolver uint64
	// rules decodes the code around an address. It returns nil for what is not
	// an entry, to the last bit.
	rules func(c *pltCode, at uint64) *rules
}

// plt is what an object's procedure linkage table is known by: an entry is code
// that branches to what lies at one of these places.
type plt struct {
	text     []specs.Range[specs.Addr]
	slots    []uint64 // that relocations of pltABI.types are about, sorted
	resolver uint64   // 0 if there is none
}

// readPLT reads through mem what img's procedure linkage table is known by. What
// cannot be read leaves its entries without rules, as they are in the file.
func readPLT(mem io.ReaderAt, img *elfobj.Image, abi *pltABI) *plt {
	p := &plt{text: textOf(img)}
	slots, err := img.Relocated(abi.types...)
	if err != nil {
		return nil
	}
	for _, a := range slots {
		p.slots = append(p.slots, uint64(a))
	}
	if !img.Dynamic() {
		p.slots = searchIrelative(mem, img, abi.irelative)
	}
	if got, err := img.PLTGOT(); err == nil && got != 0 && img.Range.Contains(got) {
		p.resolver = uint64(got) + abi.resolver
	}
	return p
}

// textOf returns where img's code lies in the process.
func textOf(img *elfobj.Image) (text []specs.Range[specs.Addr]) {
	for _, p := range img.Segments {
		lo := img.Bias.Addr(specs.VAddr(p.Vaddr))
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Flags&elf.PF_W == 0 && lo+specs.Addr(p.Filesz) > lo {
			text = append(text, specs.Range[specs.Addr]{Lo: lo, Hi: lo + specs.Addr(p.Filesz)})
		}
	}
	return text
}

// relaSize is the size in bytes of a relocation.
const relaSize = 24

// searchIrelative looks in img's read-only segments for the relocations that
// the program applies at its start: only its own symbols say where they are,
// and those may be stripped. Each has the type, no symbol, a place inside the
// object, and the address of code.
func searchIrelative(mem io.ReaderAt, img *elfobj.Image, irelative uint32) (slots []uint64) {
	for s, err := range readOnly(mem, img) {
		skip := -uint64(s.Addr) % 8
		if err != nil || skip >= uint64(len(s.Data)) {
			continue
		}
		for b := s.Data[skip:]; len(b) >= relaSize; b = b[8:] {
			place := img.Bias.Addr(specs.VAddr(le.Uint64(b)))
			if le.Uint64(b[8:]) == uint64(irelative) && place%8 == 0 && img.Range.Contains(place) &&
				executable(img, img.Bias.Addr(specs.VAddr(le.Uint64(b[16:])))) {
				slots = append(slots, uint64(place))
			}
		}
	}
	slices.Sort(slots)
	return slices.Compact(slots)
}

// function reports whether a function's address lies at slot.
func (p *plt) function(slot uint64) bool {
	_, ok := slices.BinarySearch(p.slots, slot)
	return ok
}

// pltCode reads instructions of an object in the process.
type pltCode struct {
	*plt
	abi   *abi
	stack *window
}

// insn returns the 32-bit instruction at a, false if there is no code.
func (c *pltCode) insn(a uint64) (uint32, bool) {
	for _, r := range c.text {
		if at := specs.Addr(a); r.Contains(at) && r.Hi-at >= 4 {
			v, err := c.stack.load(a, 4)
			return uint32(v), err == nil
		}
	}
	return 0, false
}

// pltRules returns the rules for address at in o, nil if it is not in an entry
// of the procedure linkage table.
func (w *Walker) pltRules(o *Object, at uint64) *rules {
	if o.plt == nil || at%w.abi.insn != 0 {
		return nil
	}
	return w.abi.plt.rules(&pltCode{o.plt, w.abi, &w.stack}, at)
}
