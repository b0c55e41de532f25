package kpack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"

	"golang.org/x/arch/x86/x86asm"

	"github.com/fother/fother/specs"
)

// gateSizeX86_64 is the length in bytes of a gate, a multiple of 16.
const gateSizeX86_64 = 80

// gateX86_64 leaves the red zone alone, for an entry to which its own function
// jumps back, and needs no register: callers of a function that is local to its
// unit may know which ones it does not touch (gcc's -fipa-ra).
func gateX86_64(want uint32) []byte {
	const words = gateSizeX86_64 - 8 - gateWords // where the addresses are
	b := []byte{
		0x48, 0x8d, 0x64, 0x24, 0x80, // lea -128(%rsp), %rsp
		0x50,                                  // push %rax
		0x48, 0x8b, 0x05, words - 13, 0, 0, 0, // mov cell(%rip), %rax
		0x81, 0x38, byte(want), byte(want >> 8), byte(want >> 16), byte(want >> 24), // cmpl $want, (%rax)
		0x58,                                           // pop %rax
		0x48, 0x8d, 0xa4, 0x24, 0x80, 0x00, 0x00, 0x00, // lea 128(%rsp), %rsp
		0x74, 0x07, // je 1f
		0x3e, 0xff, 0x25, words + 8 - 37, 0, 0, 0, // notrack jmp *shut(%rip)
		0x3e, 0xff, 0x25, words + 16 - 44, 0, 0, 0, // 1: notrack jmp *open(%rip)
	}
	return append(b, bytes.Repeat([]byte{0xcc}, words-len(b))...)
}

// moveX86_64 copies whole instructions from the start of code, which lies at
// at, until n bytes are covered. Source: Intel SDM, volume 2.
func moveX86_64(m *moved, code []byte, at specs.VAddr, n int) error {
	done := 0
	for done < n && !m.ended {
		size, err := moveOneX86_64(m, code[done:], at+specs.VAddr(done))
		if err != nil {
			return err
		}
		done += size
	}
	if m.calls && done < n {
		return errMoved(at+specs.VAddr(done), "is where a call returns to, and is overwritten")
	}
	if !m.ended {
		m.jump(0xe9, at+specs.VAddr(done))
	}
	return nil
}

// pc32 notes that the 4 bytes at offset hold the distance to an address from
// the byte that lies after bytes behind them.
func (m *moved) pc32(offset int, to specs.VAddr, after int) {
	m.relocs = append(m.relocs, movedReloc{offset, uint32(elf.R_X86_64_PC32), to, -4 - int64(after)})
}

// jump appends a jump, whose opcode ends in op, to an address of the target.
func (m *moved) jump(op byte, to specs.VAddr) {
	m.code = append(m.code, op, 0, 0, 0, 0)
	m.pc32(len(m.code)-4, to, 0)
}

// pushReturn appends what a call does before it jumps. The address goes on in
// the original, so that nothing ever returns into the copy.
func (m *moved) pushReturn(to specs.VAddr) {
	m.calls, m.ended = true, true
	m.words = append(m.words, movedWord{to, len(m.code), func(insn []byte, distance int64) error {
		return putS32(insn[2:], distance-6)
	}})
	m.code = append(m.code, 0xff, 0x35, 0, 0, 0, 0) // push word(%rip)
}

// moveOneX86_64 copies the instruction at the start of code and returns its
// length in bytes.
func moveOneX86_64(m *moved, code []byte, at specs.VAddr) (int, error) {
	if len(code) == 0 {
		return 0, errMoved(at, "is missing: the function ends before it")
	}
	if bytes.HasPrefix(code, endbr64) {
		return len(endbr64), nil
	}
	if code[0] == 0xc4 || code[0] == 0xc5 || code[0] == 0x62 {
		size, field := vectorX86_64(code)
		if size == 0 {
			return 0, errMoved(at, "is not understood")
		}
		m.plain(code[:size], field, at)
		return size, nil
	}
	inst, err := x86asm.Decode(code, 64)
	if err != nil || inst.Op == 0 || inst.Len == 0 {
		return 0, errMoved(at, "is not understood")
	}
	next := at + specs.VAddr(inst.Len)
	rel, branch := inst.Args[0].(x86asm.Rel)
	to := next + specs.VAddr(rel)
	switch op := inst.Op; {
	case op == x86asm.CALL && branch:
		m.pushReturn(next)
		m.jump(0xe9, to)
	case op == x86asm.CALL:
		return inst.Len, m.callIndirect(code[:inst.Len], &inst, at)
	case op == x86asm.JMP && branch:
		m.jump(0xe9, to)
		m.ended = true
	case branch && (code[inst.PCRelOff-1]>>4 == 7 || code[inst.PCRelOff-1]>>4 == 8):
		m.code = append(m.code, 0x0f)
		m.jump(0x80|code[inst.PCRelOff-1]&0xf, to)
	case branch:
		return 0, errMoved(at, "is a jump that reaches no further than 127 bytes")
	case unmovableX86_64[op]:
		return 0, errMoved(at, "enters the kernel or another mode")
	default:
		m.plain(code[:inst.Len], ripField(&inst), at)
		m.ended = op == x86asm.RET || op == x86asm.JMP || op == x86asm.UD2
	}
	return inst.Len, nil
}

