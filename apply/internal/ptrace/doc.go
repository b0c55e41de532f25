// Package ptrace holds, reads and steers the threads of another process.
//
// In call order: [Do] runs a function on an OS thread of its own, which is the
// tracer; [Seize] takes the threads of a process while they run on;
// [Group.Park] sees to it that those that sleep need not be stopped; [Group.Stop]
// stops them, [Group.Resume] lets them run, [Group.Release] and [Group.Detach] let
// them go. An [Agent] is one stopped thread that makes system calls on the
// tool's behalf. [Mem] reads and writes the process's memory. A [Launch] is a
// process that executes a program, and has to wait at its entry point.
//
// Nothing here kills the target if the tool dies at any instruction: threads
// are seized and not attached to, so that the kernel lets them run, and on
// x86-64 a thread that was sent to make a system call finds its own way home.
//
// The target is a process of the host's architecture; this is the only package
// with GOARCH in file names. It knows nothing about ELF, patches or plans.
package ptrace
