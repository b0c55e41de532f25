package verify

// clobber forgets the registers that an instruction may write: all of them, if it is
// none that is known. Source: Arm ARM, C4.1.
func (r *registers) clobber(w word) {
	r.overwrites(w)
	derived := r.derives(w)
	forget := func(list ...int) {
		for _, n := range list {
			if r.set(n&31, value{}); derived {
				r.stack |= 1 << (n & 31)
			}
		}
	}
	switch {
	case w&0x0a000000 == 0x08000000:
		r.clobberMemory(w, forget)
	case w&0x1c000000 == 0x10000000: // immediates
		forget(w.rd())
		if w&0xff800000 == 0xf3800000 { // autiasppc and its like
			forget(30)
		}
	case w&0x0e000000 == 0x0a000000: // registers
		forget(w.rd())
		if w&0xffff0000 == 0xdac10000 { // pacia171615 and its like
			forget(17, 30)
		}
	case w&0x0e000000 == 0x0e000000, w&0x1e000000 == 0x04000000: // vectors, SVE, which may write a general register
		forget(w.rd())
	case w&0x7c000000 == 0x14000000, w&0xff000000 == 0x54000000, w&0x7c000000 == 0x34000000: // b, b.cond, cbz, tbz and their like
	case w&0xfe000000 == 0xd6000000: // br, ret and their like
	default:
		r.clobberSystem(w, forget)
	}
	r.set(31, value{})
}

// clobberSystem is clobber for what is of the system, and for what is not known.
func (r *registers) clobberSystem(w word, forget func(...int)) {
	switch {
	case w&0xfffff01f == 0xd503201f: // hints, some of which sign or strip x17 or x30
		forget(16, 17, 30)
	case w&0xfffff01f == 0xd503301f, w&0xfff8f01f == 0xd500401f: // barriers, msr of an immediate
	case w&0xfff80000 == 0xd5080000, w&0xfff00000 == 0xd5100000: // sys, msr
	case w&0xfff80000 == 0xd5280000, w&0xfff00000 == 0xd5300000: // sysl, mrs
		forget(w.rd())
	case w&0xffe0001f == 0xd4200000: // brk
	case w&0xffe0001f == 0xd4000001: // svc, which Linux answers in x0
		forget(0)
	default:
		r.forgetAll()
	}
}

// clobberMemory is clobber for loads and stores.
func (r *registers) clobberMemory(w word, forget func(...int)) {
	t, n, t2, s := w.rd(), w.rn(), int(w.bits(10, 5)), int(w.bits(16, 5))
	vector := w.bits(26, 1) == 1
	switch {
	case w&0x3f000000 == 0x08000000: // exclusive: the status, and compare and swap
		forget(t, s)
		if w.bits(21, 1) == 1 { // of pairs
			forget(t2, s+1, t+1)
		}
	case w&0xbe000000 == 0x0c000000: // structures
		if w.bits(23, 1) == 1 {
			forget(n)
		}
	case w&0x3b000000 == 0x18000000, w&0x3b000000 == 0x39000000, w&0x3b200c00 == 0x19000000: // literal, offset, ordered
		if !vector && (!stores(w) || w&0x3b000000 == 0x19000000) {
			forget(t)
		}
	case w&0x3b000000 == 0x19000000: // see rare
		forget(t, t+1, n, s, s+1)
	case w&0x3a000000 == 0x28000000: // pair
		if !vector && !stores(w) {
			forget(t, t2)
		}
		if w.bits(23, 1) == 1 {
			forget(n)
		}
	case w&0x3b200000 == 0x38000000: // a register, which may write back
		if !vector && !stores(w) {
			forget(t)
		}
		if w.bits(10, 1) == 1 {
			forget(n)
		}
	case w&0x3b200c00 == 0x38200800: // offset in a register
		if !vector && !stores(w) {
			forget(t)
		}
	case w&0xff200400 == 0xf8200400: // ldraa
		forget(t, n)
	case atomic(w) && !vector && (w.bits(15, 1) == 0 || w.bits(12, 2) == 0): // ldadd and its like, swp, ldapr
		forget(t)
	default:
		r.forgetAll()
	}
}
