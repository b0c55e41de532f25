package verify

// fuseX86_64 joins "mov entry(%rip), %reg" and "lea offset(%reg), %reg", or a
// load from offset(%reg) into the same register, with a displacement that is
// longer than it has to be, where the entry holds the
// address of an import: the patch reaches so a place in an import, which a
// linked build does in one instruction. What comes out is "lea place(%rip),
// %reg", or the load from place(%rip).
func fuseX86_64(code []insn, im *image) []insn {
	if im.outer == nil || len(im.imports) == 0 {
		return code
	}
	out := code[:0]
	for i := 0; i < len(code); i++ {
		in := code[i]
		if i+1 < len(code) && code[i+1].pad == 0 {
			if joined, ok := im.throughEntry(&in, &code[i+1]); ok {
				in = joined
				i++
			}
		}
		out = append(out, in)
	}
	return out
}

// throughEntry returns the one instruction that a load of an entry and what
// follows it stand for.
func (im *image) throughEntry(load, then *insn) (in insn, ok bool) {
	a, b := im.bytes(load.addr, uint64(load.size)), im.bytes(then.addr, uint64(then.size))
	if !load.via || len(a) != 7 || a[1] != 0x8b {
		return in, false
	}
	reg, high := a[2]>>3&7, a[0]>>2&1
	op, offset, ok := basedX86_64(b, reg, high)
	if !ok {
		return in, false
	}
	s := im.section(load.ref[0].value)
	to, _ := im.word(load.ref[0].value)
	if _, _, imported := im.imported(to); !imported || s == nil || !s.got {
		return in, false
	}
	decodeX86_64(append(op, reg<<3|5, 0, 0, 0, 0), load.addr, &in)
	if in.bad || in.refs != 1 {
		return in, false
	}
	in.size, in.pad, in.via, in.ref[0].value = load.size+then.size, load.pad, false, to+offset
	return in, true
}

// basedX86_64 takes lea, or a load of a general register that sets all of it,
// apart whose base and destination are one register. op is the instruction up to
// the opcode, for an operand without a base. Source: Intel SDM volume 2, 2.1.5
// and "MOV", "MOVZX", "MOVSX/MOVSXD".
func basedX86_64(b []byte, reg, high byte) (op []byte, offset uint64, ok bool) {
	rex := byte(0)
	if len(b) > 0 && b[0]&0xf0 == 0x40 {
		rex, b = b[0], b[1:]
		op = append(op, rex&^1)
	}
	n := 1
	switch {
	case len(b) < 2 || rex&3 != high || rex>>2&1 != high:
		return nil, 0, false
	case b[0] == 0x0f && (b[1]&0xfe == 0xb6 || b[1]&0xfe == 0xbe):
		n = 2
	case b[0] == 0x8b, b[0] == 0x8d && rex&8 != 0, b[0] == 0x63 && rex&8 != 0:
	default:
		return nil, 0, false
	}
	op, b = append(op, b[:n]...), b[n:]
	if len(b) == 0 || b[0]&0x3f != reg<<3|reg {
		return nil, 0, false
	}
	mod := b[0] >> 6
	b = b[1:]
	if reg == 4 { // rsp and r12 take a SIB byte
		if len(b) == 0 || b[0] != 0x24 {
			return nil, 0, false
		}
		b = b[1:]
	}
	lea := op[len(op)-1] == 0x8d
	switch {
	case mod == 1 && len(b) == 1 && lea:
		return op, uint64(int64(int8(b[0]))), true
	case mod == 2 && len(b) == 4 && (lea || number(b) < 128):
		return op, number(b), true
	}
	return nil, 0, false
}
