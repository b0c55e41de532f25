package ptrace

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// Regs are the general registers of a stopped thread (struct user_regs_struct).
type Regs struct{ unix.PtraceRegs }

// PC returns the program counter.
func (r *Regs) PC() specs.Addr { return specs.Addr(r.Rip) }

// SP returns the stack pointer.
func (r *Regs) SP() specs.Addr { return specs.Addr(r.Rsp) }

func (r *Regs) setSP(sp specs.Addr) { r.Rsp = uint64(sp) }

// General returns the registers that may hold a pointer. The program counter
// and the stack pointer are not among them.
func (r *Regs) General() []uint64 {
	return []uint64{r.Rax, r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp,
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15}
}

// DWARF returns the registers by their DWARF numbers 0 to 16, the last being
// the return address column, here the program counter. Source: psABI x86-64,
// figure 3.36.
func (r *Regs) DWARF() []uint64 {
	return []uint64{r.Rax, r.Rdx, r.Rcx, r.Rbx, r.Rsi, r.Rdi, r.Rbp, r.Rsp,
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.Rip}
}

// StripPC removes the bits of a return address that are no part of it. There
// are none here.
func (r *Regs) StripPC(word uint64) uint64 { return word }

// PACMask returns the bits of a return address that hold a signature.
func (r *Regs) PACMask() uint64 { return 0 }

// Link returns the return address that a register holds. None does here.
func (r *Regs) Link() (specs.Addr, bool) { return 0, false }

// ThreadPointer returns the address of the thread control block.
func (r *Regs) ThreadPointer() (specs.Addr, bool) { return specs.Addr(r.Fs_base), r.Fs_base != 0 }

func (r *Regs) get(tid int) error {
	_, err := requestInto(unix.PTRACE_GETREGS, tid, 0, unsafe.Pointer(&r.PtraceRegs))
	return err
}

// set copies from a buffer that lies within one touched page: the kernel reads
// word by word, and a fault between two words could leave half of them set.
func (r *Regs) set(tid int) error {
	const size = 256 // of a block that no page boundary cuts
	var room [2 * size]byte
	block := unsafe.Pointer(&room[(size-uintptr(unsafe.Pointer(&room))%size)%size])
	*(*unix.PtraceRegs)(block) = r.PtraceRegs
	_, err := requestInto(unix.PTRACE_SETREGS, tid, 0, block)
	return err
}

// restore is set for a thread that has made system calls for the tool.
func (r *Regs) restore(tid int) error { return r.set(tid) }

// result returns what a system call returned, at its exit.
func (r *Regs) result() uint64 { return r.Rax }

// errno returns the error of a system call's result.
func errno(result uint64) error {
	if result > ^uint64(4095) {
		return unix.Errno(-result)
	}
	return nil
}

// note is for what a stop takes from a thread that sleeps: nothing here.
func (r *Regs) note(pid, tid int, f *File) {}

const notesCalls = false

// inCall reports whether the thread was stopped in a system call.
func (r *Regs) inCall() bool { return int64(r.Orig_rax) >= 0 }

// restarts lists the calls that return EINTR when they are stopped, although
// they could go on. Source: signal(7), "Interruption of system calls … by stop
// signals"; sockets with a timeout belong to them.
var restarts = map[uint64]bool{
	unix.SYS_EPOLL_WAIT: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_EPOLL_PWAIT2: true,
	unix.SYS_RT_SIGTIMEDWAIT: true, unix.SYS_SEMOP: true, unix.SYS_SEMTIMEDOP: true,
	unix.SYS_IO_GETEVENTS: true, unix.SYS_IO_PGETEVENTS: true, unix.SYS_IO_URING_ENTER: true,
	unix.SYS_READ: true, unix.SYS_READV: true, unix.SYS_WRITE: true, unix.SYS_WRITEV: true,
	unix.SYS_ACCEPT: true, unix.SYS_ACCEPT4: true, unix.SYS_CONNECT: true,
	unix.SYS_RECVFROM: true, unix.SYS_RECVMSG: true, unix.SYS_RECVMMSG: true,
	unix.SYS_SENDTO: true, unix.SYS_SENDMSG: true, unix.SYS_SENDMMSG: true,
}

