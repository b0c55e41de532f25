package apply

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// Classes of errors. Errors that hold details are types.
var (
	// ErrGone means that the process has ended, or runs another program.
	ErrGone = ptrace.ErrGone
	// ErrHeadless means that the process runs on though its first thread has ended: the
	// kernel then shows its memory under the ids of the others only, and has no file of
	// all of it that runs of the tool could lock.
	ErrHeadless = errors.New("its first thread has ended, though others run: such a process cannot be patched")
	// ErrPermission means that the kernel does not let the tool trace it.
	ErrPermission = ptrace.ErrPermission
	// ErrSeccomp means that the target's seccomp filter stands in the way.
	ErrSeccomp = ptrace.ErrSeccomp
	// ErrWriteForbidden means that the kernel lets nobody change a process's code.
	ErrWriteForbidden = ptrace.ErrWriteForbidden
	// ErrAlreadyApplied means that all that fits is there, at this level or a
	// higher one.
	ErrAlreadyApplied = errors.New("already applied")
	// ErrNotApplied means that there is nothing to revert.
	ErrNotApplied = errors.New("no such patch is applied")
	// ErrNoMemory means that no free memory is near enough to the object.
	ErrNoMemory = errors.New("no free memory near the object")
	// ErrStopped means that hooks cannot run, since job control has stopped the
	// process (SIGSTOP).
	ErrStopped = errors.New("the process is stopped, and nothing can run in it")
	// ErrLocked means that another run of the tool works on the process.
	ErrLocked = errors.New("another fother works on the process")
)

// TracedError means that a debugger or another tracer has the process.
type TracedError = ptrace.TracedError

// StuckError means that a thread did not stop.
type StuckError = ptrace.StuckError

// NoFitError means that no patch is for an object of the process.
type NoFitError struct {
	PID     int
	Patches []specs.PatchID
	Objects []ObjectInfo // with a BuildID
}

func (e *NoFitError) Error() string {
	want := make([]string, len(e.Patches))
	for i, p := range e.Patches {
		want[i] = string(p.BuildID)
	}
	have := "no object with a build-id"
	if len(e.Objects) > 0 {
		have = fmt.Sprintf("%s with build-id %s", e.Objects[0].Path, e.Objects[0].BuildID)
	}
	if n := len(e.Objects); n > 1 {
		have += fmt.Sprintf(" and %d more", n-1)
	}
	return fmt.Sprintf("no patch fits: given for build-id %s; the process runs %s", strings.Join(want, ", "), have)
}

// MismatchError means that memory does not hold what the patch expects there.
type MismatchError struct {
	Object   string
	Function string
	Addr     specs.Addr
	Why      string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: function %s at %v: %s", e.Object, e.Function, e.Addr, e.Why)
}

// SplitError means that a function's entry lies across two pages, which cannot be
// written at once.
type SplitError struct{ Site specs.Addr }

func (e *SplitError) Error() string {
	return fmt.Sprintf("its first instructions at %v lie across two pages: a tool that is killed between them would leave half a jump", e.Site)
}

// NoUnwinderError means that exceptions could not go through new code: not all
// that throws in the process asks the dynamic linker in the way that can be
// extended.
type NoUnwinderError struct {
	Object string
	Why    error
}

func (e *NoUnwinderError) Error() string {
	return fmt.Sprintf("%s: exceptions could not go through the new code: %v", e.Object, e.Why)
}

func (e *NoUnwinderError) Unwrap() error { return e.Why }

// ConflictError means that a patch of another series has changed the function.
type ConflictError struct {
	Function string
	Patch    specs.PatchID
	Other    specs.PatchID
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("function %s is patched already by series %s level %d", e.Function, e.Other.Series, e.Other.Level)
}

// Inside is a thread in code that is to change. It is 0, without a name, where
// only a stack that no thread runs on, such as a coroutine's, returns there.
type Inside struct {
	TID      int        `json:"tid"`
	Name     string     `json:"name"` // comm
	Function string     `json:"function"`
	Object   string     `json:"object"`
	PC       specs.Addr `json:"pc"` // program counter or return address inside the function
	// Source is FILE:LINE, if debug data tells it.
	Source string `json:"source,omitempty"`
}

func (i Inside) String() string {
	where := fmt.Sprintf("%s at %v", i.Function, i.PC)
	if i.Source != "" {
		where += ", " + i.Source
	}
	if i.TID == 0 {
		return "a stack that no thread runs on, such as a coroutine's, returns to " + where
	}
	return fmt.Sprintf("thread %d (%s) is in %s", i.TID, i.Name, where)
}

// BusyError means that threads stayed in code that is to change until the
// deadline. The process is as it was.
type BusyError struct {
	Threads  []Inside
	Waited   time.Duration
	Attempts int
}

func (e *BusyError) Error() string {
	all := make([]string, len(e.Threads))
	for i, t := range e.Threads {
		all[i] = t.String()
	}
	return fmt.Sprintf("busy for %v in %d tries: %s", e.Waited.Round(time.Millisecond), e.Attempts, strings.Join(all, "; "))
}
