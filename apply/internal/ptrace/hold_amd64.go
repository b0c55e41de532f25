package ptrace

import (
	"bytes"
	"encoding/binary"

	"github.com/fother/fother/specs"
)

const (
	// holdWords is where the addresses behind the code begin, holdWaits where
	// the thread goes on after its call.
	holdWords = 96
	holdWaits = 0x1f
	holdSize  = holdWords + 2*8
	// holdPID and holdJump are the places of the child's id, and of the opcode of the jump that
	// lets the program begin.
	holdPID  = 4
	holdJump = 0x43
)

// holdCode waits for a child, restores what was changed of the auxiliary
// vector, and goes to the program's entry point, or ends the process with the
// child's exit status. At an entry point only rdx and rsp mean anything (psABI
// x86-64, "Process Initialization"); both are kept.
var holdCode = []byte{
	0x49, 0x89, 0xd0, // mov %rdx, %r8
	0xbf, 0, 0, 0, 0, // 0: mov $PID, %edi
	0x48, 0x8d, 0x74, 0x24, 0x80, // lea -128(%rsp), %rsi
	0xc7, 0x06, 0x00, 0x01, 0x00, 0x00, // movl $0x100, (%rsi)
	0x31, 0xd2, // xor %edx, %edx
	0x45, 0x31, 0xd2, // xor %r10d, %r10d
	0xb8, 0x3d, 0, 0, 0, // mov $SYS_wait4, %eax
	0x0f, 0x05, // syscall
	0x83, 0xf8, 0xfc, // cmp $-EINTR, %eax
	0x74, 0xdf, // je 0b
	0x4c, 0x89, 0xc2, // mov %r8, %rdx
	0x48, 0x8b, 0x05, 0x32, 0, 0, 0, // mov entry(%rip), %rax
	0x48, 0x8b, 0x0d, 0x33, 0, 0, 0, // mov cell(%rip), %rcx
	0x48, 0x85, 0xc9, // test %rcx, %rcx
	0x74, 0x03, // je 1f
	0x48, 0x89, 0x01, // mov %rax, (%rcx)
	0x8b, 0x7c, 0x24, 0x80, // 1: mov -128(%rsp), %edi
	0x85, 0xff, // test %edi, %edi
	0x74, 0x15, // je 3f
	0x40, 0xf6, 0xc7, 0x7f, // test $0x7f, %dil
	0x74, 0x05, // je 2f
	0xbf, 0x00, 0x01, 0, 0, // mov $0x100, %edi
	0xc1, 0xef, 0x08, // 2: shr $8, %edi
	0xb8, 0xe7, 0, 0, 0, // mov $SYS_exit_group, %eax
	0x0f, 0x05, // syscall
	0xff, 0x25, 0, 0, 0, 0, // 3: jmp *entry(%rip)
}

// newHold returns code that has a thread wait for its child pid before it goes
// to entry. cell is where the auxiliary vector has the entry point, or 0. With
// anyway it goes there however the child ends.
func newHold(pid int, entry, cell specs.Addr, anyway bool) []byte {
	b := append(bytes.Clone(holdCode), make([]byte, holdSize-len(holdCode))...)
	binary.LittleEndian.PutUint32(b[holdPID:], uint32(pid))
	if anyway {
		b[holdJump] = 0xeb // jmp 3f
	}
	binary.LittleEndian.PutUint64(b[holdWords:], uint64(entry))
	binary.LittleEndian.PutUint64(b[holdWords+8:], uint64(cell))
	return b
}

// isHold reports whether b begins with what newHold returns.
func isHold(b []byte) bool {
	return len(b) >= holdSize && bytes.Equal(b[:holdPID], holdCode[:holdPID]) &&
		bytes.Equal(b[holdPID+4:holdJump], holdCode[holdPID+4:holdJump]) && bytes.Equal(b[holdJump+1:len(holdCode)], holdCode[holdJump+1:])
}

// waitsFor reports whether the child that the code b waits for is still one of
// process pid.
func waitsFor(pid int, b []byte) bool {
	child := int(binary.LittleEndian.Uint32(b[holdPID:]))
	parent, ok := statusField(child, child, "PPid")
	return ok && parent == pid
}

// foreign reports whether the thread runs code of another architecture than
// the tool: 32-bit code.
func (r *Regs) foreign() bool { return r.Cs != userCode }

// setPC changes where the thread goes on. What it was doing is not to be
// started again.
func (r *Regs) setPC(pc specs.Addr) {
	r.Rip = uint64(pc)
	r.Orig_rax = ^uint64(0)
}
