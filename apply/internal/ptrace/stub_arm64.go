package ptrace

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// A stub makes a system call and takes the thread home, alone if the tool dies.
// There is no branch on this architecture that leaves all registers as they are
// and reaches everywhere, so there are two kinds. In both the second instruction
// is where code of a detour goes afterwards.
//
// A thread that was in a system call, near enough, goes home by a direct branch:
// nothing of the call is lost, not even how long it has slept. Any other is
// taken home by the kernel, which restores all registers from a frame as behind
// a signal handler (rt_sigreturn), those of the vectors among them, which a system
// call may spoil. The frame is behind the code: the thread's stack is not touched, and
// the stack pointer is another for one instruction only. A call that has to go on through
// restart_syscall but is out of reach then returns EINTR if, and only if, the
// tool dies.

const (
	stubHome   = 4
	branchAt   = 4 * 11 // offset of the branch home
	branchLits = 4 * 12
	branchSize = branchLits + 9*8 + 16
	frameLit   = 24
	frameAt    = 48 // offset of what is there of the frame
)

// branchRegs are the registers that a stub of the first kind restores: those of
// the call, and two that code of a detour may use.
var branchRegs = [9]uint32{0, 1, 2, 3, 4, 5, 8, 9, 16}

const (
	insnBTI = 0xd50324df // bti jc
	insnNOP = 0xd503201f
)

// loadLiteral is ldr Xreg, at a distance in bytes.
func loadLiteral(reg uint32, distance int) uint32 { return 0x58000000 | uint32(distance/4)<<5 | reg }

// branchWords are the instructions of the first kind but for the branch.
var branchWords = func() []uint32 {
	all := []uint32{insnSVC, insnBTI}
	for i, reg := range branchRegs {
		all = append(all, loadLiteral(reg, branchLits+8*i-4*len(all)))
	}
	return all
}()

// newBranchStub returns a stub of the first kind for an address from which its branch
// reaches home.
func newBranchStub(site specs.Addr, home *Regs, intent specs.Range[specs.Addr]) []byte {
	b := appendWords(nil, branchWords...)
	b = appendWords(b, 0x14000000|uint32((home.PC()-(site+branchAt))/4)&0x03ffffff)
	for _, reg := range branchRegs {
		b = binary.LittleEndian.AppendUint64(b, home.Regs[reg])
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(intent.Lo))
	return binary.LittleEndian.AppendUint64(b, uint64(intent.Hi))
}

// frameWords are the instructions of the second kind.
var frameWords = []uint32{
	insnSVC, insnBTI,
	loadLiteral(9, frameLit-8),
	0xd2801168, // mov x8, #139 (rt_sigreturn)
	0x9100013f, // mov sp, x9
	insnSVC,
}

func appendWords(b []byte, words ...uint32) []byte {
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// Offsets in struct rt_sigframe, and the records behind the registers. Source:
// linux, arch/arm64/kernel/signal.c, asm/sigcontext.h, asm-generic/ucontext.h.
const (
	sigStack   = 128 + 16 // struct siginfo; uc_flags and uc_link
	sigMask    = sigStack + 24
	sigRegs    = 128 + 176 + 8
	sigRecords = 128 + 176 + 288
	fpsimdSize = 16 + 512
	maxRecords = 4096

	fpsimdMagic = 0x46508001
	sveMagic    = 0x53564501
)

// frame is what the kernel restores a thread from.
type frame struct {
	regs   Regs
	mask   uint64
	fpsimd [512 + 16]byte // struct user_fpsimd_state
	sve    []byte         // struct user_sve_header and what follows it, or nil
}

// readFrame reads the state of a stopped thread that goes on with the registers home.
//
// Errors: [ErrUnsuitable] if it has more state than a frame can tell.
func readFrame(tid int, home *Regs) (*frame, error) {
	const (
		getSigMask   = 0x420a // of ptrace(2)
		regsetSVE    = 0x405
		regsetSSVE   = 0x40b
		regsetGCS    = 0x410
		sveHeader    = 16
		sveAllInUse  = 1 // SVE_PT_REGS_SVE
		flagsAt      = 12
		mostOfVector = 1 << 14
	)
	f := &frame{regs: *home}
	if _, err := requestInto(getSigMask, tid, unsafe.Sizeof(f.mask), unsafe.Pointer(&f.mask)); err != nil {
		return nil, err
	}
	if err := regset(unix.PTRACE_GETREGSET, tid, unix.NT_PRFPREG, unsafe.Pointer(&f.fpsimd), unsafe.Sizeof(f.fpsimd)); err != nil {
		return nil, err
	}
	var gcs [24]byte // struct user_gcs begins with the features in use
	if regset(unix.PTRACE_GETREGSET, tid, regsetGCS, unsafe.Pointer(&gcs), unsafe.Sizeof(gcs)) == nil && gcs[0]&1 != 0 {
		return nil, fmt.Errorf("%w: thread %d has a shadow stack", ErrUnsuitable, tid)
	}
	state := make([]byte, mostOfVector)
	if n := regsetSize(tid, regsetSSVE, state); n > sveHeader && state[flagsAt]&sveAllInUse != 0 {
		return nil, fmt.Errorf("%w: thread %d is in streaming mode", ErrUnsuitable, tid)
	}
	if n := regsetSize(tid, regsetSVE, state); n > sveHeader && state[flagsAt]&sveAllInUse != 0 {
		f.sve = slices.Clone(state[:n])
		home.vectors = f.sve
	}
	if sigRecords+fpsimdSize+f.sveSize()+16 > sigRecords+maxRecords {
		return nil, fmt.Errorf("%w: thread %d has vectors of %d bytes", ErrUnsuitable, tid, f.vectorLength())
	}
	return f, nil
}

// regsetSize reads a register set of at most len(b) bytes and returns its size, 0 if there
// is none.
func regsetSize(tid, kind int, b []byte) int {
	iov := unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))}
	if _, err := requestInto(unix.PTRACE_GETREGSET, tid, uintptr(kind), unsafe.Pointer(&iov)); err != nil {
		return 0
	}
	return int(iov.Len)
}

