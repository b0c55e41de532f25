package pipeline

import "slices"

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
