package verify

import "encoding/binary"

var le = binary.LittleEndian

// Letters of the opcode maps say what follows the opcode: M a ModRM byte, b, w
// and z an immediate of 1, 2 and 4 bytes (2 with a 66 prefix), v one that can
// have 8; lower-case letters are without ModRM, upper-case ones with. Source:
// Intel SDM volume 2, appendix A; AMD APM volume 3, appendix A.
//
//	.  nothing            M  ModRM              !  not an instruction
//	b  imm8               B  ModRM imm8         P  prefix or escape
//	w  imm16              j  rel8               F  ModRM, imm8 if reg is 0 or 1
//	z  imm16/32           J  rel32              G  ModRM, imm16/32 if reg is 0 or 1
//	v  imm16/32/64        Z  ModRM imm16/32     e  imm16 imm8
//	o  address of 8 bytes
const mapOne = "" +
	"MMMMbz!!MMMMbz!PMMMMbz!!MMMMbz!!" + // 00
	"MMMMbzP!MMMMbzP!MMMMbzP!MMMMbzP!" + // 20
	"PPPPPPPPPPPPPPPP................" + // 40
	"!!PMPPPPzZbB....jjjjjjjjjjjjjjjj" + // 60
	"BZ!BMMMMMMMMMMMM..........!....." + // 80
	"oooo....bz......bbbbbbbbvvvvvvvv" + // a0
	"BBw.PPBZe.w..b!.MMMM!!!.MMMMMMMM" + // c0
	"jjjjbbbbJJ!j....P.PP..FG......MM" //   e0

// mapTwo is the map after 0f.
const mapTwo = "" +
	"MMMM!....." + "!.!M.B" + "MMMMMMMMMMMMMMMM" + // 00
	"MMMM!!!!MMMMMMMM" + "......!.P!P!!!!!" + // 20
	"MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM" + // 40
	"MMMMMMMMMMMMMMMM" + "BBBBMMM.MMMMMMMM" + // 60
	"JJJJJJJJJJJJJJJJMMMMMMMMMMMMMMMM" + // 80
	"...MBMMM...MBMMMMMMMMMMMMMBMMMMM" + // a0
	"MMBMBBBM........MMMMMMMMMMMMMMMM" + // c0
	"MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM" //   e0

// Opcode maps, numbered as in VEX and EVEX prefixes; 8 and up are XOP's.
const (
	mapPrimary = 0
	map0F      = 1
	map0F38    = 2
	map0F3A    = 3
)

// x86 is one instruction that is being decoded.
type x86 struct {
	code []byte // from the instruction on
	at   int    // read so far
	in   *insn

	opsize, addrsize bool // 66 and 67
	rep              byte // the last of f2 and f3
	seg              byte // the last of 64 and 65
	rex              byte // of REX, VEX or EVEX, as in REX
	vex              bool // VEX, EVEX or XOP
	evex             bool
	wide             uint8 // vector length: 16<<wide bytes
	opmap, opcode    byte
	opAt             int // where the opcode byte is
	modrm            byte
	hasModRM         bool
	memory           bool // ModRM names memory
	dispAt           int  // of a 4-byte displacement, 0 if none
	ripRelative      bool
	noBase           bool // the displacement is the whole address but for an index
}

// decodeX86_64 reads the instruction at the start of code, which lies at
// link-time address addr. It always takes at least one byte; bytes that are no
// instruction, or one that is cut off, are taken singly.
func decodeX86_64(code []byte, addr uint64, in *insn) {
	*in = insn{addr: addr}
	d := x86{code: code[:min(len(code), maxInsn)], in: in}
	if !d.decode() {
		*in = insn{addr: addr, size: 1, bad: true}
		in.shape[0] = code[0]
	}
}

// next returns the next byte.
func (d *x86) next() (byte, bool) {
	if d.at >= len(d.code) {
		return 0, false
	}
	d.at++
	return d.code[d.at-1], true
}

// skip passes n bytes.
func (d *x86) skip(n int) bool {
	d.at += n
	return d.at <= len(d.code)
}

func (d *x86) decode() bool {
	if !d.prefixes() {
		return false
	}
	form, ok := d.form()
	if !ok {
		return false
	}
	if d.hasModRM = form == 'M' || form == 'B' || form == 'Z' || form == 'F' || form == 'G'; d.hasModRM && !d.operand() {
		return false
	}
	immAt := d.at
	n := d.immediate(form)
	if n < 0 || !d.skip(n) {
		return false
	}
	d.in.size = uint8(d.at)
	copy(d.in.shape[:], d.code[:d.at])
	d.references(form, immAt, n)
	return true
}

// prefixes reads all prefixes and the opcode.
func (d *x86) prefixes() bool {
	for {
		b, ok := d.next()
		if !ok {
			return false
		}
		switch b {
		case 0x66:
			d.opsize = true
		case 0x67:
			d.addrsize = true
		case 0xf2, 0xf3:
			d.rep = b
		case 0x64, 0x65:
			d.seg = b
		case 0x26, 0x2e, 0x36, 0x3e, 0xf0:
		default:
			if b&0xf0 == 0x40 {
				d.rex = b
				continue
			}
			return d.escape(b)
		}
		d.rex = 0 // REX counts only right before the opcode
	}
}

