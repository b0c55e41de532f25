package pipeline

import (
	"slices"
	"strings"
)

// Explain returns err with its hints on lines of their own after its text, for
// a target that ends with it. It returns nil for nil.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	return explained{err}
}

type explained struct{ error }

func (e explained) Error() string {
	var b strings.Builder
	b.WriteString(e.error.Error())
	for _, h := range Hints(e.error) {
		b.WriteString("\nhint: " + h)
	}
	return b.String()
}

func (e explained) Unwrap() error { return e.error }

// Hints returns what the user can do about an error and the errors in it, each
// hint once.
func Hints(err error) []string {
	var hints []string
	add := func(h string) {
		if h != "" && !slices.Contains(hints, h) {
			hints = append(hints, h)
		}
	}
	var walk func(error)
	walk = func(err error) {
		switch e := err.(type) {
		case interface{ Hint() string }:
			add(e.Hint())
		case interface{ Hints() []string }:
			for _, h := range e.Hints() {
				add(h)
			}
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				walk(inner)
			}
		}
	}
	walk(err)
	return hints
}
