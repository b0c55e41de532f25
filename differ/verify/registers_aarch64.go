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
type registers [32 + slots]value

// slots is how many words of the stack are looked at.
const slots = 16

// moves follows an instruction that copies a register, to another or to the stack, or
// back from there, and reports whether it is one.
// Source: Arm ARM, C6.2, "MOV (register)", "STR (immediate)", "LDR (immediate)".
func (r *registers) moves(w word) bool {
	slot := 32 + w.bits(10, 12)
	switch {
	case w&0xffe0ffe0 == 0xaa0003e0: // mov
		r[w.rd()] = r[w.bits(16, 5)]
	case w&0xffc003e0 == 0xf90003e0 && slot < uint64(len(r)): // str to the stack, of 8 bytes
		r[slot] = value{}
		if v := r[w.rd()]; v.known && !v.whole && !v.tp {
			r[slot] = v
		}
	case w&0xffc003e0 == 0xf94003e0 && slot < uint64(len(r)) && r[slot].known: // ldr from there
		r[w.rd()] = r[slot]
	default:
		if w.rn() == 31 && w&0x0a000000 == 0x08000000 && w&0xffc00000 != 0xf9400000 || w.rd() == 31 && w&0x1f000000 == 0x11000000 {
			clear(r[32:]) // what is there may be overwritten, or is elsewhere from now on
		}
		return false
	}
	r[31] = value{}
	return true
}

// clobber forgets the registers that an instruction writes.
func (r *registers) clobber(w word) {
	forget := func(n uint64) { r[n] = value{} }
	switch {
	case w&0x0a000000 == 0x08000000: // loads and stores
		vector, store := w.bits(26, 1) == 1, w.bits(22, 1) == 0 && w.bits(23, 1) == 0
		if !vector && !store {
			forget(w.bits(0, 5))
		}
		if !vector && w&0x3a000000 == 0x28000000 && w.bits(22, 1) == 1 { // ldp
			forget(w.bits(10, 5))
		}
		if w&0x3f000000 == 0x08000000 { // exclusive: the status, and compare and swap
			forget(w.bits(16, 5))
			forget(w.bits(0, 5))
		}
		if w&0x3f200000 == 0x08200000 { // of pairs
			forget(w.bits(10, 5))
			forget((w.bits(16, 5) + 1) & 31)
			forget((w.bits(0, 5) + 1) & 31)
		}
		if w&0x3b200000 == 0x38000000 || w&0x3a800000 == 0x28800000 || w&0xbf800000 == 0x0c800000 || w&0xbf800000 == 0x0d800000 { // base may be written back
			forget(w.bits(5, 5))
		}
		if w&0x3b200c00 == 0x38200000 { // atomic
			forget(w.bits(0, 5))
		}
	case w&0x1c000000 == 0x10000000, w&0x0e000000 == 0x0a000000: // data processing
		forget(w.bits(0, 5))
	case w&0x0e000000 == 0x0e000000: // vector, which may write a general register
		forget(w.bits(0, 5))
	case w&0xfff00000 == 0xd5300000: // mrs
		forget(w.bits(0, 5))
	case w&0xffe0001f == 0xd4000001: // svc, which Linux answers in x0
		forget(0)
	}
	r[31] = value{}
}