// escape reads what follows the legacy prefixes, of which b is the first byte.
func (d *x86) escape(b byte) bool {
	ok := true
	switch b {
	case 0xc4, 0xc5:
		return d.vexPrefix(b)
	case 0x62:
		return d.evexPrefix()
	case 0x8f:
		if d.at < len(d.code) && d.code[d.at]&0x1f >= 8 {
			return d.vexPrefix(b)
		}
	case 0x0f:
		d.opmap = map0F
		if b, ok = d.next(); !ok {
			return false
		}
		if b == 0x38 || b == 0x3a {
			d.opmap = map0F38 + (b-0x38)/2
			b, ok = d.next()
		}
	}
	d.opcode, d.opAt = b, d.at-1
	return ok
}

// vexPrefix reads the rest of a VEX or XOP prefix and the opcode.
// Source: Intel SDM 2.3.5.
func (d *x86) vexPrefix(first byte) bool {
	p, ok := d.next()
	d.vex, d.opmap = true, map0F
	d.rex = ^p >> 5 & 4 // R
	if first != 0xc5 {
		d.rex, d.opmap = ^p>>5&7, p&0x1f
		if p, ok = d.next(); p&0x80 != 0 {
			d.rex |= 8
		}
	}
	d.prefixBits(p)
	d.wide = p >> 2 & 1
	op, more := d.next()
	d.opcode, d.opAt = op, d.at-1
	return ok && more
}

// evexPrefix reads the rest of an EVEX prefix and the opcode. Source: Intel
// SDM 2.7.1.
func (d *x86) evexPrefix() bool {
	if len(d.code)-d.at < 4 {
		return false
	}
	p0, p1, p2 := d.code[d.at], d.code[d.at+1], d.code[d.at+2]
	d.vex, d.evex, d.opmap = true, true, p0&7
	d.rex = ^p0 >> 5 & 7
	if p1&0x80 != 0 {
		d.rex |= 8
	}
	d.prefixBits(p1)
	d.wide = p2 >> 5 & 3
	d.opcode, d.opAt = d.code[d.at+3], d.at+3
	d.at += 4
	return p1&4 != 0
}

// prefixBits reads the field that stands for a 66, f3 or f2 prefix.
func (d *x86) prefixBits(p byte) {
	d.opsize = p&3 == 1
	d.rep = [4]byte{0, 0, 0xf3, 0xf2}[p&3]
}

// form returns the letter of the opcode, see mapOne.
func (d *x86) form() (byte, bool) {
	var form byte
	switch {
	case d.opmap == mapPrimary:
		form = mapOne[d.opcode]
	case d.vex && d.opmap == map0F && d.opcode&0xf0 == 0x80, d.vex && d.opmap == mapPrimary:
		return 0, false
	case d.opmap == map0F && d.opcode == 0x78 && !d.vex && (d.opsize || d.rep == 0xf2):
		return 'M', true // extrq, insertq: two bytes of immediates, see immediate
	case d.opmap == map0F:
		form = mapTwo[d.opcode]
		if d.vex && form != 'B' && form != '.' {
			form = 'M'
		}
	case d.opmap == map0F38, d.opmap == 5, d.opmap == 6, d.opmap == 9:
		form = 'M'
	case d.opmap == map0F3A, d.opmap == 8:
		form = 'B'
	case d.opmap == 10:
		form = 'Z'
	default:
		return 0, false
	}
	return form, form != '!' && form != 'P'
}

// operand reads ModRM, SIB and displacement. Source: Intel SDM 2.1.5.
func (d *x86) operand() bool {
	b, ok := d.next()
	if !ok {
		return false
	}
	d.modrm = b
	mod, rm := b>>6, b&7
	if mod == 3 || d.opmap == map0F && d.opcode&0xfc == 0x20 && !d.vex { // mov to and from control registers
		return true
	}
	d.memory = true
	base := rm
	if rm == 4 {
		sib, ok := d.next()
		if !ok {
			return false
		}
		base = sib & 7
	}
	switch {
	case mod == 1:
		return d.skip(1)
	case mod == 2:
		d.dispAt = d.at
	case base == 5:
		d.dispAt = d.at
		d.ripRelative, d.noBase = rm == 5, rm == 4
	default:
		return true
	}
	return d.skip(4)
}

// immediate returns the size of what follows the operand in bytes, or -1.
func (d *x86) immediate(form byte) int {
	z := 4
	if d.opsize && d.rex&8 == 0 {
		z = 2
	}
	switch form {
	case '.':
		return 0
	case 'M':
		if d.opmap == map0F && d.opcode == 0x78 && !d.vex && (d.opsize || d.rep == 0xf2) {
			return 2
		}
		return 0
	case 'b', 'B', 'j':
		return 1
	case 'w':
		return 2
	case 'e':
		return 3
	case 'J':
		return 4
	case 'z':
		return z
	case 'Z':
		if d.opmap == 10 {
			return 4
		}
		return z
	case 'v':
		if d.rex&8 != 0 {
			return 8
		}
		return z
	case 'o':
		if d.addrsize {
			return 4
		}
		return 8
	case 'F', 'G':
		if d.modrm&0x38 > 8 {
			return 0
		}
		if form == 'F' {
			return 1
		}
		return z
	}
	return -1
}
