package ptrace

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

const (
	// stubSize is the length in bytes of what newStub returns.
	stubSize = 2 + 9*10 + 6 + 8
	// stubGap is kept between the last code byte and a stub.
	stubGap = 16
	// userCode is the code segment selector of 64-bit user mode.
	userCode = 0x33
)

// newStub returns code that makes a system call, restores the registers that
// it and its arguments take, and goes on in the thread's own code. It needs
// neither stack nor flags, so that the thread comes home alone if the tool dies.
func newStub(home *Regs) []byte {
	b := []byte{0x0f, 0x05} // syscall
	for _, load := range []struct {
		rex, op byte // movabs $imm64, %reg
		v       uint64
	}{
		{0x48, 0xb8, home.Rax}, {0x48, 0xb9, home.Rcx}, {0x48, 0xba, home.Rdx},
		{0x48, 0xbe, home.Rsi}, {0x48, 0xbf, home.Rdi}, {0x49, 0xb8, home.R8},
		{0x49, 0xb9, home.R9}, {0x49, 0xba, home.R10}, {0x49, 0xbb, home.R11},
	} {
		b = binary.LittleEndian.AppendUint64(append(b, load.rex, load.op), load.v)
	}
	b = append(b, 0xff, 0x25, 0, 0, 0, 0) // jmp *0(%rip)
	return binary.LittleEndian.AppendUint64(b, home.Rip)
}

// prepare writes the stub to the zero tail of an executable page. A stub that a
// killed tool left behind is no zero, and so is never used again.
func (a *Agent) prepare(code []specs.Range[specs.Addr]) error {
	if a.home.Cs != userCode {
		return fmt.Errorf("%w: thread %d runs 32-bit code", ErrUnsuitable, a.t.TID)
	}
	a.home.goHome()
	if abort, ok := a.rseqAbort(a.home.PC()); ok {
		a.home.Rip = uint64(abort)
	}
	site, err := findTail(a.mem, code)
	if err != nil {
		return err
	}
	a.site, a.stub = site, newStub(&a.home)
	return a.mem.Write(site, a.stub)
}

// findTail returns the address of stubSize zero bytes that end with a page.
func findTail(mem *Mem, code []specs.Range[specs.Addr]) (specs.Addr, error) {
	const page = 4096
	for _, r := range code {
		if r.Size() < page {
			continue
		}
		b, err := mem.Read(r.Hi-page, page)
		if err != nil {
			continue
		}
		used := len(bytes.TrimRight(b, "\x00"))
		at := (used + stubGap + 15) &^ 15
		if at+stubSize <= page {
			return r.Hi - page + specs.Addr(at), nil
		}
	}
	return 0, fmt.Errorf("no executable page of the process has %d free bytes at its end", stubSize)
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

// result returns what the call returned if regs are those of its exit. Other
// stops are its entry and calls of signal handlers.
func (a *Agent) result(regs *Regs) (uint64, bool) {
	const enosys = -int64(unix.ENOSYS) // in rax at each entry
	if regs.PC() != a.site+2 || int64(regs.Rax) == enosys {
		return 0, false
	}
	return regs.Rax, true
}
