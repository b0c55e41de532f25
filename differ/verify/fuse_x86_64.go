package verify

// fuseX86_64 joins "mov entry(%rip), %reg" and "lea offset(%reg), %reg" where
// the entry holds the address of an import: the patch reaches so a place in an
// import, whose address a linked build has in one instruction. What comes out
// is "lea place(%rip), %reg".
func fuseX86_64(code []insn, im *image) []insn {
	if len(im.imports) == 0 {
		return code
	}
	out := code[:0]
	for i := 0; i < len(code); i++ {
		in := code[i]
		if i+1 < len(code) && code[i+1].pad == 0 {
			if joined, ok := im.offsetOfEntry(&in, &code[i+1]); ok {
				in = joined
				i++
			}
		}
		out = append(out, in)
	}
	return out
}

// offsetOfEntry returns the one instruction that load and add stand for.
func (im *image) offsetOfEntry(load, add *insn) (in insn, ok bool) {
	a, b := im.bytes(load.addr, uint64(load.size)), im.bytes(add.addr, uint64(add.size))
	if !load.via || len(a) != 7 || a[1] != 0x8b || len(b) < 4 || b[1] != 0x8d {
		return in, false
	}
	reg, high := a[2]>>3&7, a[0]>>2&1
	if b[0] != 0x48|high<<2|high || b[2]&0x3f != reg<<3|reg {
		return in, false
	}
	at := 3
	if reg == 4 { // rsp and r12 take a SIB byte
		if b[3] != 0x24 {
			return in, false
		}
		at = 4
	}
	var offset uint64
	switch {
	case b[2]>>6 == 1 && len(b) == at+1:
		offset = uint64(int64(int8(b[at])))
	case b[2]>>6 == 2 && len(b) == at+4:
		offset = number(b[at:])
	default:
		return in, false
	}
	s := im.section(load.ref[0].value)
	to, _ := im.word(load.ref[0].value)
	if _, _, imported := im.imported(to); !imported || s == nil || !s.got {
		return in, false
	}
	in = insn{addr: load.addr, size: load.size + add.size, pad: load.pad}
	in.add(ref{use: useTake, value: to + offset})
	copy(in.shape[:], []byte{a[0], 0x8d, a[2]})
	return in, true
}
