package main

import (
	"bytes"
	"errors"
	"os"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/kpack"
)

// exitCode returns the exit status that an error leads to. An error may say it
// itself by a method ExitCode.
func exitCode(err error) int {
	var (
		use      usageError
		noFit    *apply.NoFitError
		mismatch *apply.MismatchError
		conflict *apply.ConflictError
		busy     *apply.BusyError
		unwinder *apply.NoUnwinderError
		alone    *apply.AloneError
		split    *apply.SplitError
		trial    *apply.TrialError
		state    *apply.StateError
		denied   *fleet.DeniedError
		hook     *apply.HookError
		filtered *apply.FilteredError
	)
	var own interface{ ExitCode() int }
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &own):
		return own.ExitCode()
	case errors.As(err, &use):
		return exitUsage
	case errors.Is(err, apply.ErrAlreadyApplied), errors.Is(err, apply.ErrNotApplied), errors.Is(err, apply.ErrNoTrial):
		return exitNothing
	case errors.As(err, &noFit), errors.As(err, &mismatch), errors.As(err, &conflict), errors.As(err, &busy), errors.As(err, &unwinder),
		errors.As(err, &alone), errors.As(err, &split), errors.As(err, &trial), errors.As(err, &state), errors.As(err, &denied), errors.As(err, &hook), errors.As(err, &filtered),
		errors.Is(err, apply.ErrNoMemory), errors.Is(err, apply.ErrSeccomp), errors.Is(err, apply.ErrWriteForbidden), errors.Is(err, apply.ErrStopped), errors.Is(err, kpack.ErrTooShort),
		errors.Is(err, apply.ErrPrivileged), errors.Is(err, apply.ErrForeign), errors.Is(err, apply.ErrDiverted), errors.Is(err, apply.ErrHeadless):
		return exitRefused
	}
	return exitError
}

// hint says what a user can do about an error, or nothing. An error may say it
// itself by a method Hint.
func hint(err error) string {
	var (
		use      usageError
		noFit    *apply.NoFitError
		mismatch *apply.MismatchError
		conflict *apply.ConflictError
		busy     *apply.BusyError
		traced   *apply.TracedError
		stuck    *apply.StuckError
		unwinder *apply.NoUnwinderError
		unsafe   *unsafeFileError
		own      interface{ Hint() string }
	)
	switch {
	case errors.As(err, &own):
		return own.Hint()
	case errors.As(err, &use):
		return "fother -h lists commands and options"
	case errors.As(err, &noFit):
		return "a patch fits only the build that it was made for; fother info -p PID lists the process's build-ids"
	case errors.As(err, &mismatch):
		return "something else has changed the code in memory, another patching tool or a debugger; restart the process to get its own code back"
	case errors.As(err, &conflict):
		return "revert the other series first, or build one patch that holds both fixes"
	case errors.As(err, &busy):
		return "try again, or give the threads longer with --wait; a function that never returns can be patched only if the spec names it under consistency: next-call"
	case errors.As(err, &traced):
		return "end the debugger or tracer first"
	case errors.As(err, &stuck) && stuck.State == "R":
		return "the thread has got no processor for seconds; try again when the machine is less busy"
	case errors.As(err, &stuck):
		return "the thread is in an uninterruptible sleep, such as a vfork or a hanging file system; try again later"
	case errors.As(err, &unwinder):
		return "restart the program with the fixed build; with a newer C library and libgcc, linked dynamically, it can be patched"
	case errors.As(err, &unsafe):
		return "copy the patch to a folder of your own, and chmod go-w it"
	case errors.Is(err, fleet.ErrSilent):
		return "it is stuck in the kernel, on a file system that hangs, or serves its own memory (userfaultfd, FUSE); restart it; what was begun in it the next run on it finishes"
	case errors.Is(err, apply.ErrHeadless):
		return "restart the program with the fixed build"
	case errors.Is(err, apply.ErrGone):
		return "there is no process of this id, or it has ended, or it is a thread of the kernel"
	case errors.Is(err, apply.ErrPermission):
		return permissionHint()
	case errors.Is(err, apply.ErrSeccomp):
		return "run as root with CAP_SYS_ADMIN, and without a seccomp filter of the tool's own"
	case errors.Is(err, apply.ErrWriteForbidden):
		return "boot the machine with proc_mem.force_override=always: with another value the kernel lets nobody patch a running program"
	case errors.Is(err, apply.ErrStopped):
		return "let it go on (kill -CONT PID) first, and run the same command again"
	case errors.Is(err, apply.ErrNoMemory):
		return "the memory around the object is full, or the process has reached its limits (ulimit -v, vm.max_map_count); where the object itself fills all that a jump reaches to both sides of the function, on aarch64 128 MiB, no patch can change it: restart the program with the fixed build"
	case errors.Is(err, kpack.ErrTooShort):
		return "the function has no room for a jump, and so no patch can change it; restart the program with the fixed build"
	case errors.As(err, new(*fleet.DeniedError)):
		return "who looks after this machine does not want it touched: take the line out of the deny list first"
	case errors.Is(err, apply.ErrPrivileged):
		return "start it as it is, and patch it with fother patch -p PID, as root"
	case errors.Is(err, apply.ErrDiverted):
		return "a library that is loaded with it, maybe by LD_PRELOAD, takes the program elsewhere; start it without fother run, and patch it with fother patch -p PID"
	case errors.Is(err, apply.ErrForeign):
		return "start it without fother run: there are no patches for it"
	case errors.Is(err, apply.ErrLocked):
		return "wait until it has ended"
	}
	return ""
}

func permissionHint() string {
	if scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil {
		switch string(bytes.TrimSpace(scope)) {
		case "1":
			return "run as root: Yama lets others trace only their own children (kernel.yama.ptrace_scope = 1)"
		case "2":
			return "run as root with CAP_SYS_PTRACE: Yama lets nobody else trace (kernel.yama.ptrace_scope = 2)"
		case "3":
			return "nobody may trace on this machine until it is booted again (kernel.yama.ptrace_scope = 3)"
		}
	}
	if os.Geteuid() == 0 {
		return "root lacks CAP_SYS_PTRACE here, as in many containers, or a security module forbids it; run on the host, or give the container this capability"
	}
	return "run as root, or as the user that runs the process"
}
