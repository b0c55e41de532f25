package kpack

// hintError is a refusal with what the author of the fix can do about it.
type hintError struct {
	error
	hint string
}

func hint(what string, err error) error { return &hintError{err, what} }

func (e *hintError) Unwrap() error { return e.error }

// Hint says what the author can do.
func (e *hintError) Hint() string { return e.hint }
