package ptrace

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// parkTogether is how many sleeping threads are disturbed at once.
const parkTogether = 32

// Park sees to it that the threads that sleep in system calls need not be
// stopped: each is stopped by itself, sent back into its call, and traced at that
// call's entry. From there on it cannot come back to user mode without the
// group: the kernel holds it at the call's exit (ptrace(2), "Syscall-stops"),
// whatever ends the call, until [Group.Serve] lets it go on. So its registers,
// which were read at the entry, and what it has on its stack stay as they are as
// long as it is [Thread.Parked]. If the tool dies the kernel lets it go on, as all.
//
// Threads that run, that sleep uninterruptibly, or in a call that would show that it
// was interrupted, are left alone. No more are parked once goOn says no. Those that
// wake meanwhile are served.
//
// The first thread is let go and seized anew when the others are parked. As long as
// it is traced, signals to the process that are ignored are queued, and end calls of
// threads that are on their way.
//
// Where no call is one to park in, nobody is disturbed.
//
// Errors: those of [Seize].
func (g *Group) Park(goOn func() bool) error {
	if len(sleepCalls) == 0 {
		return nil
	}
	first := g.find(g.pid)
	if len(g.Threads()) == 1 {
		first = nil
	}
	if first != nil && !first.gone {
		g.detachBatch(g.interrupted(first))
		if !first.gone { // Serve lets it run when it stops at last
			first.hold, first.stuck = false, false
		}
	}
	if err := g.parkThese(g.Threads(), goOn); err != nil || first == nil || !first.gone {
		return err
	}
	g.threads = slices.DeleteFunc(g.threads, func(t *Thread) bool { return t == first })
	if err := g.seizeAll(); err != nil {
		return err
	}
	if first = g.find(g.pid); first == nil {
		return g.ended()
	}
	return g.parkThese([]*Thread{first}, goOn)
}

// parkThese parks some of the threads, as long as goOn lets it.
func (g *Group) parkThese(threads []*Thread, goOn func() bool) error {
	for batch := range slices.Chunk(threads, parkTogether) {
		if !goOn() {
			return nil
		}
		batch = slices.DeleteFunc(batch, func(t *Thread) bool { return t.stopped || t.gone || t.parked || !sleeps(g.pid, t.TID) })
		for _, t := range batch {
			g.interrupt(t)
		}
		if err := g.parkBatch(batch); err != nil {
			return err
		}
		if err := g.tend(); err != nil {
			return err
		}
	}
	return nil
}

// parkLimit is how long is waited for the last ones of those that are disturbed
// together.
const parkLimit = 20 * time.Millisecond

// parkBatch sends threads that were interrupted back into their calls, each as soon
// as it stops. Who has not come by the limit is not parked.
func (g *Group) parkBatch(batch []*Thread) error {
	var p pause
	for len(batch) > 0 {
		told := false
		for _, t := range batch {
			got, err := g.serve(t)
			if err != nil {
				return err
			}
			told = told || got
			if t.Stopped() {
				g.sendBack(t)
			}
		}
		batch = slices.DeleteFunc(batch, func(t *Thread) bool { return t.gone || !t.hold && !t.parking })
		if told || len(batch) == 0 {
			continue
		}
		if p.nap >= shortNap {
			if err := g.tend(); err != nil {
				return err
			}
		}
		if !p.once(parkLimit) {
			break
		}
	}
	for _, t := range batch {
		t.hold = false // Serve lets it run when it stops at last
	}
	return nil
}

// sendBack lets a stopped thread go on up to the entry of its next call.
func (g *Group) sendBack(t *Thread) {
	if t.halted {
		g.ResumeThread(t)
		return
	}
	g.mend(t)
	_ = request(unix.PTRACE_SYSCALL, t.TID, 0, 0) // if it was killed, wait tells
	t.stopped, t.fresh, t.asked, t.hold = false, false, false, false
	t.parking = true
}

// callStop handles a stop at the entry or the exit of a system call.
func (g *Group) callStop(t *Thread) {
	parking := t.parking && !t.asked
	t.parking, t.parked = false, false
	if parking && entersSleep(g.pid, t.TID) && t.Regs.get(t.TID) == nil && !t.Regs.foreign() && request(unix.PTRACE_SYSCALL, t.TID, 0, 0) == nil {
		t.parked = true
		return
	}
	g.mendCall(t, 0)
	g.onward(t, 0)
}

// syscallInfo is the beginning of struct ptrace_syscall_info.
type syscallInfo struct {
	op     uint8
	_      [3]byte
	arch   uint32
	ip, sp uint64
	nr     uint64
	args   [6]uint64
}

// entersSleep reports whether a thread is stopped at the entry of a call in which
// it can be parked. A call of another ABI has other numbers.
func entersSleep(pid, tid int) bool {
	const getSyscallInfo, entry = 0x420e, 1
	var info syscallInfo
	n, err := requestInto(getSyscallInfo, tid, unsafe.Sizeof(info), unsafe.Pointer(&info))
	return err == nil && n >= int(unsafe.Sizeof(info)) && info.op == entry && info.arch == auditArch && parkable(pid, tid, info.nr, info.args)
}

// sleeps reports whether a thread is asleep in a call in which it can be parked.
// Source: proc_pid_syscall(5): "running", or the call's number, its arguments, stack
// pointer and program counter.
func sleeps(pid, tid int) bool {
	fields := bytes.Fields(taskFile(pid, tid, "syscall"))
	if len(fields) != 9 {
		return false
	}
	nr, err := strconv.ParseUint(string(fields[0]), 10, 64)
	if err != nil {
		return false
	}
	var args [6]uint64
	for i := range args {
		if args[i], err = strconv.ParseUint(string(fields[1+i]), 0, 64); err != nil {
			return false
		}
	}
	return parkable(pid, tid, nr, args) && State(pid, tid) == "S"
}

// parkable reports whether a thread can be parked in a system call: nothing that it
// is interrupted for shows.
func parkable(pid, tid int, nr uint64, args [6]uint64) bool {
	return sleepCalls[nr] && !maskedCall(nr, args) && !partial(nr, args) && !(readCalls[nr] && device(pid, tid, args[0]))
}

// device reports whether a descriptor is that of a device. A terminal may wait for
// more than one byte (termios(3), VMIN), and a read that is interrupted returns what
// there is.
func device(pid, tid int, fd uint64) bool {
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/task/%d/fd/%d", pid, tid, uint32(fd)))
	return err != nil || strings.HasPrefix(to, "/dev/")
}

// Parked reports whether the thread is in a system call that it cannot come
// back from unless the group lets it.
func (t *Thread) Parked() bool { return t.parked && !t.gone }
