package verify

// references fills in in.ref, in.flow and what is special about in.shape. The
// immediate has immLen bytes at immAt.
func (d *x86) references(form byte, immAt, immLen int) {
	in := d.in
	if d.isNop() {
		in.nop = true
		return
	}
	if form == 'j' || form == 'J' {
		d.branch(immAt, immLen)
		return
	}
	if d.dispAt != 0 {
		d.displacement()
	}
	if d.opmap != mapPrimary {
		if d.opmap == map0F && (d.opcode == 0x0b || d.opcode == 0xb9) && !d.vex {
			in.flow = flowStop // ud2
		}
		return
	}
	switch {
	case d.opcode == 0xc7 && d.modrm == 0xf8: // xbegin
		d.branch(immAt, immLen)
	case form == 'o':
		in.add(ref{use: useMaybe, value: number(d.code[immAt:][:immLen])})
		clear(in.shape[immAt : immAt+immLen])
	case immLen >= 4:
		in.add(ref{use: useMaybe, value: number(d.code[immAt:][:immLen])})
		clear(in.shape[immAt : immAt+immLen])
		d.immediateAddress()
		d.accumulator()
	case d.opcode&0xfe == 0xc0 && d.code[immAt] == 1:
		d.shiftOnce(immAt)
	case d.opcode == 0xff:
		d.indirect()
	case d.opcode == 0xc3, d.opcode == 0xc2, d.opcode == 0xf4, d.opcode == 0xcc:
		in.flow = flowStop
	}
}

// number reads a little-endian number of 4 or 8 bytes; those of 4 are
// sign-extended.
func number(b []byte) uint64 {
	if len(b) == 8 {
		return le.Uint64(b)
	}
	return uint64(int64(int32(le.Uint32(b))))
}

// isNop reports whether the instruction is one of those that assemblers pad
// code with.
func (d *x86) isNop() bool {
	switch {
	case d.vex || d.rep != 0 || d.seg != 0:
		return false
	case d.opmap == mapPrimary:
		return d.opcode == 0x90 && d.rex&1 == 0
	}
	return d.opmap == map0F && d.opcode == 0x1f && d.modrm&0x38 == 0
}

// branch handles an instruction whose immediate counts from its end. Short and
// near forms get the shape of the near one. The prefix of "addr32 call" is the
// linker's padding.
func (d *x86) branch(at, n int) {
	in, to := d.in, in64(d.in.end())
	if n == 1 {
		to += int64(int8(d.code[at]))
	} else {
		to += int64(int32(le.Uint32(d.code[at:])))
	}
	in.add(ref{use: useBranch, value: uint64(to)})
	clear(in.shape[:])
	s := in.shape[:0]
	for _, p := range d.code[:d.opAt] {
		if p != 0x67 && p != 0x0f || d.opcode&0xfc == 0xe0 { // jrcxz and loop count with ecx after 67
			s = append(s, p)
		}
	}
	op := d.opcode
	switch {
	case d.opmap == map0F:
		s = append(s, 0x0f)
	case op&0xf0 == 0x70:
		s, op = append(s, 0x0f), op+0x10
	case op == 0xeb:
		op = 0xe9
	}
	s = append(s, op)
	switch {
	case d.opmap == mapPrimary && op == 0xe9:
		in.flow = flowStop
	case d.opmap == mapPrimary && op == 0xe8:
		in.ref[0].use = useCall
	case op == 0xc7:
		_ = append(s, d.modrm)
	}
}

func in64(v uint64) int64 { return int64(v) }

// displacement handles a displacement of 4 bytes.
func (d *x86) displacement() {
	in, v := d.in, number(d.code[d.dispAt:][:4])
	switch {
	case d.ripRelative && d.opmap == mapPrimary && d.opcode == 0x8d:
		in.add(ref{use: useTake, value: in.end() + v})
	case d.ripRelative:
		in.add(ref{use: useAccess, value: in.end() + v, size: d.access()})
		in.via = d.opmap == mapPrimary && d.opcode == 0x8b && d.rex&8 != 0
	case d.seg == 0x64:
		in.add(ref{use: useTLS, value: v})
	default:
		in.add(ref{use: useMaybe, value: v})
	}
	clear(in.shape[d.dispAt : d.dispAt+4])
}

// indirect handles the group of opcode ff: calls and jumps through memory.
func (d *x86) indirect() {
	in, reg := d.in, d.modrm>>3&7
	if reg == 4 || reg == 5 {
		in.flow = flowStop
	}
	if d.ripRelative && (reg == 2 || reg == 4) {
		in.via = true
	}
}

// shiftOnce gives a shift whose count is the immediate byte 1 the shape of the
// form without a count. The count is the only thing in which the two differ:
// flags are those of a shift by one. Compilers that write objects themselves
// choose one form, assemblers the other. Source: Intel SDM volume 2,
// "SAL/SAR/SHL/SHR" and "RCL/RCR/ROL/ROR", operation and flags affected.
func (d *x86) shiftOnce(immAt int) {
	d.in.shape[d.opAt] |= 0x10
	d.in.shape[immAt] = 0
}

// accumulator gives an instruction with a 4-byte immediate and rax or eax, in the
// form without a ModRM byte, the shape of the form with one. Compilers that write
// objects themselves choose the first, assemblers the second if the immediate is
// an address. Source: Intel SDM volume 2, operand encoding "I" and "MI" of ADD,
// OR, ADC, SBB, AND, SUB, XOR and CMP, and of TEST.
func (d *x86) accumulator() {
	op, modrm := byte(0x81), 0xc0|d.opcode&0x38
	switch {
	case d.rex&1 != 0:
		return
	case d.opcode == 0xa9:
		op, modrm = 0xf7, 0xc0
	case d.opcode&^0x38 != 0x05:
		return
	}
	d.in.shape[d.opAt], d.in.shape[d.opAt+1] = op, modrm
}

