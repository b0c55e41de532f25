package ptrace

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

const notesCalls = true

// callNote is a system call that a thread slept in before it was told to stop.
// At a stop that has ended the call, its first argument is in no register any
// more: the result is there.
type callNote struct {
	pid, tid int
	nr       uint64
	args     [6]uint64
	sp, pc   specs.Addr
	sleeps   int // how often the thread has slept
}

// note writes down the call that a thread sleeps in, if it is one that a stop
// ends. f is the thread's file of that name, or nil.
func (r *Regs) note(pid, tid int, f *File) {
	r.call = nil
	// The threads that were told before stand still meanwhile: one read, and no more.
	var b [256]byte // nine numbers
	var size int
	if f != nil {
		size, _ = f.ReadAnew(b[:])
	} else {
		size, _ = ReadStart(callName(pid, tid), b[:])
	}
	fields := bytes.Fields(b[:max(size, 0)])
	if len(fields) != 9 {
		return // it runs
	}
	var words [9]uint64
	for i := range words {
		v, err := strconv.ParseUint(string(fields[i]), 0, 64)
		if err != nil {
			return
		}
		words[i] = v
	}
	if !restarts[words[0]] {
		return
	}
	n := &callNote{pid: pid, tid: tid, nr: words[0], sp: specs.Addr(words[7]), pc: specs.Addr(words[8])}
	copy(n.args[:], words[1:7])
	if sleeps, ok := statusField(pid, tid, "voluntary_ctxt_switches"); ok {
		n.sleeps, r.call = sleeps, n
	}
}

// eintr reports whether the stop broke a call that is to go on: the one that
// was noted, since when the thread has slept once, in its stop. A call that it
// entered when it was told to stop already is not noted, and shows EINTR.
func (r *Regs) eintr() bool {
	n, e := r.call, unix.EINTR
	if n == nil || r.Regs[0] != -uint64(e) || r.Regs[8] != n.nr || r.PC() != n.pc || r.SP() != n.sp || r.masked() {
		return false
	}
	for i := 1; i < 6; i++ {
		if r.Regs[i] != n.args[i] {
			return false
		}
	}
	sleeps, ok := statusField(n.pid, n.tid, "voluntary_ctxt_switches")
	return ok && sleeps == n.sleeps+1
}

// redo makes the thread enter its system call again.
func (r *Regs) redo() {
	r.Regs[0] = r.call.args[0]
	r.Pc -= callSize
	r.call = nil
}

// restarts lists the calls that return EINTR when they are stopped, although
// they could go on. Source: signal(7), "Interruption of system calls … by stop
// signals"; sockets with a timeout belong to them.
var restarts = map[uint64]bool{
	unix.SYS_EPOLL_PWAIT: true, unix.SYS_EPOLL_PWAIT2: true,
	unix.SYS_RT_SIGTIMEDWAIT: true, unix.SYS_SEMOP: true, unix.SYS_SEMTIMEDOP: true,
	unix.SYS_IO_GETEVENTS: true, unix.SYS_IO_PGETEVENTS: true, unix.SYS_IO_URING_ENTER: true,
	unix.SYS_READ: true, unix.SYS_READV: true, unix.SYS_WRITE: true, unix.SYS_WRITEV: true,
	unix.SYS_ACCEPT: true, unix.SYS_ACCEPT4: true, unix.SYS_CONNECT: true,
	unix.SYS_RECVFROM: true, unix.SYS_RECVMSG: true, unix.SYS_RECVMMSG: true,
	unix.SYS_SENDTO: true, unix.SYS_SENDMSG: true, unix.SYS_SENDMMSG: true,
}

// masked reports whether the call that a thread enters has a signal mask of its
// own. Its caller waits for signals too, and counts on EINTR.
func (r *Regs) masked() bool {
	switch r.Regs[8] {
	case unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2:
		return r.Regs[4] != 0
	case unix.SYS_IO_PGETEVENTS:
		return r.Regs[5] != 0
	}
	return false
}
