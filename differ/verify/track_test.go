package verify

import (
	"slices"
	"testing"
)

// TestReturns: what is known of a register where a function returns says nothing of
// the code behind the return.
func TestReturns(t *testing.T) {
	const cc, source = "aarch64-linux-gnu-gcc", "testdata/returns.S"
	base := build(t, cc, source)
	for plant, want := range map[string][]string{"GROW": {"grown"}, "PLANT=1": {"opens"}} {
		names, r := differing(t, base, build(t, cc, source, plant))
		if !slices.Equal(names, want) {
			t.Errorf("%s: %q differ, want %q", plant, names, want)
			explain(t, r)
		}
	}
}
