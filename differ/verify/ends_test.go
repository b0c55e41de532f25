package verify

import (
	"slices"
	"testing"
)

// TestEnds: what is behind the end of a string is no part of it, and the string
// before it is.
func TestEnds(t *testing.T) {
	base := build(t, "gcc -O2", "testdata/ends.S")
	for plant, want := range map[string][]string{"PLANT=1": {"user"}, "PLANT=2": {"copies", "user"}} {
		names, r := differing(t, base, build(t, "gcc -O2", "testdata/ends.S", plant))
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("%s: %q differ, want %q", plant, names, want)
			explain(t, r)
		}
	}
}
