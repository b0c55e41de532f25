package kpack

import (
	"errors"
	"slices"
	"strings"
)

// RefusalError says that there can be no patch for a target, with every reason
// at once: each is a [*Refusal].
type RefusalError struct{ Refusals []error }

func (e *RefusalError) Error() string { return errors.Join(e.Refusals...).Error() }

// Unwrap returns the reasons.
func (e *RefusalError) Unwrap() []error { return e.Refusals }

// refusalError returns what a list of reasons comes to. Those that are no
// refusals, such as a file that cannot be read, come first and alone.
func refusalError(reasons []error) error {
	if len(reasons) == 0 {
		return nil
	}
	failed := slices.DeleteFunc(slices.Clone(reasons), isRefusal)
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	return &RefusalError{reasons}
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*Refusal](err)
	return ok
}

// Refusal is one reason why there can be no patch for a target.
type Refusal struct {
	Unit string // name of the unit, "" for all of the target
	// Kind says what Name is, "function", "symbol" or "section"; "" if there is
	// no name.
	Kind, Name string
	// Err says why, and mostly has a method Hint. It goes on from the name.
	Err error
	// Users are the functions of the patch that refer to the symbol.
	Users []string
}

func (r *Refusal) Error() string {
	name := r.Name
	if r.Kind == "symbol" {
		name = `"` + name + `"`
	}
	parts := slices.DeleteFunc([]string{r.Unit, strings.TrimSpace(r.Kind + " " + name), r.Reason()}, func(s string) bool { return s == "" || s == `""` })
	return strings.Join(parts, ": ")
}

// Reason is the error without what it is about.
func (r *Refusal) Reason() string {
	if len(r.Users) == 0 {
		return r.Err.Error()
	}
	return r.Err.Error() + ", used by " + strings.Join(r.Users, ", ")
}

func (r *Refusal) Unwrap() error { return r.Err }

// symbolRefusals collects refusals of the symbols that a unit refers to, each
// once with all its users.
type symbolRefusals struct {
	unit string
	all  []error
}

func (s *symbolRefusals) add(name, user string, err error) {
	i := slices.IndexFunc(s.all, func(have error) bool {
		r, ok := have.(*Refusal)
		return ok && r.Name == name && r.Err.Error() == err.Error()
	})
	if i < 0 {
		i = len(s.all)
		s.all = append(s.all, &Refusal{Unit: s.unit, Kind: "symbol", Name: name, Err: err})
	}
	if r := s.all[i].(*Refusal); user != "" && !slices.Contains(r.Users, user) {
		r.Users = append(r.Users, user)
	}
}

// hintError is a refusal with what the author of the fix can do about it.
type hintError struct {
	error
	hint string
}

func hint(what string, err error) error { return &hintError{err, what} }

func (e *hintError) Unwrap() error { return e.error }

// Hint says what the author can do.
func (e *hintError) Hint() string { return e.hint }
