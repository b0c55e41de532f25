package verify

// value is what is known of a register.
type value struct {
	known bool
	// whole is set for an address, not set for the page of one.
	whole bool
	addr  uint64
	from  int // the adrp that the page is from
	// tp is set for an offset from the thread pointer.
	tp bool
}

// registers are the general registers, of which 31 is never known, and behind them
// the first words of the stack, where compilers put pages for a while. Nothing else
// can be where a page is: its address is nobody's.
type registers struct {
	value [32 + slots]value
	// stack has a bit for each register that may hold an address of the stack made
	// here, and escaped is set if memory may have one.
	stack   uint32
	escaped bool
}

// slots is how many words of the stack are looked at.
const slots = 16

// nowhere is what is known where anything may lead to.
var nowhere = registers{stack: 1<<31 - 1, escaped: true}

// onStack reports whether register n may hold an address of the stack.
func (r *registers) onStack(n int) bool { return r.stack>>n&1 == 1 }

// set has register n hold v, which is no address of the stack.
func (r *registers) set(n int, v value) {
	r.value[n] = v
	r.stack &^= 1 << n
}

// forgetSlots forgets what is on the stack.
func (r *registers) forgetSlots() { clear(r.value[32:]) }

// forgetAll forgets everything.
func (r *registers) forgetAll() { *r = nowhere }

// moves follows an instruction that copies a register, to another or to the stack, or
// back from there, and reports whether it is one.
// Source: Arm ARM, C6.2, "MOV (register)", "STR (immediate)", "LDR (immediate)".
func (r *registers) moves(w word) bool {
	slot := 32 + w.bits(10, 12)
	switch {
	case w&0xffe0ffe0 == 0xaa0003e0: // mov
		from := int(w.bits(16, 5))
		stack := r.onStack(from)
		if r.set(w.rd(), r.value[from]); stack {
			r.stack |= 1 << w.rd()
		}
	case w&0xffc003e0 == 0xf90003e0 && slot < uint64(len(r.value)): // str to the stack, of 8 bytes
		r.escaped = r.escaped || r.onStack(w.rd())
		r.value[slot] = value{}
		if v := r.value[w.rd()]; v.known && !v.whole && !v.tp {
			r.value[slot] = v
		}
	case w&0xffc003e0 == 0xf94003e0 && slot < uint64(len(r.value)) && r.value[slot].known: // ldr from there
		r.set(w.rd(), r.value[slot])
	default:
		return false
	}
	return true
}

// overwrites forgets what is on the stack if an instruction may write there, or moves
// the stack. What a function does that is called is not looked at: an address that it
// gets is of an object, and no page is in one.
func (r *registers) overwrites(w word) {
	end := w.rd() == 31
	switch {
	case w&0x0a000000 == 0x08000000: // loads and stores
		if w.rn() == 31 && w&0xffc00000 != 0xf9400000 || stores(w) && r.onStack(w.rn()) || rare(w) {
			r.forgetSlots()
		}
		r.escaped = r.escaped || r.storesStack(w)
	case w&0x1f000000 == 0x11000000 && end, // add and sub, immediate
		w&0x3f200000 == 0x0b200000 && end,                 // add and sub, extended register
		w&0x1f800000 == 0x12000000 && w>>29&3 != 3 && end, // and, orr, eor, immediate
		w&0x1e000000 == 0x04000000,                        // SVE
		w&0xfff80000 == 0xd5080000:                        // sys, dc zva among it
		r.forgetSlots()
	case w&0xffc00000 == 0x91000000 && w.rn() == 31: // the address of a word of the stack
		if slot := w.bits(10, 12) / 8; slot < slots {
			r.value[32+slot] = value{}
		}
	}
}

// stores reports whether a load or store may store anything.
func stores(w word) bool {
	switch {
	case w&0x3b000000 == 0x18000000: // literal
		return false
	case w&0x3a000000 == 0x28000000: // pair
		return w.bits(22, 1) == 0
	case w&0x3a000000 == 0x38000000 && !atomic(w):
		return w.bits(22, 1) == 0 && (w.bits(26, 1) == 1 || w.bits(23, 1) == 0)
	}
	return true
}

// atomic reports whether a load or store is one of the atomic memory operations.
func atomic(w word) bool { return w&0x3b200c00 == 0x38200000 }

// rare reports whether a load or store is of a class with instructions that write to more
// registers than one, and through any: tags, copies and fills, of 128 bits.
func rare(w word) bool { return w&0x3b000000 == 0x19000000 && w&0x00200c00 != 0 }

// storesStack reports whether a load or store may put an address of the stack into
// memory.
func (r *registers) storesStack(w word) bool {
	if r.stack == 0 || w.bits(26, 1) == 1 || !stores(w) {
		return false
	}
	more := r.onStack(int(w.bits(10, 5)))
	switch {
	case w&0x3a000000 == 0x28000000:
	case w&0x3a000000 == 0x38000000 && !atomic(w):
		more = false
	default:
		more = more || r.onStack(int(w.bits(16, 5)))
	}
	return more || r.onStack(w.rd())
}

// derives reports whether the result of an instruction may be an address of the stack.
func (r *registers) derives(w word) bool {
	sp, n, m := w.rn() == 31, r.onStack(w.rn()), r.onStack(int(w.bits(16, 5)))
	switch {
	case w&0x0a000000 == 0x08000000: // loads
		return r.escaped
	case w&0x1e000000 == 0x04000000: // SVE
		return true
	case w&0x0e000000 == 0x0e000000: // from a vector
		return r.stack != 0 && (w>>31 == 1 || w&0xffe0fc00 == 0x4e003c00)
	case w>>31 == 0: // of 32 bits
		return false
	case w&0x1f000000 == 0x11000000: // add and sub, immediate
		return sp || n
	case w&0x1f000000 == 0x10000000, w&0x1f800000 == 0x12800000: // adr, mov
		return false
	case w&0x1c000000 == 0x10000000: // other immediates
		return n
	case w&0x1f200000 == 0x0b200000: // add and sub, extended register
		return sp || n || m
	case w&0x1f000000 == 0x1b000000: // of three registers
		return n || m || r.onStack(int(w.bits(10, 5)))
	}
	return n || m
}
