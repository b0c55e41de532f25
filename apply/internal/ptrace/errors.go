package ptrace

import (
	"errors"
	"fmt"
)

// ErrGone means that the process, or the program it ran, has ended.
var ErrGone = errors.New("the process is gone")

// ErrPermission means that the kernel does not let the tool trace the process:
// another user's process, Yama, or a security module. Source: ptrace(2),
// "Ptrace access mode checking".
var ErrPermission = errors.New("tracing the process is not permitted")

// ErrUnsuitable means that a thread cannot serve as an agent now; another one
// may.
var ErrUnsuitable = errors.New("the thread cannot make system calls for the tool")

// ErrSeccomp means that a seccomp filter of the target may forbid, or punish,
// the calls that the tool needs, and that the tool may not suspend it.
var ErrSeccomp = errors.New("the process has a seccomp filter that could not be suspended")

// ErrWriteForbidden means that the kernel lets nobody write to memory that the
// process itself may not write to. Source: admin-guide/kernel-parameters,
// proc_mem.force_override (Linux 6.12).
var ErrWriteForbidden = errors.New("the kernel does not let a tool write to the process's code")

// TracedError means that another process traces the target already.
type TracedError struct {
	TID    int
	Tracer int    // process id as seen by the tool, 0 if not visible
	Name   string // the tracer's command name, "" if not known
}

func (e *TracedError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("thread %d is already traced by process %d", e.TID, e.Tracer)
	}
	return fmt.Sprintf("thread %d is already traced by process %d (%s)", e.TID, e.Tracer, e.Name)
}

// StuckError means that a thread did not stop in time: it is in an
// uninterruptible sleep, for example the parent of a vfork.
type StuckError struct {
	TID   int
	Name  string // comm
	State string // one letter, proc_pid_stat(5)
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("thread %d (%s) does not stop (state %s)", e.TID, e.Name, e.State)
}