// immediateAddress marks the moves of an immediate to a register that are as
// good as lea if it is an address: the linker makes them of a load from the
// GOT, and compilers write the one with 4 bytes, which clears the upper half,
// in executables that are not position independent.
func (d *x86) immediateAddress() {
	long := d.opcode == 0xc7 && d.modrm&0xf8 == 0xc0 && d.rex&8 != 0 && d.at == 7
	short := d.opcode&0xf8 == 0xb8 && d.rex&8 == 0 && d.at == 5+int(d.rex>>6&1)
	d.in.via = d.in.via || long || short
}

// directX86_64 makes lea of mov, and a direct call or jump of one through
// memory.
func directX86_64(in *insn) [maxInsn + 1]byte {
	s := in.shape
	n := 0
	for n < len(s) && s[n]&0xf0 != 0x40 && s[n] != 0xff && s[n] != 0x8b && s[n] != 0xc7 && s[n]&0xf8 != 0xb8 {
		n++
	}
	rex := byte(0)
	if s[n]&0xf0 == 0x40 {
		rex = s[n]
		n++
	}
	op, modrm := s[n], s[n+1]
	var out [maxInsn + 1]byte
	switch {
	case op == 0xff && modrm>>3&7 == 2:
		out[0] = 0xe8
	case op == 0xff:
		out[0] = 0xe9
	case op&0xf8 == 0xb8:
		out = [maxInsn + 1]byte{0x48 | rex&1<<2, 0x8d, op&7<<3 | 5}
	case op == 0xc7:
		out = [maxInsn + 1]byte{0x48 | rex&1<<2, 0x8d, modrm&7<<3 | 5}
	default:
		out = [maxInsn + 1]byte{rex, 0x8d, modrm}
	}
	return out
}

// access returns how many bytes the instruction touches at its memory operand
// at least, 0 if that is not known.
func (d *x86) access() uint8 {
	switch {
	case d.evex:
		return 0
	case d.opmap == mapPrimary:
		return d.accessOne()
	case d.opmap == map0F:
		return d.accessTwo()
	case d.opmap == map0F38 && (d.opcode <= 0x0b || d.opcode&0xfc == 0x1c || d.opcode >= 0x38 && d.opcode <= 0x40) && d.opsize:
		return 16 << d.wide
	case d.opmap == map0F3A && d.opcode == 0x0f && d.opsize:
		return 16 << d.wide
	}
	return 0
}

// word is the size of a general register operand.
func (d *x86) word() uint8 {
	switch {
	case d.rex&8 != 0:
		return 8
	case d.opsize:
		return 2
	}
	return 4
}

func (d *x86) accessOne() uint8 {
	op := d.opcode
	switch {
	case op == 0x63, op == 0xd8, op == 0xda:
		return 4
	case op == 0xdc, op == 0xff && d.modrm>>3&7 >= 2:
		return 8
	case op == 0xd9 && d.modrm>>3&7 < 4:
		return 4
	case op == 0xdd && d.modrm>>3&7 < 4:
		return 8
	case op == 0xdb && d.modrm>>3&7 < 4:
		return 4
	case op == 0xdb:
		return 10
	case op >= 0xd8 && op <= 0xdf:
		return 2
	case op == 0x69, op == 0x6b, op == 0x83, op == 0x8f:
		return d.word()
	case op&1 == 0:
		return 1
	}
	return d.word()
}

func (d *x86) accessTwo() uint8 {
	op, packed := d.opcode, uint8(16)<<d.wide
	scalar := uint8(0) // of the forms with f3 and f2
	switch d.rep {
	case 0xf3:
		scalar = 4
	case 0xf2:
		scalar = 8
	}
	switch {
	case op == 0xb6, op == 0xbe, op&0xf0 == 0x90 && !d.vex, op == 0xb0, op == 0xc0:
		return 1
	case op == 0xb7, op == 0xbf:
		return 2
	case op&0xf0 == 0x40 && !d.vex, op == 0xaf, op == 0xb1, op == 0xc1, op >= 0xa3 && op <= 0xbd:
		return d.word()
	case op == 0x10, op == 0x11, op == 0x51, op >= 0x58 && op <= 0x5f && op != 0x5a && op != 0x5b, op == 0xc2, op == 0x5a && scalar != 0:
		if scalar != 0 {
			return scalar
		}
		return packed
	case op == 0x2e, op == 0x2f:
		if d.opsize {
			return 8
		}
		return 4
	case op == 0x2c, op == 0x2d:
		return scalar
	case op == 0x2a && scalar != 0, op == 0x6e:
		return d.word()
	case op == 0x12, op == 0x13, op == 0x16, op == 0x17:
		if d.rep == 0 {
			return 8
		}
		return 0
	case op == 0x7e && d.rep == 0xf3, op == 0xd6:
		return 8
	case op == 0x7e:
		return d.word()
	case op == 0x28, op == 0x29, op >= 0x54 && op <= 0x57, op == 0xc6, op == 0x5b, op == 0x6f, op == 0x7f, op == 0x70:
		if op == 0x6f && d.rep == 0 && !d.opsize || op == 0x7f && d.rep == 0 && !d.opsize || op == 0x70 && d.rep == 0 && !d.opsize {
			return 8
		}
		return packed
	case d.opsize && (op >= 0x60 && op <= 0x6d || op >= 0x74 && op <= 0x76 || op >= 0xd4 && op != 0xe6 && (op < 0xf0 || op > 0xf3) && op != 0xf7 && op != 0xe1 && op != 0xe2 && op != 0xd1 && op != 0xd2 && op != 0xd3):
		return packed
	}
	return 0
}
