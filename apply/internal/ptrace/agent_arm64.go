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

// callSize is the length of the system call instruction.
const callSize = 4

// prepare borrows a supervisor call that is there already.
//
// A thread that was stopped in a call stands on the call's instruction, and
// only the kernel knows whether it is to enter it anew or through
// restart_syscall. So it is let into the call, which is skipped there, and x8
// tells.
func (a *Agent) prepare() error {
	a.home = a.t.Regs
	if a.site == 0 {
		var err error
		if a.site, err = findSVC(a.mem, a.code); err != nil {
			return err
		}
	}
	word, err := a.mem.Read(a.home.PC(), callSize)
	if err == nil && binary.LittleEndian.Uint32(word) == insnSVC {
		if done, err := a.leaveCall(); done || err != nil {
			return err
		}
	}
	if abort, ok := a.rseqAbort(a.home.PC()); ok {
		a.home.Pc = uint64(abort)
	}
	a.raw = a.home
	return nil
}

// leftovers are none: nothing is written.
func leftovers(*Mem, []specs.Range[specs.Addr]) []Leftover { return nil }

// leaveCall takes the thread through the system call that it stands before,
// without the call being made. Afterwards home enters it as the kernel would.
// It reports true if a signal came first, after which the agent was prepared
// anew.
func (a *Agent) leaveCall() (bool, error) {
	deadline := time.Now().Add(a.g.limit)
	var regs Regs
	for {
		sig, err := a.toCall(deadline, 0)
		if err != nil {
			return false, err
		}
		if sig != 0 {
			return true, a.pass(sig)
		}
		if err := regs.get(a.t.TID); err != nil {
			return false, a.g.lost(a.t, err)
		}
		if regs.PC() == a.home.PC()+callSize && regs.Regs[7] == 0 { // 0 is an entry
			break
		}
	}
	if err := setCall(a.t.TID, -1); err != nil {
		return false, a.g.lost(a.t, err)
	}
	a.home.Regs[8] = regs.Regs[8]
	_, err := a.toCall(deadline, 0)
	return false, err
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

// Detour is not done here.
func (a *Agent) Detour(code, end specs.Addr, write func(home []uint64) error) error {
	return errors.New("hooks are not supported on this architecture")
}

// divert makes the thread go on elsewhere.
func (r *Regs) divert(to specs.Addr) { r.Pc = uint64(to) }
