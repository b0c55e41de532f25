package kpack

import (
	"fmt"
	"slices"

	"github.com/fother/fother/specs"
)

// Region is a run of pages of one protection, in bytes from the base of the
// patch's memory.
type Region struct{ Offset, Size uint64 }

// Layout says what memory a patch needs. The three regions follow each other;
// a region of size 0 is not mapped.
type Layout struct {
	// ROData is mapped r--. Its first bytes are the caller's header; then come
	// constants and the patch's own GOT.
	ROData Region
	// Text is mapped r-x: code, and the stubs of imports.
	Text Region
	// Data is mapped rw-.
	Data Region
	// State, in Data, are whole pages that hold the patch's variables and nothing
	// else; empty if it has none.
	State Region
	// Shared are the addresses of variables that are there already and stand for
	// those of the patch, in the order of Patch.Variables, 0 where it has its own;
	// nil stands for none. The caller may set it.
	Shared []specs.Addr
	// Size is the sum of all.
	Size uint64
	// Limit is the address below which the memory has to end, or 0. Code of
	// executables that are not position independent holds addresses in 31 bits.
	Limit specs.Addr

	// veneers are the offsets of the code that leads to calls out of reach.
	veneers map[farCall]uint64
	// resolver is the offset of the code of the patch's own TLS descriptors.
	resolver uint64
	sections []uint64 // offset of each section from the base
	symbols  []extras
	// Gates, at the end of Text, are the copies of first instructions, and from
	// gates on a gate for each function.
	Gates    Region
	gates    uint64
	gateSize uint64
	// finder is in Text, frameHeader in ROData: offsets from the base, 0 for
	// none.
	finder, frameHeader uint64
	// Counters, in Data, are 8 bytes for each function, which hold how often its
	// old entry was called; empty if nothing is counted. counts, in Text, is the
	// code that counts.
	Counters Region
	counts   uint64
	// hookLists is in ROData, hookCode in Text, hookMemory in Data, likewise.
	hookLists, hookCode, hookMemory uint64
}

// Offset returns where section i of the patch lies, in bytes from the base of
// the patch's memory.
func (l Layout) Offset(i int) uint64 { return l.sections[i] }

// extras are the pieces that Link makes for one symbol: offsets from the base,
// 0 for none.
type extras struct {
	got   uint64 // GOT entry, in ROData
	stub  uint64 // jump through a slot, in Text
	thunk uint64 // ifunc resolver call, in Text
	slot  uint64 // what the thunk fills, in Data

	offset     uint64 // offset from the thread pointer, in ROData
	pair       uint64 // of words for __tls_get_addr, in ROData
	descriptor uint64 // TLS descriptor, in ROData
}

// maxMemory bounds the memory of one patch, in bytes.
const maxMemory = 256 << 20

// maxAlign bounds the alignment of a section, in bytes: that of the smallest
// page, where the patch's memory begins.
const maxAlign = 4096

// Layout computes the layout for pages of the given size, with header bytes at
// the start left to the caller.
func (p *Patch) Layout(page, header uint64) (Layout, error) { return p.layout(page, header, false) }

// CountingLayout is Layout for a patch that counts how often its functions are
// called by way of their old entries. What the patch itself calls directly is
// not counted, and of threads that call at the same moment maybe only one.
func (p *Patch) CountingLayout(page, header uint64) (Layout, error) {
	return p.layout(page, header, true)
}

func (p *Patch) layout(page, header uint64, counting bool) (Layout, error) {
	m, err := machineOf(p.Arch)
	if err != nil {
		return Layout{}, err
	}
	w := &placer{
		Layout: Layout{sections: make([]uint64, len(p.Sections)), symbols: make([]extras, len(p.Symbols))},
		patch:  p, machine: m, need: p.needs(m), page: page, counting: counting,
		at: max(header, 1), // offset 0 stands for none in extras
	}
	if err := w.region(&w.ROData, []Kind{ROData}, w.constants); err != nil {
		return Layout{}, err
	}
	w.Text.Offset = w.at
	if err := w.region(&w.Text, []Kind{Text}, w.code); err != nil {
		return Layout{}, err
	}
	w.Data.Offset = w.at
	w.at = p.placeHooks(&w.Layout, m, Data, w.at)
	if slices.ContainsFunc(p.Sections, func(s Section) bool { return s.Kind >= Data && s.Size > 0 }) {
		w.at = alignUp(w.at, page)
		w.State.Offset = w.at
	}
	err = w.region(&w.Data, []Kind{Data, BSS}, w.memory)
	w.Size = w.at
	if p.low(m) {
		w.Limit = 1 << 31
	}
	return w.Layout, err
}

// placer makes a layout. At is the offset from the base where the next piece
// goes.
type placer struct {
	Layout
	patch    *Patch
	machine  *machine
	need     []want // of the patch's symbols
	page     uint64
	at       uint64
	counting bool
}

