package compiler

import (
	"errors"
	"fmt"
	"strings"
)

// Classes of errors that a caller may tell apart. Each comes as a
// [*HintError].
var (
	// ErrNothingCaptured: the build ran no assembler and no linker that the
	// shims saw.
	ErrNothingCaptured = errors.New("the build was not captured")
	// ErrUnseen: something that differs between the builds was made by a tool
	// that the shims did not see.
	ErrUnseen = errors.New("made by a tool that capture did not see")
	// ErrNoText: an object that differs between the builds has no assembly text
	// that is known to be its own.
	ErrNoText = errors.New("its assembly text cannot be captured")
	// ErrNoBuildID: a linked file cannot be identified.
	ErrNoBuildID = errors.New("no build-id")
	// ErrIncomplete: the store lacks something of a deliverable that changed.
	ErrIncomplete = errors.New("capture is incomplete")
	// ErrNoTarget: a deliverable that was asked for is none.
	ErrNoTarget = errors.New("the original build did not link it")
)

// HintError is an error with advice for the user.
type HintError struct {
	Err  error
	hint string
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// Hint says what the user can do.
func (e *HintError) Hint() string { return e.hint }

func hint(hint, format string, args ...any) error {
	return &HintError{Err: fmt.Errorf(format, args...), hint: hint}
}

// CommandError says that a command of the build failed.
type CommandError struct {
	Command string
	Dir     string
	Err     error // *exec.ExitError, or the context's
	// Tail is the end of what the command printed, whole lines.
	Tail string
}

func (e *CommandError) Error() string {
	s := fmt.Sprintf("command %q: %v", e.Command, e.Err)
	if e.Tail != "" {
		s += "\n  | " + strings.ReplaceAll(strings.TrimRight(e.Tail, "\n"), "\n", "\n  | ")
	}
	return s
}

func (e *CommandError) Unwrap() error { return e.Err }

// Hint says what the user can do.
func (e *CommandError) Hint() string { return "does it work by hand, in " + e.Dir + "?" }
