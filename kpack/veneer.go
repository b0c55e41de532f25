package kpack

import (
	"fmt"
	"slices"

	"github.com/fother/fother/specs"
)

// A veneer stands for code of the target that a direct branch may not reach: the
// patch's memory has to be within reach of the entries that it redirects, and not of all
// that it calls. The layout has room for one for each place that is called; Link
// uses it if the branch does not reach the place itself.
//
// Where an object has to be within reach of the patch's memory as a whole there are none.

// farCall is a place of the target that the patch's code calls or jumps to.
type farCall struct {
	symbol int // index in Patch.Symbols, Original
	addend int64
}

// placeVeneers gives the patch's veneers their places.
func (w *placer) placeVeneers() {
	if w.machine.veneerSize == 0 {
		return
	}
	for _, s := range w.patch.Sections {
		for _, r := range s.Relocs {
			c := farCall{r.Symbol, r.Addend}
			if _, known := w.veneers[c]; known || !w.patch.farCall(w.machine, r) {
				continue
			}
			if w.veneers == nil {
				w.veneers = map[farCall]uint64{}
			}
			w.veneers[c] = w.at
			w.at += uint64(w.machine.veneerSize)
		}
	}
}

// farCall reports whether r is of a call or jump to the target that may be out of reach.
// The redirected functions are not.
func (p *Patch) farCall(m *machine, r Reloc) bool {
	s := &p.Symbols[r.Symbol]
	if !m.relocs[r.Type].call || s.Binding != Original || s.Thread != nil {
		return false
	}
	to := specs.VAddr(s.Value + uint64(r.Addend))
	for i := range p.Functions {
		if p.Functions[i].Original.Contains(to) {
			return false
		}
	}
	return true
}

// branchTo returns where the branch of r, which lies at address at, leads: to target, or
// to a veneer that leads there.
func (k *linker) branchTo(r Reloc, at, target specs.Addr) specs.Addr {
	off, ok := k.layout.veneers[farCall{r.Symbol, r.Addend}]
	if !ok || k.machine.relocs[r.Type].put(make([]byte, 8), int64(uint64(target)+uint64(r.Addend)-uint64(at))) == nil {
		return target
	}
	veneer := k.base + specs.Addr(off)
	k.machine.veneer(k.memory[off:], target+specs.Addr(r.Addend))
	return veneer - specs.Addr(r.Addend)
}

// spread refuses functions that lie farther apart than a jump goes: the patch's memory,
// which is outside of the target, cannot be near all of them.
func (b *builder) spread() error {
	functions := b.patch.Functions
	if len(functions) == 0 {
		return nil
	}
	compare := func(x, y Function) int { return compareVAddr(x.Original.Lo, y.Original.Lo) }
	first, last := slices.MinFunc(functions, compare), slices.MaxFunc(functions, compare)
	apart := uint64(last.Original.Hi - first.Original.Lo)
	if apart <= b.in.Arch.JumpReach {
		return nil
	}
	return &Refusal{Unit: last.File, Kind: "function", Name: last.Name, Err: hint("make a patch of its own for each, in series of their own",
		fmt.Errorf("lies %d MiB behind %s, which changes too: a jump goes %d MiB, and the patch cannot be near both", apart>>20, first.Name, b.in.Arch.JumpReach>>20))}
}
