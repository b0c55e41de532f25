package ptrace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

const (
	// stubCode is the length in bytes of a stub's instructions and its way home,
	// stubSize that with the note about what the calls are for.
	stubCode = 2 + 9*10 + 6 + 8
	stubSize = stubCode + 16
	// alwaysFits is what any stub takes, 0 where that depends on the thread.
	alwaysFits = stubSize
	// callSize is the length of the system call instruction.
	callSize = 2
	// userCode is the code segment selector of 64-bit user mode.
	userCode = 0x33
)

// loads are the opcodes of movabs $imm64 for rax, rcx, rdx, rsi, rdi and r8 to
// r11: what a system call and its arguments take.
var loads = [9][2]byte{{0x48, 0xb8}, {0x48, 0xb9}, {0x48, 0xba}, {0x48, 0xbe}, {0x48, 0xbf},
	{0x49, 0xb8}, {0x49, 0xb9}, {0x49, 0xba}, {0x49, 0xbb}}

var (
	insnSyscall = []byte{0x0f, 0x05}
	insnHome    = []byte{0xff, 0x25, 0, 0, 0, 0} // jmp *0(%rip)
)

// newStub returns code that makes a system call, restores the registers that
// it and its arguments take, and goes on in the thread's own code. It needs
// neither stack nor flags, so that the thread comes home alone if the tool dies.
func newStub(home *Regs, intent specs.Range[specs.Addr]) []byte {
	b := slices.Clone(insnSyscall)
	for i, v := range []uint64{home.Rax, home.Rcx, home.Rdx, home.Rsi, home.Rdi, home.R8, home.R9, home.R10, home.R11} {
		b = binary.LittleEndian.AppendUint64(append(b, loads[i][:]...), v)
	}
	b = binary.LittleEndian.AppendUint64(append(b, insnHome...), home.Rip)
	b = binary.LittleEndian.AppendUint64(b, uint64(intent.Lo))
	return binary.LittleEndian.AppendUint64(b, uint64(intent.Hi))
}

// isStub reports whether b begins with what newStub returns.
func isStub(b []byte) bool {
	if len(b) < stubSize || !bytes.HasPrefix(b, insnSyscall) {
		return false
	}
	for i, l := range loads {
		if !bytes.HasPrefix(b[2+10*i:], l[:]) {
			return false
		}
	}
	return bytes.HasPrefix(b[2+10*len(loads):], insnHome)
}

// leftovers finds the stubs that killed tools left, where findTail would put
// one, and what a program was held with at its entry point.
func leftovers(mem *Mem, code []specs.Range[specs.Addr]) []Leftover {
	const page = 4096
	var all []Leftover
	for _, r := range code {
		if r.Size() < page {
			continue
		}
		b, err := mem.Read(r.Hi-page, page)
		if err != nil {
			continue
		}
		for at := 0; at < page; at += 16 {
			lo := r.Hi - page + specs.Addr(at)
			switch word := func(off int) specs.Addr { return specs.Addr(binary.LittleEndian.Uint64(b[at+off:])) }; {
			case isStub(b[at:]):
				all = append(all, Leftover{
					Range:  specs.Range[specs.Addr]{Lo: lo, Hi: lo + stubSize},
					Intent: specs.Range[specs.Addr]{Lo: word(stubCode), Hi: word(stubCode + 8)},
				})
			case isHold(b[at:]) && !waitsFor(mem.pid, b[at:]):
				all = append(all, Leftover{Range: specs.Range[specs.Addr]{Lo: lo, Hi: lo + holdSize}})
			}
		}
		if tailOf(b, stubSize) >= 0 {
			break
		}
	}
	return all
}

// prepare writes the stub to the zero tail of an executable page. A stub that a
// killed tool left behind is no zero, and so is never used again.
func (a *Agent) prepare() error {
	a.raw, a.home = a.t.Regs, a.t.Regs
	if a.home.Cs != userCode {
		return fmt.Errorf("%w: thread %d runs 32-bit code", ErrUnsuitable, a.t.TID)
	}
	if a.home.eintr() {
		a.home.redo()
	}
	a.home.goHome()
	if abort, ok := a.rseqAbort(a.home.PC()); ok {
		a.home.Rip = uint64(abort)
	}
	if a.stub == nil {
		var err error
		if a.site, err = findTail(a.mem, a.code, stubSize); err != nil {
			return err
		}
	}
	a.stub = newStub(&a.home, a.intent)
	return a.mem.Write(a.site, a.stub)
}

// aim makes regs those of a thread that is about to make a call.
func (a *Agent) aim(regs *Regs, nr uint64, args []uint64) {
	regs.Rip, regs.Rax, regs.Orig_rax = uint64(a.site), nr, ^uint64(0)
	for i, p := range []*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8, &regs.R9} {
		if i < len(args) {
			*p = args[i]
		}
	}
}

// homeWords are the registers that code of a detour restores: rax, rcx, rdx, rsi,
// rdi, r8, r9, r10, r11 and rip.
func (a *Agent) homeWords() []uint64 {
	r := &a.home
	return []uint64{r.Rax, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.Rip}
}

// forSignal returns the registers with which a signal is delivered.
func (a *Agent) forSignal(unix.Signal) *Regs { return &a.raw }

// divert makes the thread go on elsewhere, and not in a system call.
func (r *Regs) divert(to specs.Addr) { r.Rip, r.Orig_rax = uint64(to), ^uint64(0) }
