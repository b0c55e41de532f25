package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/compiler"
)

// StaleError means that a step cannot be taken because one before it is not up
// to date.
type StaleError struct {
	Name string // of the spec
	Step string // that has to be taken first
	// Refused is set if that was taken, and refused the fix.
	Refused bool

	noun, reason, spec string
}

func (e *StaleError) Error() string {
	if e.Refused {
		return fmt.Sprintf("%s: %s refused the fix", e.Name, e.noun)
	}
	if e.reason == missing {
		return fmt.Sprintf("%s: %s is missing", e.Name, e.noun)
	}
	return fmt.Sprintf("%s: %s is not up to date: %s", e.Name, e.noun, e.reason)
}

// Hint says what the user can do.
func (e *StaleError) Hint() string {
	if e.Refused {
		return fmt.Sprintf("go tool mage patch:%s %s tells why, and what to do", e.Step, cmp.Or(e.spec, "SPEC"))
	}
	return fmt.Sprintf("make it first: go tool mage patch:%s %s, or all that is needed: go tool mage patch:all %[2]s", e.Step, cmp.Or(e.spec, "SPEC"))
}

// movingError means that something was changed while a step read it.
type movingError struct{ step, name string }

func (e *movingError) Error() string {
	return fmt.Sprintf("%s: %s has changed meanwhile", e.step, e.name)
}
func (e *movingError) Hint() string { return "run it again" }

// RefusedError means that there can be no patch of a fix. It has every reason.
type RefusedError struct{ Reasons []error }

func (e *RefusedError) Error() string { return errors.Join(e.Reasons...).Error() }

// Unwrap returns the reasons.
func (e *RefusedError) Unwrap() []error { return e.Reasons }

// OfSpec reports whether nothing but the spec is wrong.
func (e *RefusedError) OfSpec() bool {
	return !slices.ContainsFunc(e.Reasons, func(err error) bool {
		_, ok := errors.AsType[interface {
			error
			ofSpec()
		}](err)
		return !ok && !errors.Is(err, compiler.ErrNoTarget)
	})
}

// joined returns the errors that errors.Join made one of.
func joined(err error) []error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	return []error{err}
}

// refusedError returns what a list of reasons comes to.
func refusedError(reasons []error) error {
	if len(reasons) == 0 {
		return nil
	}
	return &RefusedError{reasons}
}
