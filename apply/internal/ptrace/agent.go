package ptrace

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// Agent is a stopped thread that makes system calls for the tool. It is made
// by [Group.NewAgent], used for a few calls that do not sleep, and closed.
type Agent struct {
	g   *Group
	t   *Thread
	mem *Mem
	// raw are the registers with which the kernel would deliver a signal, home
	// those with which the thread goes on in its own code without one.
	raw, home Regs
	// code and intent are those of NewAgent.
	code   []specs.Range[specs.Addr]
	intent specs.Range[specs.Addr]
	// site is the address of the system call instruction that it runs.
	site specs.Addr
	// stub is what was written to site, nil if nothing was.
	stub []byte
	// signals counts those that were passed on.
	signals int
}

// sudConfig is struct ptrace_sud_config.
type sudConfig struct{ mode, selector, offset, len uint64 }

// NewAgent prepares the stopped thread t. code are the process's executable
// file mappings and the vDSO, where a place for the call is looked for, in
// this order. intent is memory that the calls are going to map: a later run
// learns of it from what a killed one leaves.
//
// Preconditions: t is stopped by [Group.Stop] or [Group.StopThread].
//
// Errors: [ErrUnsuitable] if another thread should be tried, [ErrGone].
func (g *Group) NewAgent(t *Thread, mem *Mem, code []specs.Range[specs.Addr], intent specs.Range[specs.Addr]) (*Agent, error) {
	var sud sudConfig
	_, err := requestInto(unix.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, t.TID, unsafe.Sizeof(sud), unsafe.Pointer(&sud))
	if err == nil && sud.mode != 0 {
		return nil, fmt.Errorf("%w: thread %d dispatches its system calls by itself", ErrUnsuitable, t.TID)
	}
	a := &Agent{g: g, t: t, mem: mem, code: code, intent: intent}
	if err := a.prepare(); err != nil {
		return nil, err
	}
	return a, nil
}

// Halted reports whether job control has stopped the thread, too: then it makes
// system calls for the tool, but nothing that it creates runs.
func (a *Agent) Halted() bool { return a.t.halted }

// Leftover is code for a system call that a killed tool left behind.
type Leftover struct {
	specs.Range[specs.Addr]
	// Intent is the memory that the calls were to map, maybe empty.
	Intent specs.Range[specs.Addr]
}

// Leftovers finds them. code is as for NewAgent. A thread may still be in
// one.
func Leftovers(mem *Mem, code []specs.Range[specs.Addr]) []Leftover { return leftovers(mem, code) }

// Clear removes a leftover.
//
// Preconditions: no thread is in it, nor will come back to it.
func (l Leftover) Clear(mem *Mem) error { return mem.Write(l.Lo, make([]byte, l.Size())) }

// rseqConfig is struct ptrace_rseq_configuration.
type rseqConfig struct {
	area      uint64
	size, sig uint32
	flags, _  uint32
}

// rseqAbort returns where a thread that was stopped at pc has to go on
// if that is inside a restartable sequence, which any detour aborts. Source:
// linux/rseq.h.
func (a *Agent) rseqAbort(pc specs.Addr) (specs.Addr, bool) {
	var c rseqConfig
	_, err := requestInto(unix.PTRACE_GET_RSEQ_CONFIGURATION, a.t.TID, unsafe.Sizeof(c), unsafe.Pointer(&c))
	if err != nil || c.area == 0 {
		return 0, false
	}
	var ptr [1]uint64
	var cs [4]uint64 // version and flags, start_ip, post_commit_offset, abort_ip
	if !a.words(specs.Addr(c.area+8), ptr[:]) || ptr[0] == 0 || !a.words(specs.Addr(ptr[0]), cs[:]) {
		return 0, false
	}
	return specs.Addr(cs[3]), uint64(pc)-cs[1] < cs[2]
}

// words reads 64-bit words of the host's byte order.
func (a *Agent) words(at specs.Addr, w []uint64) bool {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 8*len(w))
	_, err := a.mem.ReadAt(b, int64(at))
	return err == nil
}

// Syscall makes the thread call nr and returns the result. Signals that arrive
// meanwhile are delivered where the thread was stopped; its handlers run
// afterwards.
//
// Errors: a [unix.Errno] that the call returned; [ErrGone]; [ErrUnsuitable] if
// the thread ended; [*StuckError] if it went elsewhere and did not come back.
func (a *Agent) Syscall(nr uintptr, args ...uint64) (uint64, error) {
	deadline := time.Now().Add(a.g.limit)
	var regs Regs
	for aimed, entered := false, false; ; {
		if !aimed {
			regs = a.home
			a.aim(&regs, uint64(nr), args)
			if err := regs.set(a.t.TID); err != nil {
				return 0, a.g.lost(a.t, err)
			}
			aimed = true
		}
		sig, err := a.toCall(deadline, 0)
		if err != nil {
			return 0, err
		}
		if sig != 0 { // told only on the way to user mode, so before the call
			if err := a.deliver(sig); err != nil {
				return 0, err
			}
			aimed = false
			continue
		}
		if err := regs.get(a.t.TID); err != nil {
			return 0, a.g.lost(a.t, err)
		}
		switch {
		case regs.PC() != a.site+callSize:
		case entered:
			return regs.result(), errno(regs.result())
		default:
			entered = true
		}
	}
}

