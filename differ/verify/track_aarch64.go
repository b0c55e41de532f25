package verify

import "slices"

// tracker follows addresses through the registers of one range of code.
type tracker struct {
	code []insn
	im   *image
	in   []registers // at the start of each block
	seen []bool
	// block has the index of the block that an instruction begins, or -1.
	block []int
	start []int // of each block
	// led are the blocks that a branch leads to.
	led []bool
	// dynamic is what is known at indirect jumps, which lead to blocks that
	// nothing else leads to, and entered are those blocks.
	dynamic     registers
	dynamicSeen bool
	entered     []bool
	// pads are the blocks that exceptions lead to, and sites what leads there.
	pads  []bool
	sites []site
	used  map[int]bool // adrp whose page an operand was made of
	// alike are pairs of adrp whose pages, which are the same, come together: what is
	// made of one is made of both.
	alike map[[2]int]bool
}

// maxRounds bounds how often the blocks of one range are gone over. Few functions
// take more than three rounds, those with jump tables one more.
const maxRounds = 16

// trackAArch64 gives an operand to each instruction that adds an offset to a
// page or to an address which is known there on all ways: add, loads, stores.
func trackAArch64(code []insn, e *entity) {
	if !slices.ContainsFunc(code, func(in insn) bool {
		w := le.Uint32(in.shape[:])
		return !in.bad && (w&0x9f000000 == 0x90000000 || w&0xffffffe0 == 0xd53bd040)
	}) {
		return
	}
	im := e.img
	t := &tracker{code: code, im: im, used: map[int]bool{}, alike: map[[2]int]bool{}}
	t.sites = e.caught()
	t.split()
	for range maxRounds {
		if !t.round() && !t.enter() {
			break
		}
	}
	t.pair()
	for b, lo := range t.start {
		r := t.in[b]
		for i := lo; i < t.end(b); i++ {
			t.step(&r, i, true)
		}
	}
	t.useAlike()
	for i := range code {
		in := &code[i]
		if w := le.Uint32(in.shape[:]); w&0x9f000000 == 0x90000000 && !in.bad && !t.used[i] {
			copy(in.shape[:4], im.bytes(in.addr, 4)) // nobody knows what for: as it is
		}
	}
}

// split finds the blocks: they begin at targets of branches and after them.
func (t *tracker) split() {
	t.block = make([]int, len(t.code))
	for i := range t.block {
		t.block[i] = -1
	}
	begin := func(i int) {
		if i < len(t.code) {
			t.block[i] = 0
		}
	}
	begin(0)
	for i := range t.code {
		in := &t.code[i]
		if in.refs > 0 && in.ref[0].use == useCall && t.im.neverReturns(in.ref[0].value) {
			in.flow = flowStop
		}
		if in.refs > 0 && in.ref[0].use == useBranch {
			begin(i + 1)
			if n, ok := t.index(in.ref[0].value); ok {
				begin(n)
			}
		} else if in.flow == flowStop {
			begin(i + 1)
		}
		if in.refs > 0 && in.ref[0].use == useTake { // adr: the base of a jump table
			if n, ok := t.index(in.ref[0].value); ok {
				begin(n)
			}
		}
	}
	for _, s := range t.sites {
		if n, ok := t.index(s.pad); ok {
			begin(n)
		}
	}
	for i := range t.block {
		if t.block[i] == 0 {
			t.block[i] = len(t.start)
			t.start = append(t.start, i)
		}
	}
	n := len(t.start)
	t.in, t.seen, t.led, t.entered, t.pads = make([]registers, n), make([]bool, n), make([]bool, n), make([]bool, n), make([]bool, n)
	t.seen[0] = true
	for _, s := range t.sites {
		if i, ok := t.index(s.pad); ok {
			t.pads[t.block[i]] = true
		}
	}
	for i := range t.code {
		if in := &t.code[i]; in.refs > 0 && in.ref[0].use == useBranch {
			if to, ok := t.index(in.ref[0].value); ok {
				t.led[t.block[to]] = true
			}
		}
	}
}

func (t *tracker) end(b int) int {
	if b+1 < len(t.start) {
		return t.start[b+1]
	}
	return len(t.code)
}

func (t *tracker) index(v uint64) (int, bool) {
	n, ok := slices.BinarySearchFunc(t.code, v, func(in insn, v uint64) int {
		switch {
		case in.addr < v:
			return -1
		case in.addr-uint64(in.pad) > v:
			return 1
		}
		return 0
	})
	return n, ok
}

// pair goes once more over what is known, when nothing changes any more: pages that came
// together before it was known that they do not on all ways are no pair.
func (t *tracker) pair() {
	clear(t.alike)
	t.round()
	t.enter()
}

// useAlike has all adrp used of which one is.
func (t *tracker) useAlike() {
	for changed := true; changed; {
		changed = false
		for pair := range t.alike {
			if t.used[pair[0]] != t.used[pair[1]] {
				t.used[pair[0]], t.used[pair[1]], changed = true, true, true
			}
		}
	}
}

// merge keeps what is known on both ways, and reports whether dst changed.
func (t *tracker) merge(dst *registers, seen *bool, r registers) bool {
	if !*seen {
		*dst, *seen = r, true
		return true
	}
	changed := false
	for i := range dst {
		if !dst[i].known || dst[i] == r[i] {
			continue
		}
		other := r[i]
		if other.from = dst[i].from; other == dst[i] {
			t.alike[[2]int{dst[i].from, r[i].from}] = true
			continue
		}
		dst[i], changed = value{}, true
	}
	return changed
}