// unmovableX86_64 are instructions in which a thread may stay for long, or that
// depend on their own address.
var unmovableX86_64 = map[x86asm.Op]bool{
	x86asm.SYSCALL: true, x86asm.SYSENTER: true, x86asm.SYSRET: true, x86asm.INT: true, x86asm.XBEGIN: true, x86asm.LRET: true,
	x86asm.IRET: true, x86asm.IRETD: true, x86asm.IRETQ: true, x86asm.LCALL: true, x86asm.LJMP: true, x86asm.HLT: true,
}

// ripField returns the offset of an operand's distance from the next
// instruction, or 0 if there is none.
func ripField(inst *x86asm.Inst) int {
	for _, a := range inst.Args {
		if mem, ok := a.(x86asm.Mem); ok && mem.Base == x86asm.RIP {
			return inst.PCRelOff
		}
	}
	return 0
}

// plain appends an instruction that does the same anywhere, but for the
// distance at field, if that is not 0.
func (m *moved) plain(code []byte, field int, at specs.VAddr) {
	if field != 0 {
		next := at + specs.VAddr(len(code))
		distance := int32(binary.LittleEndian.Uint32(code[field:]))
		m.pc32(len(m.code)+field, next+specs.VAddr(distance), len(code)-field-4)
	}
	m.code = append(m.code, code...)
}

// callIndirect appends the jump (FF /4) for a call (FF /2) through a register
// or memory.
func (m *moved) callIndirect(code []byte, inst *x86asm.Inst, at specs.VAddr) error {
	modrm := bytes.IndexByte(code, 0xff) + 1
	for _, a := range inst.Args {
		mem, _ := a.(x86asm.Mem)
		if a == x86asm.RSP || mem.Base == x86asm.RSP || mem.Index == x86asm.RSP {
			return errMoved(at, "calls what the stack pointer leads to")
		}
	}
	if modrm == 0 || modrm >= len(code) || code[modrm]>>3&7 != 2 {
		return errMoved(at, "is not understood")
	}
	m.pushReturn(at + specs.VAddr(len(code)))
	jump := bytes.Clone(code)
	jump[modrm] = jump[modrm]&^(7<<3) | 4<<3
	m.plain(jump, ripField(inst), at)
	return nil
}

// vectorX86_64 returns the length of an instruction with a VEX or EVEX prefix,
// and the offset of a distance from the next instruction, each 0 if there is
// none. Source: Intel SDM 2.3, 2.7 and volume 2, appendix A.
func vectorX86_64(code []byte) (size, field int) {
	opmap, at := byte(1), 2
	switch {
	case len(code) < 7: // too near to the end to be told from data
	case code[0] == 0xc4:
		opmap, at = code[1]&0x1f, 3
	case code[0] == 0x62:
		opmap, at = code[1]&7, 4
	}
	if len(code) < 7 || opmap < 1 || opmap > 3 {
		return 0, 0
	}
	opcode, modrm := code[at], code[at+1]
	if opmap == 1 && opcode == 0x77 { // vzeroupper, vzeroall
		return at + 1, 0
	}
	size = at + 2
	if mod, rm := modrm>>6, modrm&7; mod != 3 {
		base := rm
		if rm == 4 {
			base = code[size] & 7
			size++
		}
		switch {
		case mod == 1:
			size++
		case mod == 2, base == 5:
			if mod == 0 && rm == 5 {
				field = size
			}
			size += 4
		}
	}
	if opmap == 3 || opmap == 1 && (opcode>>2 == 0x70>>2 || opcode == 0xc2 || opcode >= 0xc4 && opcode <= 0xc6) {
		size++ // an immediate byte
	}
	if size > len(code) {
		return 0, 0
	}
	return size, field
}

// undoX86_64 knows what functions begin with: endbr64, pushes, sub from the
// stack pointer, and mov %rsp, %rbp right after push %rbp. Flags are nobody's at
// an entry.
func undoX86_64(before, code []byte) (int, []byte, bool) {
	has := func(prefix ...byte) bool { return bytes.HasPrefix(code, prefix) }
	pop := []byte{0x48, 0x8d, 0x64, 0x24, 0x08} // lea 8(%rsp), %rsp
	switch {
	case has(endbr64...):
		return len(endbr64), nil, true
	case len(code) > 0 && code[0]&0xf8 == 0x50:
		return 1, pop, true
	case len(code) > 1 && code[0] == 0x41 && code[1]&0xf8 == 0x50:
		return 2, pop, true
	case has(0x48, 0x89, 0xe5) && bytes.HasSuffix(before, []byte{0x55}):
		return 3, []byte{0x48, 0x8b, 0x2c, 0x24}, true // mov (%rsp), %rbp
	case has(0x48, 0x83, 0xec) && len(code) > 3:
		return 4, addRSP(int32(int8(code[3]))), true
	case has(0x48, 0x81, 0xec) && len(code) > 6:
		return 7, addRSP(int32(binary.LittleEndian.Uint32(code[3:]))), true
	}
	return 0, nil, false
}

// addRSP returns lea n(%rsp), %rsp.
func addRSP(n int32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{0x48, 0x8d, 0xa4, 0x24}, uint32(n))
}