// eintr reports whether the stop broke a call that is to go on.
func (r *Regs) eintr() bool {
	return r.inCall() && int64(r.Rax) == -int64(unix.EINTR) && restarts[r.Orig_rax] && !r.masked()
}

// masked reports whether the call has a signal mask of its own. Its caller
// waits for signals too, and counts on EINTR: it would miss one that arrives
// after the thread was told to enter the call again and before it does.
func (r *Regs) masked() bool {
	return maskedCall(r.Orig_rax, [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9})
}

func maskedCall(nr uint64, args [6]uint64) bool {
	switch nr {
	case unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2:
		return args[4] != 0
	case unix.SYS_IO_PGETEVENTS:
		return args[5] != 0
	}
	return false
}

// auditArch is that of the calls below.
const auditArch = unix.AUDIT_ARCH_X86_64

// readCalls are those of sleepCalls that read from any descriptor.
var readCalls = map[uint64]bool{unix.SYS_READ: true, unix.SYS_READV: true}

// partial reports whether a call waits for more than one thing, and would return
// what there is so far when it is interrupted.
func partial(nr uint64, args [6]uint64) bool {
	switch nr {
	case unix.SYS_RECVFROM:
		return args[3]&unix.MSG_WAITALL != 0
	case unix.SYS_RECVMSG:
		return args[2]&unix.MSG_WAITALL != 0
	case unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS:
		return int64(args[1]) > 1
	}
	return false
}

// sleepCalls are those in which threads wait, and which neither create or end
// threads nor change mappings.
var sleepCalls = map[uint64]bool{
	unix.SYS_FUTEX: true, unix.SYS_FUTEX_WAITV: true, unix.SYS_FUTEX_WAIT: true,
	unix.SYS_POLL: true, unix.SYS_PPOLL: true, unix.SYS_SELECT: true, unix.SYS_PSELECT6: true,
	unix.SYS_EPOLL_WAIT: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_EPOLL_PWAIT2: true,
	unix.SYS_NANOSLEEP: true, unix.SYS_CLOCK_NANOSLEEP: true, unix.SYS_RESTART_SYSCALL: true, unix.SYS_PAUSE: true,
	unix.SYS_RT_SIGSUSPEND: true, unix.SYS_RT_SIGTIMEDWAIT: true, unix.SYS_WAIT4: true, unix.SYS_WAITID: true,
	unix.SYS_READ: true, unix.SYS_READV: true, unix.SYS_RECVFROM: true, unix.SYS_RECVMSG: true,
	unix.SYS_ACCEPT: true, unix.SYS_ACCEPT4: true, unix.SYS_SEMOP: true, unix.SYS_SEMTIMEDOP: true, unix.SYS_MSGRCV: true,
	unix.SYS_IO_GETEVENTS: true, unix.SYS_IO_PGETEVENTS: true,
}

// redo makes the thread enter its system call again.
func (r *Regs) redo() {
	r.Rax = r.Orig_rax
	r.Rip -= 2 // syscall
	r.Orig_rax = ^uint64(0)
}

// The kernel's internal results that ask for a restart. Source: linux/errno.h.
const (
	restartSys    = -512
	restartNoIntr = -513
	restartNoHand = -514
	restartBlock  = -516
)

// goHome does what the kernel would do to a stopped thread that goes on in
// its own code without a signal handler: it starts a broken system call again.
func (r *Regs) goHome() {
	if !r.inCall() {
		return
	}
	switch int64(r.Rax) {
	case restartSys, restartNoIntr, restartNoHand:
		r.redo()
	case restartBlock:
		r.Orig_rax = unix.SYS_RESTART_SYSCALL
		r.redo()
	}
	r.Orig_rax = ^uint64(0)
}
