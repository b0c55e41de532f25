package lpmake

import (
	"errors"
	"fmt"
	"strings"
)

// Classes of errors that a caller tells apart.
var (
	// ErrUsage: what was asked for makes no sense.
	ErrUsage = errors.New("wrong usage")
	// ErrNeedsClean: only a clean build gives a patch that is whole.
	ErrNeedsClean = errors.New("a clean build is needed")
	// ErrNotBuilt: there are no two builds to compare.
	ErrNotBuilt = errors.New("there are no finished builds here")
	// ErrEdited: a file that the fix touches has been changed while the fix was
	// applied to it.
	ErrEdited = errors.New("files were changed after the fix was applied to them")
)

// RestoreError says that the sources are left with the fix in them. An
// interrupted run may end with it too.
type RestoreError struct{ Err error }

func (e *RestoreError) Error() string { return e.Err.Error() }
func (e *RestoreError) Unwrap() error { return e.Err }

// hintError is an error of a class, with advice.
type hintError struct {
	class error
	text  string
	hint  string
}

func (e *hintError) Error() string { return e.text }
func (e *hintError) Unwrap() error { return e.class }
func (e *hintError) Hint() string  { return e.hint }

func hinted(class error, hint, format string, args ...any) error {
	return &hintError{class, fmt.Sprintf(format, args...), hint}
}

const hintClean = "--clean builds everything anew, with make clean before each build"

// needsClean joins the reasons why a build that is not clean would not do.
func needsClean(reasons []string) error {
	if len(reasons) == 0 {
		return nil
	}
	return hinted(ErrNeedsClean, hintClean, "%v: %s", ErrNeedsClean, strings.Join(reasons, "; "))
}
