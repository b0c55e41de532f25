package verify

import (
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
)

// coverAll returns what a patch covers that brings all that is changed or new.
func coverAll(r *Report) (c Covered) {
	for f := range r.Changes() {
		switch f.Verdict {
		case Changed:
			c.Functions = append(c.Functions, CoveredFunction{Name: f.Original, Original: f.OriginalRange})
		case New:
			c.Carried = append(c.Carried, f.Name)
		}
	}
	for _, d := range r.Data {
		if d.Verdict != Same {
			c.Carried = append(c.Carried, d.Name)
		}
	}
	return c
}

// TestClosures: a patch that puts one lambda of an inline function in the place
// of another is found, though it brings all that changed. Lambdas that only one
// file knows are the same wherever they are.
func TestClosures(t *testing.T) {
	for _, flavour := range []string{"gcc -O0", "gcc -O2", "clang -O0", "clang -O2"} {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			base := build(t, flavour, "testdata/lambdas.cc")
			for n, swapped := range map[string]bool{"PLANT=1": true, "PLANT=2": true, "PLANT=3": false, "PLANT=4": false, "PLANT=5": false} {
				testClosures(t, base, build(t, flavour, "testdata/lambdas.cc", n), n, swapped)
			}
		})
	}
}

func testClosures(t *testing.T, base, changed *elfobj.File, plant string, swapped bool) {
	names, r := differing(t, base, changed)
	var found []string
	for _, f := range Check(r, coverAll(r)).Missing {
		found = append(found, f.String())
	}
	if got := strings.Contains(strings.Join(found, "\n"), "the patch redirects it, but "); got != swapped || !swapped && len(found) > 0 {
		t.Errorf("%s: found %q, which changed: %q", plant, found, names)
		explain(t, r)
	}
	if plant != "PLANT=4" {
		return
	}
	for f := range r.Changes() {
		if f.Verdict == Changed && !strings.HasPrefix(f.Name, "_Z3ownl") {
			t.Errorf("%s: %s is not the lambda that it was: %v", plant, f.Name, f.First)
		}
	}
}

// TestInPlace: a changed closure is where it was only if a verdict says of all
// code that leads to it that it is the same.
func TestInPlace(t *testing.T) {
	inner, outer := &entity{names: []symName{{name: "inner"}}}, &entity{names: []symName{{name: "outer"}}}
	leads := map[*entity][]*entity{inner: {outer}}
	for _, c := range []struct {
		what  string
		outer []Function
		want  bool
	}{
		{"the same", []Function{{right: outer, Verdict: Same}}, true},
		{"changed", []Function{{right: outer, Verdict: Changed}}, false},
		{"without a verdict", nil, false},
	} {
		r := &Report{Functions: append(c.outer, Function{right: inner, Verdict: Changed})}
		if got := r.inPlace(&r.Functions[len(r.Functions)-1], leads); got != c.want {
			t.Errorf("what leads to it is %s: in place %v, want %v", c.what, got, c.want)
		}
	}
}
