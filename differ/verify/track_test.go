package verify

import (
	"slices"
	"testing"
)

// TestPages: what is known of a register where a function returns says nothing of
// the code behind the return, and calls change what the function called does.
func TestPages(t *testing.T) {
	const cc, source = "aarch64-linux-gnu-gcc", "testdata/pages.S"
	check := func(what string, original, patched []string, want ...string) {
		t.Helper()
		names, r := differing(t, build(t, cc, source, original...), build(t, cc, source, patched...))
		if slices.Sort(names); !slices.Equal(names, want) {
			t.Errorf("%s: %q differ, want %q", what, names, want)
			explain(t, r)
		}
	}
	check("more data", nil, []string{"GROW"}, "grown")
	check("another object behind a return", nil, []string{"GROW", "PLANT=1"}, "grown", "opens")
	check("another object behind calls", nil, []string{"GROW", "PLANT=3"}, "grown", "keeps")
	check("more pages of data", nil, []string{"GROW", "FAR"}, "grown")
	check("another object behind two ways", nil, []string{"GROW", "FAR", "PLANT=5"}, "grown", "joins")
	check("another page on one of two ways", nil, []string{"GROW", "FAR", "PLANT=6"}, "grown", "parts")
	check("another object in a copy", nil, []string{"GROW", "FAR", "PLANT=8"}, "copies", "grown")
	check("another object behind a call that does not return", nil, []string{"GROW", "FAR", "PLANT=11"}, "ends", "grown")
	check("another object behind an exception", nil, []string{"GROW", "FAR", "PLANT=12"}, "catches", "grown")
	check("a place that is near", nil, []string{"GROW", "PLANT=13"}, "grown")
	check("another place that is near", nil, []string{"GROW", "PLANT=14"}, "grown", "near")
	// Nobody knows what the register is then.
	check("there is a third way", []string{"PLANT=7"}, []string{"GROW", "FAR", "PLANT=7"}, "grown", "thirds")
	check("it is changed", []string{"PLANT=2"}, []string{"GROW", "PLANT=2"}, "grown", "keeps")
	check("the copy is changed", []string{"PLANT=9"}, []string{"GROW", "FAR", "PLANT=9"}, "copies", "grown")
	check("the call returns", []string{"PLANT=10"}, []string{"GROW", "FAR", "PLANT=10"}, "ends", "grown")
	check("anything is called", []string{"PLANT=4"}, []string{"GROW", "PLANT=4"}, "grown", "keeps")
}