// region places the sections of the given kinds, and behind them what more does.
func (w *placer) region(r *Region, kinds []Kind, more func()) error {
	start := r.Offset
	for _, kind := range kinds {
		for i, s := range w.patch.Sections {
			if s.Kind == kind && s.Name != SectionGate {
				w.at = alignUp(w.at, s.Align)
				w.sections[i] = w.at
				w.at += s.Size
				if s.Name == ehFrame {
					w.at += 4 // zeros end the list
				}
			}
		}
	}
	w.at = alignUp(w.at, 16)
	more()
	w.at = alignUp(w.at, w.page)
	r.Size = w.at - start
	if w.at > maxMemory {
		return fmt.Errorf("patch needs more than %d MiB of memory", maxMemory>>20)
	}
	return nil
}

// each gives every symbol that wants it a piece of size bytes.
func (w *placer) each(wanted func(want) bool, field func(*extras) *uint64, size int) {
	for i, n := range w.need {
		if wanted(n) {
			*field(&w.symbols[i]) = w.at
			w.at += uint64(size)
		}
	}
}

// constants places what is behind the constants.
func (w *placer) constants() {
	w.each(func(n want) bool { return n.got }, func(e *extras) *uint64 { return &e.got }, 8)
	w.each(func(n want) bool { return n.offset }, func(e *extras) *uint64 { return &e.offset }, 8)
	w.each(func(n want) bool { return n.pair }, func(e *extras) *uint64 { return &e.pair }, 16)
	w.each(func(n want) bool { return n.descriptor }, func(e *extras) *uint64 { return &e.descriptor }, 16)
	if w.machine.finderSize > 0 && w.patch.frames() >= 0 {
		w.frameHeader = alignUp(w.at, 8)
		w.at = w.frameHeader + finderHeader + finderCells
	}
	w.at = w.patch.placeHooks(&w.Layout, w.machine, ROData, alignUp(w.at, 8))
}

// code places what is behind the functions.
func (w *placer) code() {
	w.placeVeneers()
	w.each(func(n want) bool { return n.stub }, func(e *extras) *uint64 { return &e.stub }, w.machine.stubSize)
	w.each(func(n want) bool { return n.thunk }, func(e *extras) *uint64 { return &e.thunk }, w.machine.thunkSize)
	if slices.ContainsFunc(w.need, func(n want) bool { return n.descriptor }) {
		w.resolver = w.at
		w.at += uint64(len(w.machine.tls.resolver))
	}
	if w.frameHeader != 0 {
		w.finder = alignUp(w.at, 16)
		w.at = w.finder + uint64(w.machine.finderSize)
	}
	if w.counting {
		w.counts = alignUp(w.at, countAlign)
		w.at = w.counts + uint64(len(w.patch.Functions))*uint64(w.machine.countSize)
	}
	w.at = w.patch.placeHooks(&w.Layout, w.machine, Text, w.at)
	w.at = w.patch.placeGates(&w.Layout, w.machine, w.at)
}

// memory places what is behind the data.
func (w *placer) memory() {
	if w.State.Offset != 0 {
		w.at = alignUp(w.at, w.page)
		w.State.Size = w.at - w.State.Offset
	}
	w.each(func(n want) bool { return n.thunk }, func(e *extras) *uint64 { return &e.slot }, 8)
	if w.counting {
		w.Counters = Region{alignUp(w.at, 8), 8 * uint64(len(w.patch.Functions))}
		w.at = w.Counters.Offset + w.Counters.Size
	}
}

// placeGates gives copies and gates their places from at on and returns where
// they end.
func (p *Patch) placeGates(l *Layout, m *machine, at uint64) uint64 {
	const align = 16
	at = alignUp(at, align)
	l.Gates.Offset = at
	for i, s := range p.Sections {
		if s.Name == SectionGate {
			l.sections[i] = alignUp(at, s.Align)
			at = alignUp(l.sections[i]+s.Size, align)
		}
	}
	l.gates, l.gateSize = at, uint64(m.gateSize)
	at += uint64(len(p.Functions)) * l.gateSize
	l.Gates.Size = at - l.Gates.Offset
	return at
}

// want says which extras a symbol needs.
type want struct{ got, stub, thunk, offset, pair, descriptor bool }

// needs returns what each symbol needs, from how relocations refer to it.
func (p *Patch) needs(m *machine) []want {
	need := make([]want, len(p.Symbols))
	for _, s := range p.Sections {
		for _, r := range s.Relocs {
			sym, w, h := &p.Symbols[r.Symbol], &need[r.Symbol], m.relocs[r.Type]
			if sym.Thread != nil {
				w.thread(*sym.Thread, h)
				continue
			}
			if h.got && (h.near || !(sym.Binding == Imported && sym.Import.Slot != 0 && !sym.Import.Lazy)) {
				w.got = true
			}
			if sym.Binding == Imported && sym.Func {
				w.stub = true
				w.thunk = sym.Import.Slot == 0
			}
		}
	}
	return need
}

// low reports whether any relocation limits where the patch can be mapped.
func (p *Patch) low(m *machine) bool {
	for _, s := range p.Sections {
		for _, r := range s.Relocs {
			if m.relocs[r.Type].low {
				return true
			}
		}
	}
	return false
}

func alignUp(n, align uint64) uint64 {
	if align == 0 {
		return n
	}
	return (n + align - 1) &^ (align - 1)
}