// round goes once over all blocks that anything has led to so far, and reports
// whether anything changed.
func (t *tracker) round() (changed bool) {
	for b, lo := range t.start {
		if !t.seen[b] {
			continue
		}
		r := t.in[b]
		for i := lo; i < t.end(b); i++ {
			t.step(&r, i, false)
			changed = t.throw(r, i) || changed
		}
		last := &t.code[t.end(b)-1]
		if last.refs > 0 && last.ref[0].use == useBranch {
			if n, ok := t.index(last.ref[0].value); ok {
				to := t.block[n]
				changed = t.merge(&t.in[to], &t.seen[to], r) || changed
			}
		} else if last.flow == flowStop && !leaves(last) && !last.calls() {
			changed = t.merge(&t.dynamic, &t.dynamicSeen, r) || changed
		}
		if last.flow == flowNext && b+1 < len(t.start) && !t.pads[b+1] {
			changed = t.merge(&t.in[b+1], &t.seen[b+1], r) || changed
		}
	}
	return changed
}

// throw leads from call i, behind which r is known, to where its exceptions are
// caught, and reports whether anything changed: the unwinder restores all registers but
// those that any call may change. Source: Itanium C++ ABI, "Exception Handling", 1.6.
func (t *tracker) throw(r registers, i int) (changed bool) {
	in := &t.code[i]
	if len(t.sites) == 0 || in.bad || !in.calls() {
		return false
	}
	for _, s := range t.sites {
		if in.addr < s.start || in.addr >= s.end {
			continue
		}
		if n, ok := t.index(s.pad); ok {
			r.forget(scratch)
			b := t.block[n]
			changed = t.merge(&t.in[b], &t.seen[b], r) || changed
		}
	}
	return changed
}

// enter leads from the indirect jumps to the blocks that nothing else led to, once
// it is known which those are: first to those that no branch leads to at all, then
// to any that are left. It reports whether anything changed.
func (t *tracker) enter() bool {
	return t.dynamicSeen && (t.enterBlocks(false) || t.enterBlocks(true))
}

func (t *tracker) enterBlocks(led bool) (changed bool) {
	for b, lo := range t.start {
		if !t.entered[b] && (t.seen[b] || t.pads[b] || t.falls(lo) || t.led[b] && !led) {
			continue
		}
		t.entered[b] = true
		changed = t.merge(&t.in[b], &t.seen[b], t.dynamic) || changed
	}
	return changed
}

// leaves reports whether control never comes back to the function from an
// instruction that it does not pass: a return, or what is no instruction.
// Source: Arm ARM, C6.2, "RET", "RETAA, RETAB", "UDF".
func leaves(in *insn) bool {
	w := word(le.Uint32(in.shape[:]))
	return w&0xfffff000 == 0xd65f0000 || w>>16 == 0
}

// falls reports whether control comes to instruction i from the one before.
func (t *tracker) falls(i int) bool { return i > 0 && t.code[i-1].flow == flowNext }

// step follows one instruction; with note it gives it its operand.
func (t *tracker) step(r *registers, i int, note bool) {
	in := &t.code[i]
	if in.bad {
		return
	}
	w := word(le.Uint32(in.shape[:]))
	if in.calls() {
		r.call(t.im, in.ref[0].value, !calls(w))
		return
	}
	base := r[w.rn()]
	switch {
	case r.moves(w):
		return
	case w&0x9f000000 == 0x90000000: // adrp, whose page was taken out of shape
		code := t.im.bytes(in.addr, 4)
		r[w.rd()] = value{known: true, addr: page(word(le.Uint32(code)), in.addr), from: i}
		return
	case w&0xffffffe0 == 0xd53bd040: // mrs from tpidr_el0
		r[w.rd()] = value{known: true, tp: true}
		return
	case w&0xffc00000 == 0x91400000 && base.known && base.tp: // add, immediate of 12 higher bits
		r[w.rd()] = value{known: true, tp: true, addr: base.addr + w.bits(10, 12)<<12}
		return
	case w&0xffc00000 == 0x91000000 && base.known && base.tp:
		if note {
			in.add(ref{use: useTLS, value: base.addr + w.bits(10, 12)})
			in.setWord(w, 0x003ffc00)
		}
	case w&0xffc00000 == 0x91000000 && base.known: // add, immediate
		v := base.addr + w.bits(10, 12)
		if note && !base.whole {
			in.add(ref{use: useTake, value: v})
			t.used[base.from] = true
			in.setWord(w, 0x003ffc00)
		}
		r[w.rd()] = value{known: true, whole: true, addr: v}
		return
	case w&0x3b000000 == 0x39000000 && base.known && !base.tp: // load or store, unsigned offset
		scale := w.bits(30, 2)
		if w.bits(26, 1) == 1 && w.bits(23, 1) == 1 {
			scale = 4
		}
		if note && !base.whole {
			in.add(ref{use: useAccess, size: 1 << scale, value: base.addr + w.bits(10, 12)<<scale})
			in.setWord(w, 0x003ffc00)
			t.used[base.from] = true
			if w&0xffc00000 == 0xf9400000 { // ldr x
				in.via = true
			}
		}
	}
	r.clobber(w)
}
