package ptrace

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/fother/fother/specs"
)

// insnSVC is svc #0.
const insnSVC = 0xd4000001

// btypeMask are the bits of PSTATE that say how the last branch was made.
const btypeMask = 3 << 10

// prepare borrows a supervisor call that is there already.
//
// A thread that was stopped in a call stands on the call's instruction, and
// only the kernel knows whether it is to enter it anew or through
// restart_syscall. So it is let into the call, which is skipped there, and x8
// tells.
func (a *Agent) prepare(code []specs.Range[specs.Addr], _ specs.Range[specs.Addr]) error {
	site, err := findSVC(a.mem, code)
	if err != nil {
		return err
	}
	a.site = site
	if word, err := a.mem.Read(a.home.PC(), 4); err == nil && binary.LittleEndian.Uint32(word) == insnSVC {
		if err := a.leaveCall(); err != nil {
			return err
		}
	}
	if abort, ok := a.rseqAbort(a.home.PC()); ok {
		a.home.Pc = uint64(abort)
	}
	return nil
}

// leftovers are none: nothing is written.
func leftovers(*Mem, []specs.Range[specs.Addr]) []Leftover { return nil }

// leaveCall takes the thread through the system call that it stands before,
// without the call being made. Afterwards home enters it as the kernel would.
func (a *Agent) leaveCall() error {
	deadline := time.Now().Add(a.g.limit)
	var regs Regs
	for {
		if err := a.toCall(deadline); err != nil {
			return err
		}
		if err := regs.get(a.t.TID); err != nil {
			return a.g.lost(a.t, err)
		}
		if regs.PC() == a.home.PC()+4 && regs.Regs[7] == 0 {
			break
		}
	}
	if err := setCall(a.t.TID, -1); err != nil {
		return a.g.lost(a.t, err)
	}
	a.home.Regs[8] = regs.Regs[8]
	return a.toCall(deadline)
}

// findSVC returns the address of a supervisor call.
func findSVC(mem *Mem, code []specs.Range[specs.Addr]) (specs.Addr, error) {
	const most = 4 << 20 // bytes read of one mapping
	for _, r := range code {
		b, err := mem.Read(r.Lo, int(min(r.Size(), most)))
		if err != nil {
			continue
		}
		for i := 0; i+4 <= len(b); i += 4 {
			if binary.LittleEndian.Uint32(b[i:]) == insnSVC {
				return r.Lo + specs.Addr(i), nil
			}
		}
	}
	return 0, errors.New("no supervisor call was found in the process")
}

// aim makes regs those of a thread that is about to make a call.
func (a *Agent) aim(regs *Regs, nr uint64, args []uint64) {
	regs.Pc = uint64(a.site)
	regs.Pstate &^= btypeMask
	regs.Regs[8] = nr
	copy(regs.Regs[:6], args)
}

// result returns what the call returned if regs are those of its exit: x7 is 1
// at exits, 0 at entries. Source: arch/arm64/kernel/ptrace.c.
func (a *Agent) result(regs *Regs) (uint64, bool) {
	if regs.PC() != a.site+4 || regs.Regs[7] != 1 {
		return 0, false
	}
	return regs.Regs[0], true
}
