package specfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error holds all that is wrong with one spec.
type Error struct {
	// File is the name under which the spec was read.
	File string
	// Problems are in the order of their places. There is at least one.
	Problems []Problem
}

// Problem is one mistake and its place.
type Problem struct {
	// Line and Column count from 1; the column counts characters.
	Line, Column int
	// Text says what is wrong and what was expected.
	Text string
}

// Error gives one line of the form file:line:column: text for each problem.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s", e.File, p.Line, p.Column, p.Text)
	}
	return b.String()
}

func (e *Error) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// nearest returns the known word that s was probably meant to be, or "".
func nearest(s string, known []string) string {
	best, limit := "", min(2, len(s)/2)+1
	for _, k := range known {
		if d := distance(s, k); d < limit {
			best, limit = k, d
		}
	}
	return best
}

// distance is the number of characters to insert, remove, replace or swap with
// their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	const tooLong = 64
	if len(a) > tooLong || len(b) > tooLong {
		return max(len(a), len(b))
	}
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replaced := last[j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			row[j] = min(last[j]+1, row[j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