// setVectors puts vectors back that a system call has spoilt.
func setVectors(tid int, vectors []byte) error {
	if vectors == nil {
		return nil
	}
	const regsetSVE = 0x405
	return regset(unix.PTRACE_SETREGSET, tid, regsetSVE, unsafe.Pointer(unsafe.SliceData(vectors)), uintptr(len(vectors)))
}

// vectorLength is that of one vector, in bytes.
func (f *frame) vectorLength() int {
	if f.sve == nil {
		return 0
	}
	return int(binary.LittleEndian.Uint16(f.sve[8:]))
}

// sveSize is the size of the record of the vectors: 32 vectors, 16 predicates
// and one more, behind a header.
func (f *frame) sveSize() int {
	if f.sve == nil {
		return 0
	}
	vl := f.vectorLength()
	return (16 + 32*vl + 17*vl/8 + 15) &^ 15
}

// size is that of the stub with the frame, in bytes.
func (f *frame) size() int {
	return frameAt + sigRecords - sigStack + fpsimdSize + f.sveSize() + 16
}

// stub returns a stub of the second kind for an address. What the kernel does not
// read of the frame's beginning is not there. An alternate signal stack with impossible
// flags leaves the thread's as it is.
func (f *frame) stub(site specs.Addr, intent specs.Range[specs.Addr]) []byte {
	b := make([]byte, f.size())
	copy(b, appendWords(nil, frameWords...))
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	put(frameLit, uint64(site+frameAt-sigStack))
	put(frameLit+8, uint64(intent.Lo))
	put(frameLit+16, uint64(intent.Hi))
	const at = frameAt - sigStack // of the frame's beginning
	const badFlags = 0x7f
	put(at+sigStack, uint64(len(b))) // the stack's address, for leftovers
	put32(at+sigStack+8, badFlags)
	put(at+sigMask, f.mask)
	for i, v := range f.regs.Regs {
		put(at+sigRegs+8*i, v)
	}
	put(at+sigRegs+8*31, f.regs.Sp)
	put(at+sigRegs+8*32, f.regs.Pc)
	put(at+sigRegs+8*33, f.regs.Pstate)
	r := at + sigRecords
	put32(r, fpsimdMagic)
	put32(r+4, fpsimdSize)
	copy(b[r+8:], f.fpsimd[512:520]) // status and control
	copy(b[r+16:], f.fpsimd[:512])
	if r += fpsimdSize; f.sve != nil {
		put32(r, sveMagic)
		put32(r+4, uint32(f.sveSize()))
		copy(b[r+8:], f.sve[8:10])
		copy(b[r+16:r+f.sveSize()], f.sve[16:])
	}
	return b
}

// stubOf returns the length of the stub that b begins with, and what it was for, or 0.
func stubOf(b []byte) (int, specs.Range[specs.Addr]) {
	word := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	intent := func(at int) specs.Range[specs.Addr] {
		return specs.Range[specs.Addr]{Lo: specs.Addr(word(at)), Hi: specs.Addr(word(at + 8))}
	}
	switch {
	case len(b) >= branchSize && slices.Equal(b[:branchAt], appendWords(nil, branchWords...)) && b[branchAt+3]>>2 == 0x14>>2:
		return branchSize, intent(branchSize - 16)
	case len(b) >= frameAt+8 && slices.Equal(b[:frameLit], appendWords(nil, frameWords...)):
		if n := word(frameAt); n > frameAt && n <= uint64(len(b)) {
			return int(n), intent(frameLit + 8)
		}
	}
	return 0, specs.Range[specs.Addr]{}
}

// leftovers finds the stubs that killed tools left, where findTail would put
// one, and what a program was held with at its entry point.
func leftovers(mem *Mem, code []specs.Range[specs.Addr]) []Leftover {
	var all []Leftover
	for _, r := range code {
		if r.Size() < tailPage {
			continue
		}
		b, err := mem.Read(r.Hi-tailPage, tailPage)
		if err != nil {
			continue
		}
		for at := 0; at < tailPage; at += 16 {
			lo := r.Hi - tailPage + specs.Addr(at)
			if n, intent := stubOf(b[at:]); n > 0 {
				all = append(all, Leftover{Range: specs.Range[specs.Addr]{Lo: lo, Hi: lo + specs.Addr(n)}, Intent: intent})
				at = (at + n - 1) &^ 15
			} else if isHold(b[at:]) && !waitsFor(mem.pid, b[at:]) {
				all = append(all, Leftover{Range: specs.Range[specs.Addr]{Lo: lo, Hi: lo + holdSize}})
			}
		}
	}
	return all
}
