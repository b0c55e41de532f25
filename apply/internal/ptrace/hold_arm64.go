package ptrace

import (
	"encoding/binary"

	"github.com/fother/fother/specs"
)

const (
	// holdWords is where the addresses and the child's id behind the code begin,
	// holdWaits where the thread goes on after its call.
	holdWords = 0x70
	holdWaits = 0x2c
	holdSize  = holdWords + 3*8
	// holdJump is the index of the jump that lets the program begin, and
	// holdAlways what it is if it always does.
	holdJump   = 0x4c / 4
	holdAlways = 0x14000007
)

// holdCode waits for a child, restores what was changed of the auxiliary
// vector, and goes to the program's entry point, or ends the process with the
// child's exit status. At an entry point only x0 and sp mean anything; both are
// kept.
var holdCode = []uint32{
	0xd50324df, // bti jc
	0xaa0003f3, // mov x19, x0
	0xd10043ff, // sub sp, sp, #0x10
	0x180003a0, // ldr w0, pid
	0x910003e1, // mov x1, sp
	0x52802002, // mov w2, #0x100
	0xb9000022, // str w2, [x1]
	0xd2800002, // mov x2, #0x0
	0xd2800003, // mov x3, #0x0
	0xd2802088, // mov x8, #0x104
	0xd4000001, // svc #0x0
	0xb100101f, // cmn x0, #0x4
	0x54fffee0, // b.eq to that
	0xaa1303e0, // mov x0, x19
	0x580001d0, // ldr x16, entry
	0x580001f1, // ldr x17, cell
	0xb4000051, // cbz x17, over the store
	0xf9000230, // str x16, [x17]
	0xb84107f1, // ldr w17, [sp], #16
	0x340000f1, // cbz w17, to the end
	0x72001a3f, // tst w17, #0x7f
	0x54000040, // b.eq over the next
	0x52802011, // mov w17, #0x100
	0x53087e20, // lsr w0, w17, #8
	0xd2800bc8, // mov x8, #0x5e
	0xd4000001, // svc #0x0
	0xd61f0200, // br x16
	0xd503201f, // nop
}

// newHold returns code that has a thread wait for its child pid before it goes
// to entry. cell is where the auxiliary vector has the entry point, or 0. With
// anyway it goes there however the child ends.
func newHold(pid int, entry, cell specs.Addr, anyway bool) []byte {
	var b []byte
	for i, word := range holdCode {
		if i == holdJump && anyway {
			word = holdAlways
		}
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	for _, word := range []uint64{uint64(entry), uint64(cell), uint64(pid)} {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}

// isHold reports whether b begins with what newHold returns.
func isHold(b []byte) bool {
	if len(b) < holdSize {
		return false
	}
	for i, word := range holdCode {
		if got := binary.LittleEndian.Uint32(b[4*i:]); got != word && (i != holdJump || got != holdAlways) {
			return false
		}
	}
	return true
}

// waitsFor reports whether the child that the code b waits for is still one of
// process pid.
func waitsFor(pid int, b []byte) bool {
	child := int(int32(binary.LittleEndian.Uint32(b[holdWords+16:])))
	parent, ok := statusField(child, child, "PPid")
	return ok && parent == pid
}

// foreign reports whether the thread runs code of another architecture than
// the tool: that of 32 bits.
func (r *Regs) foreign() bool { return r.Pstate&(1<<4) != 0 }

// setPC changes where the thread goes on.
func (r *Regs) setPC(pc specs.Addr) { r.Pc = uint64(pc) }