// Detour makes the thread run code in the process's memory up to the exit of
// its last system call, whose instruction ends at end. The code first blocks
// signals, leaves flags, stack and vector registers alone, and would go home by
// itself if the tool died. write puts the registers there that it restores, the
// last of them the program counter: on x86-64 rax, rcx, rdx, rsi, rdi, r8, r9, r10,
// r11 and rip; on aarch64 only where it is to go on, by way of x16, with x0 to x5, x8, x9
// and x16 restored there. It may be called again, when a signal came before the
// first call.
//
// Errors: those of [Agent.Syscall], and of write.
func (a *Agent) Detour(code, end specs.Addr, write func(home []uint64) error) error {
	deadline := time.Now().Add(a.g.limit)
	var with unix.Signal
	for begun, last := false, false; ; {
		if !begun {
			if err := write(a.homeWords()); err != nil {
				return err
			}
			regs := a.home
			regs.divert(code)
			if err := regs.set(a.t.TID); err != nil {
				return a.g.lost(a.t, err)
			}
		}
		sig, err := a.toCall(deadline, with)
		if err != nil {
			return err
		}
		if with = 0; sig != 0 && begun {
			with = sig // one that cannot be blocked
			continue
		} else if sig != 0 {
			if err := a.deliver(sig); err != nil {
				return err
			}
			continue
		}
		begun = true
		var regs Regs
		if err := regs.get(a.t.TID); err != nil {
			return a.g.lost(a.t, err)
		}
		if regs.PC() == end && last {
			return nil
		}
		last = regs.PC() == end
	}
}

// toCall lets the thread run to its next system-call-stop, or to the delivery
// of a signal, which it returns. with is a signal to go on with, or 0.
func (a *Agent) toCall(deadline time.Time, with unix.Signal) (unix.Signal, error) {
	for ; ; with = 0 {
		a.t.stopped, a.t.fresh = false, false
		if err := request(unix.PTRACE_SYSCALL, a.t.TID, 0, uintptr(with)); err != nil {
			return 0, a.g.lost(a.t, err)
		}
		ws, err := a.report(deadline)
		if err != nil {
			return 0, err
		}
		event := int(ws>>16) & 0xff
		switch {
		case event == unix.PTRACE_EVENT_EXEC:
			a.g.exec = true
			return 0, a.g.ended()
		case event != 0:
		case ws.StopSignal() == unix.SIGTRAP|0x80:
			return 0, nil
		default:
			return ws.StopSignal(), nil
		}
	}
}

// deliver passes on a signal to the thread as it was stopped, so that a call
// that was waiting for it ends, and takes the thread anew: at the handler's first
// instruction, if there is a handler.
func (a *Agent) deliver(sig unix.Signal) error {
	if err := a.forSignal(sig).set(a.t.TID); err != nil {
		return a.g.lost(a.t, err)
	}
	return a.pass(sig)
}

// maxSignals bounds how many signals an agent passes on.
const maxSignals = 100

// pass is deliver for a thread that has its own registers.
func (a *Agent) pass(sig unix.Signal) error {
	a.t.stopped, a.t.fresh, a.t.asked, a.t.hold = false, false, true, true
	a.g.onward(a.t, sig)
	if err := a.g.await(a.t); err != nil {
		return err
	}
	if a.t.gone {
		return fmt.Errorf("%w: thread %d has ended", ErrUnsuitable, a.t.TID)
	}
	if err := a.g.readThread(a.t); err != nil {
		return err
	}
	a.raw, a.home = a.t.Regs, a.t.Regs // whatever happens now
	if a.signals++; a.signals > maxSignals {
		return a.g.stuck(a.t)
	}
	return a.prepare()
}

// report waits for the thread's next stop.
func (a *Agent) report(deadline time.Time) (unix.WaitStatus, error) {
	var p pause
	for {
		ws, got, err := poll(a.t.TID)
		if err != nil || got && !ws.Stopped() {
			a.t.gone = true
			if err := a.g.ended(); err != nil {
				return 0, err
			}
			return 0, fmt.Errorf("%w: thread %d has ended", ErrUnsuitable, a.t.TID)
		}
		if got {
			a.t.stopped = true
			return ws, nil
		}
		if !p.once(time.Until(deadline)) && !p.starved(a.g.pid, a.t.TID, a.g.limit, agentPatience) {
			a.t.asked = false // it runs, and Detach has to stop it
			return 0, a.g.stuck(a.t)
		}
	}
}

// Close puts the thread back where it was stopped and removes what was written
// for the calls. It stays stopped.
func (a *Agent) Close() error {
	if !a.t.Stopped() || a.g.exec {
		return nil // its stub brings it home; it must not be touched then
	}
	if err := a.home.restore(a.t.TID); err != nil {
		return a.g.lost(a.t, err)
	}
	a.t.Regs, a.t.fresh = a.home, true
	if a.stub == nil {
		return nil
	}
	return a.mem.Write(a.site, make([]byte, len(a.stub)))
}
